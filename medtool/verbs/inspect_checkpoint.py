"""``inspect-checkpoint``: what a model is, read from the head of its file.

Needs neither torch nor numpy; with ``verify`` every tensor is hashed again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medtool.core.checkpoint import (
    CHECKPOINTS_FOLDER,
    SUFFIX,
    CheckpointHeader,
    find_checkpoint,
    read_header,
    rewrite_checkpoint,
    verify_tensors,
)
from medtool.core.deployed import Deployed, damaged_files, find_deployed
from medtool.core.errors import CheckpointError, OutputExistsError, UsageError
from medtool.core.nested import flat_values


@dataclass(frozen=True)
class Milestone:
    """One checkpoint of a run's folder; ``kind`` is best, last, stage-end or milestone."""

    file: Path
    kind: str
    epoch: int
    metric: str
    value: float | None
    size_bytes: int


@dataclass(frozen=True)
class Inspection:
    """What is known of one checkpoint; ``damaged`` is None where nothing was verified."""

    path: Path
    found: str
    header: CheckpointHeader
    damaged: tuple[str, ...] | None = None
    milestones: tuple[Milestone, ...] = ()
    differences: tuple[Difference, ...] = field(default=())
    other: Path | None = None
    # An optimised model: what its optimize.json says.
    optimised: Mapping[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        document: dict[str, Any] = {
            "path": str(self.path),
            "found": self.found,
            "size_bytes": self.header.size_bytes,
            "slim": self.header.is_slim,
            **self.header.document,
            "tensors": {
                name: {"dtype": entry.dtype, "shape": list(entry.shape)}
                for name, entry in self.header.tensors.items()
            },
        }
        if self.optimised is not None:
            document["optimised"] = dict(self.optimised)
        if self.damaged is not None:
            document["verified"] = {"intact": not self.damaged, "damaged": list(self.damaged)}
        if self.milestones:
            document["milestones"] = [{**vars(m), "file": str(m.file)} for m in self.milestones]
        if self.other is not None:
            document["other"] = str(self.other)
            document["differences"] = [vars(difference) for difference in self.differences]
        return document


@dataclass(frozen=True)
class Difference:
    """One thing in which two checkpoints differ."""

    what: str
    first: str
    second: str


def inspect_checkpoint(
    path: Path, other: Path | None = None, *, verify: bool = False
) -> Inspection:
    """Look at ``path`` (a file, or a run's folder: its best), beside ``other`` if there is one.

    Raises CheckpointError where a file is no checkpoint.
    """
    file, found = find_checkpoint(path)
    header = read_header(file)
    differences: tuple[Difference, ...] = ()
    if other is not None:
        other, _ = find_checkpoint(other)
        differences = tuple(compare(header, read_header(other)))
    deployed = find_deployed(file)
    return Inspection(
        path=file,
        found=found,
        header=header,
        damaged=_damaged(header, deployed) if verify else None,
        milestones=tuple(milestones(path)) if path.is_dir() and deployed is None else (),
        optimised=None if deployed is None else deployed.document,
        differences=differences,
        other=other,
    )


def _damaged(header: CheckpointHeader, deployed: Deployed | None) -> tuple[str, ...]:
    """Tensors, or files of an optimised model, that are not what was written."""
    if deployed is None:
        return tuple(verify_tensors(header))
    every = (deployed.beside(name) for name in deployed.document["files"])
    return tuple(dict.fromkeys(name for one in every for name in damaged_files(one)))


def write_slim(inspection: Inspection, target: Path, *, force: bool = False) -> None:
    """Write the checkpoint to ``target`` without what only training needs, and without paths.

    Raises OutputExistsError, MachineError, UsageError for an optimised model.
    """
    if inspection.optimised is not None:
        raise UsageError(
            "An optimised model holds nothing that only training needs.",
            where=str(inspection.path),
            met="--slim",
            how="copy its folder.",
        )
    if target.exists() and not force:
        raise OutputExistsError(
            "There is a file of this name.", where=str(target), how="--force overwrites it."
        )
    from medtool.config.places import portable_document

    whole = portable_document(inspection.header.document)
    rewrite_checkpoint(inspection.path, target, whole, slim=True)


def milestones(folder: Path) -> list[Milestone]:
    """The checkpoints in a run's folder, by epoch; files that are none are left out."""
    inner = folder / CHECKPOINTS_FOLDER
    found = []
    for file in sorted((inner if inner.is_dir() else folder).glob("*" + SUFFIX)):
        try:
            header = read_header(file)
        except CheckpointError:
            continue
        metrics = header.document.get("metrics") or {}
        primary = str(metrics.get("primary", ""))
        found.append(
            Milestone(
                file=file,
                kind=_kind(file),
                epoch=int(header.document.get("epoch", -1)),
                metric=primary,
                value=(metrics.get("selection") or {}).get(primary),
                size_bytes=header.size_bytes,
            )
        )
    return sorted(found, key=lambda m: (m.epoch, m.file.name))


def _kind(file: Path) -> str:
    if file.stem in ("best", "last"):
        return file.stem
    return "stage-end" if file.stem.startswith("stage_") else "milestone"


def compare(first: CheckpointHeader, second: CheckpointHeader) -> list[Difference]:
    """In what two checkpoints differ: task, preset, layers, tensors, data, threshold, scores."""
    a, b = first.document, second.document
    differences = []
    for key in ("task", "epoch", "step", "threshold", "synthetic", "created_by"):
        differences += _differ(key, a.get(key), b.get(key))
    for table in ("preset", "versions", "weights", "fingerprint", "training_range", "plan"):
        one, two = flat_values(a.get(table) or {}), flat_values(b.get(table) or {})
        for key in dict.fromkeys([*one, *two]):
            differences += _differ(f"{table}.{key}", one.get(key), two.get(key))
    one, two = _metrics(a), _metrics(b)
    for key in dict.fromkeys([*one, *two]):
        differences += _differ(f"metrics.{key}", one.get(key), two.get(key))
    return differences + _tensor_differences(first, second)


def _tensor_differences(first: CheckpointHeader, second: CheckpointHeader) -> list[Difference]:
    hashes = [h.document.get("hashes", {}).get("tensors", {}) for h in (first, second)]
    differences = []
    for name in dict.fromkeys([*first.names("model."), *second.names("model.")]):
        one, two = first.tensors.get(name), second.tensors.get(name)
        if one is None or two is None or one.shape != two.shape or one.dtype != two.dtype:
            differences.append(
                Difference(
                    name,
                    f"{one.dtype} {list(one.shape)}" if one else "not there",
                    f"{two.dtype} {list(two.shape)}" if two else "not there",
                )
            )
        elif hashes[0].get(name) != hashes[1].get(name):
            differences.append(
                Difference(name, str(hashes[0].get(name))[:12], str(hashes[1].get(name))[:12])
            )
    return differences


def _metrics(document: Mapping[str, Any]) -> dict[str, Any]:
    metrics = document.get("metrics") or {}
    flat = {f"selection.{k}": v for k, v in (metrics.get("selection") or {}).items()}
    for part, scores in (metrics.get("scores") or {}).items():
        flat |= {f"{part}.{name}": s.get("value") for name, s in scores["metrics"].items()}
    return flat


def _differ(what: str, one: object, two: object) -> list[Difference]:
    return [] if one == two else [Difference(what, _text(one), _text(two))]


def _text(value: object) -> str:
    return "not there" if value is None else str(value)
