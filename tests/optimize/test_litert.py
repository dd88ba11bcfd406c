"""Networks as .tflite files: what can be one, the converter found, and files that say the same.

Files are converted where MEDTOOL_TEST_LITERT names the Python of an environment with litert-torch.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from litert_files import TinyGraph, write_sum_and_sigmoid
from optimised import optimised, write_heart
from torch import nn

from medtool.core.deployed import write_deployed
from medtool.core.errors import CheckpointError, MachineError, UsageError
from medtool.optimize.litert import (
    LITERT_FILE,
    LITERT_INT8_FILE,
    find_converter,
    require_single,
    write_litert,
)
from medtool.optimize.litert_child import Graph, fingerprint
from medtool.predict.engines import open_engine
from medtool.predict.model import load_model


class Each(nn.Module):
    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (images * 2,)


class Together(nn.Module):
    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return images * 2, images.mean(0, keepdim=True)


class Mixed(nn.Module):
    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (images - images.mean(),)


def test_networks_that_see_images_of_a_patient_together_are_refused() -> None:
    image = (torch.arange(12.0).reshape(1, 1, 3, 4),)
    require_single("each", Each(), image)
    for network in (Together(), Mixed()):
        with pytest.raises(UsageError, match="cannot be LiteRT's files"):
            require_single("together", network, image)


def test_a_python_without_the_converter_is_told_how_to_get_it() -> None:
    with pytest.raises(MachineError) as refused:
        find_converter(Path(sys.executable))
    assert "litert-torch" in (refused.value.met or "")
    assert "--litert-python" in (refused.value.how or "")


def test_a_python_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(MachineError) as refused:
        find_converter(tmp_path / "python")
    assert "no such Python" in str(refused.value)


def test_a_layer_is_known_again_in_another_layout_and_with_a_norm_inside() -> None:
    weights = np.random.default_rng(0).normal(size=(4, 3, 3, 3))
    turned = np.transpose(weights, (0, 2, 3, 1)) * np.array([-3.0, 1, 2, 5])[:, None, None, None]
    assert np.abs(fingerprint(weights[0]) - fingerprint(turned[0])).max() < 1e-6
    assert np.abs(fingerprint(weights[0]) - fingerprint(weights[1])).max() > 1e-2


def test_ends_of_a_graph_stay_in_float(tmp_path: Path) -> None:
    # image -> + -> convolution -> logistic -> convolution -> logistic
    file = write_sum_and_sigmoid(tmp_path / "ends.tflite")
    assert Graph(file).ends() == {0, 1}
    graph, names = TinyGraph(), ("image", "scaled", "first", "between", "logits", "chances")
    tensors = [graph.tensor(name, (1, 2, 3, 4)) for name in names]
    weights = graph.tensor("weights", (4, 1, 1, 4), np.arange(16))
    for number, code in enumerate((0, 3, 14, 3, 14)):
        inputs = [tensors[number], weights] if code == 3 else [tensors[number]]
        graph.operator(code, inputs, tensors[number + 1])
    graph.write(tmp_path / "ends.tflite", {"image": tensors[0]}, {"chances": tensors[-1]})
    # Both convolutions are layers; the first is in eight bits, the head is not.
    read = Graph(tmp_path / "ends.tflite")
    assert read.kinds == ["ADD", "CONV_2D", "LOGISTIC", "CONV_2D", "LOGISTIC"]
    assert read.ends() == {0, 3, 4}
    assert read.weights(1).shape == (4, 1, 1, 4)


def heart_inputs(count: int) -> list[dict[str, np.ndarray]]:
    drawn = np.random.default_rng(5)
    return [
        {"image": drawn.uniform(0, 255, (1, 1, 16, 24)).astype(np.float32)} for _ in range(count)
    ]


@pytest.mark.slow
def test_files_say_what_pytorch_says(tmp_path: Path, litert_python: Path) -> None:
    source = write_heart(tmp_path / "heart.safetensors")
    model = optimised(source, tmp_path / "out")
    inputs = heart_inputs(6)
    files = write_litert(
        model.task,
        model.network,
        tmp_path / "out",
        inputs,
        python=litert_python,
        float_layers=["decoder.stages.1.convs.0.conv"],
        largest_bytes=4700,
    )
    assert list(files) == [LITERT_FILE, LITERT_INT8_FILE]
    assert files[LITERT_INT8_FILE]["float_layers"] == [
        "decoder.stages.1.convs.0.conv",
        "decoder.seg_layers.1",
    ]
    assert files[LITERT_FILE]["split_layers"] == {"encoder.stages.2.0.convs.1.conv": 2}
    with torch.no_grad():
        module = model.task.exported(model.network).eval()
        images = np.concatenate([one["image"] for one in inputs[:3]])
        wanted = module(torch.from_numpy(images))[0].numpy()
    reach = np.ptp(wanted)
    for name, most in ((LITERT_FILE, 1e-4), (LITERT_INT8_FILE, 0.1)):
        found = open_engine(tmp_path / "out" / name, threads=1).run({"image": images})["logits"]
        assert found.shape == wanted.shape
        assert np.abs(found - wanted).max() < most * reach
    # It answers in the place of the network, through the same steps as its checkpoint.
    document = load_model(tmp_path / "out").engine and _added(tmp_path / "out", files)
    assert document["files"][LITERT_INT8_FILE]["engine"] == "litert"
    answering = load_model(tmp_path / "out" / LITERT_INT8_FILE)
    assert answering.engine is not None
    assert answering.engine.name == "litert"
    # Paths of this machine are nobody's business.
    for name in files:
        assert str(tmp_path).encode() not in (tmp_path / "out" / name).read_bytes()


def _added(folder: Path, files: dict[str, dict[str, object]]) -> dict[str, object]:
    import json

    document = json.loads((folder / "optimize.json").read_text())
    document["files"] |= files
    return write_deployed(folder, document)


@pytest.mark.slow
def test_the_same_network_gives_the_same_bytes(tmp_path: Path, litert_python: Path) -> None:
    model = load_model(write_heart(tmp_path / "heart.safetensors"))
    made = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        made.append(
            write_litert(
                model.task, model.network, tmp_path / name, heart_inputs(2), python=litert_python
            )
        )
    for file in (LITERT_FILE, LITERT_INT8_FILE):
        assert made[0][file]["sha256"] == made[1][file]["sha256"]


@pytest.mark.slow
def test_a_network_that_cannot_be_converted_is_refused(tmp_path: Path, litert_python: Path) -> None:
    class Odd(nn.Module):
        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
            values = torch.linalg.svdvals(images)
            return values, values

    model = load_model(write_heart(tmp_path / "heart.safetensors"))
    task = model.task

    class OddTask(type(task)):  # type: ignore[misc]
        def exported(self, network: nn.Module) -> nn.Module:
            return Odd()

    odd = OddTask(task.settings)
    with pytest.raises(CheckpointError, match="converter cannot take this network") as refused:
        write_litert(odd, model.network, tmp_path, python=litert_python)
    assert "svd" in (refused.value.met or "").lower()
