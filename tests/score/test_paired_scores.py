"""Two models by their kept scores: risks patient by patient, masks case by case."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from medtool.core.errors import UsageError
from medtool.core.records import Scores
from medtool.score.classes_paired import compare_classes
from medtool.score.classification import MetricDefaults
from medtool.score.paired_scores import compare_scores
from medtool.score.survival import survival_sample
from medtool.score.survival_paired import compare_risks
from medtool.score.survival_ranking import harrell

METRICS = MetricDefaults(bootstrap_draws=300)


def patients(count: int, noise: float, seed: int) -> list[dict[str, Any]]:
    """Patients with a hazard of exp(risk); what is said of it is off by ``noise``."""
    known = np.random.default_rng(0)
    said = np.random.default_rng(seed)
    risks = known.normal(size=count)
    days = known.exponential(100 / np.exp(risks)) + 0.1
    return [
        {
            "patient": f"P{number}",
            "risk": risk + noise * said.normal(),
            "time_days": day,
            "event": number % 3 > 0,
        }
        for number, (risk, day) in enumerate(zip(risks, days, strict=True))
    ]


def c_of(rows: list[dict[str, Any]]) -> float:
    sample = survival_sample([r["time_days"] for r in rows], [r["event"] for r in rows])
    return harrell(sample, [row["risk"] for row in rows]).c_index()


def test_the_better_order_is_better_and_chance_is_none() -> None:
    good, bad, alike = patients(150, 0.1, 1), patients(150, 3.0, 2), patients(150, 0.1, 3)
    found = compare_risks(good, bad, metrics=METRICS)
    assert found is not None
    assert (found.first, found.second) == (c_of(good), c_of(bad))
    assert found.difference == pytest.approx(c_of(good) - c_of(bad))
    assert 0 < found.interval[0] < found.difference < found.interval[1]
    assert found.p_bootstrap < 0.01
    assert math.isnan(found.p_wilcoxon)
    equal = compare_risks(good, alike, metrics=METRICS)
    assert equal is not None
    assert equal.interval[0] < 0 < equal.interval[1]
    assert equal.p_bootstrap > 0.05


def test_only_common_patients_count_and_they_have_one_outcome() -> None:
    rows, others = patients(40, 0.5, 1), patients(40, 0.5, 2)
    found = compare_risks(rows[:30], others[10:], metrics=METRICS)
    assert found is not None
    assert found.n == 20
    assert found.first == c_of(rows[10:30])
    assert compare_risks(rows[:10], others[10:], metrics=METRICS) is None
    others[3] = {**others[3], "event": not others[3]["event"]}
    with pytest.raises(UsageError, match="different outcomes"):
        compare_risks(rows, others, metrics=METRICS)


def classes(answers: str, labels: str = "aabbccaabb") -> list[dict[str, Any]]:
    """Cases of five patients, two each."""
    return [
        {"case": f"c{n}", "patient": f"P{n // 2}", "label": label, "answer": answer}
        for n, (label, answer) in enumerate(zip(labels, answers, strict=True))
    ]


def test_classes_of_two_models_by_hand() -> None:
    """Eight of ten are right, and five; macro F1 is the mean of three F1s, each on paper."""
    first, second = classes("aabbccaaaa"), classes("aaaaccbbab")
    ours, accuracy = compare_classes(first, second, metrics=METRICS)
    assert (ours.structure, ours.metric, accuracy.metric) == ("class", "macro_f1", "accuracy")
    assert (accuracy.first, accuracy.second) == (0.8, 0.5)
    assert accuracy.difference == pytest.approx(0.3)
    # First: a 2 * 4 / (4 + 6), b 2 * 2 / (4 + 2), c 1. Second: a 2 * 2 / (4 + 5),
    # b 2 * 1 / (4 + 3), c 1.
    assert ours.first == pytest.approx((8 / 10 + 4 / 6 + 1) / 3)
    assert ours.second == pytest.approx((4 / 9 + 2 / 7 + 1) / 3)
    assert ours.difference == pytest.approx(ours.first - ours.second)
    assert (accuracy.n, accuracy.patients) == (10, 5)
    # Differences of the five patients: 0, 1, 0, 1, -1/2.
    assert accuracy.p_wilcoxon == pytest.approx(stats.wilcoxon([1.0, 1.0, -0.5]).pvalue)
    assert math.isnan(ours.p_wilcoxon)
    low, high = accuracy.interval
    assert low <= 0.3 <= high


def test_a_model_beside_itself_has_the_same_classes() -> None:
    rows = classes("aabbccaaaa")
    for one in compare_classes(rows, rows[::-1], metrics=METRICS):
        assert (one.difference, one.interval) == (0.0, (0.0, 0.0))


def test_classes_of_common_cases_with_one_label() -> None:
    rows, others = classes("aabbccaaaa"), classes("aabbccaabb")
    found = compare_classes(rows[:6], others[2:], metrics=METRICS)
    assert [one.n for one in found] == [4, 4]
    assert compare_classes(rows[:2], others[2:]) == []
    with pytest.raises(UsageError, match="different classes"):
        compare_classes(rows, classes("aabbccaabb", "aabbccaabc"))


def test_kept_scores_compare_their_classes_with_the_rest() -> None:
    one = Scores({}, tables={"classes": classes("aabbccaaaa")})
    two = Scores({}, tables={"classes": classes("aabbccaabb")})
    f1, accuracy = compare_scores(one, two, metrics=METRICS)
    assert (f1.metric, accuracy.metric) == ("macro_f1", "accuracy")
    assert accuracy.difference == pytest.approx(-0.2)
    assert f1.holm_bootstrap >= f1.p_bootstrap
    assert "accuracy of class: 0.800 and 1.000" in accuracy.line()


def test_scores_of_one_half_are_compared_in_that_half() -> None:
    rows = [
        {
            "case": f"c{n}",
            "patient": f"P{n}",
            "structure": "tumour",
            "tp": 10.0,
            "fp": 0.0,
            "fn": float(n),
            "dice": 20.0 / (20 + n),
            "image_diagonal_mm": None,
        }
        for n in range(6)
    ]
    worse = [{**row, "dice": row["dice"] - 0.1} for row in rows]
    survival = {"survival": {"patients": patients(40, 0.5, 1)}}
    both = Scores({}, tables={"structures_by_case": rows, **survival})
    outlines = Scores({}, tables={"structures_by_case": worse})
    risks = Scores({}, tables={"survival": {"patients": patients(40, 0.5, 2)}})
    (dice,) = compare_scores(both, outlines, metrics=METRICS)
    assert (dice.metric, dice.difference) == ("dice", pytest.approx(0.1))
    (order,) = compare_scores(both, risks, metrics=METRICS)
    assert order.metric == "harrell_c"
    assert "Wilcoxon" not in order.line()
    assert "Wilcoxon" in dice.line()
    assert compare_scores(outlines, risks, metrics=METRICS) == []
    two = compare_scores(both, both, metrics=METRICS)
    assert [one.metric for one in two] == ["dice", "harrell_c"]
    assert two[0].holm_bootstrap >= two[0].p_bootstrap
