"""Checkpoints with random weights and their optimised folders, made in a second."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from medtool_heart import Heart

from medtool.config import resolve
from medtool.core.checkpoint import RawTensor, read_header, tensor_of, write_checkpoint
from medtool.core.deployed import DOCUMENT_FILE, OPTIMIZE_FILE, write_deployed
from medtool.core.files import file_sha256
from medtool.core.task import Task
from medtool.nets.state import raw_tensor, read_tensors
from medtool.optimize.folder import record_probe, write_exported
from medtool.optimize.openvino_file import write_openvino
from medtool.predict.model import Model, load_model

SMALL_HEART = (
    "data.label_ids={background=[0], heart=[1]}",
    'data.channels=["image"]',
    "data.preparation.size_px=[16, 24]",
    "data.preparation.intensity=8-bit",
    "model.input_channels=1",
    "model.first_features=4",
    "model.levels=3",
)
# Labels and two classes of a volume, planned; the network is left to the test.
CLASSES_IN_VOLUMES = (
    'data.channels=["CT"]',
    "data.label_ids={background=[0], pancreas=[1], lesion=[2]}",
    'data.classes=["cystic", "solid"]',
    'data.preparation.configuration="3d_fullres"',
    "data.preparation.axes_forward=[0, 1, 2]",
    "data.preparation.spacing_mm=[1.0, 1.0, 1.0]",
    'data.preparation.normalisation=["z-score"]',
    "data.preparation.mask_for_normalisation=[false]",
    "model.kind=plain",
)


def learned_somewhat(weights: dict[str, torch.Tensor]) -> None:
    """Give batch norms statistics as if something had been learned."""
    for name, value in weights.items():
        if name.endswith("running_mean"):
            value.normal_(0, 0.2)
        elif name.endswith("running_var"):
            value.uniform_(0.5, 2)


def write_untrained(path: Path, task: Task, *, synthetic: bool = False) -> Path:
    """A checkpoint of ``task`` with random weights."""
    torch.manual_seed(1)
    weights = task.network().state_dict()
    learned_somewhat(weights)
    tensors = [raw_tensor(f"model.{name}", value) for name, value in weights.items()]
    document = {"task": task.name, "preset": task.settings.as_dict(), "synthetic": synthetic}
    write_checkpoint(path, document, tensors)
    return path


def write_heart(path: Path, *settings: str) -> Path:
    """A checkpoint of the task heart with random weights, on slices of 16 x 24 pixels."""
    chosen = resolve(Heart, None, folder=path.parent, assignments=(*SMALL_HEART, *settings))
    return write_untrained(path, Heart(chosen.settings))


def change_weights(checkpoint: Path) -> None:
    """Other weights in ``checkpoint``, of which all else stays: another model, without a probe."""
    document = read_header(checkpoint).document
    tensors = [
        raw_tensor(f"model.{name}", tensor * 1.01 if tensor.is_floating_point() else tensor)
        for name, tensor in read_tensors(checkpoint, "model.")
    ]
    write_checkpoint(checkpoint, document, tensors)


def optimised(checkpoint: Path, folder: Path) -> Model:
    """The model of ``checkpoint``, exported into ``folder``."""
    model = load_model(checkpoint)
    folder.mkdir()
    write_exported(model, folder)
    return model


def with_eight_bits(
    folder: Path,
    engine: str = "onnxruntime",
    *,
    default: str = "model.int8.onnx",
    arithmetic: str = "int8",
) -> Path:
    """A second file, by default the default: the float one by another name, that says it is in
    eight bits, or in ``arithmetic``, and for ``engine``.
    """
    name = "model.int8.onnx"
    shutil.copy(folder / "model.onnx", folder / name)
    document = json.loads((folder / OPTIMIZE_FILE).read_text(encoding="utf-8"))
    entry = document["files"]["model.onnx"] | {"arithmetic": arithmetic, "engine": engine}
    document["files"][name] = entry
    write_deployed(folder, document | {"default": default})
    record_probe(folder, name)
    return folder / name


def made_elsewhere(folder: Path, output: str) -> None:
    """Store another answer, as if the file had been made on a machine that computes so."""
    head = read_header(folder / DOCUMENT_FILE)
    assert output in head.tensors
    tensors = []
    for name in head.tensors:
        tensor = tensor_of(head, name)
        if name == output:
            values = np.frombuffer(tensor.data, np.float32) + np.float32(1)
            tensor = RawTensor(name, tensor.dtype, tensor.shape, values.tobytes())
        tensors.append(tensor)
    write_checkpoint(folder / DOCUMENT_FILE, head.document, tensors)
    write_deployed(folder, json.loads((folder / OPTIMIZE_FILE).read_text(encoding="utf-8")))


def with_openvino_files(folder: Path) -> Path:
    """The eight-bit default of ``with_eight_bits``, and beside it OpenVINO's own of the same: its
    weights lie outside it, in a .bin.
    """
    eight = with_eight_bits(folder)
    own = eight.with_suffix(".xml")
    weights = write_openvino(eight, own)
    document = json.loads((folder / OPTIMIZE_FILE).read_text(encoding="utf-8"))
    document["files"][own.name] = document["files"][eight.name] | {
        "engine": "openvino",
        "sha256": file_sha256(own),
        "external": {weights.name: file_sha256(weights)},
    }
    write_deployed(folder, document)
    record_probe(folder, own.name)
    return own
