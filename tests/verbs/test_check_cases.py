"""check of segmentations: what only all cases together show, and DICOM series as files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import dicom_builder as build
import nibabel
import numpy as np
import pytest
from medtool_heart.demo import write_cohort
from medtool_segment import Segment
from medtool_segment.demo import write_dataset
from mr_series import write_mr_series

from medtool.config import resolve
from medtool.core.geometry import Grid
from medtool.core.records import Case, Finding
from medtool.data.nifti_writer import write_nifti
from medtool.dicom.intake import scan
from medtool.dicom.segmentation import Maker, write_segmentation
from medtool.dicom.segmentation import Segment as Drawn
from medtool.verbs.check import check
from medtool.verbs.task_data import DataOptions


def said_of_all(document: Any) -> dict[str, str]:
    return {finding["code"]: finding["message"] for finding in document["findings"]}


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_is_there_twice_is_said(tmp_path: Path, workers: int) -> None:
    """Training refused such twins, and the check was silent."""
    write_dataset(tmp_path / "data", 0, 4)
    options = DataOptions("segment", tmp_path / "data")
    before = said_of_all(check(options, workers=workers).document)
    assert not {"image-duplicate", "orientations-differ"} & set(before)
    for folder, ending in (("imagesTr", "_0000.nii.gz"), ("labelsTr", ".nii.gz")):
        place = tmp_path / "data" / folder
        shutil.copy(place / f"demo_001{ending}", place / f"twin{ending}")
    said = said_of_all(check(options, workers=workers).document)
    assert said["image-duplicate"] == "one image in 2 cases of 2 patients: demo_001, twin"


def test_axes_that_run_differently_are_said(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", 0, 3)
    for file in ("imagesTr/demo_000_0000.nii.gz", "labelsTr/demo_000.nii.gz"):
        path = tmp_path / "data" / file
        stored = nibabel.load(path)
        flipped = np.asarray(stored.dataobj)[::-1]
        affine = stored.affine @ np.diag([-1, 1, 1, 1])
        affine[:3, 3] += stored.affine[:3, 0] * (flipped.shape[0] - 1)
        nibabel.save(nibabel.Nifti1Image(flipped, affine), path)
    result = check(DataOptions("segment", tmp_path / "data"), workers=0)
    said = said_of_all(result.document)
    assert said["orientations-differ"].startswith("axes run differently: ")
    assert {" in 2", " in 1"} <= {said["orientations-differ"][i : i + 5] for i in range(60)}
    assert result.status == 0


def test_slices_that_are_there_twice_are_said(tmp_path: Path) -> None:
    write_cohort(tmp_path / "data", 0, 3)
    first, second, *_ = sorted((tmp_path / "data" / "images").glob("*/0.nii.gz"))
    shutil.copy(first, second)
    said = said_of_all(check(DataOptions("heart", tmp_path / "data"), workers=0).document)
    assert said["image-duplicate"].startswith("one image in 2 cases of 2 patients: DEMO-000_0")


def test_pictures_among_scans_are_said(tmp_path: Path) -> None:
    """Training is planned for one of them, and refuses the other."""
    folder = tmp_path / "data"
    folder.mkdir()
    values = np.random.default_rng(0).normal(100, 20, (4, 16, 16)).astype(np.float32)
    grid = Grid((16, 16, 4), (1.0, 1.0, 2.0), (0.0, 0.0, 0.0))
    write_nifti(folder / "scan.nii.gz", values, grid)
    write_nifti(folder / "drawn.nii.gz", (values > 120).astype(np.uint8), grid)
    cv2.imwrite(str(folder / "shown.png"), values[0].astype(np.uint8))
    cv2.imwrite(str(folder / "white.png"), (values[0] > 120) * np.uint8(255))
    rows = ["case,image,mask", "a,scan.nii.gz,drawn.nii.gz", "b,shown.png,white.png"]
    (folder / "manifest.csv").write_text("\n".join(rows), encoding="utf-8")
    said = said_of_all(check(DataOptions("segment", folder), workers=0).document)
    assert said["kinds-differ"].startswith("1 picture and 1 scan: ")


class Own(Segment):
    """A stranger's task with a check of its own."""

    def check(self, case: Case) -> list[Finding]:
        return [*super().check(case), Finding("own-word", "seen", "warning")]


def test_a_check_of_ones_own_is_not_left_out() -> None:
    case = Case("a", "a", "", {})
    task = Own(resolve(Own, None, folder=Path()).settings)
    assert [f.code for f in task.checked(case).findings] == ["channels-differ", "own-word"]


# --- DICOM series with masks ------------------------------------------------------------------
def write_study(
    folder: Path, stored: np.ndarray, mask: np.ndarray, *, patient: str, intercept: float = -1024.0
) -> None:
    build.build_series(folder / "ct", stored, patient_id=patient, intercept=intercept, step_mm=2.0)
    (series,) = scan([folder / "ct"]).series
    write_segmentation(
        mask, series, [Drawn("organ", (1,))], folder / "mask.dcm", maker=Maker("made", "1", "abc")
    )


def test_series_are_looked_at_as_files_are(tmp_path: Path) -> None:
    """Empty masks, CT without air and images of one value were said of files only."""
    body = np.random.default_rng(0).integers(0, 2000, (8, 16, 16)).astype(np.int16)
    drawn = np.zeros(body.shape, np.uint8)
    drawn[2:5, 4:9, 4:9] = 1
    data = tmp_path / "data"
    write_study(data / "good", body, drawn, patient="good")
    write_study(data / "empty", body[::-1].copy(), drawn * 0, patient="empty")
    write_study(data / "airless", body.clip(min=824), drawn, patient="airless")
    write_study(data / "no-hu", body + 1, drawn, patient="no-hu", intercept=0.0)
    write_study(data / "twin", body, drawn, patient="twin")
    document = check(DataOptions("segment", data), workers=0).document
    codes = {case["patient"]: {f["code"] for f in case["findings"]} for case in document["cases"]}
    interesting = {"mask-empty", "no-air", "not-hu"}
    assert {patient: found & interesting for patient, found in codes.items()} == {
        "good": set(),
        "twin": set(),
        "empty": {"mask-empty"},
        "airless": {"no-air"},
        "no-hu": {"not-hu"},
    }
    assert "2 cases of 2 patients" in said_of_all(document)["image-duplicate"]
    json.dumps(document, allow_nan=False)


def test_a_series_of_one_value_is_said(tmp_path: Path) -> None:
    grid = Grid((16, 16, 8), (1.0, 1.0, 2.0), (0.0, 0.0, 0.0))
    folder = tmp_path / "data" / "P0"
    write_mr_series(folder / "mr", np.full((8, 16, 16), 7, np.float32), grid)
    (series,) = scan([folder]).series
    mask, maker = np.ones((8, 16, 16), np.uint8), Maker("made", "1", "abc")
    write_segmentation(mask, series, [Drawn("organ", (1,))], folder / "mask.dcm", maker=maker)
    document = check(DataOptions("segment", tmp_path / "data"), workers=0).document
    assert "image-constant" in {f["code"] for f in document["cases"][0]["findings"]}
