"""Time and memory of files: what cannot be measured says why, and ends nothing."""

from __future__ import annotations

from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest
from listening import Listening
from optimised import optimised, write_heart

from medtool.config.optimize_section import OptimizeSection
from medtool.verbs import optimize_measure
from medtool.verbs.optimize_measure import CHECKPOINT, counted, measured

FLOAT = {"model.onnx": {"engine": "onnxruntime"}}
BROKEN = {"broken.onnx": {"engine": "onnxruntime"}}
SETTINGS = OptimizeSection(measure_runs=2, measure_batches=[1, 3])


def test_a_file_that_fails_says_why_and_the_others_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = optimised(write_heart(tmp_path / "heart.safetensors"), tmp_path / "out")
    (tmp_path / "out" / "broken.onnx").write_bytes(b"no model at all")

    def ended(*words: Any, **named: Any) -> Any:
        raise BrokenProcessPool("A process was ended.")

    monkeypatch.setattr(optimize_measure, "peak_of_engine", ended)
    said = Listening()
    found = measured(model, tmp_path / "out", FLOAT | BROKEN, SETTINGS, said)
    rows = {(row["file"], row["batch"]): row for row in found["latency"]}
    assert list(rows) == [
        (name, batch) for name in (CHECKPOINT, "model.onnx", "broken.onnx") for batch in (1, 3)
    ]
    for name in (CHECKPOINT, "model.onnx"):
        assert all(rows[name, batch]["median_ms"] > 0 for batch in (1, 3))
    for batch in (1, 3):
        assert "cannot run this file" in rows["broken.onnx", batch]["why_not"]
        assert "median_ms" not in rows["broken.onnx", batch]
    # PyTorch in a process of its own, which really ran; the other one was ended.
    assert rows[CHECKPOINT, 1]["memory_mb"] > 50
    assert rows["model.onnx", 1]["why_no_memory"] == "A process was ended."
    assert "Not measured: model.onnx, 1 images a call: A process was ended." in "".join(said.lines)


def test_of_a_network_that_was_not_pruned_there_is_no_before(tmp_path: Path) -> None:
    model = optimised(write_heart(tmp_path / "heart.safetensors"), tmp_path / "out")
    found = counted(model, model, tmp_path / "out", Listening())
    assert list(found) == ["counts"]
    # Both ways to count agree.
    narrow = counted(model, optimised(model.path, tmp_path / "two"), tmp_path / "out", Listening())
    counts = [narrow[key]["multiply_adds"] for key in ("counts", "counts_before")]
    assert counts[0] == counts[1] > 0
