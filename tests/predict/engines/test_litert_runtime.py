"""The engine of .tflite files: names, values, several images, refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from litert_files import write_sum_and_sigmoid

from medtool.core.errors import CheckpointError, MachineError
from medtool.predict.engines import open_engine, presence

OFFSETS = np.arange(6, dtype=np.float32).reshape(1, 1, 2, 3)


def test_names_values_and_threads_are_those_of_the_file(tmp_path):
    engine = open_engine(write_sum_and_sigmoid(tmp_path / "model.tflite"), threads=1)
    image = np.full((1, 1, 2, 3), -2.0, np.float32)
    found = engine.run({"image": image})
    assert (engine.name, engine.arithmetic, engine.threads) == ("litert", "float32", 1)
    assert engine.input_names == ("image",)
    assert engine.output_names == ("logits", "probabilities")
    assert np.array_equal(found["logits"], OFFSETS - 2)
    # By hand: the third value is -2 + 2.
    assert found["probabilities"][0, 0, 0, 2] == pytest.approx(0.5)
    assert found["probabilities"][0, 0, 0, 0] == pytest.approx(1 / (1 + np.exp(2)), abs=1e-6)


def test_several_images_are_answered_one_by_one_and_only_what_is_asked_comes(tmp_path):
    engine = open_engine(write_sum_and_sigmoid(tmp_path / "model.tflite"), threads=1)
    images = np.arange(18, dtype=np.float64).reshape(3, 1, 2, 3)
    found = engine.run({"image": images}, ["logits"])
    assert list(found) == ["logits"]
    assert np.array_equal(found["logits"], images + OFFSETS)
    # What was answered stays when the next call comes.
    engine.run({"image": images * 0})
    assert np.array_equal(found["logits"], images + OFFSETS)


def test_an_operator_that_nobody_has_is_named_with_its_layer(tmp_path):
    file = write_sum_and_sigmoid(tmp_path / "model.tflite", custom="MadeUp")
    with pytest.raises(CheckpointError) as refused:
        open_engine(file, threads=1)
    assert refused.value.met == "operator MadeUp of the layer chances"
    assert "litert" in str(refused.value)


@pytest.mark.parametrize("damage", ["empty", "text", "half"])
def test_a_damaged_file_is_refused(tmp_path, damage):
    file = write_sum_and_sigmoid(tmp_path / "model.tflite")
    whole = file.read_bytes()
    file.write_bytes(
        {"empty": b"", "text": b"no model" * 40, "half": whole[: len(whole) // 2]}[damage]
    )
    with pytest.raises(CheckpointError, match="cannot run this file"):
        open_engine(file, threads=1)


def test_a_call_that_fails_is_a_refusal_and_no_bug(tmp_path):
    engine = open_engine(write_sum_and_sigmoid(tmp_path / "model.tflite"), threads=1)
    with pytest.raises(CheckpointError, match="'litert' cannot run this file"):
        engine.run({"image": np.zeros((1, 1, 5, 3), np.float32)})


def test_nothing_is_written_to_the_terminal(tmp_path, capfd):
    open_engine(write_sum_and_sigmoid(tmp_path / "model.tflite"), threads=1)
    assert capfd.readouterr() == ("", "")


def test_without_the_runtime_the_line_that_installs_it_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(presence, "find_spec", lambda name: None)
    with pytest.raises(MachineError) as refused:
        open_engine(Path(tmp_path / "model.tflite"))
    assert 'pip install "medtool[tflite]"' in refused.value.how
