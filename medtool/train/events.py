"""The history of a run for TensorBoard: the same numbers as history.csv."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Events:
    """Writes one point for each number of each epoch; a resumed run writes on."""

    def __init__(self, folder: Path, *, next_epoch: int = 0) -> None:
        # Slow to import, and only needed here.
        from torch.utils.tensorboard import SummaryWriter

        # What an interrupted run wrote beyond the epoch it resumes from is hidden.
        self._writer = SummaryWriter(str(folder), purge_step=next_epoch or None)

    def write(self, row: Mapping[str, Any]) -> None:
        """Add the epoch of ``row`` (as in history.csv)."""
        for name, value in row.items():
            if name != "epoch" and isinstance(value, int | float) and value == value:
                self._writer.add_scalar(_tag(name), float(value), int(row["epoch"]))
        self._writer.flush()

    def close(self) -> None:
        """End the file."""
        self._writer.close()


def _tag(name: str) -> str:
    for prefix in ("selection_", "rate_"):
        if name.startswith(prefix):
            return f"{prefix[:-1]}/{name.removeprefix(prefix)}"
    return f"training/{name}"
