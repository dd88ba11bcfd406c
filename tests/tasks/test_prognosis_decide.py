"""What is decided after training, from whom, and what answers make of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tiny_prognosis import tiny_settings

from medtool.core.geometry import Grid
from medtool.core.records import Case, Outcome, Prediction, Truth
from medtool.score.survival import survival_sample
from medtool.score.survival_regression import baseline_hazard, fit_cox
from medtool.tasks.prognosis_decide import decide_study, settle_study
from medtool.tasks.prognosis_decided import (
    baseline_columns,
    decided_of,
    decided_together,
)

GRID = Grid((8, 8, 8), (5.0, 5.0, 5.0), (0.0, 0.0, 0.0))


def case(number: int, time_days: float, *, event: bool, patient: str = "") -> Case:
    name = patient or f"p{number}"
    covariates = {"age": str(40 + 3 * number % 31), "sex": "fm"[number % 2]}
    outcome = Outcome(time_days, event)
    return Case(f"c{number}", name, "", {}, outcome=outcome, covariates=covariates)


def answer(of: Case, risk: float | None, volume_ml: float = 1.0) -> Prediction:
    return Prediction(of.case_id, of.patient_id, {"risk": risk, "volume_ml": volume_ml})


def training(count: int = 30, seed: int = 0) -> list[tuple[Case, Prediction]]:
    rng = np.random.default_rng(seed)
    pairs = []
    for number in range(count):
        of = case(number, float(rng.integers(10, 900)), event=bool(rng.random() < 0.6))
        pairs.append((of, answer(of, float(rng.normal()), float(rng.exponential(20)))))
    return pairs


def test_the_baseline_hazard_is_breslows_of_the_training_patients() -> None:
    pairs = training()
    found = settle_study(tiny_settings(), iter(pairs))["baseline_hazard"]
    outcomes = [of.outcome for of, _ in pairs]
    sample = survival_sample([o.time_days for o in outcomes], [float(o.event) for o in outcomes])
    wanted = baseline_hazard(sample, [one.scalars["risk"] for _, one in pairs])
    np.testing.assert_allclose(found["hazard"], wanted.cumulative)
    assert found["mean_risk"] == pytest.approx(wanted.centre)
    assert (found["patients"], found["events"]) == (30, sample.event_count)
    decided = decided_of({"baseline_hazard": found})
    (share,) = decided.survival([0.7], 365.0)
    assert share == pytest.approx(float(wanted.survival([wanted.centre + 0.7], [365.0])[0, 0]))
    assert decided.survival([2.0], 365.0) < decided.survival([-2.0], 365.0)
    assert sorted(found["follow_up_days"]) == found["follow_up_days"]


def test_a_patient_counts_once_by_the_first_case() -> None:
    pairs = training()
    second = case(99, 5.0, event=True, patient="p3")
    more = [*pairs, (second, answer(second, 9.0))]
    assert settle_study(tiny_settings(), more) == settle_study(tiny_settings(), pairs)


def test_patients_without_outcome_or_risk_say_nothing() -> None:
    pairs = training()
    other = replace(case(98, 5.0, event=True), outcome=None)
    silent = case(97, 5.0, event=True)
    more = [*pairs, (other, answer(other, 1.0)), (silent, answer(silent, None))]
    assert settle_study(tiny_settings(), more) == settle_study(tiny_settings(), pairs)


def test_without_events_there_is_no_hazard_and_no_survival() -> None:
    of = case(0, 100.0, event=False)
    assert settle_study(tiny_settings(), [(of, answer(of, 1.0))]) == {}
    assert decided_of({}).survival([0.0], 365.0) is None


def test_regressions_on_volume_and_covariates_answer_beside_the_model() -> None:
    train = {"baselines": True, "baseline_covariates": ["age", "sex"]}
    settings, pairs = tiny_settings(train=train), training(60)
    found = settle_study(settings, pairs)["baselines"]
    outcomes = [of.outcome for of, _ in pairs]
    sample = survival_sample([o.time_days for o in outcomes], [float(o.event) for o in outcomes])
    volumes = np.log1p([[one.scalars["volume_ml"]] for _, one in pairs])
    wanted = fit_cox(sample, volumes, ["volume"])
    np.testing.assert_allclose(found["volume"]["coefficients"], wanted.coefficients)
    # One of the two sexes says all of both, and nobody's value is missing.
    assert found["covariates"]["names"] == ["age", "sex f"]
    ages = np.asarray(
        [[float(of.covariates["age"]), of.covariates["sex"] == "f"] for of, _ in pairs]
    )
    ages[:, 0] = (ages[:, 0] - ages[:, 0].mean()) / ages[:, 0].std()
    both = fit_cox(sample, ages, ["age", "sex"])
    np.testing.assert_allclose(found["covariates"]["coefficients"], both.coefficients, rtol=1e-6)
    decided = decided_of({"baselines": found})
    risks = [baseline_columns(decided, of, one.scalars) for of, one in pairs]
    np.testing.assert_allclose(
        [risk["risk_volume"] for risk in risks],
        wanted.risks(volumes) - wanted.risks(volumes).mean(),
        atol=1e-9,
    )
    assert np.mean([risk["risk_covariates"] for risk in risks]) == pytest.approx(0, abs=1e-9)


def test_a_regression_that_cannot_be_fitted_says_why() -> None:
    of = [case(n, 100.0 + n, event=True) for n in range(3)]
    pairs = [(one, answer(one, 0.1 * n, 1.0)) for n, one in enumerate(of)]
    found = settle_study(tiny_settings(train={"baselines": True}), pairs)["baselines"]
    assert "same in all patients" in found["volume"]["why"]
    assert baseline_columns(decided_of({"baselines": found}), *pairs[0]) == {}


def selected(
    count: int, sharpness: float = 3.0, seed: int = 0
) -> tuple[list[Prediction], list[Truth]]:
    """Cases whose voxels are tumour as often as their probability says, once it is cooled by
    ``sharpness``; half of them have no lesion.
    """
    rng = np.random.default_rng(seed)
    predictions, truths = [], []
    for number in range(count):
        logits = rng.normal(-4 if number % 2 else 0, 1, (8, 8, 8))
        reference = rng.random(logits.shape) < 1 / (1 + np.exp(-logits))
        reference &= number % 2 == 0
        chances = (1 / (1 + np.exp(-sharpness * logits))).astype(np.float32)
        mask = (chances > 0.5).astype(np.uint8)
        scalars: dict[str, Any] = {
            "volume_ml": float(mask.sum()) * 0.125,
            "volume_spread": float(rng.uniform(0.1, 0.4)),
            "uncertainty": 0.3,
            "risk_low": 0.0,
            "risk_high": float(number),
            "lesion_probability": float(chances.max()),
        }
        arrays = {"mask": mask, "probabilities": chances[None]}
        grids = dict.fromkeys(arrays, GRID)
        name = f"c{number}"
        predictions.append(Prediction(name, f"p{number}", scalars, arrays, grids))
        truth = {"mask": reference.astype(np.uint8)}
        truths.append(Truth(name, f"p{number}", arrays=truth, grids={"mask": GRID}))
    return predictions, truths


def test_temperature_undoes_what_is_too_sure_and_moves_no_mask() -> None:
    found = decide_study(tiny_settings(), *selected(40))
    temperature = found["temperature"]
    assert temperature["value"] == pytest.approx(3.0, rel=0.1)
    assert temperature["after"] < temperature["before"]
    assert temperature["patients"] == 20 and found["conformal"]["patients"] == 20


def test_voxels_of_the_ignore_label_decide_nothing() -> None:
    """From a fault: they were lesions to the conformal quantiles, background to the temperature."""
    settings = tiny_settings(data={"ignore_id": 9})
    predictions, truths = selected(40)
    for truth in truths:
        truth.arrays["mask"][:, :, :4] = 9
    other = []
    for one in predictions:
        chances = one.arrays["probabilities"].copy()
        chances[..., :4] = 1 - chances[..., :4]
        other.append(replace(one, arrays={**one.arrays, "probabilities": chances}))
    first, second = (decide_study(settings, some, truths) for some in (predictions, other))
    assert first["temperature"] == second["temperature"]
    # Nothing predicted and nothing known is as nothing predicted and nothing there.
    empty = np.zeros((8, 8, 8), np.uint8)
    silent = [replace(one, arrays={**one.arrays, "mask": empty}) for one in predictions]
    ignored, absent = (
        [replace(truth, arrays={"mask": empty + number}) for truth in truths] for number in (9, 0)
    )
    assert decide_study(settings, silent, ignored) == decide_study(settings, silent, absent)


def test_the_halves_share_no_patient_and_depend_on_the_seed() -> None:
    predictions, truths = selected(40)
    moved = [replace(t, arrays={"mask": 1 - t.arrays["mask"]}) for t in truths]
    first = decide_study(tiny_settings(), predictions, truths)
    # Where the truth of the half that calibrates is another, temperature and limits stay.
    calibration = [n for n in range(40) if not _tunes(n, predictions, truths, first)]
    assert len(calibration) == 20
    mixed = [moved[n] if n in calibration else truths[n] for n in range(40)]
    second = decide_study(tiny_settings(), predictions, mixed)
    assert second["temperature"] == first["temperature"] and second["review"] == first["review"]
    assert second["conformal"] != first["conformal"]
    assert decide_study(tiny_settings(train={"seed": 1}), predictions, truths) != first


def _tunes(number: int, predictions: list[Any], truths: list[Any], first: Any) -> bool:
    """Whether the temperature depends on a case."""
    other = list(truths)
    other[number] = replace(truths[number], arrays={"mask": 1 - truths[number].arrays["mask"]})
    return decide_study(tiny_settings(), predictions, other)["temperature"] != first["temperature"]


def test_limits_send_the_wanted_share_to_review_and_say_why() -> None:
    settings = tiny_settings(infer={"review_share": 0.25})
    predictions, truths = selected(80)
    found = decide_study(settings, predictions, truths)
    decided = decided_of(found)
    wide = [p for p in predictions if p.scalars["risk_high"] > decided.limits["risk_width"]]
    assert 0.1 < len(wide) / 80 < 0.4
    columns = {**predictions[0].scalars, "risk_high": 1000.0, "lesion_set": "both"}
    said = decided.review(columns)
    assert said["review"] == "yes"
    assert "unsure risk: an interval 1000.00 wide" in said["review_why"]
    assert "neither can be ruled out" in said["review_why"]
    calm = {"risk_low": 0.0, "risk_high": 0.1, "uncertainty": 0.0, "volume_spread": 0.0}
    assert decided.review(calm) == {"review": "no", "review_why": None}


def test_conformal_answers_cover_as_often_as_promised() -> None:
    """Over many splits, of patients like those of the calibration: at least 80 %."""
    settings = tiny_settings(infer={"conformal_risk": 0.2})
    volumes, sets = [], []
    for seed in range(20):
        predictions, truths = selected(48, seed=seed)
        decided = decided_of(decide_study(settings, predictions[:32], truths[:32]))
        for prediction, truth in zip(predictions[32:], truths[32:], strict=True):
            # With the temperature that was decided, as answers have it.
            chance = prediction.scalars["lesion_probability"]
            logit = np.log(chance / (1 - chance)) / decided.temperature
            columns = {**prediction.scalars, "lesion_probability": 1 / (1 + np.exp(-logit))}
            said = decided.of_volume(columns)
            volume_ml = truth.arrays["mask"].sum() * 0.125
            volumes.append(said["volume_low_ml"] <= volume_ml <= said["volume_high_ml"])
            wanted = "present" if volume_ml else "absent"
            sets.append(said["lesion_set"] in (wanted, "both"))
    assert np.mean(volumes) > 0.77 and np.mean(sets) > 0.77


def test_no_interval_is_larger_than_the_image() -> None:
    predictions, truths = selected(40)
    decided = decided_of(decide_study(tiny_settings(), predictions, truths))
    columns = {**predictions[0].scalars, "volume_spread": 9.0}
    assert decided.of_volume(columns)["volume_high_ml"] > 1000
    assert decided.of_volume(columns, 64.0)["volume_high_ml"] == 64.0


def test_too_few_patients_give_no_interval_rather_than_a_wrong_one() -> None:
    predictions, truths = selected(6)
    found = decide_study(tiny_settings(), predictions, truths)
    assert found["conformal"]["volume"] is None
    said = decided_of(found).of_volume(predictions[0].scalars)
    assert said == {"lesion_set": "both"}


def test_an_ensemble_is_as_careful_as_its_most_careful_member() -> None:
    one, other = (decided_of(decide_study(tiny_settings(), *selected(40, 3.0, s))) for s in (0, 1))
    both = decided_together([one, other])
    assert both.volumes.quantile == max(one.volumes.quantile, other.volumes.quantile)
    assert min(one.temperature, other.temperature) <= both.temperature
    assert both.temperature <= max(one.temperature, other.temperature)
    hazards = [decided_of(settle_study(tiny_settings(), training(seed=s))) for s in (0, 1)]
    shares = [hazard.survival([0.3], 365.0)[0] for hazard in hazards]
    (joined,) = decided_together(hazards).survival([0.3], 365.0)
    assert joined == pytest.approx(np.mean(shares))
