"""A segmentation slice by slice through the verbs: pairs of pictures, DICOM, what it leaves."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import torch
from dicom_builder import build_series
from medtool_heart import Heart
from medtool_heart.demo import draw_slice

from medtool.core.checkpoint import read_header
from medtool.core.records import Source
from medtool.data.masks import write_mask_picture
from medtool.data.predictions import read_predictions
from medtool.dicom import read, scan
from medtool.nets.attention_gate import AttentionGate
from medtool.nets.state import read_tensors
from medtool.predict.model import Model, load_model
from medtool.verbs.evaluate import EvaluateOptions, evaluate
from medtool.verbs.infer import InferOptions, infer
from medtool.verbs.options import RunOptions
from medtool.verbs.train import TrainOptions, TrainResult, train

SMALL = (
    "data.preparation.size_px=[32, 32]",
    "model.input_channels=1",
    "model.first_features=4",
    "model.levels=3",
    "train.epochs=2",
    "train.batch_cases=4",
    "train.split=three-part",
    "metrics.bootstrap_draws=100",
)
# Neither a square nor the size that the network sees.
ROWS, COLUMNS = 80, 96


def write_pairs(folder: Path, patients: int, slices: int = 1) -> None:
    """Pictures of 8 bits and masks of 0 and 255; names begin with the patient."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for patient in range(patients):
        for index in range(slices):
            image, mask, _ = draw_slice(1, patient, index)
            grey = np.clip(255 * image[:ROWS] / image.max(), 0, 255).astype(np.uint8)
            stem = f"p{patient:02d}_{index}"
            assert cv2.imwrite(str(folder / "images" / f"{stem}.png"), grey)
            write_mask_picture(folder / "masks" / f"{stem}.png", mask[None, :ROWS] * np.uint8(255))


def trained_on(folder: Path, *assignments: str, preset: str | None = None) -> TrainResult:
    return train(
        TrainOptions(
            task=Heart,
            data=folder / "data",
            preset=preset,
            assignments=(*SMALL, *assignments),
            folder=folder,
            run=RunOptions(run="a", workers=0, cache=folder / "cache", device="cpu"),
        )
    )


def answered(result: TrainResult, source: Path, output: Path, **options: bool) -> list[dict]:
    infer(
        InferOptions(
            sources=(source,),
            checkpoint=result.checkpoint,
            output=output,
            run=RunOptions(workers=0, device="cpu"),
            **options,
        )
    )
    return read_predictions(output)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> tuple[Path, TrainResult]:
    folder = tmp_path_factory.mktemp("pairs")
    write_pairs(folder / "data", patients=10, slices=2)
    return folder, trained_on(folder, r'data.patient_pattern="(p\\d+)_"')


def test_the_run_says_what_it_settled(pairs) -> None:
    _, result = pairs
    document = read_header(result.checkpoint).document
    data = document["preset"]["data"]
    assert data["preparation"]["intensity"] == "8-bit"
    assert data["label_ids"] == {"heart": [1]}
    assert document["planned"]["decisions"][0]["value"] == "8-bit"
    with (result.run / "history.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    watched = ("loss", "dice", "accuracy")
    for row in rows:
        # Of both parts, each epoch.
        values = [float(row[name]) for w in watched for name in (w, f"selection_{w}")]
        assert np.isfinite(values).all()
        assert 0 <= float(row["selection_accuracy"]) <= 1
    assert "8-bit" in result.report.read_text(encoding="utf-8")


def test_patients_stay_together(pairs) -> None:
    _, result = pairs
    with (result.run / "cases.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    parts = {row["patient"]: set() for row in rows}
    for row in rows:
        parts[row["patient"]].add(row["part"])
    assert len(parts) == 10
    assert all(len(own) == 1 for own in parts.values())


def test_pictures_give_masks_of_their_size_and_no_volume_that_nobody_measured(pairs) -> None:
    folder, result = pairs
    # The folder of pictures alone, as one that has no masks.
    rows = answered(result, folder / "data" / "images", folder / "answers", overlays=True)
    assert len(rows) == 20
    for row in rows[:3]:
        mask = cv2.imread(str(folder / "answers" / row["mask"]), cv2.IMREAD_UNCHANGED)
        assert mask.shape == (ROWS, COLUMNS)
        assert set(np.unique(mask)) <= {0, 255}
        assert row["volume_ml"] == "" and row["volume_heart_ml"] == ""
        assert "spacing-unknown" in row["code"]
        assert list((folder / "answers" / "overlays" / row["case"]).glob("*.png"))


def test_scores_are_those_of_the_files_and_leave_out_lengths(pairs) -> None:
    folder, result = pairs
    test = result.run / "predictions" / "test"
    found = evaluate(
        EvaluateOptions(subjects=(test,), checkpoints=(result.checkpoint,), data=folder / "data")
    ).evaluated[0]
    stated = result.scores["test"]["metrics"]
    assert found.scores.metrics["dice"].value == pytest.approx(stated["dice"]["value"])
    assert np.isnan(found.scores.metrics["hd95_mm.heart"].value)
    assert any("how large a voxel" in note for note in found.scores.notes)
    tables = json.loads((result.run / "scores.json").read_text())["test"]["tables"]
    for row in read_predictions(test):
        mask = cv2.imread(str(test / row["mask"]), cv2.IMREAD_UNCHANGED) > 0
        truth = cv2.imread(str(folder / "data" / "masks" / f"{row['case']}.png"), 0) > 0
        wanted = 2 * (mask & truth).sum() / (mask.sum() + truth.sum())
        (stored,) = [one for one in tables["structures_by_case"] if one["case"] == row["case"]]
        assert stored["dice"] == pytest.approx(wanted)


def test_a_model_of_pictures_refuses_hu(pairs, tmp_path: Path) -> None:
    folder, result = pairs
    build_series(tmp_path / "ct")
    (row,) = answered(result, tmp_path / "ct", tmp_path / "answers")
    assert row["status"] == "refused"
    assert row["code"] == "scale-differs"


@pytest.fixture(scope="module")
def scans(tmp_path_factory) -> tuple[Path, TrainResult]:
    """CT series with masks on their own grids, joined by a manifest."""
    folder = tmp_path_factory.mktemp("scans")
    lines = ["case,patient,image_CT,mask"]
    for number in range(8):
        place = folder / "data" / f"c{number}"
        stored = np.random.default_rng(number).integers(0, 2000, (4, 20, 24)).astype(np.int16)
        build_series(
            place,
            stored,
            patient_id=f"P{number}",
            study_uid=f"1.2.{number}",
            series_uid=f"1.2.{number}.1",
        )
        image = read(scan([place]).series[0])
        array = sitk.GetArrayFromImage(image)
        mask = sitk.GetImageFromArray((array > np.median(array)).astype(np.uint8))
        mask.CopyInformation(image)
        sitk.WriteImage(mask, str(folder / "data" / f"c{number}.nii.gz"))
        lines.append(f"c{number},P{number},c{number},c{number}.nii.gz")
    (folder / "data" / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder, trained_on(folder, "train.epochs=1")


def test_ct_is_windowed_and_a_segmentation_object_comes_out(scans, tmp_path: Path) -> None:
    folder, result = scans
    assert (
        read_header(result.checkpoint).document["preset"]["data"]["preparation"]["intensity"]
        == "window"
    )
    (row,) = answered(result, folder / "data" / "c0", tmp_path / "answers", dicom_seg=True)
    mask = sitk.ReadImage(str(tmp_path / "answers" / row["mask"]))
    image = read(scan([folder / "data" / "c0"]).series[0])
    assert mask.GetSize() == image.GetSize()
    np.testing.assert_allclose(mask.GetOrigin(), image.GetOrigin(), atol=1e-4)
    voxels = sitk.GetArrayFromImage(mask)
    each_ml = np.prod(mask.GetSpacing()) / 1000
    assert float(row["volume_ml"]) == pytest.approx((voxels > 0).sum() * each_ml, rel=1e-6)
    (seg,) = (tmp_path / "answers" / "dicom-seg").glob("*.dcm")
    stored = pydicom.dcmread(seg)
    assert stored.Modality == "SEG"
    (kind,) = stored.SegmentSequence[0].SegmentedPropertyTypeCodeSequence
    assert (kind.CodeValue, kind.CodeMeaning) == ("80891009", "Heart")


def learned_with(pairs, folder: Path, *assignments: str) -> tuple[Model, dict, int]:
    """The model of a run with these options, the plan of the run, and its training cases."""
    (folder / "data").symlink_to(pairs[0] / "data")
    result = trained_on(folder, *assignments, "train.epochs=1")
    assert np.isfinite(result.scores["selection"]["metrics"]["dice"]["value"])
    with (result.run / "cases.csv").open(encoding="utf-8", newline="") as stream:
        training = sum(row["part"] == "train" for row in csv.DictReader(stream))
    plan = json.loads((result.run / "run.json").read_text(encoding="utf-8"))["plan"]
    return load_model(result.checkpoint, device="cpu"), plan, training


def test_gates_and_dropout_are_learned_and_kept(pairs, tmp_path: Path) -> None:
    given = ("model.attention_gates=true", "model.dropout=0.2", "model.encoder_dropout=0.1")
    model, _, _ = learned_with(pairs, tmp_path, *given)
    parts = dict(model.network.named_modules())
    gates = [name for name, part in parts.items() if isinstance(part, AttentionGate)]
    # One for each level that the decoder climbs.
    assert len(gates) == 2
    shares = {
        part: {m.share for n, m in parts.items() if n.startswith(part) and hasattr(m, "share")}
        for part in ("encoder", "decoder")
    }
    assert shares == {"encoder": {0.1}, "decoder": {0.2}}


def test_a_timm_model_is_the_encoder_of_the_checkpoint(pairs, tmp_path: Path) -> None:
    given = ('model.encoder="resnet18"', "data.preparation.size_px=[64, 64]")
    model, _, _ = learned_with(pairs, tmp_path, *given)
    kept = dict(read_tensors(model.path, "model.encoder."))
    # What timm calls the layers of a ResNet-18, for one channel.
    assert kept["backbone.conv1.weight"].shape == (64, 1, 7, 7)
    assert kept["backbone.layer4.1.conv2.weight"].shape == (512, 512, 3, 3)


def test_fourfold_shows_every_slice_four_times(pairs, tmp_path: Path) -> None:
    given = ('augment.kind="fourfold"', "train.examples_per_case=4")
    model, plan, training = learned_with(pairs, tmp_path, *given)
    assert model.document["preset"]["augment"]["kind"] == "fourfold"
    shown = plan["steps_per_epoch"] * plan["cases_per_step"]
    # The last step of an epoch may be left out, or filled up.
    assert abs(shown - 4 * training) < plan["cases_per_step"] < 2 * training < shown


def test_colour_the_loss_as_metric_and_added_steps(pairs, tmp_path: Path) -> None:
    given = ("model.input_channels=3", 'metrics.primary="loss"', "train.accumulate=2")
    model, plan, _ = learned_with(pairs, tmp_path, *given)
    first = next(v for v in model.network.parameters() if v.ndim == 4)
    assert first.shape[1] == 3
    assert model.document["metrics"]["primary"] == "loss"
    assert plan["cases_per_step"] == 2 * 4


def test_several_structures_share_a_softmax(tmp_path: Path) -> None:
    write_pairs(tmp_path / "data", patients=8)
    for path in (tmp_path / "data" / "masks").iterdir():
        mask = cv2.imread(str(path), 0) // 255
        # The lower half of it is another structure.
        rows = np.flatnonzero(mask.any(axis=1))
        mask[int(rows.mean()) :] *= 2
        assert cv2.imwrite(str(path), mask)
    result = trained_on(tmp_path, "data.label_ids={ upper = [1], lower = [2] }")
    assert {"dice.upper", "dice.lower"} <= set(result.scores["test"]["metrics"])
    rows = answered(result, tmp_path / "data" / "images", tmp_path / "answers")
    seen = cv2.imread(str(tmp_path / "answers" / rows[0]["mask"]), cv2.IMREAD_UNCHANGED)
    assert set(np.unique(seen)) <= {0, 1, 2}
    assert {"volume_upper_ml", "volume_lower_ml"} <= set(rows[0])


def test_models_answer_together(pairs, tmp_path: Path) -> None:
    """Every pixel is decided by the mean of what three different networks say of it."""
    folder, result = pairs
    model = load_model(result.checkpoint, device="cpu")
    settings = model.task.settings.model_dump()
    # Slices keep their size: no resizing stands between a network and its mask.
    settings["data"]["preparation"]["size_px"] = [ROWS, COLUMNS]
    settings["infer"]["largest_component"] = "never"
    task = Heart(Heart.settings_type.model_validate(settings))
    case = task.find(Source((folder / "data",))).cases[0]
    prepared = task.prepare(case)
    members, logits, alone = [], [], []
    for seed in (1, 2, 3):
        torch.manual_seed(seed)
        network = task.network().eval()
        network.register_forward_hook(lambda *call: logits.append(call[-1].detach().numpy()))
        member = replace(model, task=task, network=network)
        alone.append(task.predict(member, prepared, case).arrays["mask"] > 0)
        members.append(member)
    wanted = np.mean(logits, axis=0)[:, 0]
    wanted_mask = wanted > 0
    assert 0 < wanted_mask.sum() < wanted_mask.size
    assert all((mask != wanted_mask).any() for mask in alone)
    both = replace(members[0], members=tuple(members))
    together = task.predict_together(both, [prepared] * 3, case).arrays["mask"] > 0
    # Sums of three numbers may be rounded in another order where they are nearly 0.
    assert (together == wanted_mask)[abs(wanted) > 1e-5].all()


def test_probabilities_and_threshold_belong_together(scans) -> None:
    """Where a probability is over the threshold, the structure is, and nowhere else."""
    folder, result = scans
    model = load_model(result.checkpoint, device="cpu")
    settings = model.task.settings
    infer_section = settings.infer.model_copy(
        update={"probabilities": True, "threshold": 0.6, "largest_component": "never"}
    )
    task = Heart(settings.model_copy(update={"infer": infer_section}))
    case = task.find(Source((folder / "data",))).cases[0]
    answer = task.predict(replace(model, task=task), task.prepare(case), case)
    chances = np.asarray(answer.arrays["probabilities"])
    assert chances.shape == (1, *answer.arrays["mask"].shape)
    assert np.array_equal(answer.arrays["mask"] > 0, chances[0] > 0.6)
    row = task.write(answer, case, folder / "written")
    assert (folder / "written" / row["probabilities"]).is_file()
    assert set(row) == set(task.columns)
