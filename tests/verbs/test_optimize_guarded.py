"""What ``optimize`` guards: who calibrates, what is counted, files in parts, errors of the disk."""

from __future__ import annotations

import errno
import shutil
from functools import partial
from pathlib import Path

import pytest
from optimised_heart import run_of, small
from trained_heart import train_heart

from medtool.core.checkpoint import FORMAT_VERSION
from medtool.core.errors import CheckpointError, GateError, MachineError
from medtool.core.files import file_sha256
from medtool.data.run_folder import read_rows, write_rows
from medtool.optimize import lighter
from medtool.verbs import optimize_data, optimize_make
from medtool.verbs.infer import InferOptions, infer
from medtool.verbs.options import RunOptions

# The network is only beginning to learn; what it is worth is no matter here.
LENIENT = ("optimize.tolerance=0.9", 'optimize.methods=["minmax"]')


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cohort of 12 patients, and a short run on it."""
    folder = tmp_path_factory.mktemp("guarded")
    train_heart(folder, "train.epochs=2")
    return folder


def nothing_left(folder: Path) -> bool:
    return not any(folder.iterdir())


def test_the_same_scans_by_other_names_do_not_calibrate(place: Path, tmp_path: Path) -> None:
    """From a fault: a folder without the table of the data has other ids, and was let through."""
    data = shutil.copytree(place / "data", tmp_path / "data")
    rows = read_rows(data / "manifest.csv")
    write_rows(data / "manifest.csv", [{**row, "patient": "X" + row["patient"]} for row in rows])
    with pytest.raises(GateError, match="would also judge") as refused:
        small(place, tmp_path / "out", calibration=data)
    assert "cases of the same name" in refused.value.met
    scans = data / "images"
    for folder in sorted(scans.iterdir()):
        folder.rename(scans / f"other-{folder.name}")
    with pytest.raises(GateError, match="would also judge") as refused:
        small(place, tmp_path / "out", calibration=scans)
    assert "cases with identical pixels: other-" in refused.value.met
    assert refused.value.exit_status == 4
    assert not (tmp_path / "out").exists()


def test_only_cases_that_gave_an_input_count(place: Path, tmp_path: Path) -> None:
    """From a fault: inputs over the number that is asked for fell out, their cases did not."""
    only = (*LENIENT, "optimize.calibration_inputs=2")
    found = small(place, tmp_path / "out", *only, formats=("int8",))
    told = found.document["quantisation"]["calibration"]
    assert (told["inputs"], told["cases"]) == (2, 2)
    assert told["patients"] <= 2


def test_a_checkpoint_of_a_newer_medtool_is_refused(place: Path, tmp_path: Path) -> None:
    data = (run_of(place) / "checkpoints" / "best.safetensors").read_bytes()
    # The document is JSON within JSON.
    ours, theirs = (f'\\"format\\":{n}'.encode() for n in (FORMAT_VERSION, 9))
    assert data.count(ours) == 1
    (tmp_path / "newer.safetensors").write_bytes(data.replace(ours, theirs))
    with pytest.raises(CheckpointError, match="newer"):
        small(place, tmp_path / "out", checkpoint=tmp_path / "newer.safetensors")
    assert not (tmp_path / "out").exists()


def test_data_that_cannot_be_read_are_not_told_as_an_output(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a fault: any error of a file was told as that of the output folder."""

    def unreadable(*words: object, **named: object) -> None:
        raise PermissionError(13, "Permission denied", str(place / "data" / "manifest.csv"))

    monkeypatch.setattr(optimize_data, "optimize_data", unreadable)
    with pytest.raises(PermissionError, match="manifest"):
        small(place, tmp_path / "out")
    monkeypatch.setattr(optimize_data, "optimize_data", full_disk)
    with pytest.raises(MachineError, match="disk is full") as refused:
        small(place, tmp_path / "out")
    assert refused.value.where == str(tmp_path / "out")
    assert nothing_left(tmp_path)


def full_disk(*words: object, **named: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_what_is_too_large_for_one_file_lies_in_two_and_is_guarded(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a network of over 2 GB: the bound is made small, not the network large."""
    for name in ("write_exported", "ready_graph"):
        lowered = partial(getattr(optimize_make, name), largest_bytes=4096)
        monkeypatch.setattr(optimize_make, name, lowered)
    monkeypatch.setattr(lighter, "LARGEST_WHOLE_BYTES", 4096)
    formats = ("int8", "float16", "weights8")
    result = small(place, tmp_path / "out", *LENIENT, formats=formats)
    for name, entry in result.document["files"].items():
        beside = f"{name}.data"
        assert entry["external"] == {beside: file_sha256(result.folder / beside)}
        sizes = [(result.folder / one).stat().st_size for one in (name, beside)]
        assert entry["bytes"] == sum(sizes)
        assert sizes[1] > 4096

    def answered(name: str, output: str) -> int:
        run = RunOptions(workers=0, device="cpu")
        images = (place / "data" / "images",)
        return infer(InferOptions(images, result.folder / name, tmp_path / output, run=run)).ok

    assert all(answered(name, name) > 0 for name in result.document["files"])
    tensors = result.folder / "model.int8.onnx.data"
    content = bytearray(tensors.read_bytes())
    content[7] ^= 1
    tensors.write_bytes(content)
    with pytest.raises(CheckpointError, match="is not the one that was made"):
        answered("model.int8.onnx", "tampered")
