"""How far metrics fell: what a hand can work out, and that both models meet the same draws."""

from __future__ import annotations

from math import isnan, nan

import pytest

from medtool.core.records import Score, Scores
from medtool.score.compare import compare_models
from medtool.score.falls import (
    Fall,
    ScoredModel,
    falls_of,
    judged_metrics,
    unjudged_metrics,
)
from medtool.score.segmentation_columns import APART, BY_CASE

ALLOWED = {"dice": 0.005, "auroc": 0.005, "macro_f1": 0.01, "harrell_c": 0.01}


class Draws:
    """Few draws: the tests compare, they do not measure."""

    threshold_rule = "youden"
    bootstrap_draws = 200
    confidence = 0.95


def with_metrics(**values: float) -> dict[str, Score]:
    return {name: Score(name, value, 10) for name, value in values.items()}


def masks(dices: dict[str, dict[str, float]], *, apart: tuple[str, ...] = ()) -> ScoredModel:
    """``dices`` by case and structure; two cases a patient."""
    rows = [
        {"case": case, "patient": f"p{number // 2}", "structure": name, "dice": value}
        for number, (case, own) in enumerate(dices.items())
        for name, value in own.items()
    ]
    structures = {name for own in dices.values() for name in own if name not in apart}
    means = [sum(own[name] for own in dices.values()) / len(dices) for name in sorted(structures)]
    tables = {BY_CASE: rows, **({APART: list(apart)} if apart else {})}
    return ScoredModel(Scores(with_metrics(dice=sum(means) / len(means)), tables=tables), rows)


def fall_of(before: ScoredModel, after: ScoredModel, name: str) -> Fall:
    (found,) = falls_of(before, after, [name], ALLOWED, metrics=Draws())
    return found


def test_a_fall_alike_in_every_case_is_the_interval() -> None:
    before = {f"c{n}": {"heart": 0.8 + n / 100} for n in range(6)}
    after = {case: {"heart": own["heart"] - 0.003} for case, own in before.items()}
    found = fall_of(masks(before), masks(after), "dice")
    assert (found.n, found.patients) == (6, 3)
    assert found.fall == pytest.approx(0.003)
    # Whoever is drawn: the cases are paired.
    assert (found.low, found.high) == pytest.approx((0.003, 0.003))
    assert found.kept
    assert found.proved


def test_the_mean_is_over_structures_and_unions_are_in_none() -> None:
    before = {f"c{n}": {"a": 0.9, "b": 0.7, "both": 0.9} for n in range(4)}
    after = {f"c{n}": {"a": 0.9, "b": 0.68, "both": 0.1} for n in range(4)}
    found = fall_of(masks(before, apart=("both",)), masks(after, apart=("both",)), "dice")
    assert found.fall == pytest.approx(0.01)
    assert found.high == pytest.approx(0.01)
    assert not found.kept


def probabilities(values: list[float], labels: list[int], auroc: float) -> ScoredModel:
    rows = [
        {"case": f"c{n}", "patient": f"p{n}", "label": label, "probability": value}
        for n, (value, label) in enumerate(zip(values, labels, strict=True))
    ]
    return ScoredModel(Scores(with_metrics(auroc=auroc)), rows)


def test_of_probabilities_it_is_the_comparison_of_two_models() -> None:
    labels = [0, 0, 0, 0, 1, 1, 1, 1]
    first = [0.1, 0.2, 0.3, 0.6, 0.4, 0.7, 0.8, 0.9]
    second = [0.1, 0.2, 0.5, 0.6, 0.4, 0.7, 0.8, 0.9]
    wanted = compare_models(labels, first, second, draws=200)
    found = fall_of(
        probabilities(first, labels, wanted.first),
        probabilities(second, labels, wanted.second),
        "auroc",
    )
    # One of 16 pairs more is in the wrong order.
    assert found.fall == pytest.approx(1 / 16)
    assert (found.low, found.high) == pytest.approx(wanted.interval)


def classes(said: list[str], f1: float) -> ScoredModel:
    truth = ["a", "a", "b", "b"]
    rows = [
        {"case": f"c{n}", "patient": f"p{n}", "label": float(truth[n] == "b"), "class": word}
        for n, word in enumerate(said)
    ]
    table = [{"case": f"c{n}", "label": word} for n, word in enumerate(truth)]
    return ScoredModel(Scores(with_metrics(macro_f1=f1), tables={"classes": table}), rows)


def test_of_classes_it_is_macro_f1() -> None:
    right, wrong = classes(["a", "a", "b", "b"], 1.0), classes(["a", "b", "b", "b"], 11 / 15)
    # F1 of a is 2/3, of b 4/5.
    found = fall_of(right, wrong, "macro_f1")
    assert found.fall == pytest.approx(4 / 15)
    assert found.high >= found.fall >= found.low == 0.0
    assert not found.kept


def risks(values: list[float], c_index: float) -> ScoredModel:
    rows = [
        {"patient": f"p{n}", "risk": risk, "time_days": 100.0 * (n + 1), "event": True}
        for n, risk in enumerate(values)
    ]
    scores = Scores(with_metrics(harrell_c=c_index), tables={"survival": {"patients": rows}})
    return ScoredModel(scores, [])


def test_of_risks_it_is_harrells_c() -> None:
    found = fall_of(risks([4, 3, 2, 1], 1.0), risks([4, 3, 1, 2], 5 / 6), "harrell_c")
    assert found.fall == pytest.approx(1 / 6)
    assert found.n == 4


def test_what_is_undefined_is_not_kept() -> None:
    fall = Fall("dice", 0.9, nan, nan, nan, 3, 3, 0.005)
    assert not fall.kept
    assert not fall.proved


def test_where_there_is_no_interval_nothing_is_proved() -> None:
    """From a fault: two patients without an interval were called as good."""
    fall = Fall("harrell_c", 0.7, 0.7, nan, nan, 2, 2, 0.01)
    assert fall.kept
    assert not fall.proved
    assert "(+0.0000, no paired interval; 2 cases" in fall.line()


def test_better_is_kept_and_a_wide_interval_proves_nothing() -> None:
    better = Fall("dice", 0.9, 0.92, -0.05, 0.01, 9, 9, 0.005)
    assert better.kept
    assert not better.proved
    assert better.line() == (
        "dice: 0.9000 before, 0.9200 after (+0.0200, paired interval -0.0100 to +0.0500; 9 cases "
        "of 9 patients; may fall by 0.005)"
    )


@pytest.mark.parametrize(
    ("primary", "wanted"),
    [
        ("dice", ("dice",)),
        ("dice_and_f1", ("dice", "macro_f1")),
        ("dice_and_c_index", ("dice", "harrell_c")),
        ("loss", ("dice", "macro_f1", "harrell_c")),
    ],
)
def test_which_metrics_judge(primary: str, wanted: tuple[str, ...]) -> None:
    scores = Scores(with_metrics(dice=0.9, macro_f1=0.8, harrell_c=0.7, auroc=nan))
    assert judged_metrics(primary, scores) == wanted
    assert isnan(scores.metrics["auroc"].value)
    assert unjudged_metrics(primary, scores) == ()


def test_a_half_that_is_undefined_is_named() -> None:
    """From a fault: without pairs of patients only Dice judged, and nothing said so."""
    scores = Scores(with_metrics(dice=0.9, harrell_c=nan))
    assert judged_metrics("dice_and_c_index", scores) == ("dice",)
    assert unjudged_metrics("dice_and_c_index", scores) == ("harrell_c",)
    assert unjudged_metrics("dice", scores) == ()
