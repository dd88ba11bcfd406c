"""Masks, risks and doubts beside what is known: each where its reference is there.

Everything comes from stored answers (the row, mask and maps of each case), without torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from medtool.core.records import Prediction, Score, Scores, Truth
from medtool.score import dice_and_c_index
from medtool.score.document import TOLD_FIRST
from medtool.score.survival_ranking import harrell
from medtool.score.survival_summary import SURVIVAL
from medtool.score.uncertainty_summary import REVIEW, UNCERTAINTY
from medtool.tasks.prognosis_judged import JudgedCase, judge, mask_options
from medtool.tasks.prognosis_survival_scores import (
    REACHABLE,
    judged_patients,
    outcomes_of,
    score_risks,
)
from medtool.tasks.prognosis_uncertainty_scores import coverage, review_rows, score_doubts
from medtool.tasks.segmentation_scores import summarised

if TYPE_CHECKING:
    from medtool.tasks.prognosis_settings import PrognosisSettings

# Numbers of masks of which means over labels are told: those of other tasks, and voxels, volumes
# of lesions invented and missed, and the Dice of all patients' volumes together (DSCagg).
OVERALL = (
    "dice",
    "sensitivity",
    "specificity",
    "iou",
    "nsd",
    "hd95_mm",
    "assd_mm",
    "dice_pooled",
    "lesion_f1",
    "false_positive_ml",
    "false_negative_ml",
    "false_positive_where_absent_ml",
)
# What is told first, where it is there.
FIRST = (
    "dice",
    "harrell_c",
    REACHABLE,
    "sensitivity",
    "specificity",
    "voxel_ece",
    "uncertainty_spearman",
    dice_and_c_index.NAME,
)


def score_prognosis(
    settings: PrognosisSettings,
    predictions: Sequence[Prediction],
    truths: Sequence[Truth],
    learned: Mapping[str, Any] | None = None,
) -> Scores:
    """Every number with its interval; one case in memory at a time.

    ``learned`` is what the checkpoint keeps of the outcomes of its training patients. Raises
    CaseRefused where a mask and its reference are on different grids.
    """
    cases = judge(settings, predictions, truths)
    masks = _score_masks(settings, cases)
    risks = score_risks(settings, cases, learned or {})
    doubts = score_doubts(settings, cases)
    parts = [part for part in (masks, risks, doubts) if part is not None]
    metrics = {name: score for part in parts for name, score in part.metrics.items()}
    if masks is not None and risks is not None:
        metrics[dice_and_c_index.NAME] = _both(settings, cases, metrics)
    metrics |= coverage(settings, cases)
    tables: dict[str, Any] = dict(masks.tables) if masks else {}
    if risks is not None:
        tables = {"bootstrap": risks.tables["bootstrap"], **tables, SURVIVAL: risks.tables}
    if doubts is not None:
        tables[UNCERTAINTY] = doubts.tables
    tables |= {REVIEW: review_rows(cases), TOLD_FIRST: [n for n in FIRST if n in metrics]}
    errors = {str(row["case"]): row for row in masks.per_case} if masks else {}
    return Scores(
        metrics={
            name: metrics[name] for name in dict.fromkeys([*FIRST, *metrics]) if name in metrics
        },
        per_case=tuple(_row(case, errors.get(case.case)) for case in cases),
        tables=tables,
        notes=tuple(dict.fromkeys(note for part in parts for note in part.notes)),
    )


def _score_masks(settings: PrognosisSettings, cases: Sequence[JudgedCase]) -> Scores | None:
    """Everything of masks; None where no case has two."""
    known = [case.masks for case in cases if case.masks is not None]
    if not known:
        return None
    scores = summarised(settings, known, options=mask_options(settings), overall=OVERALL)
    without = len(cases) - len(known)
    notes = (f"{without} cases have no mask to compare and count in no number of masks.",)
    return replace(scores, notes=(*scores.notes, *(notes if without else ())))


def _both(
    settings: PrognosisSettings, cases: Sequence[JudgedCase], metrics: Mapping[str, Score]
) -> Score:
    patients = judged_patients(cases)
    chosen = {id(one) for one in patients}
    sample = outcomes_of(patients)
    pairs = harrell(sample, [one.number("risk") for one in patients])
    places = np.arange(len(cases))
    return dice_and_c_index.dice_and_c_index(
        [case.patient for case in cases],
        (
            places[[case.masks is not None for case in cases]],
            [case.masks for case in cases if case.masks is not None],
        ),
        (places[[id(case) in chosen for case in cases]], pairs),
        Scores(metrics),
        metrics=settings.metrics,
    )


def _row(case: JudgedCase, of_mask: Mapping[str, Any] | None) -> dict[str, Any]:
    """A case as one row: how wrong its mask is, and all of it in words."""
    said = list(of_mask["said"]) if of_mask else ["no mask to compare"]
    error = float(of_mask["error"]) if of_mask else 0.0
    if case.invented:
        error, said = 1.0, ["tumour marked where the reference has none"]
    return {
        "case": case.case,
        "patient": case.patient,
        "error": error,
        "said": [*said, *_words(case)],
    }


def _words(case: JudgedCase) -> list[str]:
    """Volume, risk, outcome and doubt of a case."""
    words = []
    volume_ml, doubt = case.number("volume_ml"), case.number("uncertainty")
    if math.isfinite(volume_ml) and math.isfinite(case.volume_ml):
        words.append(f"{volume_ml:.1f} mL where the reference has {case.volume_ml:.1f}")
    if math.isfinite(case.number("risk")):
        low, high = case.number("risk_low"), case.number("risk_high")
        between = f" ({low:.2f} to {high:.2f})" if math.isfinite(low) else ""
        words.append(f"risk {case.number('risk'):.2f}{between}, higher is worse")
    if case.outcome is not None:
        what = "event" if case.outcome.event else "no event up to"
        words.append(f"{what} day {case.outcome.time_days:.0f}")
    if math.isfinite(doubt):
        words.append(f"uncertainty {doubt:.3f} nats")
    if case.said.get("review") == "yes":
        words.append(f"to be reviewed: {case.said.get('review_why')}")
    return words
