"""Scores of a prognosis against answers made by hand: masks, risks, doubts, where known."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from judged_prognosis import (
    LESION,
    NOTHING,
    SETTINGS,
    VOXEL_ML,
    answer,
    box,
    cohort,
    truth,
)
from tiny_prognosis import tiny_settings

from medtool.core.records import Prediction, Truth
from medtool.score.document import scores_from_document, scores_to_document
from medtool.tasks.prognosis_labels import TRUE_RISK
from medtool.tasks.prognosis_scores import score_prognosis
from medtool.tasks.segmentation_predict import PROBABILITIES


def test_masks_count_where_there_are_lesions_and_inventions_by_their_volume() -> None:
    half = box(slice(4, 8), slice(4, 8), slice(4, 6))
    far = box(slice(12, 13), slice(12, 14), slice(12, 15))
    # Touches nothing by faces, but by an edge: one component with the lesion of 18 neighbours.
    edge = LESION.copy()
    edge[8, 8, 4:8] = 1
    predictions = [
        answer("a", LESION),
        answer("b", half | far),
        answer("c", far),
        answer("d", NOTHING),
        answer("e", edge),
    ]
    truths = [truth("a", LESION), truth("b", LESION), truth("c", NOTHING), truth("d", NOTHING)]
    scores = score_prognosis(SETTINGS, predictions, [*truths, truth("e", LESION)])
    dices = [1.0, 2 * 32 / (64 + 38), 2 * 64 / (64 + 68)]
    found = scores.metrics
    assert found["dice"].value == pytest.approx(np.mean(dices))
    assert found["dice"].n == 3
    assert "whose reference has none are not counted" in found["dice"].convention
    assert found["sensitivity"].value == pytest.approx((1 + 0.5 + 1) / 3)
    voxels = 16**3
    wrong = [0, 6 / (voxels - 64), 6 / voxels, 0, 4 / (voxels - 64)]
    assert found["specificity"].value == pytest.approx(1 - np.mean(wrong))
    assert found["dice_pooled"].value == pytest.approx(
        2 * (64 + 32 + 64) / ((64 + 64) + (64 + 38) + 6 + (64 + 68))
    )
    assert found["false_positive_ml"].value == pytest.approx((6 + 6) * VOXEL_ML / 5)
    assert found["false_positive_where_absent_ml"].value == pytest.approx(6 * VOXEL_ML / 2)
    assert found["false_positive_where_absent_ml"].n == 2
    assert found["false_negative_ml"].value == 0.0
    assert "18 neighbours" in found["false_positive_ml"].convention
    errors = {row["case"]: row["error"] for row in scores.per_case}
    assert errors["c"] == 1.0
    assert errors["d"] == 0.0
    assert errors["b"] == pytest.approx(1 - dices[1])
    assert "reference has none" in scores.per_case[2]["said"][0]
    assert "harrell_c" not in found


def c_by_hand(truths: list[Truth], risks: list[float]) -> float:
    """Harrell's C, pair by pair."""
    right = pairs = 0.0
    known = [(t.outcome, r) for t, r in zip(truths, risks, strict=True) if t.outcome is not None]
    for (first, one), (second, other) in itertools.permutations(known, 2):
        if first.event and first.time_days < second.time_days:
            pairs += 1
            right += 1.0 if one > other else 0.5 if one == other else 0.0
    return right / pairs


def test_risks_are_judged_where_an_outcome_is_known_and_beside_the_true_ones() -> None:
    predictions, truths = cohort()
    scores = score_prognosis(SETTINGS, predictions, truths)
    said = [float(one.scalars["risk"]) for one in predictions]
    true = [float(one.arrays[TRUE_RISK]) for one in truths]
    found = scores.metrics
    assert found["harrell_c"].value == pytest.approx(c_by_hand(truths, said))
    assert found["reachable_c"].value == pytest.approx(c_by_hand(truths, true))
    assert found["harrell_c"].n == found["reachable_c"].n == 19
    assert found["harrell_c"].low < found["harrell_c"].value < found["harrell_c"].high
    assert "higher risk is worse" in found["harrell_c"].convention
    # Every predicted volume is the same: every pair is tied.
    assert found["volume_alone_c"].value == 0.5
    assert "covariates_alone_c" not in found
    assert found["dice"].n == 19
    assert found["dice_and_c_index"].value == pytest.approx((1.0 + found["harrell_c"].value) / 2)
    tables = scores.tables["survival"]
    assert tables["pairs"]["patients"] == 19
    assert len(tables["patients"]) == 19
    assert {row["time"] for row in tables["calibration"]} == {100.0, 200.0}
    rivals = {row["name"]: row["difference"] for row in tables["rivals"]}
    gap = found["harrell_c"].value - found["reachable_c"].value
    assert rivals["reachable_c"] == pytest.approx(gap)
    notes = " ".join(scores.notes)
    assert "1 cases have no outcome" in notes
    assert "1 cases have no mask" in notes
    assert list(found)[:3] == ["dice", "harrell_c", "reachable_c"]


def test_what_the_checkpoint_keeps_of_training_weighs_and_parts_the_groups() -> None:
    predictions, truths = cohort()
    learned = {
        "follow_up_days": [50.0, 150.0, 250.0, 400.0],
        "follow_up_events": [1, 0, 1, 0],
        "risk_cuts": [-0.5, 0.5],
    }
    scores = score_prognosis(SETTINGS, predictions, truths, learned)
    own = score_prognosis(SETTINGS, predictions, truths)
    assert "of the training patients" in scores.metrics["uno_c"].convention
    assert "of the scored patients" in own.metrics["uno_c"].convention
    assert [row["group"] for row in scores.tables["survival"]["curves"]] == [
        "1 of 3",
        "2 of 3",
        "3 of 3",
    ]
    assert scores.metrics["harrell_c"].value == own.metrics["harrell_c"].value


def test_a_patient_with_several_cases_counts_once_by_the_first() -> None:
    predictions, truths = cohort(6)
    twin = Prediction("a99", predictions[0].patient_id, {"risk": 99.0, "volume_ml": 1.0})
    known = Truth("a99", predictions[0].patient_id, outcome=truths[0].outcome)
    scores = score_prognosis(SETTINGS, [twin, *predictions], [known, *truths])
    alone = score_prognosis(SETTINGS, predictions, truths)
    assert scores.metrics["harrell_c"].value == alone.metrics["harrell_c"].value
    assert any("1 cases are later cases" in note for note in scores.notes)


def test_models_of_one_half_are_scored_in_that_half() -> None:
    predictions, truths = cohort()
    without_risk = [
        Prediction(
            one.case_id,
            one.patient_id,
            {name: value for name, value in one.scalars.items() if "risk" not in name},
            one.arrays,
            one.grids,
        )
        for one in predictions
    ]
    outlines = score_prognosis(SETTINGS, without_risk, truths)
    assert "dice" in outlines.metrics
    assert "harrell_c" not in outlines.metrics
    assert "survival" not in outlines.tables
    risks_alone = [
        Prediction(one.case_id, one.patient_id, {"risk": one.scalars["risk"]})
        for one in predictions
    ]
    risks = score_prognosis(SETTINGS, risks_alone, truths)
    whole = score_prognosis(SETTINGS, predictions, truths)
    assert risks.metrics["harrell_c"].value == whole.metrics["harrell_c"].value
    assert "dice" not in risks.metrics
    assert "brier_100" not in risks.metrics
    assert risks.per_case[0]["said"][0] == "no mask to compare"
    # Whatever is scored can be kept and read back.
    for scores in (outlines, risks, whole):
        again = scores_from_document(scores_to_document(scores))
        assert again.metrics.keys() == scores.metrics.keys()


def test_doubts_are_judged_beside_errors_and_the_doubted_come_first() -> None:
    shapes = [8 - number // 2 for number in range(8)]
    predictions, truths = [], []
    for number, end in enumerate(shapes):
        name = f"{chr(97 + number)}"
        mask = box(slice(4, 8), slice(4, 8), slice(4, end))
        review = {"review": "yes", "review_why": "large"} if number == 2 else {"review": "no"}
        predictions.append(answer(name, mask, uncertainty=0.1 * number, **review))
        truths.append(truth(name, LESION))
    scores = score_prognosis(SETTINGS, predictions, truths)
    # Less of the lesion is marked from pair to pair; doubt grows with every case.
    ranks = np.array([0.5, 0.5, 2.5, 2.5, 4.5, 4.5, 6.5, 6.5])
    wanted = np.corrcoef(ranks, np.arange(8))[0, 1]
    assert scores.metrics["uncertainty_spearman"].value == pytest.approx(wanted)
    # Dice of 1, 6/7, 2/3, 0.4: the last four fail, and are the most doubted.
    assert scores.metrics["case_auroc"].value == 1.0
    near = scores.tables["uncertainty"]["reliability"]
    assert {round(row["mean_probability"], 6) for row in near} == {0.05, 0.9}
    assert next(r for r in near if r["mean_probability"] > 0.5)["observed_rate"] == 1.0
    review = scores.tables["review"]
    assert [row["case"] for row in review] == ["c", "h", "g", "f", "e", "d", "b", "a"]
    assert review[0]["why"] == "large"


def test_promises_of_sets_and_intervals_are_counted() -> None:
    low, high = {"volume_low_ml": 4.0}, {"volume_high_ml": 6.0}
    predictions = [
        answer("a", LESION, lesion_set="present", **low, **high),
        answer("b", LESION, lesion_set="absent", **low, volume_high_ml=5.0),
        answer("c", NOTHING, lesion_set="both", volume_low_ml=0.0, volume_high_ml=1.0),
        answer("d", NOTHING, lesion_set="none", volume_low_ml=None, volume_high_ml=None),
    ]
    truths = [truth(n, m) for n, m in zip("abcd", (LESION, LESION, NOTHING, NOTHING), strict=True)]
    scores = score_prognosis(SETTINGS, predictions, truths)
    # The lesion has 5.12 mL: outside of 4 to 5.
    volumes, sets = (scores.metrics[f"{n}_coverage"] for n in ("volume_interval", "lesion_set"))
    assert (volumes.value, volumes.n) == (pytest.approx(2 / 3), 3)
    assert (sets.value, sets.n) == (0.5, 4)
    assert "promised: 80%" in sets.convention


def test_strata_are_compared_with_one_another_and_that_is_said() -> None:
    predictions, truths = cohort(10)
    parted = [
        replace(one, outcome=replace(one.outcome, stratum="ab"[number % 2]))
        for number, one in enumerate(truths)
        if one.outcome is not None
    ]
    kept = [one for one, known in zip(predictions, truths, strict=True) if known.outcome]
    scores = score_prognosis(SETTINGS, kept, parted)
    assert any("2 strata are compared" in note for note in scores.notes)
    whole = score_prognosis(SETTINGS, predictions, truths)
    assert scores.metrics["harrell_c"].value == whole.metrics["harrell_c"].value
    assert not any("strata" in note for note in whole.notes)


def test_several_labels_are_scored_each_and_in_the_mean() -> None:
    """As HECKTOR: DSCagg of each label over all patients, then their mean."""
    settings = tiny_settings(
        data={
            "label_ids": {"primary": [1], "nodes": [2]},
            "regions_order": [],
            "preparation": {"size_px": [32, 32]},
        },
        metrics={"bootstrap_draws": 100},
    )
    known, said = LESION.copy(), LESION.copy()
    known[10:12, 10:12, 10:12] = 2
    said[10:12, 10:12, 10:11] = 2
    answered = answer("a", said)
    # Labels exclude each other: a probability for each.
    chances = np.stack([0.9 * (said == label) for label in (1, 2)]).astype(np.float32)
    arrays = {**answered.arrays, PROBABILITIES: chances}
    scores = score_prognosis(settings, [replace(answered, arrays=arrays)], [truth("a", known)])
    assert scores.metrics["dice_pooled.primary"].value == 1.0
    assert scores.metrics["dice_pooled.nodes"].value == pytest.approx(2 * 4 / (8 + 4))
    assert scores.metrics["dice_pooled"].value == pytest.approx((1 + 2 / 3) / 2)
    assert scores.metrics["dice_pooled"].convention == "mean over structures of what each has"
    assert scores.metrics["voxel_ece"].n == 1
