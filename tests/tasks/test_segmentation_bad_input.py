"""Images that no one would wish for, through the verbs: each is a row, and the run goes on."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from medtool_segment import Segment
from medtool_segment.demo import draw_case, write_dataset
from two_levels import TWO_LEVELS
from untrained_segment import write_model

from medtool.config import resolve
from medtool.core.errors import ExitStatus, UsageError
from medtool.core.geometry import Grid
from medtool.data.nifti_writer import write_nifti
from medtool.data.predictions import read_predictions
from medtool.verbs.check import check
from medtool.verbs.infer import InferOptions, infer
from medtool.verbs.options import RunOptions
from medtool.verbs.task_data import DataOptions
from medtool.verbs.train import TrainOptions, train

UNIT = (1.5, 1.1, 1.1)


def volume(*size: int) -> tuple[np.ndarray, Grid]:
    x, y, z = size
    values = np.random.default_rng(0).normal(100, 20, (z, y, x)).astype(np.float32)
    return values, Grid((x, y, z), UNIT, (0.0, 0.0, 0.0))


def write_raw(path: Path, array: np.ndarray, spacing: tuple[float, ...]) -> None:
    image = nibabel.Nifti1Image(array, np.diag([*spacing[:3], 1.0]))
    image.header.set_zooms(spacing[: array.ndim])
    nibabel.save(image, path)


def write_conflicts(folder: Path) -> None:
    """Headers that say two things, or what cannot be."""
    values = np.ones((8, 8, 4), np.float32)
    moved, leaning = np.eye(4), np.eye(4)
    moved[0, 3], leaning[0, 1] = 5.0, 0.4
    for name, sform, qform in (
        ("conflict", np.eye(4), moved),
        ("leaning", leaning, None),
        ("spacing_0", None, np.eye(4)),
    ):
        image = nibabel.Nifti1Image(values, None)
        image.set_sform(sform, 1 if sform is not None else 0)
        image.set_qform(qform, 1 if qform is not None else 0)
        nibabel.save(image, folder / f"{name}.nii")
    header = bytearray((folder / "spacing_0.nii").read_bytes())
    # The step along the first axis: pixdim[1].
    struct.pack_into("<f", header, 76 + 4, 0.0)
    (folder / "spacing_0.nii").write_bytes(header)


def test_infer_answers_what_it_can_and_names_the_rest(tmp_path: Path) -> None:
    write_model(tmp_path / "model.safetensors", "[1.5, 1.1, 1.1]")
    scans = tmp_path / "scans"
    scans.mkdir()
    write_nifti(scans / "one_slice.nii.gz", *volume(24, 24, 1))
    write_nifti(scans / "small.nii.gz", *volume(5, 6, 4))
    values, grid = volume(20, 20, 8)
    write_nifti(scans / "all_zero.nii.gz", np.zeros_like(values), grid)
    write_nifti(scans / "constant.nii.gz", np.full_like(values, 7.0), grid)
    write_raw(scans / "flat.nii.gz", np.ones((16, 16), np.float32), (1.0, 1.0, 1.0))
    write_raw(scans / "four.nii.gz", np.ones((8, 8, 4, 3), np.float32), (1.0, 1.0, 1.0, 1.0))
    write_raw(scans / "spacing_999.nii.gz", np.ones((8, 8, 4), np.float32), (1.0, 1.0, 999.0))
    whole = (scans / "small.nii.gz").read_bytes()
    (scans / "broken.nii.gz").write_bytes(whole[: len(whole) // 2])
    (scans / "header.nii").write_bytes(b"\x5c\x01\0\0" + b"\xff" * 400)
    write_conflicts(scans)
    result = infer(
        InferOptions(
            sources=(scans,),
            checkpoint=tmp_path / "model.safetensors",
            output=tmp_path / "out",
            allow_demo=True,
            run=RunOptions(workers=0, device="cpu"),
        )
    )
    assert result.status == ExitStatus.SOME_CASES_FAILED
    rows = {row["case"]: row for row in read_predictions(result.folder)}
    for name, size in (
        ("one_slice", (24, 24, 1)),
        ("small", (5, 6, 4)),
        ("all_zero", (20, 20, 8)),
        ("constant", (20, 20, 8)),
    ):
        assert rows[name]["status"] == "ok", rows[name]
        assert nibabel.load(result.folder / rows[name]["mask"]).shape == size
    others = {name: row for name, row in rows.items() if row["status"] != "ok"}
    assert {name: row["code"].split(";")[-1] for name, row in others.items()} == {
        "flat": "unreadable-nifti",
        "four": "unreadable-nifti",
        "spacing_999": "invalid-spacing",
        "spacing_0": "invalid-spacing",
        "conflict": "forms-conflict",
        "leaning": "skewed-axes",
        "broken": "truncated-file",
        "header": "unreadable-nifti",
    }
    assert all(row["message"] for row in others.values())


def test_training_leaves_out_what_cannot_be_used_and_learns_from_the_rest(tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_dataset(data, seed=2, cases=9)
    masks = data / "labelsTr"
    _, mask, grid = draw_case(2, 0)
    moved = Grid(grid.size, grid.spacing_mm, tuple(value + 5 for value in grid.origin_mm))
    write_nifti(masks / "demo_000.nii.gz", mask, moved)
    write_nifti(masks / "demo_001.nii.gz", np.where(mask > 0, 7, 0).astype(np.uint8), grid)
    # Nobody marked anything: there is nothing wrong with that.
    other = nibabel.load(masks / "demo_002.nii.gz")
    nibabel.save(
        nibabel.Nifti1Image(np.zeros(other.shape, np.uint8), other.affine),
        masks / "demo_002.nii.gz",
    )
    (masks / "demo_003.nii.gz").unlink()
    found = check(DataOptions("segment", data), workers=0).document
    codes = {
        row["case"]: {finding["code"] for finding in row["findings"]} for row in found["cases"]
    }
    assert "grids-differ" in codes["demo_000"] | {f["code"] for f in found["findings"]}
    assert "label-undeclared" in codes["demo_001"]
    assert "mask-empty" in codes["demo_002"]
    missing = [f["message"] for f in found["findings"] if f["code"] == "mask-missing"]
    assert len(missing) == 1 and missing[0].endswith("have no mask: demo_003")
    settings = (
        "model.budget=cpu",
        *TWO_LEVELS,
        # Larger than any image.
        "model.patch_size_vox=[48, 48, 48]",
        "train.epochs=1",
        "train.batch_cases=1",
        "train.examples_per_case=1",
        "metrics.bootstrap_draws=100",
        "report.worst_cases=0",
    )
    result = train(
        TrainOptions(
            task=Segment,
            data=data,
            assignments=settings,
            folder=tmp_path,
            run=RunOptions(run="a", workers=0, device="cpu", cache=tmp_path / "cache"),
        )
    )
    failures = json.loads((result.run / "run.json").read_text("utf-8"))["failures"]
    assert {one["case"]: one["code"] for one in failures} == {
        "demo_000": "grids-differ",
        "demo_001": "label-undeclared",
    }


@pytest.mark.parametrize("beside", [False, True], ids=["named", "beside the data"])
def test_a_fold_that_the_split_file_lacks_is_refused(tmp_path: Path, beside: bool) -> None:
    write_dataset(tmp_path / "data", seed=2, cases=6)
    names = [f"demo_{n:03d}" for n in range(6)]
    folds = [{"train": names[2:], "val": names[:2]}, {"train": names[:4], "val": names[4:]}]
    file = (tmp_path / "data" if beside else tmp_path) / "splits_final.json"
    file.write_text(json.dumps(folds), encoding="utf-8")
    with pytest.raises(UsageError) as error:
        train(
            TrainOptions(
                task=Segment,
                data=tmp_path / "data",
                assignments=() if beside else (f"data.split_file={file}",),
                folder=tmp_path,
                run=RunOptions(run="a", fold=4, workers=0, device="cpu"),
            )
        )
    assert "no fold 4" in error.value.what
    assert not (tmp_path / "runs" / "segment" / "a" / "fold_4" / "checkpoints").exists()


# What a preset says of ids, what the data set says, and labels, order and ignored id then.
EXCLUSIVE = {"background": [0], "organ": [1], "tumour": [2], "unlabelled": [255]}
OVERLAPPING = {"background": [0], "whole": [1, 2], "core": [2], "unlabelled": [3]}
PAIRS = {"background": [0], "mask": [1]}
SETTLED = {
    "a name for what nobody labelled": (
        *("data.ignore_id=255", EXCLUSIVE, [], None),
        *({"background": [0], "organ": [1], "tumour": [2]}, [], 255),
    ),
    "a region of that name": (
        *("data.ignore_id=3", OVERLAPPING, [1, 2, 3], None),
        *({"background": [0], "whole": [1, 2], "core": [2]}, [1, 2], 3),
    ),
    "an id that no description names": ("data.ignore_id=2", PAIRS, [], None, PAIRS, [], 2),
    "the same id": ("data.ignore_id=2", PAIRS, [], 2, PAIRS, [], 2),
    "only the data set": ("data.channels=['MR']", PAIRS, [], 2, PAIRS, [], 2),
    "an order": ("data.regions_order=[3, 2, 1]", OVERLAPPING, [1, 2, 3], None)
    + (OVERLAPPING, [3, 2, 1], None),
}


def informed(
    folder: Path,
    assignment: str,
    labels: dict[str, list[int]],
    order: list[int],
    ignored: int | None,
) -> Any:
    task = Segment(resolve(Segment, None, folder=folder, assignments=(assignment,)).settings)
    known = {"labels": labels, "regions_order": order, "ignore_id": ignored}
    return task.informed({"dataset": {"channels": ["MR"], **known}}).settings.data


@pytest.mark.parametrize("name", SETTLED)
def test_ids_that_the_preset_fixes_stay(tmp_path: Path, name: str) -> None:
    """From a fault: the data set overwrote them, and what nobody labelled was a class."""
    *given, labels, order, ignored = SETTLED[name]
    data = informed(tmp_path, *given)
    assert (data.label_ids, data.regions_order, data.ignore_id) == (labels, order, ignored)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("data.ignore_id=2", OVERLAPPING, [1, 2, 3], None), "2, a part of whole"),
        (("data.ignore_id=1", PAIRS, [], None), "1, the only label"),
        (("data.ignore_id=0", PAIRS, [], None), "0, the background"),
        (("data.ignore_id=3", PAIRS, [], 2), "the data set ignores 2"),
        (("data.regions_order=[1, 2]", OVERLAPPING, [1, 2, 3], None), "3, one for each of whole"),
    ],
)
def test_ids_of_the_preset_that_do_not_fit_the_data_set_are_refused(
    tmp_path: Path, given: Any, said: str
) -> None:
    with pytest.raises(UsageError) as refusal:
        informed(tmp_path, *given)
    assert said in f"{refusal.value.met} {refusal.value.wanted}"
