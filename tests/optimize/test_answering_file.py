"""Of an optimised model the file that answered, by an engine that keeps its promise here."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import pytest
from listening import Listening
from medtool_heart import Heart
from optimised import made_elsewhere, optimised, with_openvino_files, write_heart

from medtool.core.checkpoint import read_header, tensor_of, write_checkpoint
from medtool.core.deployed import DOCUMENT_FILE, OPTIMIZE_FILE, write_deployed
from medtool.core.errors import (
    CheckpointError,
    ExitStatus,
    MachineError,
    UnknownNameError,
    UsageError,
)
from medtool.core.files import file_sha256
from medtool.predict.engines import Engine, choose
from medtool.predict.model import load_model
from medtool.verbs import infer as infer_module
from medtool.verbs.evaluate_subjects import predictions_subject, with_checkpoint
from medtool.verbs.infer import InferOptions, infer
from medtool.verbs.options import RunOptions

EIGHT, OWN, WEIGHTS = "model.int8.onnx", "model.int8.xml", "model.int8.bin"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, its optimised folder with eight bits for two engines, and a picture."""
    folder = tmp_path_factory.mktemp("answering")
    optimised(write_heart(folder / "heart.safetensors"), folder / "optimised")
    with_openvino_files(folder / "optimised")
    (folder / "images").mkdir()
    image = np.random.default_rng(0).integers(0, 256, (16, 24)).astype(np.uint8)
    assert cv2.imwrite(str(folder / "images" / "p0.png"), image)
    return folder


@pytest.fixture
def folder(place: Path, tmp_path: Path) -> Path:
    """The optimised model, to be changed."""
    return Path(shutil.copytree(place / "optimised", tmp_path / "optimised"))


def asked(place: Path, model: Path, output: Path, device: str = "cpu", **more: Any) -> InferOptions:
    run = RunOptions(device=device, workers=0)
    return InferOptions((place / "images",), model, output, run=run, **more)


def quickest(monkeypatch: pytest.MonkeyPatch, quick: str) -> None:
    def seconds_of(engine: Engine, inputs: Mapping[str, Any]) -> float:
        return 0.003 if engine.name == quick else 0.0085

    monkeypatch.setattr(choose, "seconds_of", seconds_of)


def with_other_weights(folder: Path) -> None:
    """Another model in OpenVINO's files: of the same network, so only its weights differ."""
    file = folder / WEIGHTS
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    document = json.loads((folder / OPTIMIZE_FILE).read_text(encoding="utf-8"))
    document["files"][OWN]["external"] = {WEIGHTS: file_sha256(file)}
    write_deployed(folder, document)


# --- what run.json says ----------------------------------------------------------------------
@pytest.mark.parametrize(
    ("engine", "file"),
    [("", EIGHT), ("onnxruntime", EIGHT), ("openvino", OWN), ("auto", OWN)],
)
def test_run_json_names_the_file_that_answered(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str, file: str
) -> None:
    """It once named the default, with its hash, beside an engine that read another file."""
    quickest(monkeypatch, "openvino")
    heard = Listening()
    infer(asked(place, place / "optimised", tmp_path / "out", engine=engine), heard)
    record = json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8"))
    listed = json.loads((place / "optimised" / OPTIMIZE_FILE).read_text(encoding="utf-8"))["files"]
    assert record["engine"] == ("openvino" if file == OWN else "onnxruntime")
    assert record["checkpoint"]["file"] == file
    assert record["checkpoint"]["sha256"] == listed[file]["sha256"]
    # Weights that lie outside it are part of the model.
    beside = {WEIGHTS: file_sha256(place / "optimised" / WEIGHTS)} if file == OWN else None
    assert record["checkpoint"].get("external") == beside
    named = " ".join(line for line in heard.lines if line.startswith(("Model: ", "Engine: ")))
    assert file in named and (OWN if file == EIGHT else EIGHT) not in named


@pytest.mark.parametrize("engine", ["openvino", "auto"])
def test_a_whole_run_goes_on_with_the_same_file_only(
    place: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    quickest(monkeypatch, "openvino")
    whole = asked(place, folder, tmp_path / "out", engine=engine, resume=True)
    first = infer(whole)
    heard = Listening()
    assert infer(whole, heard).rows == first.rows
    assert "is whole already" in heard.lines[0]
    with_other_weights(folder)
    with pytest.raises(UsageError, match="was another one") as refused:
        infer(whole)
    assert refused.value.met == "answers of another checkpoint"


def test_a_run_that_was_cut_off_goes_on_with_the_same_weights_only(
    place: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = asked(place, folder, tmp_path / "out", engine="openvino")

    def cut_off(*rest: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(infer_module, "_answer_all", cut_off)
        infer(options)
    with_other_weights(folder)
    with pytest.raises(UsageError, match="was another one") as refused:
        infer(asked(place, folder, tmp_path / "out", engine="openvino", resume=True))
    assert refused.value.met == "other checkpoint"


def test_evaluate_knows_the_model_whose_other_file_answered(
    place: Path, folder: Path, tmp_path: Path
) -> None:
    infer(asked(place, folder, tmp_path / "out", engine="openvino"))
    table = tmp_path / "out" / "predictions.csv"
    text = table.read_text(encoding="utf-8")
    # A mask has no probability, which is what is read here.
    table.write_text(text.replace(",ok,", ",refused,"), encoding="utf-8")
    subject = predictions_subject(tmp_path / "out")
    assert with_checkpoint(subject, folder).header is not None
    with pytest.raises(CheckpointError, match="did not make"):
        with_checkpoint(subject, folder / "model.onnx")
    with_other_weights(folder)
    with pytest.raises(CheckpointError) as refused:
        with_checkpoint(subject, folder)
    assert refused.value.met == "predictions of the same file with other weights beside it"


# --- promises --------------------------------------------------------------------------------
def test_auto_leaves_out_an_engine_that_answers_otherwise_here(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fastest was once taken, whatever it said: saturated sums are as fast as sound ones."""
    quickest(monkeypatch, "onnxruntime")
    assert load_model(folder, engine="auto").engine_name == "onnxruntime"
    made_elsewhere(folder, f"probe.{EIGHT}.output.logits")
    model = load_model(folder, engine="auto")
    assert (model.engine_name, model.path.name) == ("openvino", OWN)
    assert f"left out: {EIGHT} by onnxruntime does not give here what it gave" in model.found
    assert "(allowed 1e-02)" in model.found


def test_auto_refuses_as_doctor_does_where_no_engine_keeps_the_promise(
    place: Path, folder: Path, tmp_path: Path, medtool: Callable[..., Any]
) -> None:
    for file in (EIGHT, OWN):
        made_elsewhere(folder, f"probe.{file}.output.logits")
    out = tmp_path / "out"
    told = medtool("infer", place / "images", "-c", folder, "-o", out, "--engine", "auto")
    assert told.status == ExitStatus.MACHINE
    assert told.status == medtool("doctor", "--checkpoint", folder).status
    assert "No engine gives here what this optimised model gave when it was made" in told.err
    for part in (f"{EIGHT} by onnxruntime", f"{OWN} by openvino", "medtool doctor --checkpoint"):
        assert part in told.err
    assert not out.exists()


def test_a_default_that_answers_otherwise_here_is_warned_of(
    place: Path, folder: Path, tmp_path: Path
) -> None:
    heard = Listening()
    infer(asked(place, folder, tmp_path / "a"), heard)
    assert not any("Do not trust" in line for line in heard.lines)
    made_elsewhere(folder, f"probe.{EIGHT}.output.logits")
    heard = Listening()
    assert infer(asked(place, folder, tmp_path / "b"), heard).ok == 1
    (warned,) = (line for line in heard.lines if "Do not trust these answers" in line)
    assert warned.startswith(f"{EIGHT} by onnxruntime does not give here what it gave")
    assert f"medtool doctor --checkpoint {folder}" in warned


@pytest.mark.parametrize("lost", ["probe.input.", ".output.", "probe."])
def test_a_model_without_a_probe_answers_and_says_so(
    place: Path, folder: Path, tmp_path: Path, lost: str
) -> None:
    head = read_header(folder / DOCUMENT_FILE)
    kept = [tensor_of(head, name) for name in head.tensors if lost not in name]
    write_checkpoint(folder / DOCUMENT_FILE, head.document, kept)
    write_deployed(folder, json.loads((folder / OPTIMIZE_FILE).read_text(encoding="utf-8")))
    heard = Listening()
    assert infer(asked(place, folder, tmp_path / "out"), heard).ok == 1
    assert any("is not known: This optimised model holds no probe." in one for one in heard.lines)


# --- devices ---------------------------------------------------------------------------------
@pytest.mark.parametrize("engine", ["", "auto", "onnxruntime", "openvino"])
def test_a_device_is_refused_by_the_engine_and_before_studies_are_looked_for(
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    medtool: Callable[..., Any],
    engine: str,
) -> None:
    """PyTorch, which does not answer here, once refused for ONNX Runtime."""
    monkeypatch.setattr(infer_module, "_find", None)
    words = ("infer", place / "images", "-c", place / "optimised", "-o", tmp_path / "out")
    told = medtool(*words, "--device", "cuda", *(("--engine", engine) if engine else ()))
    assert told.status == ExitStatus.MACHINE
    by = (
        "The engine 'openvino' computes on the processor"
        if engine == "openvino"
        else ("This ONNX Runtime was not built for this device.")
    )
    assert by in told.err and "PyTorch" not in told.err
    for part in ("where: ", "met: --device cuda", "wanted: ", "how to go on: ", "--device cpu"):
        assert part in told.err
    assert not (tmp_path / "out").exists()


def test_evaluate_lets_the_engine_refuse_too(place: Path, medtool: Callable[..., Any]) -> None:
    words = ("evaluate", "-c", place / "optimised", "--data", place, "--seen", "report")
    told = medtool(*words, "--device", "cuda")
    assert told.status == ExitStatus.MACHINE
    assert "This ONNX Runtime was not built for this device." in told.err


def test_an_engine_that_has_the_device_answers_where_pytorch_has_none(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices = []
    whole = choose.open_engine

    def opened(file: Path, **named: Any) -> Engine:
        devices.append(named["device"])
        return whole(file, **named | {"device": "cpu"})

    there = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: there)
    monkeypatch.setattr(choose, "open_engine", opened)
    options = asked(place, place / "optimised", tmp_path / "out", device="cuda")
    assert infer(options).ok == 1
    assert devices == ["cuda"]


def test_a_checkpoint_that_an_optimised_model_asks_is_pytorchs(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: there)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    others = {"coarse": place / "heart.safetensors"}
    monkeypatch.setattr(Heart, "companions", lambda self: others)
    options = asked(place, place / "optimised", tmp_path / "out", device="cuda")
    with pytest.raises(MachineError, match="that PyTorch can use"):
        infer(options)
    # One that is optimised has an engine.
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: there[1:])
    others["coarse"] = place / "optimised"
    with pytest.raises(MachineError, match="not built for this device"):
        infer(options)


def test_what_no_machine_has_is_still_refused_by_name(place: Path, tmp_path: Path) -> None:
    model = place / "optimised"
    with pytest.raises(UsageError, match="no device named") as refused:
        infer(asked(place, model, tmp_path / "out", device="gpu"))
    assert refused.value.nearest == "cuda"
    with pytest.raises(UnknownNameError):
        infer(asked(place, model, tmp_path / "out", engine="ort"))
    with pytest.raises(MachineError) as apple:
        infer(asked(place, model, tmp_path / "out", device="mps"))
    assert apple.value.where == str(model / EIGHT)
    assert "onnxruntime-gpu" not in apple.value.how
