"""The answers of a model to many cases, beside their references; masks wait on the disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtool.core.lazy import Lazily
from medtool.core.progress import Advance
from medtool.core.records import Case, Prediction, Truth
from medtool.predict.cases import predict_cases
from medtool.predict.unwritten import why_unwritten

if TYPE_CHECKING:
    from medtool.core.task import Task
    from medtool.data.cache import Cache
    from medtool.predict.model import Model

# In a sentence; tables name all.
CASES_NAMED = 5


@dataclass(frozen=True)
class Answers:
    """What a model said of some cases, and where that was written.

    ``cases`` are those with an answer and a reference, ``rows`` theirs in predictions.csv;
    ``kept`` holds predictions without arrays, which need not be read back.
    """

    task: Task
    folder: Path
    cases: tuple[Case, ...]
    rows: Mapping[str, Mapping[str, Any]]
    kept: Mapping[str, Prediction]
    # Cases without an answer, and why.
    failed: Mapping[str, str] = field(default_factory=dict)

    def prediction(self, case: Case) -> Prediction:
        """The prediction of one of ``cases``."""
        known = self.kept.get(case.case_id)
        return known or self.task.restored(self.rows[case.case_id], self.folder)

    @property
    def note(self) -> str:
        """How many cases have no answer, the first of them with why; empty where all have one."""
        if not self.failed:
            return ""
        named = [f"{case}: {why}" for case, why in self.failed.items()]
        more = ["..."] if len(named) > CASES_NAMED else []
        return (
            f"Without an answer and not in the numbers: {len(named)} of "
            f"{len(named) + len(self.cases)} cases ({'; '.join([*named[:CASES_NAMED], *more])})."
        )

    @property
    def predictions(self) -> Sequence[Prediction]:
        """Those of all ``cases``."""
        return Lazily(self.prediction, self.cases)

    @property
    def truths(self) -> Sequence[Truth]:
        """The references of all ``cases``."""
        return Lazily(self.task.truth, self.cases)


def answers_of(
    model: Model, cases: Sequence[Case], cache: Cache, folder: Path, advance: Advance
) -> Answers:
    """The answers of ``model`` to ``cases``, all of them prepared; masks go below ``folder``.

    A case whose answer cannot be written has none. Raises MachineError where the disk is full.
    """
    rows: dict[str, Mapping[str, Any]] = {}
    kept: dict[str, Prediction] = {}
    failed: dict[str, str] = {}
    for outcome in predict_cases(model, cases, cache=cache, workers=0):
        case, prediction = outcome.case, outcome.prediction
        advance(1)
        if prediction is None:
            failed[case.case_id] = outcome.message or outcome.code
            continue
        named = {"case": case.case_id, "patient": case.patient_id}
        if not prediction.arrays:
            rows[case.case_id] = {**named, **prediction.scalars}
            kept[case.case_id] = prediction
            continue
        try:
            rows[case.case_id] = {**named, **model.task.write(prediction, case, folder)}
        except Exception as error:  # noqa: BLE001 - one case must not end the others
            _, failed[case.case_id] = why_unwritten(error, folder)
    known = tuple(c for c in cases if c.case_id in rows and model.task.has_reference(c))
    return Answers(model.task, folder, known, rows, kept, failed)
