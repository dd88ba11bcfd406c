"""Agreement and the worst case, worked out by hand; the gate."""

from __future__ import annotations

from dataclasses import replace
from math import inf, nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medtool.config.optimize_section import OptimizeSection
from medtool.core.errors import GateError
from medtool.core.records import Case, Prediction, Scores
from medtool.optimize.acceptance import (
    EIGHT_BITS,
    FEWER_CHANNELS,
    advice,
    refusal,
    require_accepted,
    require_answers,
    tolerances_of,
)
from medtool.optimize.accuracy import (
    Accuracy,
    agreement_of,
    errors_of,
    mask_agreement,
    worst_case,
)
from medtool.optimize.case_table import case_rows
from medtool.predict.answers import Answers
from medtool.score.falls import Fall, ScoredModel


class Task:
    """What agreement looks at of a task."""

    columns = {
        "risk": ("float", "", "a number"),
        "decision": ("text", "", "a word"),
        "mask": ("file", "", "a file"),
    }


def answers(rows: dict[str, dict[str, Any]], masks: dict[str, list[int]] | None = None) -> Answers:
    cases = tuple(Case(name, name, "", {}) for name in rows)
    kept = {
        name: Prediction(name, name, {}, {"mask": np.array((masks or {}).get(name, [0]), np.uint8)})
        for name in rows
    }
    return Answers(Task(), Path(), cases, rows, kept)  # type: ignore[arg-type]


def test_masks_agree_by_dice_of_equal_labels() -> None:
    one, two = np.array([0, 1, 1, 2]), np.array([0, 1, 2, 2])
    # Two voxels alike, three marked in each.
    assert mask_agreement(one, two) == pytest.approx(2 * 2 / 6)
    assert mask_agreement(one, one) == 1.0
    assert mask_agreement(np.zeros(3), np.zeros(3)) == 1.0
    assert mask_agreement(one, np.zeros(4)) == 0.0


def test_every_column_is_told_beside_the_other() -> None:
    before = answers(
        {
            "a": {"risk": 1.0, "decision": "positive", "mask": "a"},
            "b": {"risk": 2.0, "decision": "negative", "mask": "b"},
            "c": {"risk": 3.0, "decision": "negative", "mask": "c"},
        },
        {"a": [1, 1], "b": [1, 0], "c": [0, 0]},
    )
    after = answers(
        {
            "a": {"risk": 1.5, "decision": "positive"},
            "b": {"risk": 2.1, "decision": "positive"},
            "c": {"risk": 2.0, "decision": "negative"},
        },
        {"a": [1, 1], "b": [1, 1], "c": [0, 0]},
    )
    mask, risk, decision = agreement_of(before, after)
    assert (mask.kind, mask.worst_case, mask.n) == ("mask", "b", 3)
    assert mask.worst == pytest.approx(2 / 3)
    assert mask.mean == pytest.approx((1 + 2 / 3 + 1) / 3)
    assert (risk.kind, risk.worst_case) == ("number", "c")
    assert risk.worst == pytest.approx(1.0)
    assert risk.mean == pytest.approx(1.6 / 3)
    # Ranks 1 2 3 and 1 3 2.
    assert risk.correlation == pytest.approx(0.5)
    assert (decision.kind, decision.worst, decision.worst_case) == ("word", 0.0, "b")
    assert decision.mean == pytest.approx(2 / 3)


def test_a_number_that_is_lost_is_no_agreement() -> None:
    """From a fault: NaN in the place of a number counted as no difference at all."""
    before = answers({"a": {"risk": 1.0}, "b": {"risk": nan}})
    (_, risk) = agreement_of(before, answers({"a": {"risk": nan}, "b": {"risk": nan}}))
    assert (risk.worst, risk.worst_case, risk.lost) == (inf, "a", 1)


def test_cases_without_an_answer_are_left_out_of_agreement() -> None:
    before = answers({"a": {"risk": 1.0}, "b": {"risk": 2.0}})
    (mask, risk) = agreement_of(before, answers({"a": {"risk": 1.0}}))
    assert mask.n == risk.n == 1


def test_the_case_that_lost_most() -> None:
    def model(**errors: float) -> ScoredModel:
        rows = tuple({"case": name, "error": error} for name, error in errors.items())
        return ScoredModel(Scores({}, per_case=rows), [])

    errors = errors_of(model(a=0.1, b=0.5, c=0.2, d=0), model(a=0.15, b=0.5, c=0.4))
    assert errors == {"a": (0.1, 0.15), "b": (0.5, 0.5), "c": (0.2, 0.4)}
    found = worst_case(errors)
    assert found["case"] == "c"
    assert found["lost"] == pytest.approx(0.2)
    assert worst_case(errors_of(model(), model())) == {}
    assert worst_case({"a": (nan, 0.1)}) == {}


def test_what_travels_names_rows_of_the_table_and_the_table_names_cases() -> None:
    """From a fault: ids of patients stood in optimize.json, which is passed on with a model."""
    before = answers(
        {"ida": {"risk": 1.0, "decision": "no"}, "idb": {"risk": 2.0, "decision": "no"}},
        {"ida": [1, 1], "idb": [1, 0]},
    )
    after = answers(
        {"ida": {"risk": 1.1, "decision": "no"}, "idb": {"risk": 2.5, "decision": "yes"}},
        {"ida": [1, 1], "idb": [1, 1]},
    )
    found = Accuracy(
        part="test part",
        optimistic="",
        falls=(),
        errors={"ida": (0.1, 0.3), "idb": (0.2, 0.2)},
        agreement=tuple(agreement_of(before, after)),
        silent={"idb": "no brain in idb"},
    )
    rows = case_rows("model.int8.onnx", before, after, found, first_row=11)
    second = rows[1]
    assert [(row["row"], row["case"]) for row in rows] == [(11, "ida"), (12, "idb")]
    assert (second["file"], second["patient"]) == ("model.int8.onnx", "idb")
    assert (second["error_before"], second["error_after"]) == (0.2, 0.2)
    assert (second["risk_before"], second["risk_after"]) == (2.0, 2.5)
    assert (second["decision_before"], second["decision_after"]) == ("no", "yes")
    assert second["mask_alike"] == pytest.approx(2 / 3)
    assert (rows[0]["why"], second["why"]) == (None, "no brain in idb")
    document = found.as_dict({row["case"]: row["row"] for row in rows})
    assert document["worst_case"]["row"] == 11
    assert document["worst_case"]["lost"] == pytest.approx(0.2)
    assert [one["worst_row"] for one in document["agreement"]] == [12, 12, 12]
    assert document["without_answer"] == [12]
    assert "ida" not in str(document)
    assert "idb" not in str(document)


def fall(by: float, high: float) -> Fall:
    return Fall("dice", 0.9, 0.9 - by, by, high, 9, 9, 0.005)


def test_what_is_allowed() -> None:
    assert tolerances_of(OptimizeSection())["dice"] == 0.005
    assert tolerances_of(OptimizeSection())["harrell_c"] == 0.01
    assert set(tolerances_of(OptimizeSection(tolerance=0.02)).values()) == {0.02}


def test_the_gate_opens_to_what_fell_little_and_closes_to_the_rest() -> None:
    estimate, interval = OptimizeSection(), OptimizeSection(judged_by="interval")
    require_accepted([fall(0.004, 0.02)], estimate, costs=[], part="test part", file="x")
    with pytest.raises(GateError):
        require_accepted([fall(0.004, 0.02)], interval, costs=[], part="test part", file="x")
    with pytest.raises(GateError):
        require_accepted([fall(0.0, nan)], interval, costs=[], part="test part", file="x")
    require_accepted([fall(0.004, 0.0045)], interval, costs=[], part="test part", file="x")
    with pytest.raises(GateError) as refused:
        require_accepted([fall(0.006, 0.02)], estimate, costs=[], part="test part", file="x")
    assert "0.9000 before, 0.8940 after" in refused.value.met
    with pytest.raises(GateError, match="Nothing says"):
        require_accepted([], estimate, costs=[], part="test part", file="x")


def test_a_lost_answer_is_refused_with_why() -> None:
    require_answers({}, 9, part="test part", file="x", how="so")
    lost = {"a": "No lung was found.", "b": "No lung was found.", "c": "Out of memory."}
    with pytest.raises(GateError, match="none any more") as refused:
        require_answers(lost, 9, part="test part", file="x", how="so")
    assert refused.value.met == "3 of 9 cases: No lung was found.; Out of memory."
    assert (refused.value.where, refused.value.how) == ("x, test part", "so")


def test_what_to_try_fits_the_file() -> None:
    """More calibration helps only what was calibrated, another share only what was pruned."""
    assert "calibration_inputs" in advice("int8", pruned=True)
    assert "prune.share" in advice("float32", pruned=True)
    assert "doctor" in advice("float32", pruned=False)
    for arithmetic in ("float16 weights", "int8 weights"):
        assert "--format" in advice(arithmetic, pruned=False)
        assert "calibration" not in advice(arithmetic, pruned=False)
    with pytest.raises(GateError) as refused:
        require_accepted(
            [fall(0.006, 0.02)], OptimizeSection(), costs=[], part="p", file="x", how="that"
        )
    assert refused.value.how == "that"


def after_pruning(lost: float) -> Fall:
    """What the pruned network in float lost of 0.9, of which it may lose 0.02."""
    return Fall("dice", 0.9, 0.9 - lost, nan, nan, 9, 9, 0.02)


@pytest.mark.parametrize(
    ("whole", "lost", "parts", "how"),
    [
        (0.03, 0.01, "-0.0100 and fewer bits beyond it -0.0200", EIGHT_BITS),
        (0.03, 0.02, "-0.0200 and fewer bits beyond it -0.0100", FEWER_CHANNELS),
        # It learned longer and is better than before: all of the fall, and more, is of the bits.
        (0.03, -0.01, "+0.0100 and fewer bits beyond it -0.0400", EIGHT_BITS),
    ],
)
def test_after_pruning_a_refusal_says_what_each_step_cost(
    whole: float, lost: float, parts: str, how: str
) -> None:
    """From a fault: eight bits were blamed for what pruning had taken, and more calibration
    advised.
    """
    refused = refusal([after_pruning(whole)], [], "test part", pruned=[after_pruning(lost)])
    assert f"of which pruning (the pruned network in float) {parts}" in refused.met
    assert refused.how == how


def test_of_several_metrics_each_counts_by_what_it_may_lose() -> None:
    def risks(lost: float) -> Fall:
        return Fall("harrell_c", 0.7, 0.7 - lost, nan, nan, 9, 9, 0.1)

    # Of Dice 0.005 more by pruning, a quarter of what is allowed; of C 0.05 more by bits, a half.
    whole, pruned = [after_pruning(0.025), risks(0.15)], [after_pruning(0.015), risks(0.05)]
    assert refusal(whole, [], "p", pruned=pruned).how == EIGHT_BITS
    assert refusal(whole[:1], [], "p", pruned=pruned).how == FEWER_CHANNELS
    # What is no number has no parts.
    lost = replace(whole[0], after=nan)
    refused = refusal([lost], [], "p", pruned=pruned)
    assert (refused.how, "of which" in refused.met) == (EIGHT_BITS, False)


def test_without_pruning_nothing_is_said_of_it() -> None:
    assert "pruning" not in refusal([fall(0.006, 0.02)], [], "test part").met
