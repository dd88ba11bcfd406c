"""What a model costs, counted by hand where it can be."""

from itertools import chain
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from medtool.core.errors import CheckpointError, UsageError
from medtool.core.plan import NetworkPlan
from medtool.core.records import DeploymentSpec
from medtool.nets.classic_unet import classic_plan
from medtool.nets.convolutions import CLASSIC_STYLE
from medtool.nets.unet import build_unet
from medtool.optimize import measure
from medtool.optimize.measure import (
    Latency,
    count_module,
    count_onnx,
    example_inputs,
    fitting_batches,
    reason_of,
    time_calls,
)


def test_times_are_the_median_and_the_quartiles_of_the_calls_after_the_first() -> None:
    # Two calls that are not counted; then calls of 1, 2, 3, 4 and 100 seconds.
    ends = list(chain.from_iterable((0.0, float(s)) for s in (50, 50, 3, 1, 100, 2, 4)))
    calls: list[int] = []
    latency = time_calls(
        lambda: calls.append(0),
        batch=8,
        threads=2,
        runs=5,
        warm_up=2,
        clock=iter(ends).__next__,
    )
    assert len(calls) == 7
    assert (latency.low_s, latency.median_s, latency.high_s) == (2.0, 3.0, 4.0)
    assert latency.per_second == pytest.approx(8 / 3)
    assert latency.as_dict() == {
        "batch": 8,
        "threads": 2,
        "runs": 5,
        "median_ms": 3000.0,
        "quartiles_ms": [2000.0, 4000.0],
        "per_second": 2.667,
    }


def test_calls_that_take_long_are_fewer() -> None:
    """Calls of 10 seconds in 75: one before, and as many as pass that time."""
    calls: list[int] = []
    latency = time_calls(
        lambda: calls.append(0),
        batch=1,
        threads=2,
        runs=50,
        warm_up=5,
        most_s=75.0,
        clock=iter(5.0 * n for n in range(0, 1000, 2)).__next__,
    )
    assert (latency.median_s, latency.runs, len(calls)) == (10.0, 8, 9)


def test_of_calls_that_take_very_long_a_few_are_counted() -> None:
    latency = time_calls(
        lambda: None,
        batch=1,
        threads=2,
        runs=50,
        most_s=1.0,
        clock=iter(100.0 * n for n in range(100)).__next__,
    )
    assert latency.runs == latency.as_dict()["runs"] == 5


def test_volumes_are_not_measured_many_at_a_time() -> None:
    free = {"image": {0: "images"}}
    slices = DeploymentSpec(inputs={"image": (1, 1, 512, 512)}, outputs=(), free_axes=free)
    assert fitting_batches(slices, [1, 8]) == ([1, 8], [])
    volumes = DeploymentSpec(inputs={"image": (1, 4, 128, 128, 128)}, outputs=(), free_axes=free)
    batches, left_out = fitting_batches(volumes, [1, 2, 8])
    # Two are 2 x 128^3 voxels, which is just what is measured.
    assert batches == [1, 2]
    assert left_out == [
        "8 images a call: 16.8 million pixels or voxels, more than the 4.2 million that are "
        "measured at once"
    ]
    # One is measured however large it is.
    large = DeploymentSpec(inputs={"image": (1, 1, 512, 512, 512)}, outputs=(), free_axes=free)
    assert fitting_batches(large, [8])[0] == [1]


@pytest.mark.parametrize(
    ("free_gb", "gb_an_image", "eight"),
    [(36, 2, True), (34, 2, False), (18, 1, True), (17, 1, False), (0, 1, False), (99, 0, False)],
)
def test_as_many_volumes_are_measured_as_memory_has_room_for(
    monkeypatch: pytest.MonkeyPatch, free_gb: int, gb_an_image: int, eight: bool
) -> None:
    """Eight of 128 in cube: 1.75 times what PyTorch takes, in four fifths of what is free."""
    monkeypatch.setattr(measure, "available_memory_bytes", lambda: free_gb * 2**30 or None)
    free = {"image": {0: "images"}}
    volumes = DeploymentSpec(inputs={"image": (1, 1, 128, 128, 128)}, outputs=(), free_axes=free)
    found, left_out = fitting_batches(
        volumes, [1, 2, 8], bytes_an_image=lambda: gb_an_image * 2**30
    )
    assert found == ([1, 2, 8] if eight else [1, 2])
    assert len(left_out) == (0 if eight else 1)


def test_what_an_image_takes_is_asked_only_of_many_large_ones() -> None:
    def never() -> int:
        raise AssertionError("it takes seconds")

    free = {"image": {0: "images"}}
    slices = DeploymentSpec(inputs={"image": (1, 1, 512, 512)}, outputs=(), free_axes=free)
    assert fitting_batches(slices, [1, 8], bytes_an_image=never) == ([1, 8], [])


def test_a_model_that_takes_one_image_is_measured_with_one() -> None:
    spec = DeploymentSpec(inputs={"image": (1, 3, 4, 4)}, outputs=("logits",))
    batches, (why,) = fitting_batches(spec, [1, 8])
    assert batches == [1]
    assert "one at a time" in why


def test_why_something_was_not_measured_is_one_line() -> None:
    assert reason_of(UsageError("What it is.", met="more")) == "What it is."
    assert reason_of(RuntimeError("first\nsecond")) == "first"
    assert reason_of(MemoryError()) == "MemoryError"


def test_example_inputs_are_the_same_in_the_shape_of_the_batch() -> None:
    """What goes with a whole study, as a sum over its slices, stays one."""
    spec = DeploymentSpec(
        inputs={"slices": (1, 3, 4, 4), "before": (1, 2)},
        outputs=("logits",),
        free_axes={"slices": {0: "slices"}},
    )
    inputs = example_inputs(spec, 8)
    assert {name: array.shape for name, array in inputs.items()} == {
        "slices": (8, 3, 4, 4),
        "before": (1, 2),
    }
    assert np.array_equal(inputs["slices"], example_inputs(spec, 8)["slices"])


def test_a_model_of_one_image_cannot_be_timed_with_more() -> None:
    spec = DeploymentSpec(inputs={"image": (1, 3, 4, 4)}, outputs=("logits",))
    assert example_inputs(spec)["image"].shape == (1, 3, 4, 4)
    with pytest.raises(UsageError, match="one image at a time"):
        example_inputs(spec, 2)


def small() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.ConvTranspose2d(4, 3, 2, 2),
        nn.Flatten(),
        nn.Linear(192, 5),
    )


# On images of 4 x 4: 16 places x 4 x 2 x 9; 16 places x 4 x 3 x 4; 192 x 5.
SMALL_MULTIPLY_ADDS = 1152 + 768 + 960
SMALL_PARAMETERS = (72 + 4) + (48 + 3) + (960 + 5)


def test_multiply_adds_of_a_module_are_those_of_its_layers() -> None:
    found = count_module(small(), [torch.zeros(1, 2, 4, 4)])
    assert (found.parameters, found.multiply_adds) == (SMALL_PARAMETERS, SMALL_MULTIPLY_ADDS)
    assert count_module(small(), [torch.zeros(2, 2, 4, 4)]).multiply_adds == 2 * SMALL_MULTIPLY_ADDS


def test_the_fast_way_of_a_u_net_costs_what_the_plain_way_costs() -> None:
    """Without gradients a decoder convolves in two parts: as much work, and all of it counted."""
    network = build_unet(classic_plan(4, 2), 1, 1, style=CLASSIC_STYLE).eval()
    images = torch.zeros(1, 1, 8, 8)
    # 64 places: 1 x 4 + 4 x 4; 16 places: 4 x 8 + 8 x 8; up: 16 places x 8 x 4 x 4;
    # 64 places: 8 x 4 + 4 x 4; all with kernels of 9; the head: 64 x 4.
    wanted = 64 * 9 * (4 + 16) + 16 * 9 * (32 + 64) + 16 * 128 + 64 * 9 * (32 + 16) + 256
    assert count_module(network, [images]).multiply_adds == wanted


def test_lone_volumes_are_counted_in_full() -> None:
    """A U-Net of 4 and 8 maps: oneDNN convolves them, which torch's counter does not know."""
    plan = NetworkPlan(
        kind="plain",
        features=(4, 8),
        kernel_sizes=((3, 3, 3),) * 2,
        strides=((1, 1, 1), (2, 2, 2)),
        encoder_blocks=(2, 2),
        decoder_convolutions=(2,),
    )
    network = build_unet(plan, 1, 1, style=CLASSIC_STYLE).eval()
    # As above with 64 and 8 places, kernels of 27, and 8 values up.
    wanted = 64 * 27 * (4 + 16) + 8 * 27 * (32 + 64) + 8 * 256 + 64 * 27 * (32 + 16) + 256
    assert count_module(network, [torch.zeros(1, 1, 4, 4, 4)]).multiply_adds == wanted


def conv_file(path: Path, *, quantised: bool) -> Path:
    """A convolution and a product of matrices as ONNX, for any number of images."""
    weight = np.ones((4, 2, 3, 3), np.float32)
    matrix = np.ones((64, 5), np.float32)
    nodes, initialisers = [], [numpy_helper.from_array(matrix, "m")]
    if quantised:
        initialisers += [
            numpy_helper.from_array(weight.astype(np.int8), "w8"),
            numpy_helper.from_array(np.full(4, 0.1, np.float32), "scale"),
            numpy_helper.from_array(np.zeros(4, np.int8), "zero"),
        ]
        nodes.append(helper.make_node("DequantizeLinear", ["w8", "scale", "zero"], ["w"], axis=0))
    else:
        initialisers.append(numpy_helper.from_array(weight, "w"))
    nodes += [
        helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1]),
        helper.make_node("Flatten", ["y"], ["f"]),
        helper.make_node("MatMul", ["f", "m"], ["z"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2, 4, 4])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", 5])],
        initialisers,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), str(path))
    return path


@pytest.mark.parametrize("quantised", [False, True])
def test_an_onnx_file_is_counted_alike_in_float_and_in_int8(
    tmp_path: Path, quantised: bool
) -> None:
    file = conv_file(tmp_path / "m.onnx", quantised=quantised)
    found = count_onnx(file, {"x": (8, 2, 4, 4)})
    assert found.parameters == 72 + 320
    assert found.multiply_adds == 8 * (16 * 72 + 64 * 5)


def test_sizes_that_do_not_follow_are_refused(tmp_path: Path) -> None:
    file = conv_file(tmp_path / "m.onnx", quantised=False)
    model = onnx.load(str(file))
    model.graph.node[0].domain = "elsewhere"
    model.opset_import.append(helper.make_opsetid("elsewhere", 1))
    onnx.save(model, str(file))
    with pytest.raises(CheckpointError, match="do not follow"):
        count_onnx(file, {"x": (8, 2, 4, 4)})


def test_a_faster_model_answers_more_in_a_second() -> None:
    assert Latency(8, 1, 50, 0.5, 0.4, 0.6).per_second == 16
