"""What users of nnU-Net have, each trained, answered and scored: 2d, 3d_lowres, regions, ignore."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from medtool_segment import Segment
from mr_series import write_mr_series
from two_levels import ONE_EPOCH, two_levels

from medtool.core.checkpoint import read_header
from medtool.core.errors import UsageError
from medtool.core.geometry import Grid
from medtool.data.nifti_writer import write_nifti
from medtool.data.predictions import read_predictions
from medtool.dicom.intake import scan
from medtool.dicom.segmentation import Maker, write_segmentation
from medtool.dicom.segmentation import Segment as Segment_
from medtool.verbs.evaluate import EvaluateOptions, evaluate
from medtool.verbs.infer import InferOptions, infer
from medtool.verbs.options import RunOptions
from medtool.verbs.train import TrainOptions, TrainResult, train
from medtool.verbs.train_until import train_until

QUICK = (*ONE_EPOCH, "report.worst_cases=0")


def network(dimensions: int) -> tuple[str, ...]:
    return (*two_levels(dimensions), f"model.patch_size_vox={[16] * dimensions}")


def write_dataset(
    folder: Path,
    labels: dict[str, object],
    *,
    size: tuple[int, int, int] = (20, 22, 12),
    channels: tuple[str, ...] = ("T1",),
    cases: int = 6,
    ignored: int | None = None,
    order: list[int] | None = None,
) -> Path:
    """Balls in balls: 1 around 2; with ``ignored`` one slice that nobody labelled."""
    x, y, z = size
    index = np.indices((z, y, x), dtype=np.float64)
    grid = Grid(size, (1.0, 1.0, 2.0), (0.0, 0.0, 0.0))
    for number in range(cases):
        rng = np.random.default_rng(number)
        centre = [n / 2 + rng.uniform(-1, 1) for n in (z, y, x)]
        scale = [n / 2 for n in (z, y, x)]
        apart = sum(((index[k] - centre[k]) / scale[k]) ** 2 for k in range(3)) ** 0.5
        mask = (apart < 0.7).astype(np.uint8) + (apart < 0.4)
        if ignored is not None:
            mask[z // 2] = ignored
        for channel, _ in enumerate(channels):
            shown = mask * (1.0 if channel == 0 else -0.5)
            image = (100 + 50 * shown + rng.normal(0, 5, mask.shape)).astype(np.float32)
            file = folder / "imagesTr" / f"case_{number}_{channel:04d}.nii.gz"
            write_nifti(file, image, grid)
        write_nifti(folder / "labelsTr" / f"case_{number}.nii.gz", mask, grid)
    document = {
        "channel_names": {str(n): name for n, name in enumerate(channels)},
        "labels": labels,
        "numTraining": cases,
        "file_ending": ".nii.gz",
        **({"regions_class_order": order} if order else {}),
    }
    (folder / "dataset.json").write_text(json.dumps(document), encoding="utf-8")
    return folder


# So large, and planned for so little memory, that a patch shows under a quarter of an image.
LARGE, SMALL_MEMORY = (64, 64, 32), "model.memory_gb=0.01"
PLAIN = {"background": 0, "shell": 1, "core": 2}


def learned(folder: Path, *settings: str) -> TrainResult:
    return train(asked(folder, *settings))


def asked(folder: Path, *settings: str) -> TrainOptions:
    return TrainOptions(
        task=Segment,
        data=folder / "data",
        assignments=(*QUICK, *settings),
        folder=folder,
        run=RunOptions(run="a", workers=0, cache=folder / "cache", device="cpu"),
    )


def answered(folder: Path, result: TrainResult) -> Path:
    """Masks of all images, each on its image's grid; evaluated as well."""
    done = infer(
        InferOptions(
            sources=(folder / "data" / "imagesTr",),
            checkpoint=result.checkpoint,
            output=folder / "answers",
            run=RunOptions(workers=0, device="cpu"),
        )
    )
    assert (done.ok, done.failed, done.refused) == (6, 0, 0)
    for row in read_predictions(done.folder):
        image = nibabel.load(folder / "data" / "imagesTr" / f"{row['case']}_0000.nii.gz")
        mask = nibabel.load(done.folder / row["mask"])
        assert mask.shape == image.shape
        np.testing.assert_allclose(mask.affine, image.affine, atol=1e-5)
    test = result.run / "predictions" / "test"
    found = evaluate(EvaluateOptions((test,), checkpoints=(result.checkpoint,)))
    dice = found.evaluated[0].scores.metrics["dice"].value
    stated = result.scores["test"]["metrics"]["dice"]["value"]
    assert dice == pytest.approx(stated, nan_ok=True)
    return done.folder


def test_slices_of_volumes(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", PLAIN)
    settings = ('data.preparation.configuration="2d"', *network(2))
    result = learned(tmp_path, *settings)
    preset = read_header(result.checkpoint).document["preset"]
    assert preset["data"]["preparation"]["configuration"] == "2d"
    assert preset["train"]["batch_dice"] is True
    # Nothing is resampled across slices: the coarsest axis keeps its spacing.
    assert preset["data"]["preparation"]["spacing_mm"][0] == pytest.approx(2.0)
    answered(tmp_path, result)


def test_dropout_and_attention_gates(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", PLAIN)
    options = ("model.dropout=0.3", "model.attention_gates=true")
    result = learned(tmp_path, *network(3), *options)
    assert read_header(result.checkpoint).document["preset"]["model"]["dropout"] == 0.3
    answered(tmp_path, result)


def test_a_low_resolution_of_large_volumes(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", PLAIN, size=LARGE)
    planned = ('data.preparation.configuration="3d_lowres"', SMALL_MEMORY)
    (stopped,) = train_until("plan", asked(tmp_path, *planned))
    assert stopped.plan is not None
    fine = stopped.plan.document["configurations"]["3d_fullres"]["spacing_mm"]
    result = learned(tmp_path, *planned, *network(3))
    preset = read_header(result.checkpoint).document["preset"]
    spacing = preset["data"]["preparation"]["spacing_mm"]
    assert all(low >= full for low, full in zip(spacing, fine, strict=True))
    assert np.prod(spacing) > 2 * np.prod(fine)
    answered(tmp_path, result)


def test_the_cascade_is_planned_and_refused_by_name(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", PLAIN, size=LARGE)
    (stopped,) = train_until("plan", asked(tmp_path, SMALL_MEMORY))
    assert stopped.plan is not None
    assert "3d_cascade_fullres" in stopped.plan.document["configurations"]
    with pytest.raises(UsageError, match="cascade is planned and not trained") as error:
        learned(tmp_path, 'data.preparation.configuration="3d_cascade_fullres"')
    assert "3d_fullres" in error.value.wanted and "--region" in error.value.how


def test_a_low_resolution_that_the_data_do_not_need_is_refused(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", PLAIN)
    with pytest.raises(UsageError, match="does not need this configuration"):
        learned(tmp_path, 'data.preparation.configuration="3d_lowres"')


def test_regions_with_an_ignored_label_and_two_channels(tmp_path: Path) -> None:
    labels = {"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}
    write_dataset(tmp_path / "data", labels, channels=("T1", "T2"), ignored=3, order=[1, 2])
    result = learned(tmp_path, *network(3), "train.epochs=2")
    data = read_header(result.checkpoint).document["preset"]["data"]
    assert data["channels"] == ["T1", "T2"]
    assert data["regions_order"] == [1, 2] and data["ignore_id"] == 3
    folder = answered(tmp_path, result)
    metrics = result.scores["test"]["metrics"]
    assert {"dice.whole", "dice.core"} <= set(metrics)
    for row in read_predictions(folder):
        mask = np.asarray(nibabel.load(folder / row["mask"]).dataobj)
        # What is written is what regions are written with; nothing is answered as ignored.
        assert set(np.unique(mask)) <= {0, 1, 2}
        voxel_ml = 2.0 / 1000
        assert float(row["volume_whole_ml"]) == pytest.approx((mask > 0).sum() * voxel_ml)
        assert float(row["volume_core_ml"]) == pytest.approx((mask == 2).sum() * voxel_ml)
    # Voxels that nobody labelled count for nothing: the score is that of the others, counted here.
    test = result.run / "predictions" / "test"
    row = read_predictions(test)[0]
    mask = np.asarray(nibabel.load(test / row["mask"]).dataobj)
    truth = np.asarray(
        nibabel.load(tmp_path / "data" / "labelsTr" / f"{row['case']}.nii.gz").dataobj
    )
    known = truth != 3
    both = np.count_nonzero((mask > 0) & (truth > 0) & known)
    wanted = (
        2 * both / (np.count_nonzero((mask > 0) & known) + np.count_nonzero((truth > 0) & known))
    )
    tables = json.loads((result.run / "scores.json").read_text("utf-8"))["test"]["tables"]
    stored = next(
        line
        for line in tables["structures_by_case"]
        if line["case"] == row["case"] and line["structure"] == "whole"
    )
    assert stored["dice"] == pytest.approx(wanted)


def test_dicom_series_with_masks_beside_them(tmp_path: Path) -> None:
    """SEG objects among the series are their references, in training and in evaluation."""
    write_dataset(tmp_path / "nifti", PLAIN)
    for number in range(6):
        image = nibabel.load(tmp_path / "nifti" / "imagesTr" / f"case_{number}_0000.nii.gz")
        mask = nibabel.load(tmp_path / "nifti" / "labelsTr" / f"case_{number}.nii.gz")
        folder = tmp_path / "data" / f"P{number}"
        grid = Grid((20, 22, 12), (1.0, 1.0, 2.0), (0.0, 0.0, 0.0))
        values = np.asarray(image.dataobj).transpose(2, 1, 0)
        write_mr_series(folder / "mr", values, grid, patient=f"P{number}")
        (series,) = scan([folder]).series
        write_segmentation(
            np.asarray(mask.dataobj).transpose(2, 1, 0).astype(np.uint8),
            series,
            [Segment_("core", (2,)), Segment_("shell", (1,))],
            folder / "masks.dcm",
            maker=Maker("made", "1", "abc"),
        )
    result = learned(tmp_path, *network(3))
    data = read_header(result.checkpoint).document["preset"]["data"]
    # The modality names the channel; structures are numbered in the order of their names.
    assert data["channels"] == ["MR"]
    assert data["label_ids"] == {"background": [0], "core": [1], "shell": [2]}
    test = result.run / "predictions" / "test"
    rows = read_predictions(test)
    assert [row["status"] for row in rows] == ["ok"] * len(rows)
    found = evaluate(EvaluateOptions((test,), checkpoints=(result.checkpoint,)))
    tables = found.evaluated[0].scores.tables["structures_by_case"]
    for row in rows:
        number = row["case"][1]
        truth = nibabel.load(tmp_path / "nifti" / "labelsTr" / f"case_{number}.nii.gz")
        truth = np.asarray(truth.dataobj)
        mask = np.asarray(nibabel.load(test / row["mask"]).dataobj)
        for name, ours, theirs in (("core", 1, 2), ("shell", 2, 1)):
            line = next(
                one for one in tables if one["case"] == row["case"] and one["structure"] == name
            )
            assert line["reference_ml"] == pytest.approx((truth == theirs).sum() * 2.0 / 1000)
            wanted, given = truth == theirs, mask == ours
            dice = 2 * np.count_nonzero(wanted & given) / (wanted.sum() + given.sum())
            assert line["dice"] == pytest.approx(dice)
