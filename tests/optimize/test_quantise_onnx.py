"""INT8 files: what they hold, that they say nearly the same, in every engine and at every time."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_graphs import drawn, inputs, plain_graph, write_graph

from medtool.core.errors import CheckpointError
from medtool.optimize.activations import observe, ranges_of
from medtool.optimize.openvino_file import write_openvino
from medtool.optimize.processor import has_vnni
from medtool.optimize.quantise_onnx import FloatGraph, quantise, ready_graph
from medtool.predict.engines import open_engine


@pytest.fixture
def graph(tmp_path: Path) -> FloatGraph:
    return ready_graph(plain_graph(tmp_path / "model.onnx"), tmp_path)


def written(
    graph: FloatGraph, name: str, *, floats: Collection[str] = (), reduce_range: bool = False
) -> Path:
    seen = observe(graph, inputs(8))
    target = graph.file.with_name(name)
    ranges = ranges_of(seen, "minmax", 99.99)
    quantise(graph, ranges, target, floats=floats, reduce_range=reduce_range)
    return target


def int8_weights(file: Path) -> dict[str, np.ndarray]:
    return {
        one.name.split(".weight")[0]: numpy_helper.to_array(one)
        for one in onnx.load(file).graph.initializer
        if one.data_type == onnx.TensorProto.INT8 and one.name.endswith("weight_quantized")
    }


def test_layers_are_named_as_in_the_network_and_the_last_is_known(graph: FloatGraph) -> None:
    assert [(one.name, one.kind, one.parameters, one.last) for one in graph.layers] == [
        ("encoder", "Conv", 36, False),
        ("decoder", "Conv", 144, False),
        ("head", "Conv", 4, True),
    ]


@pytest.mark.parametrize(
    ("axes", "channels", "groups", "narrow"),
    [(3, 1, 1, True), (2, 1, 1, False), (3, 2, 1, False), (3, 4, 4, False)],
    ids=["volume", "image", "two channels", "channel by channel"],
)
def test_one_channel_of_a_volume_stays_in_float(
    tmp_path: Path, axes: int, channels: int, groups: int, narrow: bool
) -> None:
    size = [6] * axes
    tensors = [
        numpy_helper.from_array(drawn(1, 4, channels // groups, *[3] * axes), "first.weight"),
        numpy_helper.from_array(drawn(2, 4, 4, *[1] * axes), "second.weight"),
        numpy_helper.from_array(drawn(3, 1, 4, *[1] * axes), "head.weight"),
    ]
    nodes = [
        helper.make_node("Conv", ["image", "first.weight"], ["a"], name="first/Conv", group=groups),
        helper.make_node("Conv", ["a", "second.weight"], ["b"], name="second/Conv"),
        helper.make_node("Conv", ["b", "head.weight"], ["logits"], name="head/Conv"),
    ]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", count, *shape])
        for name, count, shape in (("image", channels, size), ("logits", 1, [4] * axes))
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "small", values[:1], values[1:], tensors),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )
    onnx.save(model, tmp_path / "model.onnx")
    layers = ready_graph(tmp_path / "model.onnx", tmp_path).layers
    stays = [layer.name for layer in layers if layer.stays_in_float]
    assert stays == (["first", "head"] if narrow else ["head"])


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_eight_bits_say_nearly_the_same(graph: FloatGraph, engine: str) -> None:
    # As optimize does: without VNNI sums of eight-bit products may saturate.
    file = written(graph, "small.onnx", reduce_range=not has_vnni())
    for one in inputs(3):
        wanted = open_engine(graph.file).run(one)["logits"]
        found = open_engine(file, engine=engine).run(one)["logits"]
        difference = np.abs(found - wanted).max() / np.ptp(wanted)
        # Not equal, or nothing was quantised; near, or it was done wrong.
        assert 0 < difference < 0.05


def test_openvino_reads_its_own_file_of_it_alike(graph: FloatGraph) -> None:
    file = written(graph, "small.onnx")
    weights = write_openvino(file, file.with_suffix(".xml"))
    assert weights.is_file()
    one = inputs(1)[0]
    onnx_file = open_engine(file, engine="openvino").run(one)["logits"]
    own = open_engine(file.with_suffix(".xml")).run(one)["logits"]
    np.testing.assert_array_equal(own, onnx_file)


def test_what_openvino_cannot_compute_is_told_in_words_of_this_verb(tmp_path: Path) -> None:
    shapes = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in "xy"]
    node = helper.make_node("Gate", ["x"], ["y"], name="gates.0/Gate", domain="example")
    graph = helper.make_graph([node], "model", shapes[:1], shapes[1:])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("example", 1)]
    source = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), source)
    with pytest.raises(CheckpointError, match="cannot run an operator") as refused:
        write_openvino(source, tmp_path / "model.xml")
    assert "Gate of the layer gates.0/Gate" in refused.value.met
    # There is no --engine to choose another one by.
    assert "--format" in refused.value.how and "--engine" not in refused.value.how
    assert list(tmp_path.iterdir()) == [source]


def test_each_output_channel_has_its_own_scale(graph: FloatGraph) -> None:
    weights = int8_weights(written(graph, "small.onnx"))
    assert set(weights) == {"encoder", "decoder", "head"}
    # Symmetric: the largest weight of every channel takes the whole of eight bits.
    for values in weights.values():
        largest = np.abs(values.astype(int)).reshape(len(values), -1).max(axis=1)
        assert largest.min() >= 127


def test_layers_can_stay_in_float(graph: FloatGraph) -> None:
    assert set(int8_weights(written(graph, "a.onnx", floats=["head/Conv"]))) == {
        "encoder",
        "decoder",
    }


def test_one_bit_stays_unused_where_sums_could_overflow(graph: FloatGraph) -> None:
    weights = int8_weights(written(graph, "a.onnx", reduce_range=True))
    assert max(np.abs(values.astype(int)).max() for values in weights.values()) <= 64


def test_the_same_calibration_gives_the_same_bytes(graph: FloatGraph) -> None:
    first, second = written(graph, "a.onnx"), written(graph, "b.onnx")
    assert first.read_bytes() == second.read_bytes()


def test_nothing_is_left_beside_the_file(graph: FloatGraph) -> None:
    before = set(graph.file.parent.iterdir())
    file = written(graph, "a.onnx")
    assert set(graph.file.parent.iterdir()) == {*before, file}


def test_a_model_too_large_for_one_file_keeps_tensors_beside_it(tmp_path: Path) -> None:
    layers = [
        ("wide", "Relu", drawn(1, 64, 1, 3, 3)),
        ("deep", "Relu", drawn(2, 64, 64, 3, 3)),
        ("head", "", drawn(3, 1, 64, 1, 1)),
    ]
    source = write_graph(tmp_path / "model.onnx", layers)
    whole, apart = tmp_path / "whole", tmp_path / "apart"
    graphs = []
    for folder, largest in ((whole, 2**31), (apart, 1000)):
        folder.mkdir()
        graphs.append(ready_graph(source, folder, largest_bytes=largest))
    assert not graphs[0].external
    assert graphs[1].external
    files = [written(graph, "small.onnx") for graph in graphs]
    assert (apart / "small.onnx.data").is_file()
    one = inputs(1)[0]
    found = [open_engine(file).run(one)["logits"] for file in files]
    np.testing.assert_array_equal(found[1], found[0])
