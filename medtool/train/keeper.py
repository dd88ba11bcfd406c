"""Which checkpoints a run keeps: last, best, ends of stages, milestones; bounded.

``last`` is written at the end of every epoch; the others are the same bytes under another name
(a hard link where the file system has them), so that keeping them costs no time.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from medtool.core.checkpoint import BEST_NAME, LAST_NAME, SUFFIX, read_header
from medtool.core.errors import CheckpointError
from medtool.core.files import TEMPORARY_PREFIX, cannot_write, file_sha256
from medtool.data.run_folder import RunFolder
from medtool.train.loop import EpochDone
from medtool.train.plan import plan_from_document

LINKING_PREFIX = ".linking-"

Kind = Literal["best", "last", "stage-end", "milestone"]
KINDS: Mapping[str, Kind] = {
    re.escape(BEST_NAME): "best",
    re.escape(LAST_NAME): "last",
    rf"stage_\d+_epoch_\d+{re.escape(SUFFIX)}": "stage-end",
    rf"epoch_\d+{re.escape(SUFFIX)}": "milestone",
}


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
        self._sweep()
        if self.run.checkpoints_file.is_file():
            self.rows = [
                row
                for row in self.run.read_checkpoints()
                if (self.run.checkpoints_folder / row["file"]).is_file()
                and int(row["epoch"]) < next_epoch
            ]
        self._take_in(next_epoch)
        self._mend(next_epoch)

    def _sweep(self) -> None:
        """Half-written files, each as large as a checkpoint, are what kills leave behind."""
        for prefix in (TEMPORARY_PREFIX, LINKING_PREFIX):
            for file in self.run.checkpoints_folder.glob(prefix + "*"):
                file.unlink(missing_ok=True)

    def _take_in(self, next_epoch: int) -> None:
        """Checkpoints that the table does not know, or knows as they were before.

        While another program holds it open the rows go elsewhere: the files themselves say more.
        """
        known = {(row["file"], int(row["epoch"])) for row in self.rows}
        found = False
        for path in sorted(self.run.checkpoints_folder.glob(f"*{SUFFIX}")):
            kind = _kind_of(path.name)
            if kind is None:
                continue
            try:
                document = read_header(path).document
            except CheckpointError:
                # Damaged: whoever wants to read it is told.
                continue
            epoch = int(document["epoch"])
            # Before the first epoch, as of a pruned network, nothing was measured.
            if 0 <= epoch < next_epoch and (path.name, epoch) not in known:
                self._row(path, kind, epoch, document["metrics"]["selection"])
                found = True
        if found:
            self._drop()
            self._write()

    def _mend(self, next_epoch: int) -> None:
        """A kill between ``last`` and the other names of its epoch leaves them behind."""
        last = self.run.checkpoints_folder / LAST_NAME
        if not last.is_file():
            return
        document = read_header(last).document
        fact = _fact_of(document)
        # A run that was stopped within an epoch has other weights in ``last``.
        if fact is None or fact.epoch != next_epoch - 1 or document["live"]["step"]:
            return
        there = {(row["file"], row["epoch"]) for row in self.rows}
        if any((name, fact.epoch) not in there for name, _ in self._names(fact)):
            self._keep(last, fact)

    def after_epoch(self, fact: EpochDone) -> None:
        """Write what this epoch is to leave behind, and drop what is over the bound."""
        self._keep(self.save_last(fact.epoch, fact.metrics), fact)

    def _names(self, fact: EpochDone) -> Iterator[tuple[str, Kind]]:
        """The names besides ``last`` under which the state after this epoch is kept."""
        if fact.is_best:
            yield BEST_NAME, "best"
        if fact.ends_stage:
            yield f"stage_{fact.stage}_epoch_{fact.epoch:04d}{SUFFIX}", "stage-end"
        elif self.every_epochs and (fact.epoch + 1) % self.every_epochs == 0:
            yield f"epoch_{fact.epoch:04d}{SUFFIX}", "milestone"

    def _keep(self, last: Path, fact: EpochDone) -> None:
        for name, kind in self._names(fact):
            self._link(last, name, kind, fact.epoch, fact.metrics)
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
        beside = target.with_name(LINKING_PREFIX + name)
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


def _kind_of(name: str) -> Kind | None:
    """What a file of this name is kept as; None for one that no run writes."""
    return next((kind for pattern, kind in KINDS.items() if re.fullmatch(pattern, name)), None)


def _fact_of(document: Mapping[str, Any]) -> EpochDone | None:
    """What the epoch that a checkpoint was written after had to say; None before the first."""
    epoch = int(document["epoch"])
    if epoch < 0:
        return None
    plan = plan_from_document(document["plan"])
    return EpochDone(
        epoch=epoch,
        stage=plan.stage_index(epoch),
        losses={},
        metrics=document["metrics"]["selection"],
        rates={},
        seconds=0.0,
        data_wait_share=0.0,
        is_best=(document["live"]["best"] or {}).get("epoch") == epoch,
        ends_stage=plan.ends_stage(epoch),
    )


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
