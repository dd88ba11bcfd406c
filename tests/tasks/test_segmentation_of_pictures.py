"""Data sets of pictures, as nnU-Net has them: checked, trained, answered and exported alike."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import nibabel
import numpy as np
import pytest
from medtool_segment import Segment
from two_levels import ONE_EPOCH, two_levels
from untrained_segment import write_model

from medtool.core.checkpoint import read_header
from medtool.core.errors import ExitStatus, InputError
from medtool.core.geometry import Grid
from medtool.data.nifti_writer import write_nifti
from medtool.data.predictions import read_predictions
from medtool.verbs.check import check
from medtool.verbs.evaluate import EvaluateOptions, evaluate
from medtool.verbs.export_model import ExportOptions, export_model
from medtool.verbs.infer import InferOptions, InferResult, infer
from medtool.verbs.options import RunOptions
from medtool.verbs.task_data import DataOptions
from medtool.verbs.train import TrainOptions, TrainResult, train

CASES = 6
ROWS, COLUMNS = 24, 28
QUICK = (*ONE_EPOCH, "report.worst_cases=1")
FLAT = (*two_levels(2), "model.patch_size_vox=[16, 16]")
DEEP = (*two_levels(3), "model.patch_size_vox=[8, 16, 16]")
LABELS = {"background": 0, "shell": 1, "core": 2}


def mask_and_image(number: int, slices: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Balls in balls (slices, rows, columns): ids, and pixels of 8 bits."""
    rng = np.random.default_rng(number)
    size = (slices, ROWS, COLUMNS)
    index = np.indices(size, dtype=np.float64)
    scale = [max(n / 2, 1.0) for n in size]
    centre = [(n - 1) / 2 + (rng.uniform(-1, 1) if n > 1 else 0) for n in size]
    apart = sum(((index[k] - centre[k]) / scale[k]) ** 2 for k in range(3)) ** 0.5
    mask = (apart < 0.7).astype(np.uint8) + (apart < 0.4)
    image = 60 + 50 * mask + rng.normal(0, 4, mask.shape)
    return mask.astype(np.uint8), image.clip(0, 255).astype(np.uint8)


def described(
    folder: Path, ending: str, channels: tuple[str, ...], labels: dict[str, int] = LABELS
) -> Path:
    document = {
        "channel_names": {str(n): name for n, name in enumerate(channels)},
        "labels": labels,
        "numTraining": CASES,
        "file_ending": ending,
    }
    (folder / "dataset.json").write_text(json.dumps(document), encoding="utf-8")
    return folder


def write_pictures(folder: Path, *, colour: bool = False) -> Path:
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for number in range(CASES):
        mask, image = mask_and_image(number)
        shown = np.stack([image[0] // 2, image[0], 255 - image[0]], axis=-1) if colour else image[0]
        assert cv2.imwrite(str(folder / f"imagesTr/c{number}_0000.png"), shown)
        assert cv2.imwrite(str(folder / f"labelsTr/c{number}.png"), mask[0])
    return described(folder, ".png", ("R", "G", "B") if colour else ("grey",))


def write_deep_tiffs(folder: Path) -> Path:
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for number in range(CASES):
        mask, image = mask_and_image(number, slices=10)
        for place, pages in ((f"imagesTr/c{number}_0000", image), (f"labelsTr/c{number}", mask)):
            assert cv2.imwritemulti(str(folder / f"{place}.tif"), list(pages))
        for place in ("imagesTr", "labelsTr"):
            spacing = json.dumps({"spacing": [2.0, 0.5, 0.5]})
            (folder / place / f"c{number}.json").write_text(spacing, encoding="utf-8")
    return described(folder, ".tif", ("microscope",))


def learned(folder: Path, *settings: str) -> TrainResult:
    return train(
        TrainOptions(
            task=Segment,
            data=folder / "data",
            assignments=(*QUICK, *settings),
            folder=folder,
            run=RunOptions(run="a", workers=0, cache=folder / "cache", device="cpu"),
        )
    )


def answered(source: Path, checkpoint: Path, output: Path, **options: Any) -> InferResult:
    run = RunOptions(workers=0, device="cpu")
    return infer(InferOptions((source,), checkpoint, output, run=run, **options))


@pytest.mark.parametrize("colour", [False, True])
def test_pictures_are_checked_trained_and_answered(tmp_path: Path, colour: bool) -> None:
    """The check found nothing wrong with pictures once, and training refused every one."""
    write_pictures(tmp_path / "data", colour=colour)
    found = check(DataOptions("segment", tmp_path / "data"), workers=0)
    assert found.status == ExitStatus.DONE
    result = learned(tmp_path, *FLAT)
    document = read_header(result.checkpoint).document
    preparation = document["preset"]["data"]["preparation"]
    assert preparation["configuration"] == "2d" and preparation["spacing_mm"] == [999.0, 1.0, 1.0]
    # In a folder without a description, with a file that is nobody's.
    shutil.copytree(tmp_path / "data" / "imagesTr", tmp_path / "scans")
    (tmp_path / "scans" / "notes.txt").write_text("x")
    done = answered(tmp_path / "scans", result.checkpoint, tmp_path / "out", overlays=True)
    assert (done.ok, done.failed, done.refused) == (CASES, 0, 0)
    for row in read_predictions(done.folder):
        assert row["case"] in {f"c{n}" for n in range(CASES)}
        mask = cv2.imread(str(done.folder / row["mask"]), cv2.IMREAD_UNCHANGED)
        assert mask.shape == (ROWS, COLUMNS) and set(np.unique(mask)) <= {0, 1, 2}
        # Nothing is measured in a unit that nobody gave.
        assert row["volume_ml"] == row["volume_core_ml"] == "" and "spacing-unknown" in row["code"]
        assert (done.folder / "overlays" / row["case"] / "planes.png").is_file()
    # The data set itself gives the same answers, and the score is that of the masks, counted here.
    again = answered(tmp_path / "data", result.checkpoint, tmp_path / "again")
    for row in read_predictions(again.folder):
        one, two = (folder / row["mask"] for folder in (done.folder, again.folder))
        assert one.read_bytes() == two.read_bytes()
    test = result.run / "predictions" / "test"
    scores = evaluate(EvaluateOptions((test,), checkpoints=(result.checkpoint,)))
    for line in scores.evaluated[0].scores.tables["structures_by_case"]:
        truth = mask_and_image(int(line["case"][1:]))[0][0]
        mask = cv2.imread(str(test / "masks" / f"{line['case']}.png"), cv2.IMREAD_UNCHANGED)
        number = LABELS[line["structure"]]
        both = np.count_nonzero((truth == number) & (mask == number))
        wanted = 2 * both / (np.count_nonzero(truth == number) + np.count_nonzero(mask == number))
        assert line["dice"] == pytest.approx(wanted)


def test_tiffs_of_several_pages_are_volumes(tmp_path: Path) -> None:
    write_deep_tiffs(tmp_path / "data")
    assert check(DataOptions("segment", tmp_path / "data"), workers=0).status == ExitStatus.DONE
    result = learned(tmp_path, *DEEP)
    preset = read_header(result.checkpoint).document["preset"]
    assert preset["data"]["preparation"]["spacing_mm"] == [2.0, 0.5, 0.5]
    done = answered(tmp_path / "data" / "imagesTr", result.checkpoint, tmp_path / "out")
    assert (done.ok, done.failed, done.refused) == (CASES, 0, 0)
    for row in read_predictions(done.folder):
        mask = nibabel.load(done.folder / row["mask"])
        assert mask.shape == (COLUMNS, ROWS, 10)
        np.testing.assert_allclose(mask.header.get_zooms(), (0.5, 0.5, 2.0))
        inside = np.count_nonzero(np.asarray(mask.dataobj))
        assert float(row["volume_ml"]) == pytest.approx(inside * 0.5 / 1000)


def test_what_training_cannot_read_the_check_refuses_in_the_same_words(tmp_path: Path) -> None:
    data = write_pictures(tmp_path / "data")
    for number in range(CASES):
        image = cv2.imread(str(data / f"imagesTr/c{number}_0000.png"), cv2.IMREAD_UNCHANGED)
        # One channel is declared, and the pictures are in colour.
        colour = np.stack([image, image // 2, image], axis=-1)
        assert cv2.imwrite(str(data / f"imagesTr/c{number}_0000.png"), colour)
    found = check(DataOptions("segment", data), workers=0)
    assert found.status == ExitStatus.NO_INPUT
    codes = {f["code"] for row in found.document["cases"] for f in row["findings"]}
    assert codes == {"channels-differ", "mask-without-image"}
    with pytest.raises(InputError, match="No case can be read"):
        learned(tmp_path, *FLAT)


def test_models_of_scans_leave_pictures_alone(tmp_path: Path) -> None:
    """A picture beside scans is no scan; one that is named has no size in mm."""
    write_model(tmp_path / "model.safetensors", "[2.0, 1.0, 1.0]")
    scans = tmp_path / "scans"
    scans.mkdir()
    values = np.random.default_rng(0).normal(100, 20, (8, 16, 16)).astype(np.float32)
    write_nifti(scans / "scan.nii.gz", values, Grid((16, 16, 8), (1.0, 1.0, 2.0), (0.0, 0.0, 0.0)))
    assert cv2.imwrite(str(scans / "logo.png"), mask_and_image(0)[1][0])
    assert cv2.imwritemulti(str(scans / "fax.tif"), list(mask_and_image(0, 3)[1]))
    model = tmp_path / "model.safetensors"
    done = answered(scans, model, tmp_path / "out", allow_demo=True)
    assert [row["case"] for row in done.rows] == ["scan"]
    data = write_pictures(tmp_path / "data")
    done = answered(data, model, tmp_path / "pictures", allow_demo=True)
    assert (done.ok, done.refused) == (0, CASES)
    assert {row["code"] for row in done.rows} == {"not-a-volume"}


def test_a_model_of_pictures_is_exported_as_one(tmp_path: Path) -> None:
    write_pictures(tmp_path / "data")
    checkpoint = learned(tmp_path, *FLAT).checkpoint
    place = export_model(ExportOptions("nnunet", checkpoint, tmp_path / "results")).folder
    plans = json.loads((place / "plans.json").read_text("utf-8"))
    assert plans["image_reader_writer"] == "NaturalImage2DIO"
    assert plans["configurations"]["2d"]["spacing"] == [1.0, 1.0]
    assert plans["original_median_spacing_after_transp"] == [999.0, 1.0, 1.0]
    assert json.loads((place / "dataset.json").read_text("utf-8"))["file_ending"] == ".png"
