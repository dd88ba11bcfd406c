"""Cardiac MR of real patients: learned in a short run, answered frame by frame.

A small version of benchmarks/heart_mr.py.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from medtool_heart import Heart

from medtool.config import resolve
from medtool.core.records import Source
from medtool.verbs.infer import InferOptions, infer
from medtool.verbs.options import RunOptions
from medtool.verbs.train import TrainOptions, train

SHORT = (
    "data.preparation.size_px=[64, 64]",
    "model.first_features=8",
    "train.epochs=15",
    "train.examples_per_case=2",
    "train.seed=1",
    "metrics.bootstrap_draws=100",
)


@pytest.mark.real_data
def test_a_patient_that_was_never_seen(real_data: Path, tmp_path: Path) -> None:
    """The folder as it is: pairs of DICOM frames and masks, a folder for each patient."""
    split = tmp_path / "split.csv"
    parts = {"SCD0000101": "train", "SCD0000301": "train", "SCD0000501": "selection"}
    lines = [f"{patient},{part}" for patient, part in parts.items()]
    split.write_text("\n".join(["patient,part", *lines, "SCD0000201,test"]) + "\n")
    result = train(
        TrainOptions(
            task=Heart,
            preset="small",
            data=real_data / "heart_mr",
            assignments=(*SHORT, f'data.split_file="{split}"'),
            folder=tmp_path,
            run=RunOptions(run="a", workers=0, cache=tmp_path / "cache", device="cpu"),
        )
    )
    dice = result.scores["test"]["metrics"]["dice"]
    # The best threshold on brightness, chosen on all of these frames, stays under 0.3.
    assert dice["n"] == 9
    assert dice["value"] > 0.45

    # Frames of a cine series are no stack: each is a case, on its own grid, with its volume.
    frames = real_data / "heart_mr" / "SCD0000501" / "dicom"
    done = infer(
        InferOptions(
            sources=(frames,),
            checkpoint=result.checkpoint,
            output=tmp_path / "answers",
            run=RunOptions(workers=0, device="cpu"),
        )
    )
    assert [row["status"] for row in done.rows] == ["ok"] * 4
    assert {row["patient"] for row in done.rows} == {"SCD0000501"}
    for row in done.rows:
        mask = sitk.ReadImage(str(tmp_path / "answers" / row["mask"]))
        assert mask.GetSize() == (256, 256, 1)
        voxel_ml = np.prod(mask.GetSpacing()) / 1000
        count = np.count_nonzero(sitk.GetArrayFromImage(mask))
        assert row["volume_ml"] == pytest.approx(count * voxel_ml)


@pytest.mark.real_data
def test_a_mask_on_another_grid_is_refused(real_data: Path, tmp_path: Path) -> None:
    """A model's mask of a heart that came on the grid before the scan was cropped."""
    place = real_data / "heart_mr" / "heart_ct"
    (tmp_path / "manifest.csv").write_text(
        "case,patient,image_CT,mask\n"
        f"a,a,{place / 'ct.nii.gz'},{place / 'heart_on_uncropped_grid.nii.gz'}\n"
        f"b,b,{place / 'ct.nii.gz'},{place / 'heart.nii.gz'}\n"
    )
    task = Heart(resolve(Heart, "small", folder=tmp_path).settings)
    cohort = task.find(Source((tmp_path,)))
    task = task.planned(cohort.cases, intake=cohort.intake, folder=tmp_path / "measured")
    assert task.settings.data.preparation.intensity == "window"
    found = {case.case_id: [f.code for f in task.check(case)] for case in cohort.cases}
    assert "grids-differ" in found["a"]
    assert "grids-differ" not in found["b"]
    (whole,) = [case for case in cohort.cases if case.case_id == "b"]
    assert task.prepare(whole).facts["slices"] == 112
