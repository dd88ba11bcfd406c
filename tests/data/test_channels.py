"""Channels of one name stay channels of their own."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from medtool_segment import Segment

from medtool.core.records import Source
from medtool.data.channels import plain_names, told_apart


@pytest.mark.parametrize(
    ("names", "apart"),
    [
        (["CT"], ("CT",)),
        (["MR", "MR", "MR"], ("MR", "MR 2", "MR 3")),
        (["MR", "MR 2", "MR"], ("MR", "MR 2", "MR 3")),
        (["MR", "MR", "MR 2"], ("MR", "MR 3", "MR 2")),
    ],
)
def test_each_name_stands_once(names: list[str], apart: tuple[str, ...]) -> None:
    assert told_apart(names) == apart
    assert len(set(apart)) == len(names)


def test_the_number_is_no_part_of_what_a_channel_is() -> None:
    assert plain_names(["CT", "CT 2", "T1 2", "T 1", "T"]) == ("CT", "CT", "T1 2", "T 1", "T")
    assert plain_names(told_apart(["MR"] * 12)) == ("MR",) * 12


def test_two_channels_of_one_name_are_two_inputs(tmp_path: Path) -> None:
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder).mkdir()
    image = np.zeros((8, 8, 8), np.float32)
    for channel in range(2):
        nibabel.save(
            nibabel.Nifti1Image(image + channel, np.eye(4)),
            tmp_path / "imagesTr" / f"a_000{channel}.nii.gz",
        )
    mask = nibabel.Nifti1Image(np.pad(np.ones((2, 2, 2), np.uint8), 3), np.eye(4))
    nibabel.save(mask, tmp_path / "labelsTr" / "a.nii.gz")
    document = {
        "channel_names": {"0": "CT", "1": "CT"},
        "labels": {"background": 0, "organ": 1},
        "numTraining": 1,
        "file_ending": ".nii.gz",
    }
    (tmp_path / "dataset.json").write_text(json.dumps(document), encoding="utf-8")
    (case,) = Segment(Segment.settings_type()).find(Source((tmp_path,))).cases
    assert [
        (name, Path(reference.path).name)
        for name, reference in case.inputs.items()  # type: ignore[attr-defined]
    ] == [("CT", "a_0000.nii.gz"), ("CT 2", "a_0001.nii.gz")]
