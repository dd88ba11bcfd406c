"""``optimize`` with files for LiteRT: converted, judged as every other file, answering in infer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from documented import ROOT, commands_in_text
from optimised import write_heart
from trained_heart import train_heart

from medtool.data.predictions import read_predictions

FILES = ("small/model.onnx", "small/model.tflite", "small/model.int8.tflite")


def masks_of(folder: Path) -> dict[str, np.ndarray]:
    """The mask of each case that was answered."""
    rows = [row for row in read_predictions(folder) if row["status"] == "ok"]
    return {
        row["case"]: np.asarray(nibabel.load(folder / row["mask"]).dataobj) > 0  # type: ignore[attr-defined]
        for row in rows
    }


def dice(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> float:
    """Of the pixels of all cases together."""
    both = sum((first[case] & second[case]).sum() for case in first)
    return float(2 * both / sum(first[case].sum() + second[case].sum() for case in first))


@pytest.mark.slow
def test_files_pass_the_gate_and_answer(
    tmp_path: Path, litert_python: Path, medtool: Callable[..., Any]
) -> None:
    train_heart(tmp_path)
    words = ("--workers", "0", "--device", "cpu", "--cache", "cache")
    (shown,) = commands_in_text(ROOT / "docs" / "optimisation.md")
    here = {"runs/heart/first": "runs/heart/a", "litert-env/bin/python": litert_python}
    made = medtool(
        *(here.get(word, word) for word in shown),
        *("--set", "optimize.calibration_inputs=8"),
        *("--set", "optimize.measure_runs=2", "--set", "optimize.measure_batches=[1, 2]", *words),
        folder=tmp_path,
    )
    assert made.status == 0, made.err
    document = json.loads((tmp_path / "small" / "optimize.json").read_text())
    assert list(document["files"]) == [
        *("model.onnx", "model.int8.onnx", "model.tflite", "model.int8.tflite")
    ]
    assert "decoder.seg_layers.1" in document["files"]["model.int8.tflite"]["float_layers"]
    judged = document["accuracy"]["files"]["model.int8.tflite"]
    assert judged["metrics"]
    assert not judged["without_answer"]
    rows = [row for row in document["latency"] if row["file"] == "model.int8.tflite"]
    assert [row["batch"] for row in rows] == [1, 2]
    answers: list[dict[str, np.ndarray]] = []
    for number, name in enumerate(FILES):
        told = medtool(
            *("infer", "data", "--checkpoint", name, "-o", f"out{number}", "--json", *words),
            *("--allow-demo",),
            folder=tmp_path,
        )
        assert told.status == 0, told.err
        answers.append(masks_of(tmp_path / f"out{number}"))
    # The float file says what ONNX Runtime says; eight bits say nearly the same.
    by_onnx, by_float, by_int8 = answers
    assert by_onnx.keys() == by_float.keys() == by_int8.keys()
    assert sum(mask.sum() for mask in by_onnx.values()) > 1000
    assert dice(by_onnx, by_float) > 0.999
    assert dice(by_onnx, by_int8) > 0.95
    assert any((by_onnx[case] != by_int8[case]).any() for case in by_onnx)
    assert "litert" in str(json.loads((tmp_path / "out2" / "run.json").read_text())["engine"])


def test_the_converter_is_asked_for_before_anything_is_done(
    tmp_path: Path, medtool: Callable[..., Any]
) -> None:
    write_heart(tmp_path / "heart.safetensors")
    told = medtool(
        *("optimize", "heart.safetensors", "-o", "out", "--format", "litert"),
        *("--litert-python", "nowhere/python"),
        folder=tmp_path,
    )
    assert told.status == 5
    assert "There is no such Python." in told.err
    assert not (tmp_path / "out").exists()
