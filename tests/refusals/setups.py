"""What a golden case's working folder needs beyond text files."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

from dicom_builder import build_series
from pet_ct_studies import write_pair

from medtool.core.checkpoint import RawTensor, rewrite_checkpoint, write_checkpoint
from medtool.core.deployed import DOCUMENT_FILE, write_deployed


def latin_preset(folder: Path) -> None:
    """A preset saved in the encoding of an old Windows."""
    (folder / "mine.toml").write_bytes(b"# Z\xfcrich\n[train]\nepochs = 3\n")


def large_preset(folder: Path) -> None:
    """Something that is called a preset and is none."""
    (folder / "mine.toml").write_bytes(b"#" * (5 * 1024 * 1024))


# --- scans --------------------------------------------------------------------------------------
def scans(folder: Path) -> None:
    """Six small series of six patients."""
    for number in range(6):
        patient = f"P{number:02d}"
        build_series(
            folder / "CTs" / patient,
            patient_id=patient,
            study_uid=f"1.2.3.{number}",
            series_uid=f"1.2.3.{number}.1",
        )


def anonymous_scans(folder: Path) -> None:
    """Twelve studies that all say that their patient is ANON."""
    for number in range(12):
        build_series(
            folder / "CTs" / f"study{number:02d}",
            patient_id="ANON",
            study_uid=f"1.2.3.{number}",
            series_uid=f"1.2.3.{number}.1",
        )
    rows = [f"study{number:02d},{number % 2}" for number in range(12)]
    (folder / "labels.csv").write_text("folder,label\n" + "\n".join(rows) + "\n")


def pet_ct_pairs(folder: Path) -> None:
    """A PET and a CT of two patients, without masks."""
    for number in range(2):
        study = folder / "data" / f"P{number}"
        write_pair(study / "study_suv.nii.gz", study / "study_ct.nii.gz", seed=number)


def climbing_zip(folder: Path) -> None:
    """An archive that would write beside the output folder."""
    working_model(folder)
    with zipfile.ZipFile(folder / "scans.zip", "w") as archive:
        archive.writestr("../outside.dcm", b"x")


def endless_zip(folder: Path) -> None:
    """An archive of a few kilobytes that becomes 64 MiB of zeros."""
    working_model(folder)
    with zipfile.ZipFile(folder / "scans.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("IM1.dcm", bytes(64 * 1024**2))


def broken_zip(folder: Path) -> None:
    """An archive that was not copied to its end."""
    endless_zip(folder)
    file = folder / "scans.zip"
    file.write_bytes(file.read_bytes()[:-20])


def magnetic_scans(folder: Path) -> None:
    """Scans of another modality, with labels."""
    for number in range(2):
        build_series(
            folder / "CTs" / f"P{number}",
            patient_id=f"P{number}",
            study_uid=f"1.2.3.{number}",
            series_uid=f"1.2.3.{number}.1",
            tags={"Modality": "MR"},
        )
    (folder / "labels.csv").write_text("patient,label\nP0,0\nP1,1\n")


# --- tables -------------------------------------------------------------------------------------
def picture_as_labels(folder: Path) -> None:
    """The beginning of a PNG."""
    scans(folder)
    (folder / "picture.csv").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\2\0,\0\0\2\0\n1,2\n")


def workbook_as_labels(folder: Path) -> None:
    """A workbook of Excel with the ending of a table."""
    scans(folder)
    with zipfile.ZipFile(folder / "book.csv", "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")


# --- checkpoints --------------------------------------------------------------------------------
def _checkpoint(folder: Path, **document: object) -> Path:
    (folder / "CTs").mkdir(exist_ok=True)
    file = folder / "model.safetensors"
    weights = RawTensor("model.weight", "F32", (64,), bytes(256))
    write_checkpoint(file, {"task": "brainmet", "preset": {}, **document}, [weights])
    return file


def checkpoint(folder: Path) -> None:
    """A file in our format."""
    _checkpoint(folder)


def working_model(folder: Path) -> None:
    """A model of the demo preset with random weights, which learned from nothing real."""
    from medtool.config import resolve
    from medtool.core.registry import load_task
    from medtool.nets.state import raw_tensor

    (folder / "CTs").mkdir()
    task_class = load_task("brainmet")
    settings = resolve(task_class, "demo", folder=folder).settings
    state = task_class(settings).network().state_dict()
    document = {
        "task": "brainmet",
        "preset": settings.as_dict(),
        "threshold": 0.5,
        "synthetic": True,
    }
    tensors = [raw_tensor(f"model.{name}", value) for name, value in state.items()]
    write_checkpoint(folder / "model.safetensors", document, tensors)


def pruned_model_that_does_not_fit(folder: Path) -> None:
    """Scans, and a demo model that says it lost channels of a layer that it does not have."""
    patients_scans(folder)
    rewrite_checkpoint(
        folder / "model.safetensors",
        folder / "model.safetensors",
        {"pruned": {"backbone.conv2": {"in": 8, "out": 4}}},
    )


def patients_scans(folder: Path) -> None:
    """Scans that do not say of themselves that they are synthetic, and a demo model."""
    working_model(folder)
    scans(folder)


def truncated_checkpoint(folder: Path) -> None:
    file = _checkpoint(folder)
    file.write_bytes(file.read_bytes()[:-100])


def checkpoint_of_a_missing_task(folder: Path) -> None:
    _checkpoint(folder, task="brainmets")


def run_of_another_task(folder: Path) -> None:
    """The folder of a run whose checkpoint answers another question."""
    scans(folder)
    run = folder / "runs" / "other" / "one"
    (run / "checkpoints").mkdir(parents=True)
    (run / "preset.toml").write_text("")
    (run / "run.json").write_text("{}")
    _checkpoint(folder, task="other").rename(run / "checkpoints" / "last.safetensors")


def newer_checkpoint(folder: Path) -> None:
    """As this one, from a medtool of tomorrow."""
    _rewrite_header(_checkpoint(folder, versions={"medtool": "9.1.0"}), {"format": 2})


def foreign_checkpoint(folder: Path) -> None:
    """Weights in safetensors from somebody else."""
    (folder / "CTs").mkdir()
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    header += b" " * (-len(header) % 8)
    (folder / "model.safetensors").write_bytes(
        len(header).to_bytes(8, "little") + header + bytes(4)
    )


def pickled_checkpoint(folder: Path) -> None:
    """What torch.save writes: a zip archive with a pickle inside."""
    (folder / "CTs").mkdir()
    with zipfile.ZipFile(folder / "model.pt", "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02.")


def tampered_optimised_model(folder: Path) -> None:
    """An optimised folder whose model file was changed after it was made."""
    scans(folder)
    (folder / "optimised").mkdir()
    _checkpoint(folder).rename(folder / "optimised" / DOCUMENT_FILE)
    (folder / "optimised" / "model.onnx").write_bytes(b"changed")
    entry = {"engine": "onnxruntime", "arithmetic": "float32", "sha256": "0" * 64}
    document = {"default": "model.onnx", "files": {"model.onnx": entry}}
    write_deployed(folder / "optimised", document)


def checkpoint_and_scans(folder: Path) -> None:
    _checkpoint(folder)
    scans(folder)


def heart_and_pictures(folder: Path) -> None:
    """A small model outside any run, and pictures with masks of three patients."""
    # Both stand on torch, which other cases do without.
    import numpy as np
    from optimised import write_heart

    from medtool.data.masks import write_mask_picture

    write_heart(folder / "model.safetensors")
    mask = np.zeros((1, 16, 24), np.uint8)
    mask[0, 4:12, 6:18] = 255
    for number in range(3):
        for name in ("images", "masks"):
            (folder / "data" / name).mkdir(parents=True, exist_ok=True)
            write_mask_picture(folder / "data" / name / f"p{number}.png", mask)


def existing_output(folder: Path) -> None:
    """A predictions folder of an earlier run."""
    _checkpoint(folder)
    (folder / "out").mkdir()
    (folder / "out" / "predictions.csv").write_text("case\n")
    scans(folder)


def _rewrite_header(file: Path, changes: dict[str, object]) -> None:
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    document = json.loads(header["__metadata__"]["medtool"]) | changes
    header["__metadata__"]["medtool"] = json.dumps(document)
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)
    file.write_bytes(len(raw).to_bytes(8, "little") + raw + content[8 + length :])
