"""Models of other programs on their way into checkpoints of ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from medtool.config.sections import TaskSettings


@dataclass(frozen=True)
class ForeignModel:
    """One model, such as a fold, as the checkpoint of a task will hold it.

    ``tensors`` have the names of the task's network; ``document`` is what the checkpoint says
    beside them; ``notes`` are told to the user.
    """

    name: str
    settings: TaskSettings
    tensors: Mapping[str, Tensor]
    document: Mapping[str, Any]
    notes: tuple[str, ...] = ()
