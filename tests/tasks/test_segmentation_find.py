"""What is taken for a case, and under which name its channels go."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from medtool_segment import Segment
from untrained_segment import write_model

from medtool.config import resolve
from medtool.core.errors import CaseRefused, ExitStatus
from medtool.core.geometry import Grid
from medtool.core.records import Source
from medtool.data.nifti_writer import write_nifti
from medtool.tasks.segmentation_reading import read_case
from medtool.verbs.check import check
from medtool.verbs.infer import InferOptions, InferResult, infer
from medtool.verbs.options import RunOptions
from medtool.verbs.task_data import DataOptions

GRID = Grid((16, 16, 8), (1.0, 1.0, 2.0), (0.0, 0.0, 0.0))


def volume(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(100, 20, (8, 16, 16)).astype(np.float32)


def write_pair(folder: Path, name: str, seed: int) -> None:
    write_nifti(folder / "images" / f"{name}.nii.gz", volume(seed), GRID)
    write_nifti(folder / "masks" / f"{name}.nii.gz", (volume(seed) > 120).astype(np.uint8), GRID)


def found_in(folder: Path, *assignments: str) -> Any:
    task = Segment(resolve(Segment, None, folder=folder, assignments=assignments).settings)
    return task.find(Source((folder / "data",))), task.settings.data


def answered(folder: Path, *sources: Path) -> InferResult:
    return infer(
        InferOptions(
            sources=sources,
            checkpoint=folder / "model.safetensors",
            output=folder / f"answers-{sources[0].name}",
            allow_demo=True,
            run=RunOptions(workers=0, device="cpu"),
        )
    )


def write_manifest(folder: Path, *channels: str) -> None:
    """A table of two cases with a column of images for each channel."""
    folder.mkdir(parents=True)
    columns = ["case", "mask", *channels]
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for number in range(2):
            cells = [f"c{number}"]
            for place, column in enumerate(columns[1:]):
                name = f"c{number}_{column}.nii.gz"
                values = volume(10 * number + place)
                values = (values > 120).astype(np.uint8) if column == "mask" else values
                write_nifti(folder / name, values, GRID)
                cells.append(name)
            writer.writerow(cells)


# --- names of channels ----------------------------------------------------------------------
def test_the_only_channel_of_a_table_is_the_one_that_is_wanted(tmp_path: Path) -> None:
    """Every case was refused once for the name of its column."""
    write_manifest(tmp_path / "data", "image")
    options = DataOptions("segment", tmp_path / "data", assignments=('data.channels=["MR"]',))
    document = check(options, workers=0).document
    assert all(case["usable"] for case in document["cases"])
    (said,) = [f for f in document["findings"] if f["code"] == "channels-by-order"]
    assert said["severity"] == "warning"
    assert said["message"] == ("the channels image of the data set are taken for MR, in this order")


def test_pairs_are_answered_by_a_model_whose_channel_has_another_name(tmp_path: Path) -> None:
    write_model(tmp_path / "model.safetensors", "[2.0, 1.0, 1.0]")
    for name, seed in (("a", 1), ("b", 2)):
        write_pair(tmp_path / "pairs", name, seed)
    result = answered(tmp_path, tmp_path / "pairs")
    assert (result.ok, result.refused, result.failed) == (2, 0, 0)
    assert all("channels-by-order" in row["code"] for row in result.rows)
    alone = answered(tmp_path, tmp_path / "pairs" / "images")
    for one, two in zip(result.rows, alone.rows, strict=True):
        assert "channels-by-order" not in two["code"]
        assert (result.folder / one["mask"]).read_bytes() == (
            alone.folder / two["mask"]
        ).read_bytes()


@pytest.mark.parametrize(
    ("wanted", "order"),
    [
        (["T1", "T2"], [0, 1]),
        # The names are there: each is found by its name.
        (["T2", "T1"], [1, 0]),
        (["first", "second"], [0, 1]),
        (["T1", "other"], [0, 1]),
    ],
)
def test_channels_go_by_name_and_else_by_order(
    tmp_path: Path, wanted: list[str], order: list[int]
) -> None:
    write_manifest(tmp_path / "data", "image_T1", "image_T2")
    cohort, data = found_in(tmp_path, f"data.channels={wanted}".replace("'", '"'))
    by_order = not set(wanted) == {"T1", "T2"}
    assert ("channels-by-order" in {f.code for f in cohort.findings}) == by_order
    image = read_case(cohort.cases[1], data).image
    # Column 0 is the mask.
    for channel, column in zip(image, order, strict=True):
        np.testing.assert_array_equal(channel, volume(10 + column + 1))


@pytest.mark.parametrize("wanted", ['["T2", "other"]', '["T1"]', '["a", "b", "c"]'])
def test_names_that_contradict_the_order_stay_what_they_are(tmp_path: Path, wanted: str) -> None:
    """T2 is there, at another place: taking the first image for it would be a guess."""
    write_manifest(tmp_path / "data", "image_T1", "image_T2")
    cohort, data = found_in(tmp_path, f"data.channels={wanted}")
    assert list(cohort.cases[0].inputs) == ["T1", "T2"]
    assert "channels-by-order" not in {finding.code for finding in cohort.findings}
    if wanted != '["T1"]':
        with pytest.raises(CaseRefused, match="other channels"):
            read_case(cohort.cases[0], data)


# --- files of volumes -----------------------------------------------------------------------
def test_masks_of_an_earlier_run_go_with_it(tmp_path: Path) -> None:
    """From a fault: what the record lists lay in a folder that had gone as a whole."""
    write_model(tmp_path / "model.safetensors", "[2.0, 1.0, 1.0]")
    for name in ("a", "b"):
        write_nifti(tmp_path / name / f"{name}.nii.gz", volume(1), GRID)
    for name in ("a", "b"):
        result = infer(
            InferOptions(
                sources=(tmp_path / name,),
                checkpoint=tmp_path / "model.safetensors",
                output=tmp_path / "out",
                allow_demo=True,
                force=True,
                run=RunOptions(workers=0, device="cpu"),
            )
        )
    assert [path.name for path in (result.folder / "masks").iterdir()] == ["b.nii.gz"]


def test_files_of_one_name_are_answered_each_for_itself(tmp_path: Path) -> None:
    """From a fault: the row and the mask of the last stood for all of them, with status 0."""
    write_model(tmp_path / "model.safetensors", "[2.0, 1.0, 1.0]")
    for number, folder in enumerate("abc"):
        write_nifti(tmp_path / folder / "ct.nii.gz", volume(number), GRID)
    result = answered(tmp_path, *(tmp_path / folder / "ct.nii.gz" for folder in "abc"))
    assert len({row["case"] for row in result.rows}) == 3
    masks = [sitk.ReadImage(str(result.folder / row["mask"])) for row in result.rows]
    alone = [answered(tmp_path, tmp_path / folder) for folder in "abc"]
    wanted = [sitk.ReadImage(str(one.folder / one.rows[0]["mask"])) for one in alone]
    kept = [sitk.GetArrayFromImage(mask).tobytes() for mask in masks]
    assert sorted(kept) == sorted(sitk.GetArrayFromImage(mask).tobytes() for mask in wanted)
    assert len(set(kept)) == 3


def test_files_of_other_formats_are_answered_as_the_nifti_is(tmp_path: Path) -> None:
    """Training read them; at inference they were skipped as no DICOM."""
    write_model(tmp_path / "model.safetensors", "[2.0, 1.0, 1.0]")
    scans, nifti = tmp_path / "imagesTs", tmp_path / "nifti"
    scans.mkdir()
    for number, ending in enumerate(("nrrd", "mha", "nhdr", "mhd")):
        write_nifti(nifti / f"s{number}_0000.nii.gz", volume(number), GRID)
        image = sitk.ReadImage(str(nifti / f"s{number}_0000.nii.gz"))
        sitk.WriteImage(image, str(scans / f"s{number}_0000.{ending}"))
    # A mask of 3D Slicer is no scan; a file that is cut off is a row.
    sitk.WriteImage(image > 100, str(scans / "drawn.seg.nrrd"))
    (scans / "broken.nrrd").write_bytes(b"NRRD0004\ntype: float\n")
    result, wanted = answered(tmp_path, scans), answered(tmp_path, nifti)
    assert result.status == ExitStatus.SOME_CASES_FAILED
    rows = {row["case"]: row for row in result.rows}
    assert set(rows) == {"s0", "s1", "s2", "s3", "broken"}
    assert (rows["broken"]["status"], rows["broken"]["code"]) == ("refused", "broken-header")
    for row in wanted.rows:
        assert rows[row["case"]]["status"] == "ok"
        ours, theirs = (
            sitk.GetArrayFromImage(sitk.ReadImage(str(folder / one["mask"])))
            for folder, one in ((result.folder, rows[row["case"]]), (wanted.folder, row))
        )
        np.testing.assert_array_equal(ours, theirs)
