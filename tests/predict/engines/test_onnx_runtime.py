"""ONNX Runtime where a GPU is promised and not there, and where a call fails."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from small_graphs import plain_graph

from medtool.core.errors import CheckpointError, MachineError
from medtool.predict.engines import open_engine

CPU, GPU = "CPUExecutionProvider", "CUDAExecutionProvider"


def test_what_computed_is_recorded_and_not_what_was_hoped_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A build for GPUs whose libraries do not load goes on by the processor."""
    file = plain_graph(tmp_path / "model.onnx")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [GPU, CPU])
    with pytest.warns(UserWarning, match="not in available provider names"):
        engine = open_engine(file, device="auto", threads=1)
    assert getattr(engine, "device", "") == "cpu"
    with (
        pytest.warns(UserWarning, match="not in available provider names"),
        pytest.raises(MachineError, match="cannot compute on this device") as refused,
    ):
        open_engine(file, device="cuda", threads=1)
    assert refused.value.met == f"--device cuda; it took {CPU}"


def test_a_call_that_fails_is_a_refusal_and_no_bug(tmp_path: Path) -> None:
    """Errors of ONNX Runtime have no kind of their own that anyone could catch."""
    engine = open_engine(plain_graph(tmp_path / "model.onnx"), threads=1)
    with pytest.raises(CheckpointError, match="'onnxruntime' cannot run this file") as refused:
        engine.run({"image": np.zeros((1, 3, 8, 8), np.float32)})
    assert "Got: 3 Expected: 1" in refused.value.met
