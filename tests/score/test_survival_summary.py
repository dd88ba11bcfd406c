"""Predicted survival with intervals: what a cohort of known hazard must show."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from medtool.core.errors import UsageError
from medtool.score.classification import MetricDefaults
from medtool.score.survival import SurvivalSample, survival_sample
from medtool.score.survival_ranking import harrell
from medtool.score.survival_regression import baseline_hazard
from medtool.score.survival_summary import Rival, SurvivalPrediction, survival_scores

HORIZONS = (12.0, 24.0, 36.0)
METRICS = MetricDefaults(bootstrap_draws=200)


def cohort(patients: int, seed: int) -> tuple[SurvivalSample, np.ndarray]:
    """Hazard exp(risk) / 30 a month; follow-up ends by chance between 6 and 60 months."""
    generator = np.random.default_rng(seed)
    risks = generator.normal(size=patients)
    until = generator.exponential(30 / np.exp(risks))
    end = generator.uniform(6, 60, patients)
    times = np.minimum(until, end) + 1e-3
    return survival_sample(times, until <= end, [f"P{n}" for n in range(patients)]), risks


def said_of(patients: int, seed: int) -> tuple[SurvivalSample, SurvivalPrediction]:
    training, known = cohort(400, seed=99)
    sample, risks = cohort(patients, seed)
    survival = baseline_hazard(training, known).survival(risks, HORIZONS)
    return sample, SurvivalPrediction(
        risks, survival, HORIZONS, "months", training, cuts=np.quantile(known, (1 / 3, 2 / 3))
    )


def test_every_number_stands_behind_its_interval() -> None:
    sample, said = said_of(300, seed=1)
    scores = survival_scores(sample, said, metrics=METRICS)
    assert set(scores.metrics) == {
        "harrell_c",
        "uno_c",
        "mean_auc",
        "integrated_brier",
        *(f"{kind}_{time:g}" for kind in ("auc", "brier") for time in HORIZONS),
    }
    for name, score in scores.metrics.items():
        assert score.low < score.value < score.high, name
        assert score.interval == "bootstrap by patient"
        assert score.convention
        better = score.value < score.trivial if "brier" in name else score.value > score.trivial
        assert better, f"{name}: the true risk beats knowing nothing"
    assert scores.metrics["harrell_c"].value == harrell(sample, said.risks).c_index()
    assert "36 months" in scores.metrics["uno_c"].convention
    assert scores.notes == ("Times are in months. A higher risk is worse.",)


def test_the_tables_show_pairs_curves_and_calibration() -> None:
    sample, said = said_of(300, seed=2)
    # The true survival: what is estimated from training is a little off for everybody.
    true = np.exp(-np.exp(np.asarray(said.risks))[:, None] * np.asarray(HORIZONS) / 30)
    said = replace(said, survival=true)
    tables = survival_scores(sample, said, metrics=METRICS).tables
    pairs = tables["pairs"]
    counted = pairs["concordant"] + pairs["discordant"] + pairs["tied_risk"]
    earlier = sample.times[:, None] < sample.times[None, :]
    assert counted == (earlier & (sample.events[:, None] > 0)).sum() + pairs["of_equal_time"]
    assert [row["group"] for row in tables["curves"]] == ["1 of 3", "2 of 3", "3 of 3"]
    assert sum(row["n"] for row in tables["curves"]) == 300
    medians = [row["median"] for row in tables["curves"]]
    assert medians[0] > medians[1] > medians[2]
    assert all(len(row["at_risk"]) == len(HORIZONS) for row in tables["curves"])
    assert tables["log_rank"]["p"] < 1e-6
    assert {row["time"] for row in tables["calibration"]} == set(HORIZONS)
    # Of fifteen groups few intervals miss what is true.
    missed = [
        row for row in tables["calibration"] if not row["low"] < row["predicted"] < row["high"]
    ]
    assert len(missed) <= 3
    assert tables["bootstrap"]["patients"] == 300


def test_what_nobody_was_followed_to_is_undefined_and_said() -> None:
    sample, said = said_of(60, seed=3)
    early = said.training.times < 30
    # The last of them is censored, so that the curve of censoring ends at 0.
    training = said.training.take(early)
    last = training.times == training.times.max()
    training = replace(training, events=np.where(last, 0.0, training.events))
    scores = survival_scores(sample, replace(said, training=training), metrics=METRICS)
    assert math.isnan(scores.metrics["brier_36"].value)
    assert math.isfinite(scores.metrics["brier_12"].value)
    assert any("No training patient" in note for note in scores.notes)
    assert any("brier_36" in note for note in scores.notes)


def test_one_group_needs_no_test() -> None:
    sample, said = said_of(40, seed=4)
    nobody = replace(said, cuts=(99.0,))
    tables = survival_scores(sample, nobody, metrics=METRICS).tables
    assert [(row["group"], row["n"]) for row in tables["curves"]] == [("1 of 2", 40)]
    assert "log_rank" not in tables


def test_without_anything_known_of_training_the_scored_patients_stand_in_and_it_is_said() -> None:
    sample, said = said_of(200, seed=7)
    alone = replace(said, training=None, cuts=(), survival=None)
    scores = survival_scores(sample, alone, metrics=METRICS)
    assert [(row["group"], row["n"]) for row in scores.tables["curves"]] == [
        ("1 of 2", 100),
        ("2 of 2", 100),
    ]
    assert "censoring of the scored patients" in scores.metrics["uno_c"].convention
    assert sum("scored patients" in note for note in scores.notes) == 2
    assert not any(name.startswith(("brier", "integrated")) for name in scores.metrics)
    assert scores.tables["calibration"] == []
    own = replace(said, training=sample, cuts=(), survival=None)
    same = survival_scores(sample, own, metrics=METRICS)
    assert same.metrics["uno_c"].value == scores.metrics["uno_c"].value


def test_rivals_are_measured_on_the_same_draws() -> None:
    sample, said = said_of(200, seed=8)
    risks = np.asarray(said.risks)
    noise = np.random.default_rng(0).normal(size=sample.n)
    rivals = {
        "itself_c": Rival(risks, "the same risk"),
        "noise_c": Rival(noise, "chance"),
        "blurred_c": Rival(risks + noise, "the risk with noise"),
    }
    scores = survival_scores(sample, replace(said, rivals=rivals), metrics=METRICS)
    rows = {row["name"]: row for row in scores.tables["rivals"]}
    itself = rows["itself_c"]
    assert itself["difference"] == itself["difference_low"] == itself["difference_high"] == 0.0
    assert itself["c"] == scores.metrics["harrell_c"].value
    assert rows["noise_c"]["difference_low"] > 0.1
    blurred = rows["blurred_c"]
    assert blurred["c"] == harrell(sample, risks + noise).c_index()
    assert blurred["difference_low"] < blurred["difference"] < blurred["difference_high"]
    # Paired: the same patients are drawn for both, so that the difference varies less than each.
    assert blurred["difference_high"] - blurred["difference_low"] < itself["high"] - itself["low"]
    assert "the risk with noise" in scores.metrics["blurred_c"].convention
    assert not any("more_than" in name for name in scores.metrics)


def test_all_censored_leaves_no_number() -> None:
    sample, said = said_of(20, seed=5)
    none = replace(sample, events=np.zeros(sample.n))
    scores = survival_scores(none, said, metrics=METRICS)
    assert math.isnan(scores.metrics["harrell_c"].value)
    assert any("harrell_c" in note for note in scores.notes)


@pytest.mark.parametrize("horizons", [(), (0.0, 5.0), (5.0, 5.0), (6.0, 5.0)])
def test_horizons_that_are_none_are_refused(horizons) -> None:
    sample, said = said_of(20, seed=6)
    with pytest.raises(UsageError, match="no times"):
        survival_scores(sample, replace(said, horizons=horizons))
