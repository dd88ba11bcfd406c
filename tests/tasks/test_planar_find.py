"""What is a case among slices that come as files: each file once, whatever its dimensions."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from medtool_heart import Heart

from medtool.config import resolve
from medtool.core.records import Cohort, Source


def found_in(folder: Path) -> Cohort:
    return Heart(resolve(Heart, "small", folder=folder).settings).find(Source((folder,)))


def write_flat(path: Path, shape: tuple[int, ...]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(0).random(shape).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)


@pytest.mark.parametrize("shape", [(20, 24, 1), (20, 24)], ids=["volume of one slice", "flat"])
def test_every_nifti_slice_is_one_case(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """Folders of patients hold files of the same names, as cohorts do."""
    for patient in ("anna", "bert"):
        for index in range(2):
            write_flat(tmp_path / patient / f"{index}.nii.gz", shape)
    found = found_in(tmp_path)
    assert [case.case_id for case in found.cases] == ["anna_0", "anna_1", "bert_0", "bert_1"]
    assert not found.refused
    assert sorted(row["case"] for row in found.intake["series"]) == [
        case.case_id for case in found.cases
    ]


def test_a_volume_of_several_slices_lies_beside_flat_files(tmp_path: Path) -> None:
    write_flat(tmp_path / "a.nii.gz", (20, 24, 3))
    write_flat(tmp_path / "b.nii.gz", (20, 24))
    found = found_in(tmp_path)
    assert [case.case_id for case in found.cases] == ["a", "b"]
    assert not found.refused
