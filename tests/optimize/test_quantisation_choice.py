"""Which way and which layers: chosen by what the selection part says of real quantised files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from listening import Listening
from small_graphs import drowned_graph, inputs, plain_graph, write_graph

from medtool.config.optimize_section import OptimizeSection
from medtool.core.errors import CheckpointError, GateError, UnknownNameError
from medtool.core.progress import Reporter, Silent
from medtool.optimize.activations import observe
from medtool.optimize.passes import PassesBeside
from medtool.optimize.quantisation_choice import (
    Judged,
    Quantised,
    Quantiser,
    choose_quantisation,
)
from medtool.optimize.quantise_onnx import ready_graph
from medtool.predict.engines import open_engine
from medtool.score.falls import Fall

IMAGES = inputs(8)


def by_error(file: Path, original: Path, tolerance: float = 0.02) -> list[Fall]:
    """A metric that falls by the error of the outputs."""
    wanted, found = (
        np.concatenate([open_engine(one).run(image)["logits"] for image in IMAGES])
        for one in (original, file)
    )
    error = float(np.abs(found - wanted).mean() / np.ptp(wanted))
    return [Fall("dice", 1.0, 1.0 - error, error, error, 8, 8, tolerance)]


def chosen(
    folder: Path,
    source: Path,
    *,
    judge: Callable[[Path], Sequence[Fall]] | None = None,
    passes: Callable[[Path], PassesBeside | None] = lambda file: None,
    pruned: Sequence[Fall] = (),
    reporter: Reporter | None = None,
    **settings,
) -> Quantised:
    graph = ready_graph(source, folder)
    falls_of = judge or (lambda file: by_error(file, source))
    quantiser = Quantiser(
        graph=graph,
        seen=observe(graph, IMAGES),
        inputs=IMAGES,
        settings=OptimizeSection(**settings),
        reduce_range=False,
        folder=folder,
        judge=lambda file: Judged(tuple(falls_of(file)), passes(file)),
        pruned=pruned,
    )
    return choose_quantisation(quantiser, reporter or Silent())


def test_every_way_is_tried_and_the_last_layer_stays_in_float(tmp_path: Path) -> None:
    found = chosen(tmp_path, plain_graph(tmp_path / "model.onnx"))
    assert [one.method for one in found.trials] == ["minmax", "percentile", "entropy"]
    assert found.floats == ("head",)
    assert found.costs == ()
    assert found.trial.file.is_file()


def test_of_ways_alike_for_the_metric_the_nearest_outputs_win(tmp_path: Path) -> None:
    said = Listening()
    source = plain_graph(tmp_path / "model.onnx")
    found = chosen(tmp_path, source, judge=lambda file: [], reporter=said)
    assert found.trial.error == min(one.error for one in found.trials)
    # That no metric decided must not be missed.
    assert any("no metric is defined on the selection part" in line for line in said.lines)


def test_the_way_with_the_smallest_fall_wins(tmp_path: Path) -> None:
    falls = iter((0.004, 0.001, 0.003))

    def judge(file: Path) -> list[Fall]:
        return [Fall("dice", 1.0, 1.0 - next(falls), 0.0, 0.0, 8, 8, 0.005)]

    found = chosen(tmp_path, plain_graph(tmp_path / "model.onnx"), judge=judge)
    assert found.trial.method == "percentile"


def test_layers_that_suffer_are_found_and_left_in_float(tmp_path: Path) -> None:
    found = chosen(tmp_path, drowned_graph(tmp_path / "model.onnx"), most_float_share=0.8)
    assert {"both", "small"} <= set(found.floats)
    assert "after" not in found.floats
    dearest = [cost.layer.name for cost in found.costs[:2]]
    assert set(dearest) == {"both", "small"}
    # With all in eight bits it did not hold.
    assert not found.trials[0].kept
    assert found.trial.kept


def test_as_many_stay_in_float_as_may_before_it_is_refused(tmp_path: Path) -> None:
    """From a fault: of three layers that may, it stopped at two, for four are too many."""
    said, source = Listening(), tmp_path / "model.onnx"
    weights = np.ones((1, 1, 1, 1), np.float32)
    hidden = [(name, "Relu", weights) for name in ("a", "b", "c")]
    write_graph(source, [*hidden, ("head", "", weights)])
    with pytest.raises(GateError):
        chosen(
            tmp_path,
            source,
            judge=lambda file: [Fall("dice", 1.0, 0.9, 0.0, 0.0, 8, 8, 0.005)],
            methods=["minmax"],
            most_float_share=1.0,
            reporter=said,
        )
    tried = [line.split()[4] for line in said.lines if "dearest layers" in line]
    assert tried == ["1", "2", "3"]


def test_where_too_few_may_stay_in_float_it_is_refused_with_the_layers(tmp_path: Path) -> None:
    with pytest.raises(GateError) as refused:
        chosen(tmp_path, drowned_graph(tmp_path / "model.onnx"), most_float_share=0.0)
    assert "both" in refused.value.met
    assert "small" in refused.value.met
    assert "--tolerance" in refused.value.how


def test_where_pruning_cost_more_eight_bits_are_not_blamed(tmp_path: Path) -> None:
    with pytest.raises(GateError) as refused:
        chosen(
            tmp_path,
            plain_graph(tmp_path / "model.onnx"),
            judge=lambda file: [Fall("dice", 0.9, 0.87, 0.0, 0.0, 8, 8, 0.02)],
            pruned=[Fall("dice", 0.9, 0.882, 0.0, 0.0, 8, 8, 0.02)],
            methods=["minmax"],
            most_float_share=0.0,
        )
    assert "float) -0.0180 and fewer bits beyond it -0.0120" in refused.value.met
    assert "optimize.prune.share" in refused.value.how
    assert "calibration" not in refused.value.how


def ranked(correlation: float) -> PassesBeside:
    return PassesBeside(0.001, 0.1, correlation, 8, 0.01, 0.95)


def by_layers(source: Path) -> Callable[[Path], PassesBeside]:
    """Maps of uncertainty that suffer where the outputs do."""

    def judged(file: Path) -> PassesBeside:
        (error,) = by_error(file, source)
        return ranked(0.99 if error.kept else 0.9)

    return judged


def unharmed(file: Path) -> list[Fall]:
    return [Fall("dice", 1.0, 1.0, 0.0, 0.0, 8, 8, 0.005)]


def test_layers_stay_in_float_until_uncertainty_holds(tmp_path: Path) -> None:
    """The metric holds at once; what passes disagree about does not."""
    source, said = drowned_graph(tmp_path / "model.onnx"), Listening()
    found = chosen(
        tmp_path,
        source,
        judge=unharmed,
        passes=by_layers(source),
        reporter=said,
        methods=["minmax"],
        most_float_share=0.8,
    )
    assert {"both", "small"} <= set(found.floats)
    assert any("INT8 changes uncertainty too much: 1 of" in line for line in said.lines)
    first, last = found.as_dict()["tried"][0], found.trial.as_dict()
    assert (first["passes"]["correlation"], first["kept"]) == (0.9, False)
    assert (last["passes"]["correlation"], last["kept"]) == (0.99, True)


def test_uncertainty_that_no_layer_mends_is_refused_by_its_own_words(tmp_path: Path) -> None:
    source = drowned_graph(tmp_path / "model.onnx")
    with pytest.raises(GateError, match="uncertainty of the smaller model") as refused:
        chosen(
            tmp_path,
            source,
            judge=unharmed,
            passes=by_layers(source),
            methods=["minmax"],
            most_float_share=0.0,
        )
    assert refused.value.where == "selection part"
    assert "maps of uncertainty 0.900 (has to be 0.95)" in refused.value.met
    assert "both" in refused.value.met
    assert "optimize.passes_correlation" in refused.value.how


def test_a_way_that_keeps_uncertainty_goes_before_a_smaller_fall(tmp_path: Path) -> None:
    falls, ranks = iter((0.001, 0.003, 0.002)), iter((0.94, 0.96, 0.951))
    found = chosen(
        tmp_path,
        plain_graph(tmp_path / "model.onnx"),
        judge=lambda file: [Fall("dice", 1.0, 1.0 - next(falls), 0.0, 0.0, 8, 8, 0.005)],
        passes=lambda file: ranked(next(ranks)),
    )
    assert found.trial.method == "entropy"


def test_a_way_that_loses_an_answer_is_the_last_that_is_taken(tmp_path: Path) -> None:
    """From a fault: what is no number cannot be rounded, and ended the search as a bug."""
    falls = iter((float("nan"), 0.001, float("nan")))
    found = chosen(
        tmp_path,
        plain_graph(tmp_path / "model.onnx"),
        judge=lambda file: [Fall("dice", 1.0, 1.0 - next(falls), 0.0, 0.0, 8, 8, 0.005)],
    )
    assert found.trial.method == "percentile"


def test_values_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    # Small values become 0, whose logarithm is no number.
    one = np.ones((1, 1, 1, 1), np.float32)
    layers = [("a", "Sigmoid", one), ("b", "Sigmoid", -60 * one), ("c", "", one)]
    source = write_graph(tmp_path / "model.onnx", layers, last="Log")
    with pytest.raises(CheckpointError, match="no numbers") as refused:
        chosen(tmp_path, source)
    assert "minmax, percentile, entropy" in refused.value.met


def test_a_layer_that_is_not_there_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError) as refused:
        chosen(tmp_path, plain_graph(tmp_path / "model.onnx"), float_layers=["encodr"])
    assert refused.value.nearest == "encoder"


def test_a_named_layer_stays_in_float(tmp_path: Path) -> None:
    found = chosen(tmp_path, plain_graph(tmp_path / "model.onnx"), float_layers=["encoder"])
    assert found.floats == ("encoder", "head")
