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
from medtool.optimize.quantisation_choice import Quantised, Quantiser, choose_quantisation
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
    reporter: Reporter | None = None,
    **settings,
) -> Quantised:
    graph = ready_graph(source, folder)
    quantiser = Quantiser(
        graph=graph,
        seen=observe(graph, IMAGES),
        inputs=IMAGES,
        settings=OptimizeSection(**settings),
        reduce_range=False,
        folder=folder,
        judge=judge or (lambda file: by_error(file, source)),
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


def test_where_too_few_may_stay_in_float_it_is_refused_with_the_layers(tmp_path: Path) -> None:
    with pytest.raises(GateError) as refused:
        chosen(tmp_path, drowned_graph(tmp_path / "model.onnx"), most_float_share=0.0)
    assert "both" in refused.value.met
    assert "small" in refused.value.met
    assert "--tolerance" in refused.value.how


def test_where_pruning_cost_more_eight_bits_are_not_blamed(tmp_path: Path) -> None:
    source = drowned_graph(tmp_path / "model.onnx")
    graph = ready_graph(source, tmp_path)
    quantiser = Quantiser(
        graph=graph,
        seen=observe(graph, IMAGES),
        inputs=IMAGES,
        settings=OptimizeSection(most_float_share=0.0),
        reduce_range=False,
        folder=tmp_path,
        judge=lambda file: [Fall("dice", 0.9, 0.87, 0.0, 0.0, 8, 8, 0.02)],
        pruned=[Fall("dice", 0.9, 0.882, 0.0, 0.0, 8, 8, 0.02)],
    )
    with pytest.raises(GateError) as refused:
        choose_quantisation(quantiser, Silent())
    assert "float) -0.0180 and fewer bits beyond it -0.0120" in refused.value.met
    assert "optimize.prune.share" in refused.value.how
    assert "calibration" not in refused.value.how


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
