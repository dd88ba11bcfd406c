"""The part of a preset that says how a network is pruned."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from medtool.config.section import Positive, Section

# Of single weights, where nobody says how many.
SHARE_OF_WEIGHTS = 0.5


class PruneSection(Section):
    """How channels, or single weights, are taken out of the network, and how it learns again."""

    share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the channels of each layer that leaves; 0 for no pruning. Parameters and arithmetic
    fall with the square of what stays."""
    kind: Literal["channels", "weights"] = "channels"
    """channels: whole channels leave, which makes the network smaller and faster. weights: the
    smallest single weights become 0, half of them unless the share is set beside it, for study: it
    makes nothing faster."""
    round_to: Annotated[int, Field(ge=1)] = 8
    """Widths are rounded down to a multiple of this; narrower layers stay as they are."""
    steps: Annotated[int, Field(ge=1)] = 4
    """Rounds of pruning, each with the same share of what is to leave."""
    epochs: Annotated[int, Field(ge=0)] = 10
    """Epochs of training after each round but the last."""
    last_epochs: Annotated[int, Field(ge=0)] = 30
    """Epochs of training after the last round."""
    rate_factor: Positive = 1.0
    """Factor on the learning rates of the training; every part of the network learns."""
    distil_weight: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Weight of agreeing with the network before pruning, beside the loss of the task; 0 for
    none."""
    distil_temperature: Positive = 2.0
    """Temperature at which the two networks are compared."""
