"""On whom the folds of a run are judged together: those in the test part of every one of them.

Each fold tests patients that others learned from, so that of an ordinary run of folds nobody is
left; where a split file holds the same patients out of all, they judge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from medtool.core.errors import InputError
from medtool.core.records import Case
from medtool.data.run_folder import RunFolder
from medtool.data.splits import Split
from medtool.verbs.train_data import parts_of_run


@dataclass(frozen=True)
class FoldParts:
    """Cases of all folds, their parts fold by fold, and the ids of those that all of them test."""

    cases: tuple[Case, ...]
    splits: tuple[Split, ...]
    tested: frozenset[str]


def tested_by_all(folds: Sequence[RunFolder]) -> frozenset[str]:
    """Cases in the test part of every fold: no model of the run learned from them."""
    parts = [{row["case"] for row in fold.read_cases() if row["part"] == "test"} for fold in folds]
    return frozenset(set.intersection(*parts)) if parts else frozenset()


def parts_of_folds(cases: Sequence[Case], folds: Sequence[RunFolder]) -> FoldParts:
    """The parts that each fold began with. Raises as ``parts_of_run``."""
    found = [parts_of_run(cases, fold) for fold in folds]
    kept = {case.case_id: case for own, _ in found for case in own}
    splits = tuple(split for _, split in found)
    return FoldParts(tuple(kept.values()), splits, tested_by_all(folds))


def nobody_judges_folds(folds: Sequence[RunFolder]) -> InputError:
    """The refusal of a run of folds whose models together know every patient of its data."""
    return InputError(
        "There is nobody to judge the folds of this run on together.",
        where=str(folds[0].path.parent),
        met=f"{len(folds)} folds, and no case is in the test part of all of them",
        wanted="scans with references of patients that no fold learned from",
        how="name a folder that also holds other patients with --data; or optimise one fold, which "
        f"has a test part of its own: {folds[0].path}",
    )
