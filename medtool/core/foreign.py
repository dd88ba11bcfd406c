"""Models of other programs on their way into checkpoints of ours, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
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


@dataclass(frozen=True)
class ForeignFolder:
    """What was written for another program: its files, and the command that lets it answer."""

    folder: Path
    command: str
    notes: tuple[str, ...] = ()
