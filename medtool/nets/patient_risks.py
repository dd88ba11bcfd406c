"""Risk sets that are real where patients are too large to stand in one batch.

``cached_backward`` takes the gradient of a loss over many patients without holding more than one
part of them in memory: exact, at twice the forward passes. ``EmbeddingMemory`` keeps what earlier
steps gave: cheap, and approximate, for what it remembers came from weights of before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, cat, nn

from medtool.nets.survival_losses import Outcomes

Part = TypeVar("Part")

# Of the largest value: what two passes over the same part may differ by on one device.
SAME_PASS_TOLERANCE = 1e-3


class Embedded(NamedTuple):
    """Rows (n, ...) of a part, and what the part costs by itself, such as its segmentation.

    The cost is a scalar; it is not asked for while gradients are off.
    """

    rows: Tensor
    own_loss: Tensor | None = None


class CachedLosses(NamedTuple):
    """The loss of all rows, and the sum of what parts cost by themselves; both detached."""

    joint: Tensor
    own: Tensor


def cached_backward(
    parts: Sequence[Part],
    embed: Callable[[Part], Embedded],
    loss: Callable[[Tensor], Tensor],
    backward: Callable[[Tensor], None] = torch.Tensor.backward,
) -> CachedLosses:
    """Add the gradient of the loss of all parts, taken together, to the parameters.

    ``embed`` gives the rows of a part, such as risks (n) of patients or features of slices;
    ``loss`` a scalar of all rows in order, through a head of its own if it has one. The first pass
    keeps rows alone, the second makes those of each part again and sends the loss's gradient
    through them (Gao 2021). Equal to the gradient of all parts at once where both passes do the
    same and rows do not depend on their batch: dropout by keys, batch norms in evaluation.
    ``backward`` is what starts a backward pass, such as Fabric's. Raises ValueError where the
    passes differ.
    """
    with torch.no_grad():
        cached = [embed(part).rows for part in parts]
    everything = cat(cached).requires_grad_()
    joint = loss(everything)
    backward(joint)
    gradient = everything.grad
    wanted = torch.zeros_like(everything) if gradient is None else gradient
    slopes = torch.split(wanted, [len(rows) for rows in cached])
    own = joint.new_zeros(())
    for part, before, slope in zip(parts, cached, slopes, strict=True):
        again = embed(part)
        _check_same(again.rows.detach(), before)
        # Its gradient in the rows is ``slope``, whatever the rows are.
        surrogate = (again.rows * slope).sum()
        if again.own_loss is not None:
            surrogate = surrogate + again.own_loss
            own = own + again.own_loss.detach()
        backward(surrogate)
    return CachedLosses(joint.detach(), own)


def _check_same(again: Tensor, before: Tensor) -> None:
    allowed = SAME_PASS_TOLERANCE * (1.0 + float(before.abs().max()))
    apart = float((again - before).abs().max())
    if not apart <= allowed:
        raise ValueError(
            f"two passes over the same patients differ by {apart:.3g}: dropout must be drawn from "
            "keys and batch norms be in evaluation"
        )


class Remembered(NamedTuple):
    """Embeddings (n, features) without gradient, the patients' keys (n), and their outcomes."""

    embeddings: Tensor
    keys: Tensor
    outcomes: Outcomes


class EmbeddingMemory(nn.Module):
    """The latest embeddings of up to ``capacity`` patients, for risk sets of small batches.

    APPROXIMATE: an embedding is from the weights of the step that gave it, and no gradient goes
    into it; what is older than ``oldest`` epochs is left out. A patient that comes again replaces
    its entry. Without gradients but with a state, so that training resumes as if never stopped;
    it belongs to the state of training, not into a network that is given away.
    """

    keys: Tensor
    epochs: Tensor
    embeddings: Tensor
    times: Tensor
    events: Tensor
    strata: Tensor
    label = "approximate: risk sets hold embeddings of earlier steps"

    def __init__(self, capacity: int, features: int, *, oldest: int = 2) -> None:
        super().__init__()
        if capacity < 1 or oldest < 0:
            raise ValueError("a memory holds at least one patient, of this epoch at least")
        self.oldest = oldest
        for name in ("keys", "epochs", "strata"):
            self.register_buffer(name, torch.zeros(capacity, dtype=torch.int64))
        # An epoch of -1 is an empty place.
        self.epochs.fill_(-1)
        self.register_buffer("embeddings", torch.zeros(capacity, features))
        for name in ("times", "events"):
            self.register_buffer(name, torch.zeros(capacity, dtype=torch.float64))

    def remember(self, keys: Tensor, embeddings: Tensor, outcomes: Outcomes, epoch: int) -> None:
        """Keep embeddings (n, features) of patients called by int64 ``keys`` (n).

        Patients without outcome are not kept. Where there is no place, the oldest give theirs.
        """
        for row in range(len(keys)):
            if outcomes.known is not None and not outcomes.known[row]:
                continue
            place = self._place(keys[row])
            self.keys[place] = keys[row]
            self.epochs[place] = epoch
            self.embeddings[place] = embeddings[row].detach()
            self.times[place], self.events[place] = outcomes.times[row], outcomes.events[row]
            self.strata[place] = 0 if outcomes.strata is None else outcomes.strata[row]
            self._to_the_end(place)

    def recall(self, keys: Tensor, epoch: int) -> Remembered:
        """What is kept of patients other than ``keys`` (n) and is not too old, the latest last."""
        young = (self.epochs >= 0) & (self.epochs >= epoch - self.oldest)
        used = young & ~torch.isin(self.keys, keys)
        outcomes = Outcomes(self.times[used], self.events[used], self.strata[used])
        return Remembered(self.embeddings[used], self.keys[used], outcomes)

    def _place(self, key: Tensor) -> int:
        """Where the patient stands; else the first place, which is empty or the oldest's."""
        own = torch.nonzero((self.keys == key) & (self.epochs >= 0))
        return int(own[0]) if len(own) else 0

    def _to_the_end(self, place: int) -> None:
        order = [*range(place), *range(place + 1, len(self.keys)), place]
        for buffer in self.buffers():
            buffer.copy_(buffer[order].clone())


def join_outcomes(outcomes: Outcomes, remembered: Outcomes) -> Outcomes:
    """Outcomes of a batch (n) and remembered ones (m) in one (n + m), the batch first."""
    times, events = outcomes.times, outcomes.events
    known = outcomes.known
    if known is not None:
        known = cat((known, known.new_ones(len(remembered.times))))
    strata = outcomes.strata
    if strata is not None and remembered.strata is not None:
        strata = cat((strata, remembered.strata))
    return Outcomes(
        cat((times.double(), remembered.times)),
        cat((events.double(), remembered.events)),
        strata,
        known,
    )
