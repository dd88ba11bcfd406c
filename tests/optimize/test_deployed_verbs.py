"""Optimised models through the verbs: the answers, files and records of their checkpoint."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import pytest
from optimised import made_elsewhere, optimised, with_eight_bits, write_heart

from medtool.core.deployed import (
    DOCUMENT_FILE,
    MODEL_CARD,
    OPTIMIZE_FILE,
    find_deployed,
)
from medtool.core.errors import (
    CheckpointError,
    ExitStatus,
    MachineError,
    UnknownNameError,
    UsageError,
)
from medtool.data.predictions import read_predictions
from medtool.predict import engines
from medtool.predict.engines import Engine, choose, presence
from medtool.predict.engines.openvino_import import openvino
from medtool.predict.model import load_model
from medtool.verbs.doctor import doctor
from medtool.verbs.evaluate import EvaluateOptions, evaluate
from medtool.verbs.infer import InferOptions, infer
from medtool.verbs.inspect_checkpoint import inspect_checkpoint, write_slim
from medtool.verbs.options import RunOptions


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, its optimised folder, and three pictures with masks."""
    folder = tmp_path_factory.mktemp("deployed")
    checkpoint = write_heart(folder / "heart.safetensors", "infer.batch_slices=2")
    optimised(checkpoint, folder / "optimised")
    rng = np.random.default_rng(0)
    for part in ("images", "masks"):
        (folder / "data" / part).mkdir(parents=True)
    for number in range(3):
        image = cv2.GaussianBlur(rng.integers(0, 256, (40, 52)).astype(np.uint8), (9, 9), 3)
        name = f"p{number}.png"
        assert cv2.imwrite(str(folder / "data" / "images" / name), image)
        mask = np.where(image > 128, 255, 0).astype(np.uint8)
        assert cv2.imwrite(str(folder / "data" / "masks" / name), mask)
    return folder


def answers(place: Path, checkpoint: Path, output: Path, **options: Any) -> dict[str, Any]:
    """Rows, masks and the record of an inference."""
    infer(
        InferOptions(
            sources=(place / "data" / "images",),
            checkpoint=checkpoint,
            output=output,
            run=RunOptions(device="cpu", workers=0),
            **options,
        )
    )
    masks = {p.name: cv2.imread(str(p), cv2.IMREAD_UNCHANGED) for p in output.rglob("*.png")}
    record = json.loads((output / "run.json").read_text(encoding="utf-8"))
    return {"rows": read_predictions(output / "predictions.csv"), "masks": masks, "run": record}


@pytest.mark.parametrize("engine", ["", "onnxruntime", "openvino", "auto"])
def test_infer_writes_what_the_checkpoint_writes(place: Path, tmp_path: Path, engine: str) -> None:
    wanted = answers(place, place / "heart.safetensors", tmp_path / "a")
    found = answers(place, place / "optimised", tmp_path / "b", engine=engine)
    assert found["rows"] == wanted["rows"]
    assert len(wanted["masks"]) == 3
    shares = [mask.mean() / 255 for mask in wanted["masks"].values()]
    assert 0.02 < np.mean(shares) < 0.98
    for name, mask in wanted["masks"].items():
        assert (found["masks"][name] == mask).mean() > 0.999
    assert wanted["run"]["engine"] == "pytorch"
    assert found["run"]["engine"] in ({engine} if engine in presence.KNOWN else presence.KNOWN)
    assert found["run"]["precision"] == "float32"
    assert found["run"]["checkpoint"]["file"] == "model.onnx"
    if not engine:
        assert found["run"]["engine"] == "onnxruntime"


@pytest.mark.parametrize("quick", ["onnxruntime", "openvino"])
def test_auto_takes_the_fastest(place: Path, monkeypatch: pytest.MonkeyPatch, quick: str) -> None:
    def seconds_of(engine: Engine, inputs: Mapping[str, Any]) -> float:
        assert inputs["image"].shape == (1, 1, 16, 24)
        return 0.003 if engine.name == quick else 0.0085

    monkeypatch.setattr(choose, "seconds_of", seconds_of)
    model = load_model(place / "optimised", engine="auto")
    assert model.engine_name == quick
    assert f"(float32, by {quick}), the fastest here: " in model.found
    assert f"{quick} 3.0 ms" in model.found and " 8.5 ms" in model.found


def test_a_file_in_the_folder_answers_as_the_folder(place: Path, tmp_path: Path) -> None:
    whole = answers(place, place / "optimised", tmp_path / "a")
    single = answers(place, place / "optimised" / "model.onnx", tmp_path / "b")
    assert single["rows"] == whole["rows"]


def test_evaluate_takes_an_optimised_model(place: Path) -> None:
    scores = [
        evaluate(
            EvaluateOptions(
                subjects=(),
                checkpoints=(model,),
                data=place / "data",
                run=RunOptions(device="cpu", workers=0),
                seen="report",
            )
        )
        for model in (place / "heart.safetensors", place / "optimised")
    ]
    first, second = (one.evaluated[0].scores.metrics["dice"].value for one in scores)
    assert second == pytest.approx(first, abs=1e-3)


def test_inspection_names_files_and_origin(place: Path, medtool: Callable[..., Any]) -> None:
    told = medtool("inspect-checkpoint", place / "optimised").out
    assert "made of   heart.safetensors" in told
    assert "model.onnx: float32, for onnxruntime" in told
    found = json.loads(medtool("inspect-checkpoint", place / "optimised", "--json").out)
    assert found["task"] == "heart"
    assert found["optimised"]["files"]["model.onnx"]["opset"] == 18
    assert inspect_checkpoint(place / "optimised", verify=True).damaged == ()
    with pytest.raises(UsageError, match="nothing that only training needs"):
        write_slim(inspect_checkpoint(place / "optimised"), place / "slim.safetensors")


def test_doctor_proves_every_engine(place: Path, medtool: Callable[..., Any]) -> None:
    diagnosis = doctor(place / "optimised")
    assert {proof.device for proof in diagnosis.proofs} == {"onnxruntime", "openvino"}
    for proof in diagnosis.proofs:
        assert proof.passed and 0 < proof.share < 1e-4 and proof.milliseconds > 0
    told = medtool("doctor", "--checkpoint", place / "optimised").out
    assert "reproduced on openvino in float32" in told
    assert "Engines for optimised models" in told
    assert "the default; built for processors\n" in told


def test_doctor_proves_the_device_that_infer_would_take(
    place: Path, monkeypatch: pytest.MonkeyPatch, medtool: Callable[..., Any]
) -> None:
    """It once proved the processor, whatever device was asked for."""
    asked = []
    whole = engines.open_engine

    def opened(file: Path, **named: Any) -> Engine:
        asked.append((named["engine"], named["device"]))
        return whole(file, **named | {"device": "cpu"})

    with monkeypatch.context() as patch:
        patch.setattr(engines, "open_engine", opened)
        assert doctor(place / "optimised").healthy
        assert doctor(place / "optimised", device="cuda:1").healthy
    assert asked == [("onnxruntime", "auto"), ("openvino", "auto"), ("onnxruntime", "cuda:1")]
    told = medtool("doctor", "--checkpoint", place / "optimised", "--device", "cuda")
    assert told.status == ExitStatus.MACHINE
    assert "This ONNX Runtime was not built for this device." in told.err


def test_doctor_says_for_what_onnx_runtime_was_built(
    medtool: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{name}ExecutionProvider" for name in ("Tensorrt", "CUDA", "Azure", "CPU")]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)
    assert "the default; built for TensorRT, CUDA, processors\n" in medtool("doctor").out

    def broken() -> None:
        raise ImportError("libcudart.so.12: cannot open shared object file")

    monkeypatch.setattr(onnxruntime, "get_available_providers", broken)
    assert "cannot be loaded: libcudart.so.12" in medtool("doctor").out


@pytest.mark.parametrize(
    ("processor", "hidden", "wanted"),
    [
        ("x86_64", "", "openvino; "),
        ("AMD64", "openvino", 'openvino (not installed: pip install "medtool[openvino]"); '),
        ("arm64", "", "onnxruntime; "),
        (
            "aarch64",
            "onnxruntime",
            'onnxruntime (not installed: pip install "medtool[onnxruntime]"); ',
        ),
    ],
)
def test_doctor_says_what_would_be_fastest_here(
    medtool: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    processor: str,
    hidden: str,
    wanted: str,
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: processor)
    if hidden:
        known = replace(presence.KNOWN[hidden], module="no_such_module")
        monkeypatch.setitem(presence.KNOWN, hidden, known)  # type: ignore[arg-type]
    told = medtool("doctor").out
    assert f"fastest here, usually: {wanted}'medtool infer --engine auto' measures" in told


def copied(place: Path, folder: Path) -> Path:
    return Path(shutil.copytree(place / "optimised", folder / "copy"))


def test_doctor_says_when_no_engine_keeps_the_promise(place: Path, tmp_path: Path) -> None:
    folder = copied(place, tmp_path)
    made_elsewhere(folder, "probe.output.logits")
    diagnosis = doctor(folder)
    assert not any(proof.passed for proof in diagnosis.proofs)
    assert not diagnosis.healthy
    assert "answer with the checkpoint that it was made of" in diagnosis.advice


def test_doctor_fails_where_the_default_file_does_and_names_what_does_not(
    place: Path, tmp_path: Path, medtool: Callable[..., Any]
) -> None:
    """A float file that is sound does not hide a default in eight bits that saturates here."""
    folder = copied(place, tmp_path)
    eight = with_eight_bits(folder)
    assert doctor(folder).healthy
    assert medtool("doctor", "--checkpoint", folder).status == ExitStatus.DONE
    made_elsewhere(folder, "probe.model.int8.onnx.output.logits")
    told = medtool("doctor", "--checkpoint", folder)
    assert told.status == ExitStatus.MACHINE
    assert "NOT REPRODUCED on onnxruntime in int8 (model.int8.onnx, which answers)" in told.out
    assert "model.int8.onnx by onnxruntime does not give here what it gave" in told.out
    words = f"--checkpoint {folder / 'model.onnx'}"
    assert f"This does: model.onnx by onnxruntime: medtool infer SCANS {words}" in told.out
    assert f"model.onnx by openvino: medtool infer SCANS {words} --engine openvino" in told.out
    read = json.loads(medtool("doctor", "--checkpoint", folder, "--json").out)
    assert read["advice"] in told.out and read["advice"]
    # The file that is named decides, not the default.
    assert doctor(folder / "model.onnx").healthy
    assert not doctor(eight).healthy
    answering = load_model(folder / "model.onnx", engine="openvino")
    assert (answering.engine_name, answering.precision) == ("openvino", "float32")


def test_doctor_fails_where_the_engine_of_the_default_is_not_installed(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copied(place, tmp_path)
    eight = with_eight_bits(folder, "openvino")
    assert doctor(folder).healthy
    known = replace(presence.KNOWN["openvino"], module="no_such_module")
    monkeypatch.setitem(presence.KNOWN, "openvino", known)  # type: ignore[arg-type]
    diagnosis = doctor(folder)
    assert not diagnosis.healthy
    assert "cannot run its file here. This does: model.onnx by onnxruntime" in diagnosis.advice
    # The same file by another engine is named as 'infer' takes it.
    assert f"--checkpoint {eight} --engine onnxruntime" in diagnosis.advice
    assert load_model(eight, engine="onnxruntime").precision == "int8"
    with pytest.raises(MachineError):
        load_model(folder)


@pytest.mark.parametrize("name", ["model.onnx", DOCUMENT_FILE])
def test_a_tampered_file_is_refused(
    place: Path, tmp_path: Path, name: str, medtool: Callable[..., Any]
) -> None:
    folder = copied(place, tmp_path)
    content = bytearray((folder / name).read_bytes())
    content[-9] ^= 1
    (folder / name).write_bytes(content)
    images, output = place / "data" / "images", tmp_path / "out"
    outcome = medtool("infer", images, "--checkpoint", folder, "-o", output)
    assert outcome.status == ExitStatus.USAGE
    assert "is not the one that was made" in outcome.err and name in outcome.err
    assert not output.exists()
    assert inspect_checkpoint(folder, verify=True).damaged == (name,)
    with pytest.raises(CheckpointError):
        doctor(folder)


@pytest.mark.parametrize("engine", ["openvino", "auto"])
def test_a_tampered_file_that_is_not_the_default_is_not_even_read(
    place: Path, tmp_path: Path, engine: str
) -> None:
    """A file for another engine, cut off: what an engine says of it would hide the reason."""
    folder = copied(place, tmp_path)
    with_eight_bits(folder, "openvino", default="model.onnx", arithmetic="float32")
    assert load_model(folder, engine="openvino").engine_name == "openvino"
    file = folder / "model.int8.onnx"
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(CheckpointError, match="is not the one that was made") as refused:
        load_model(folder, engine=engine)
    assert refused.value.where == str(file)
    assert load_model(folder).engine_name == "onnxruntime"


def test_an_engine_that_fails_at_the_probe_is_no_candidate(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It opens the file and cannot answer: neither a bug of doctor nor one of auto."""

    def broken(self: object, inputs: object) -> None:
        raise RuntimeError("Exception from src/inference: no primitive")

    monkeypatch.setattr(openvino().InferRequest, "infer", broken)
    assert {proof.device for proof in doctor(place / "optimised").proofs} == {"onnxruntime"}
    assert load_model(place / "optimised", engine="auto").engine_name == "onnxruntime"


def test_a_missing_or_foreign_file_is_refused(place: Path, tmp_path: Path) -> None:
    folder = copied(place, tmp_path)
    (folder / "model.onnx").unlink()
    with pytest.raises(CheckpointError, match="no such checkpoint") as refused:
        load_model(folder)
    assert refused.value.where.endswith("model.onnx")
    stranger = tmp_path / "stranger.onnx"
    stranger.write_bytes(b"\x08\x07" * 50)
    with pytest.raises(CheckpointError, match="no checkpoint"):
        load_model(stranger)


@pytest.mark.parametrize(
    ("changes", "met"),
    [
        ({"format": 99}, "newer medtool"),
        ({"default": "other.onnx"}, "damaged"),
        (
            {"files": {"../model.onnx": {"engine": "onnxruntime"}}, "default": "../model.onnx"},
            "damaged",
        ),
        ({"format": None}, "damaged"),
    ],
)
def test_a_document_that_cannot_be_believed_is_refused(
    place: Path, tmp_path: Path, changes: dict[str, Any], met: str
) -> None:
    folder = copied(place, tmp_path)
    document = json.loads((folder / OPTIMIZE_FILE).read_text(encoding="utf-8"))
    (folder / OPTIMIZE_FILE).write_text(json.dumps(document | changes), encoding="utf-8")
    with pytest.raises(CheckpointError, match=met):
        find_deployed(folder)


def test_engines_that_are_not_there_are_refused_with_a_way_to_get_them(
    place: Path, monkeypatch: pytest.MonkeyPatch, medtool: Callable[..., Any]
) -> None:
    known = replace(presence.KNOWN["openvino"], module="no_such_module")
    with monkeypatch.context() as patch:
        patch.setitem(presence.KNOWN, "openvino", known)  # type: ignore[arg-type]
        with pytest.raises(MachineError) as refused:
            load_model(place / "optimised", engine="openvino")
        assert 'pip install "medtool[openvino]"' in refused.value.how
        told = medtool("doctor").out
        assert 'openvino     not installed (pip install "medtool[openvino]")' in told
        # What is not there is not tried.
        auto = load_model(place / "optimised", engine="auto")
        assert auto.engine_name == "onnxruntime"
    with pytest.raises(UsageError, match="no file for the engine 'litert'"):
        load_model(place / "optimised", engine="litert")
    with pytest.raises(UnknownNameError) as unknown:
        load_model(place / "optimised", engine="ort")
    assert unknown.value.nearest == "onnxruntime"
    with pytest.raises(UsageError, match="no file for the engine 'pytorch'"):
        load_model(place / "optimised", engine="pytorch")
    with pytest.raises(UsageError, match="answered by PyTorch"):
        load_model(place / "heart.safetensors", engine="openvino")


def test_what_a_file_does_not_do_is_not_passed_over(place: Path) -> None:
    folder = place / "optimised"
    with pytest.raises(UsageError, match="that of its file"):
        load_model(folder, precision="bf16")
    assert load_model(folder, precision="32").precision == "float32"
    with pytest.raises(MachineError, match="computes on the processor"):
        load_model(folder, engine="openvino", device="cuda")
    with pytest.raises(MachineError, match="not built for this device"):
        load_model(folder, device="cuda")


def test_an_optimised_model_answers_alone(place: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="answers alone"):
        infer(
            InferOptions(
                sources=(place / "data",),
                checkpoint=place / "optimised",
                more_checkpoints=(place / "heart.safetensors",),
                output=tmp_path / "out",
            )
        )


def test_the_card_says_what_goes_in_and_comes_out(place: Path) -> None:
    card = json.loads((place / "optimised" / MODEL_CARD).read_text(encoding="utf-8"))
    image = card["inputs"]["image"]
    assert image["shape"] == ["images", 1, 16, 24]
    assert image["becomes_0_and_1"] == [0, 255]
    assert card["outputs"]["probabilities"]["of"] == ["background", "heart"]
    assert card["outputs"]["probabilities"]["activation"] == "softmax"
    assert card["grid"] == {"size_px": [16, 24]}
    assert "not a medical device" in card["notice"]
    assert card["labels"]["written"] == [0, 1]
