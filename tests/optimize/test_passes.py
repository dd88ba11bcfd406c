"""Passes beside passes: maps made by hand, numbers by scipy; what the gate says of them."""

from __future__ import annotations

from dataclasses import replace
from math import inf, nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from medtool_petct import Petct
from optimised import write_heart
from scipy.stats import spearmanr
from tiny_prognosis import tiny_settings

from medtool.config.optimize_section import OptimizeSection
from medtool.core.errors import GateError
from medtool.core.records import Case, Prediction
from medtool.optimize.acceptance import EIGHT_BITS, EXPORTED, require_passes
from medtool.optimize.passes import (
    RANKED_VOXELS,
    PassesBeside,
    has_passes,
    passes_beside,
    with_means,
)
from medtool.predict.answers import Answers
from medtool.predict.model import Model, load_model

SETTINGS = OptimizeSection()
Maps = dict[str, Any]


def answers(**cases: Maps) -> Answers:
    """Answers with these maps, by case."""
    kept = {
        name: Prediction(name, name, {}, {key: np.asarray(one) for key, one in maps.items()})
        for name, maps in cases.items()
    }
    rows: dict[str, dict[str, Any]] = {name: {} for name in cases}
    every = tuple(Case(name, name, "", {}) for name in cases)
    return Answers(None, Path(), every, rows, kept)  # type: ignore[arg-type]


def beside(before: Answers, after: Answers) -> PassesBeside:
    return passes_beside(before, after, before.cases, SETTINGS)


def test_the_worst_case_is_told_as_scipy_ranks_it() -> None:
    ranked = np.array([0.1, 0.2, 0.3, 0.4, 0.5])
    swapped = np.array([0.1, 0.3, 0.2, 0.4, 0.5])
    turned = np.array([0.2, 0.1, 0.5, 0.3, 0.4])
    before = answers(
        a={"uncertainty": ranked, "probabilities": [[0.5, 0.5, 0.0, 1.0]]},
        b={"uncertainty": ranked, "probabilities": [[0.25, 0.5, 0.0, 1.0]]},
    )
    after = answers(
        a={"uncertainty": swapped, "probabilities": [[0.5, 0.52, 0.0, 1.0]]},
        b={"uncertainty": turned, "probabilities": [[0.25, 0.5, 0.004, 0.992]]},
    )
    found = beside(before, after)
    # Of three voxels where something is found: 0.02 at one in case a, 0.008 at one in case b.
    assert found.mean == pytest.approx(0.02 / 3)
    assert found.largest == pytest.approx(0.02)
    # 1 - 6 (1 + 1) / (5 * 24) = 0.9; 1 - 6 (1 + 1 + 4 + 1 + 1) / 120 = 0.6.
    assert spearmanr(ranked, swapped).statistic == pytest.approx(0.9)
    assert found.correlation == pytest.approx(0.6)
    assert found.correlation == pytest.approx(spearmanr(ranked, turned).statistic)
    assert (found.cases, found.kept) == (2, False)
    assert found.line() == (
        "Monte Carlo passes, the worst of 2 cases: means differ from PyTorch's by 0.0067 where "
        "they find anything (may be 0.01) and by 0.020 at a voxel, rank correlation of the maps of "
        "uncertainty 0.600 (has to be 0.95)"
    )


def test_background_does_not_hide_what_is_lost() -> None:
    """From a fault: a tumour of a hundredth of the map could lose half of its probability."""
    truth = np.zeros((1, 10, 10, 10))
    truth[0, :2, :2, :2] = 0.9
    found = beside(answers(a={"probabilities": truth}), answers(a={"probabilities": truth / 2}))
    assert found.mean == pytest.approx(0.45)
    assert not found.kept
    nothing = answers(a={"probabilities": np.zeros((1, 2, 2, 2))})
    assert beside(nothing, nothing).mean == 0


def test_each_of_both_numbers_closes_the_gate_by_itself() -> None:
    held = PassesBeside(0.01, 0.3, 0.95, 8, 0.01, 0.95)
    assert held.kept
    assert held.share == pytest.approx(1)
    assert not replace(held, mean=0.0102).kept
    assert not replace(held, correlation=0.949).kept
    assert replace(held, correlation=0.9).share == pytest.approx(2)
    for broken in (
        replace(held, mean=inf),
        replace(held, mean=nan),
        replace(held, correlation=nan),
    ):
        assert broken.share == inf
        assert not broken.kept
    assert PassesBeside(None, None, None, 0, 0.01, 0.95).kept


def test_what_ranks_nothing_any_more_is_lost_and_what_never_did_is_no_matter() -> None:
    varied, flat = np.array([0.1, 0.2, 0.3]), np.full(3, 0.2)
    assert beside(answers(a={"u": varied}), answers(a={"u": flat})).correlation == 0
    assert not beside(answers(a={"u": varied}), answers(a={"u": varied * nan})).kept
    assert not beside(answers(a={"u": varied}), answers(a={"u": varied[:2]})).kept
    assert not beside(answers(a={"u": varied}), answers(a={})).kept
    chances = answers(a={"probabilities": varied})
    assert beside(chances, answers(a={"probabilities": varied * nan})).mean == inf
    found = beside(answers(a={"u": flat}), answers(a={"u": varied}))
    assert (found.correlation, found.cases, found.kept) == (None, 1, True)
    # Masks are no maps, and what has no answer after is not compared.
    mask = answers(a={"mask": np.array([0, 1], np.uint8)})
    assert "hold no maps" in beside(mask, mask).line()
    assert beside(answers(a={"u": varied}), answers()).cases == 0


def test_of_large_maps_enough_voxels_are_ranked() -> None:
    """Evenly spread, over every column: nearly the number of all voxels."""
    rng = np.random.default_rng(0)
    truth = rng.random((1, 4, RANKED_VOXELS)).astype(np.float32)
    noisy = truth + rng.normal(0, 0.1, truth.shape).astype(np.float32)
    found = beside(answers(a={"u": truth}), answers(a={"u": noisy})).correlation
    assert found == pytest.approx(spearmanr(truth.ravel(), noisy.ravel()).statistic, abs=2e-3)


def petct(**infer: Any) -> Model:
    task = Petct(tiny_settings(infer=infer))  # type: ignore[arg-type]
    none: Any = None
    return Model(task, none, none, None, none, Path(), "")


def test_models_with_passes_are_known_and_told_to_keep_their_means(tmp_path: Path) -> None:
    model = petct(passes=4, probabilities=False)
    assert has_passes(model)
    told = with_means(model)
    asked: Any = told.task.settings
    assert asked.infer.probabilities
    assert asked.infer.passes == 4
    # The model itself is as it was; of folds each is told.
    assert not model.task.settings.infer.probabilities  # type: ignore[attr-defined]
    folds = with_means(replace(model, members=(model, model)))
    assert all(one.task.settings.infer.probabilities for one in folds.members)  # type: ignore[attr-defined]
    assert not has_passes(petct(passes=0))
    heart = load_model(write_heart(tmp_path / "heart.safetensors"))
    assert not has_passes(heart)
    assert with_means(heart) is heart


def test_the_refusal_says_why_by_how_much_and_what_to_try() -> None:
    require_passes(None, costs=[], part="test part", file="x")
    require_passes(PassesBeside(0.0, 0.0, 0.96, 8, 0.01, 0.95), costs=[], part="p", file="x")
    missed = PassesBeside(0.002, 0.1, 0.935, 8, 0.01, 0.95)
    layer: Any = type("Layer", (), {"name": "decoder.last"})()
    cost: Any = type("Cost", (), {"layer": layer, "error": 0.021})()
    with pytest.raises(GateError, match="uncertainty of the smaller model") as refused:
        require_passes(missed, costs=[cost], part="test part", file="x", how=EIGHT_BITS)
    assert refused.value.exit_status == 4
    assert refused.value.where == "x, test part"
    assert "rank correlation of the maps of uncertainty 0.935 (has to be 0.95)" in refused.value.met
    assert "decoder.last (2.10%)" in refused.value.met
    assert refused.value.wanted == "means within 0.01 and a rank correlation of at least 0.95"
    for what in ("most_float_share", "calibration_inputs", "optimize.passes_correlation=0.9"):
        assert what in refused.value.how
    assert "--tolerance" not in refused.value.how
    with pytest.raises(GateError) as refused:
        require_passes(missed, costs=[], part="p", file="model.onnx", how=EXPORTED)
    assert "doctor" in refused.value.how
