"""Ranges of activations: by hand, and on what a graph really gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_graphs import inputs, plain_graph, write_graph

from medtool.core.errors import UsageError
from medtool.optimize.activations import (
    SAMPLES_PER_INPUT,
    Seen,
    entropy_threshold,
    grouped,
    observe,
    range_of,
)
from medtool.optimize.quantise_onnx import FloatGraph, ready_graph
from medtool.predict.engines import open_engine


def seen_of(*arrays: np.ndarray) -> Seen:
    seen = Seen()
    for array in arrays:
        seen.add(np.asarray(array, np.float32))
    return seen


def test_min_and_max_are_exact_and_hold_zero() -> None:
    assert range_of(seen_of([1.0, 2.0], [0.5, 7.0]), "minmax", 99.0) == (0.0, 7.0)
    assert range_of(seen_of([-3.0, -1.0]), "minmax", 99.0) == (-3.0, 0.0)


def test_extremes_are_exact_where_only_samples_are_kept() -> None:
    values = np.zeros(10 * SAMPLES_PER_INPUT, np.float32)
    values[1] = 5.0
    seen = seen_of(values)
    assert (seen.low, seen.high) == (0.0, 5.0)
    assert len(seen.samples) <= SAMPLES_PER_INPUT


def test_samples_meet_every_column_of_maps_with_an_even_width() -> None:
    maps = np.tile(np.arange(256, dtype=np.float32), (1, 64, 256, 1))
    assert set(np.unique(seen_of(maps).samples)) == set(range(256))


def test_the_percentile_cuts_both_sides_or_the_only_one() -> None:
    both = seen_of(np.linspace(-100, 100, 2001))
    # One percent of all values, a half on each side.
    assert range_of(both, "percentile", 99.0) == pytest.approx((-99.0, 99.0))
    one = seen_of(np.linspace(0, 100, 2001))
    assert range_of(one, "percentile", 99.0) == pytest.approx((0.0, 99.0))


def test_entropy_cuts_a_lone_value_far_away_and_nothing_of_even_ones() -> None:
    values = np.random.default_rng(0).normal(size=100_000).astype(np.float32)
    lone = entropy_threshold(np.append(values, 100.0).astype(np.float32), signed=True)
    assert 2.0 < lone < 20.0
    even = np.linspace(-1, 1, 100_001).astype(np.float32)
    assert entropy_threshold(even, signed=True) == pytest.approx(1.0, abs=0.01)
    assert entropy_threshold(np.zeros(10, np.float32), signed=False) == 0.0


def test_what_passes_through_a_graph_is_observed(tmp_path: Path) -> None:
    graph = ready_graph(plain_graph(tmp_path / "model.onnx"), tmp_path)
    images = inputs(3)
    seen = observe(graph, images)
    pixels = np.concatenate([one["image"].ravel() for one in images])
    assert seen["image"].low == pixels.min()
    assert seen["image"].high == pixels.max()
    logits = [open_engine(graph.file).run(one)["logits"] for one in images]
    assert seen["logits"].high == pytest.approx(max(float(x.max()) for x in logits))
    # Behind a Relu nothing is below 0.
    assert seen["encoder.on"].low == 0.0


def test_tensors_are_asked_for_in_groups_that_fit() -> None:
    sizes = {"a": 4, "b": 4, "c": 9, "d": 1, "e": 3}
    assert list(grouped("abcde", sizes, 8)) == [["a", "b"], ["c"], ["d", "e"]]
    # What is not known is as large as the largest.
    assert list(grouped("adx", sizes, 8)) == [["a", "d"], ["x"]]
    assert list(grouped("ab", {}, 8)) == [["a", "b"]]
    assert list(grouped("", sizes, 8)) == []


def test_in_groups_the_same_is_seen_as_at_once(tmp_path: Path) -> None:
    graph = ready_graph(plain_graph(tmp_path / "model.onnx"), tmp_path)
    # 8 x 8 pixels, one channel in and out and four in between.
    assert {graph.sizes[name] for name in graph.tensors} == {64, 256}
    images, asked = inputs(2), []

    class Watched(FloatGraph):
        """The graph, and what it is asked for at a time."""

        def observing(self, tensors):
            asked.append(list(tensors))
            engine = super().observing(tensors)
            # What is no output can be forgotten on the way.
            assert engine.output_names == tuple(tensors)
            return engine

    once = observe(graph, images)
    seen = observe(Watched(**vars(graph)), images, values_at_once=300)
    assert len(asked) > 1
    assert all(sum(graph.sizes[name] for name in group) <= 300 for group in asked)
    assert seen.keys() == once.keys()
    for name, one in once.items():
        assert (seen[name].low, seen[name].high) == pytest.approx((one.low, one.high), rel=1e-5)
        np.testing.assert_allclose(seen[name].samples, one.samples, rtol=1e-4, atol=1e-5)


def test_a_value_that_is_no_number_is_refused_by_its_tensor(tmp_path: Path) -> None:
    one = np.ones((1, 1, 1, 1), np.float32)
    layers = [("a", "Log", one), ("b", "", one)]
    graph = ready_graph(write_graph(tmp_path / "model.onnx", layers), tmp_path)
    with pytest.raises(UsageError, match="no numbers") as refused:
        observe(graph, inputs(1))
    assert "a.on" in refused.value.where
