"""ONNX Runtime where a GPU is promised and not there; every engine where a call fails."""

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


@pytest.mark.parametrize(
    ("name", "met"),
    [
        ("onnxruntime", "Got: 3 Expected: 1"),
        ("openvino", "image of the shape [1, 3, 8, 8], not [?,1,8,8]"),
    ],
)
def test_a_call_that_fails_is_a_refusal_and_no_bug(tmp_path: Path, name: str, met: str) -> None:
    """Errors of engines have no kind of their own that anyone could catch, and OpenVINO gave the
    answer to the image before where it should have raised one.
    """
    engine = open_engine(plain_graph(tmp_path / "model.onnx"), engine=name, threads=1)
    engine.run({"image": np.ones((1, 1, 8, 8), np.float32)})
    with pytest.raises(CheckpointError, match=f"'{name}' cannot run this file") as refused:
        engine.run({"image": np.zeros((1, 3, 8, 8), np.float32)})
    assert met in refused.value.met
    assert len(engine.run({"image": np.zeros((2, 1, 8, 8), np.float32)})["logits"]) == 2
