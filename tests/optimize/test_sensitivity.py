"""What layers cost: compared with answers that are kept only as far as memory allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from small_graphs import inputs, plain_graph

from medtool.optimize.sensitivity import Wanted, output_error
from medtool.predict.engines import open_engine


class Counting:
    """An engine that says one number of float32, and counts how often it is asked."""

    name, arithmetic, threads = "onnxruntime", "float32", 1
    input_names, output_names = ("image",), ("sum",)

    def __init__(self) -> None:
        self.asked: list[float] = []

    def run(
        self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None = None
    ) -> dict[str, NDArray[Any]]:
        self.asked.append(float(inputs["image"].sum()))
        return {"sum": inputs["image"].sum(keepdims=True)}


def numbers(count: int) -> list[dict[str, NDArray[np.float32]]]:
    return [{"image": np.array([number], np.float32)} for number in range(count)]


@pytest.mark.parametrize(("most_bytes", "again"), [(0, 5), (8, 3), (20, 0)])
def test_answers_beyond_the_memory_for_them_are_computed_again(most_bytes: int, again: int) -> None:
    """Five answers of four bytes."""
    engine = Counting()
    wanted = Wanted(engine, numbers(5), most_bytes=most_bytes)
    for _ in range(2):
        assert [float(one["sum"][0]) for one in wanted] == [0, 1, 2, 3, 4]
    assert engine.asked == [0, 1, 2, 3, 4, *range(5 - again, 5)]


def test_the_error_is_the_same_however_much_is_kept(tmp_path: Path) -> None:
    engine = open_engine(plain_graph(tmp_path / "model.onnx"))
    images = inputs(4)
    others = [{"image": one["image"] + 0.1} for one in images]
    kept, computed = (
        output_error(engine, others, Wanted(engine, images, most_bytes=size)) for size in (2**20, 0)
    )
    assert kept == computed > 0
