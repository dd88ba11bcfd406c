"""What the voxels of a case show: each finding on a case made for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import nibabel
import numpy as np
import pytest

from medtool.core.records import CheckedCase
from medtool.data.case_checks import check_case, compare_cases
from medtool.data.dataset_record import ImageReference, LabelScheme, SegmentationCase
from medtool.data.datasets import read_dataset

LABELS = LabelScheme({"background": (0,), "organ": (1,), "lesion": (2,)})
HU = np.random.default_rng(0).uniform(-1000, 1000, (6, 7, 8)).astype("f4")
MASK = np.zeros((6, 7, 8), "u1")
MASK[2:4, 2:4, 2:4] = 1


def saved(path: Path, values: np.ndarray, affine: np.ndarray | None = None) -> ImageReference:
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4) if affine is None else affine), path)
    return ImageReference(path)


def case_of(
    folder: Path, image: np.ndarray = HU, mask: np.ndarray = MASK, shift: float = 0
) -> SegmentationCase:
    moved = np.eye(4)
    moved[0, 3] = shift
    return SegmentationCase(
        "case", "patient", (saved(folder / "i.nii", image),), saved(folder / "m.nii", mask, moved)
    )


def codes(case: SegmentationCase, channel: str = "CT", labels: LabelScheme = LABELS) -> list[str]:
    return [finding.code for finding in check_case(case, [channel], labels).findings]


def test_a_sound_case_has_no_findings(tmp_path: Path) -> None:
    checked = check_case(case_of(tmp_path), ["CT"], LABELS)
    assert checked.findings == () and checked.orientation == "RAS" and checked.image_hash
    assert codes(replace(case_of(tmp_path), mask=None)) == []


def test_grids_that_differ_are_shown_both(tmp_path: Path) -> None:
    checked = check_case(case_of(tmp_path, shift=2), ["CT"], LABELS)
    (finding,) = checked.findings
    assert (finding.code, finding.severity) == ("grids-differ", "refusal")
    assert "CT 6 x 7 x 8 voxels of 1 x 1 x 1 mm at (-0, -0, 0)" in finding.message
    assert "mask 6 x 7 x 8 voxels of 1 x 1 x 1 mm at (-2, -0, 0)" in finding.message
    assert checked.image_hash == "", "what is refused is nobody's duplicate"
    assert codes(case_of(tmp_path, mask=MASK[:5])) == ["grids-differ"]


def test_channels_on_different_grids(tmp_path: Path) -> None:
    other = saved(tmp_path / "pet.nii", HU[:4])
    case = case_of(tmp_path)
    case = replace(case, images=(*case.images, other))
    assert [f.code for f in check_case(case, ["CT", "PT"], LABELS).findings] == ["grids-differ"]
    assert codes(case) == ["channels-differ"], "two images, one channel"


def test_labels(tmp_path: Path) -> None:
    strange = MASK * 7
    checked = check_case(case_of(tmp_path, mask=strange), ["CT"], LABELS)
    assert [f.code for f in checked.findings] == ["label-undeclared"]
    assert "7 (8 voxels); declared are 0, 1, 2" in checked.findings[0].message
    assert codes(case_of(tmp_path, mask=MASK * 0)) == ["mask-empty"]
    ignoring = replace(LABELS, ignore_id=3)
    assert codes(case_of(tmp_path, mask=MASK * 3), labels=ignoring) == ["mask-empty"]
    assert codes(case_of(tmp_path, mask=MASK * np.float32(1.9999))) == ["mask-rounded"]
    assert codes(case_of(tmp_path, mask=MASK * np.float32(0.5))) == ["not-labels"]


def test_values(tmp_path: Path) -> None:
    assert codes(case_of(tmp_path, image=np.abs(HU))) == ["not-hu"]
    assert codes(case_of(tmp_path, image=np.abs(HU)), channel="MRI") == []
    assert codes(case_of(tmp_path, image=HU * 0), channel="MRI") == ["image-constant"]
    undefined = HU.copy()
    undefined[0, 0, 0] = np.nan
    assert codes(case_of(tmp_path, image=undefined)) == ["undefined-values"]
    assert codes(case_of(tmp_path, HU[..., :1], MASK[..., 2:3])) == ["one-slice"]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    case = case_of(tmp_path)
    case.images[0].path.write_bytes(case.images[0].path.read_bytes()[:-9])
    assert codes(case) == ["truncated-file"]
    (tmp_path / "m.nii").write_text("words")
    assert codes(case) == ["truncated-file", "broken-header"]


def test_pictures(tmp_path: Path) -> None:
    grey = np.arange(48, dtype=np.uint8).reshape(6, 8)
    for name, values in (("i", grey), ("m", (grey > 9) * np.uint8(255)), ("n", grey[:5])):
        cv2.imwrite(str(tmp_path / f"{name}.png"), values)
    references = {name: ImageReference(tmp_path / f"{name}.png") for name in "imn"}
    one = LabelScheme({"background": (0,), "organ": (1,)})
    case = SegmentationCase("a", "a", (references["i"],), references["m"])
    assert codes(case, "image", one) == []
    assert codes(case, "image") == ["label-undeclared"], "255 is no id where there are several"
    assert codes(replace(case, mask=references["n"]), "image", one) == ["grids-differ"]
    two = replace(case, images=(references["i"], references["n"]))
    assert [f.code for f in check_case(two, ["a", "b"], one).findings] == ["grids-differ"]
    references["i"].path.unlink()
    assert codes(case, "image", one) == ["unreadable", "mask-without-image"]


def test_cases_beside_each_other(tmp_path: Path) -> None:
    one = check_case(case_of(tmp_path), ["CT"], LABELS)
    twin = replace(one, case_id="twin", patient_id="other", orientation="LPS")
    other = CheckedCase("third", "third", (), "another hash", "LPS")
    refused = CheckedCase("fourth", "fourth", ())
    duplicate, axes = compare_cases([one, twin, other, refused, replace(refused, case_id="e")])
    assert duplicate.code == "image-duplicate"
    assert duplicate.message == "one image in 2 cases of 2 patients: case, twin"
    assert axes.message == "axes run differently: LPS in 2, RAS in 1"
    assert compare_cases([twin, other]) == ()


@pytest.mark.real_data
def test_real_cases(real_data: Path) -> None:
    for name, most in (("hippocampus", 12), ("pancreas", 1)):
        dataset = read_dataset(real_data / name)
        checked = [check_case(c, dataset.channels, dataset.labels) for c in dataset.cases[:most]]
        assert [one.findings for one in checked] == [()] * most
        assert compare_cases(checked) == ()
    heart = real_data / "heart_mr/heart_ct"
    pair = SegmentationCase(
        "ct",
        "ct",
        (ImageReference(heart / "ct.nii.gz"),),
        ImageReference(heart / "heart_on_uncropped_grid.nii.gz"),
    )
    (finding,) = check_case(pair, ["CT"], LabelScheme({"background": (0,), "heart": (1,)})).findings
    assert (
        finding.code == "grids-differ" and "122 x 102 x 112 and 233 x 167 x 191" in finding.message
    )
