"""Which checkpoints a run keeps: last, best, ends of stages, milestones; bounded.

``last`` is written at the end of every epoch; the others are the same bytes under another name
(a hard link where the file system has them), so that keeping them costs no time.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from medtool.core.checkpoint import BEST_NAME, LAST_NAME, SUFFIX, read_header
from medtool.core.errors import CheckpointError
from medtool.core.files import cannot_write, file_sha256
from medtool.data.run_folder import RunFolder
from medtool.train.loop import EpochDone

Kind = Literal["best", "last", "stage-end", "milestone"]


class Keeper:
    """The checkpoints of one run and the table of them, ``checkpoints.csv``.

    ``save`` writes the state as it stands to a path. ``every_epochs`` 0 means no milestones;
    ``keep`` bounds ends of stages and milestones together, oldest first.
    """

    def __init__(
        self,
        run: RunFolder,
        save: Callable[[Path], None],
        *,
        metric: str,
        every_epochs: int,
        keep: int,
    ) -> None:
        self.run = run
        self.save = save
        self.metric = metric
        self.every_epochs = every_epochs
        self.keep = keep
        self.rows: list[dict[str, Any]] = []

    def resume(self, next_epoch: int) -> None:
        """Go on with the table of a run that stands before ``next_epoch``."""
        if self.run.checkpoints_file.is_file():
            self.rows = [
                row
                for row in self.run.read_checkpoints()
                if (self.run.checkpoints_folder / row["file"]).is_file()
                and int(row["epoch"]) < next_epoch
            ]
        self._mend_best(next_epoch)

    def _mend_best(self, next_epoch: int) -> None:
        """A kill between ``last`` and ``best`` leaves a best that is one epoch behind."""
        last = self.run.checkpoints_folder / LAST_NAME
        if not last.is_file():
            return
        document = read_header(last).document
        best = (document.get("live") or {}).get("best") or {}
        if document["epoch"] != next_epoch - 1 or best.get("epoch") != document["epoch"]:
            return
        row = next((row for row in self.rows if row["kind"] == "best"), None)
        if row is None or row["epoch"] != best["epoch"]:
            self._link(last, BEST_NAME, "best", best["epoch"], document["metrics"]["selection"])
            self._write()

    def after_epoch(self, fact: EpochDone) -> None:
        """Write what this epoch is to leave behind, and drop what is over the bound."""
        last = self.save_last(fact.epoch, fact.metrics)
        if fact.is_best:
            self._link(last, BEST_NAME, "best", fact.epoch, fact.metrics)
        if fact.ends_stage:
            name = f"stage_{fact.stage}_epoch_{fact.epoch:04d}{SUFFIX}"
            self._link(last, name, "stage-end", fact.epoch, fact.metrics)
        elif self.every_epochs and (fact.epoch + 1) % self.every_epochs == 0:
            name = f"epoch_{fact.epoch:04d}{SUFFIX}"
            self._link(last, name, "milestone", fact.epoch, fact.metrics)
        self._drop()
        self._write()

    def save_last(self, epoch: int, metrics: Mapping[str, float]) -> Path:
        """Write the state as ``last``."""
        last = self.run.checkpoints_folder / LAST_NAME
        self.save(last)
        self._row(last, "last", epoch, metrics)
        return last

    def refresh(self, changes: Mapping[str, Mapping[str, Any]]) -> None:
        """Update rows by file name (threshold, interval, hash) and write the table."""
        for row in self.rows:
            if row["file"] in changes:
                path = self.run.checkpoints_folder / row["file"]
                row.update(changes[row["file"]], sha256=file_sha256(path))
        self._write()

    def _link(
        self, source: Path, name: str, kind: Kind, epoch: int, metrics: Mapping[str, Any]
    ) -> None:
        target = self.run.checkpoints_folder / name
        beside = target.with_name(f".linking-{name}")
        try:
            beside.unlink(missing_ok=True)
            try:
                os.link(source, beside)
            except OSError:
                # Not every file system has links.
                shutil.copyfile(source, beside)
            beside.replace(target)
        except OSError as error:
            beside.unlink(missing_ok=True)
            raise cannot_write(target, error) from error
        self._row(target, kind, epoch, metrics)

    def _row(self, path: Path, kind: Kind, epoch: int, metrics: Mapping[str, Any]) -> None:
        only_one = kind in ("best", "last")
        self.rows = [
            row
            for row in self.rows
            if row["file"] != path.name and not (only_one and row["kind"] == kind)
        ]
        self.rows.append(
            {
                "file": path.name,
                "kind": kind,
                "epoch": epoch,
                "metric": self.metric,
                "value": metrics.get(self.metric),
                "threshold": metrics.get("threshold"),
                "sha256": file_sha256(path),
            }
        )

    def _drop(self) -> None:
        bounded = [row for row in self.rows if row["kind"] in ("stage-end", "milestone")]
        bounded.sort(key=lambda row: int(row["epoch"]))
        for row in bounded[: max(0, len(bounded) - self.keep)]:
            (self.run.checkpoints_folder / row["file"]).unlink(missing_ok=True)
            self.rows.remove(row)

    def _write(self) -> None:
        order = {"best": 0, "last": 1}
        self.rows.sort(key=lambda row: (order.get(row["kind"], 2), int(row["epoch"])))
        self.run.write_checkpoints(self.rows)


def resume_point(run: RunFolder) -> Path:
    """The checkpoint from which a run in its folder goes on.

    Raises CheckpointError where it left none.
    """
    last = run.checkpoints_folder / LAST_NAME
    if not last.is_file():
        raise CheckpointError(
            "This run left no checkpoint to go on from.",
            where=str(run.path),
            wanted=f"{last.relative_to(run.path)}",
            how="start it again under another name, or with --start-or-resume.",
        )
    return last
