"""Everything a report needs of a run folder, read once; files that are not there are empty."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medtool.core.names import case_file_stem
from medtool.core.records import SELECTION_OPTIMISTIC, Scores
from medtool.data.run_folder import RunFolder, read_json, read_rows
from medtool.score.document import scores_from_document

# Which part is shown first, and what it is called.
PART_TITLES: Mapping[str, str] = {
    "test": "held-out test part",
    "out-of-fold": "out-of-fold predictions",
    "evaluation": "evaluated cases",
    "selection": "selection part",
    "train": "training part",
}


@dataclass(frozen=True)
class RunView:
    """One run as plain values. ``scores`` and ``predictions`` are by part.

    A case that could not be prepared has no part in ``cases``: it taught and tested nothing.
    """

    path: Path
    run: Mapping[str, Any]
    preset: Mapping[str, Any]
    cases: tuple[Mapping[str, str], ...]
    history: tuple[Mapping[str, Any], ...]
    checkpoints: tuple[Mapping[str, Any], ...]
    scores: Mapping[str, Scores]
    intake: Mapping[str, Any]
    predictions: Mapping[str, tuple[Mapping[str, str], ...]] = field(default_factory=dict)
    preset_text: str = ""
    # Where the predictions of a part lie; by default predictions/<part> of the run.
    part_folders: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    # Of runs that learned a part of it alone: scores by name, and part.
    baselines: Mapping[str, Mapping[str, Scores]] = field(default_factory=dict)

    @property
    def headline_part(self) -> str:
        """The most honest part that was scored, "" when none was."""
        for part in PART_TITLES:
            if part in self.scores:
                return part
        return next(iter(self.scores), "")

    def optimistic(self, part: str) -> str:
        """Why the numbers of a part are optimistic, "" when they are not."""
        stated = self.scores[part].optimistic if part in self.scores else ""
        if stated:
            return stated
        if part == "selection":
            return SELECTION_OPTIMISTIC
        return "training part, seen while learning" if part == "train" else ""

    @property
    def in_folds(self) -> str:
        """Where to look for what each fold has for itself, "" for a run that has no folds."""
        folds = self.run.get("folds") or ()
        return f"Each fold has its own, in the reports of {', '.join(folds)}." if folds else ""

    def _folders(self, part: str) -> tuple[Path, ...]:
        return self.part_folders.get(part) or (self.path / "predictions" / part,)

    def pictures(self, part: str, case_id: str) -> list[Path]:
        """Pictures that the predictions of a part hold of one case, by name."""
        stem = case_file_stem(case_id)
        return sorted(
            file
            for folder in self._folders(part)
            for file in (folder / "overlays" / stem).glob("*")
            if file.suffix in (".png", ".jpg")
        )

    def elements(self, part: str, case_id: str) -> list[Mapping[str, str]]:
        """Rows of slices.csv of one case."""
        return [
            row
            for folder in self._folders(part)
            if (folder / "slices.csv").is_file()
            for row in read_rows(folder / "slices.csv")
            if row.get("case") == case_id
        ]


def view_run(run: RunFolder) -> RunView:
    """Read ``run``. Raises InputError where a file that is there cannot be read."""
    preset_text = run.preset_file.read_text(encoding="utf-8") if run.preset_file.is_file() else ""
    predictions = {
        file.parent.name: tuple(read_rows(file))
        for file in sorted(run.predictions_folder.glob("*/predictions.csv"))
    }
    document = run.read_run() if run.run_file.is_file() else {}
    return RunView(
        path=run.path,
        run=document,
        preset=tomllib.loads(preset_text),
        cases=_cases(run, document),
        history=tuple(run.read_history()) if run.history_file.is_file() else (),
        checkpoints=tuple(run.read_checkpoints()) if run.checkpoints_file.is_file() else (),
        scores=_scores(run),
        intake=read_json(run.intake_file) if run.intake_file.is_file() else {},
        predictions=predictions,
        preset_text=preset_text,
        baselines={
            folder.name: _scores(RunFolder(folder))
            for folder in sorted(run.baselines_folder.glob("*"))
        },
    )


def _cases(run: RunFolder, document: Mapping[str, Any]) -> tuple[Mapping[str, str], ...]:
    """The rows of cases.csv, whose parts were dealt before anything was prepared."""
    failed = {str(failure.get("case", "")) for failure in document.get("failures", ())}
    rows = run.read_cases() if run.cases_file.is_file() else []
    return tuple({**row, "part": ""} if row["case"] in failed else row for row in rows)


def _scores(run: RunFolder) -> dict[str, Scores]:
    """Those of each part; {} of a run that has none."""
    stored = run.read_scores() if run.scores_file.is_file() else {}
    return {
        part: scores_from_document(document)
        for part, document in stored.items()
        if isinstance(document, Mapping) and "metrics" in document
    }
