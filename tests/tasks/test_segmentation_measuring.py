"""Cases measured for the plan: in workers and here alike, once, and by the channels asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from medtool_segment import Segment
from medtool_segment.demo import write_dataset

from medtool.config import resolve
from medtool.core.errors import InputError
from medtool.core.records import Source
from medtool.tasks import segmentation_measuring
from medtool.tasks.segmentation_measuring import fingerprints


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("measured")
    write_dataset(folder, seed=6, cases=3)
    return folder


def task(folder: Path, channel: str = "MR") -> Segment:
    settings = (f'data.channels=["{channel}"]', "data.label_ids={background=[0], organ=[1, 2]}")
    return Segment(resolve(Segment, None, folder=folder, assignments=settings).settings)


def measured(dataset: Path, folder: Path, workers: int | None, channel: str = "MR"):
    asked = task(folder, channel)
    cases = asked.find(Source((dataset,))).cases
    return list(fingerprints(asked, asked.settings.data, cases, folder, workers=workers))


def test_workers_measure_what_one_process_does_and_only_once(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = measured(dataset, tmp_path / "here", 0)
    assert len(here) == 3
    # Small cases are not worth a process; as if they were large.
    monkeypatch.setattr(segmentation_measuring, "WORTH_WORKERS_VOXELS", 0)
    there = measured(dataset, tmp_path / "there", 2)
    for one, other in zip(here, there, strict=True):
        assert (one.size_vox, one.spacing_mm) == (other.size_vox, other.spacing_mm)
        np.testing.assert_array_equal(one.foreground[0].quantiles, other.foreground[0].quantiles)
    files = {file: file.stat().st_mtime_ns for file in (tmp_path / "there").rglob("*.b2")}
    assert len(files) == 3
    measured(dataset, tmp_path / "there", 2)
    assert {file: file.stat().st_mtime_ns for file in files} == files


def test_other_channels_are_measured_anew(dataset: Path, tmp_path: Path) -> None:
    measured(dataset, tmp_path, 0)
    measured(dataset, tmp_path, 0, channel="T2")
    assert len(list(tmp_path.rglob("*.b2"))) == 6


def test_a_case_that_cannot_be_read_is_left_to_the_preparation(
    dataset: Path, tmp_path: Path
) -> None:
    write_dataset(tmp_path / "data", seed=6, cases=2)
    (tmp_path / "data" / "imagesTr" / "demo_000_0000.nii.gz").write_bytes(b"no image")
    assert len(measured(tmp_path / "data", tmp_path / "kept", 0)) == 1
    (tmp_path / "data" / "labelsTr" / "demo_001.nii.gz").write_bytes(b"no mask")
    with pytest.raises(InputError, match="No case can be read"):
        measured(tmp_path / "data", tmp_path / "other", 0)
