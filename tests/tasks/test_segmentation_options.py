"""How a trained segmentation is asked: probabilities, mirroring, step, a coarse model first."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from medtool_segment import Segment
from medtool_segment.demo import write_dataset
from named_in import files_naming
from optimised import change_weights
from torch import Tensor, nn
from two_levels import ONE_EPOCH, TWO_LEVELS
from untrained_segment import write_model

from medtool.core.checkpoint import read_header
from medtool.core.ensemble import write_ensemble
from medtool.core.errors import CheckpointError, PresetError, UsageError
from medtool.core.geometry import Grid
from medtool.core.records import Source
from medtool.data.nifti_writer import write_nifti
from medtool.data.predictions import read_predictions
from medtool.predict.model import Model, load_model
from medtool.tasks.segmentation_region import coarse_mask
from medtool.verbs.infer import InferOptions, InferResult, infer
from medtool.verbs.options import RunOptions
from medtool.verbs.train import TrainOptions, train

FINE, COARSE = "[1.5, 1.1, 1.1]", "[3.0, 3.0, 3.0]"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set, and models with random weights, of a fine and of a coarse grid."""
    folder = tmp_path_factory.mktemp("options")
    write_dataset(folder / "data", seed=4, cases=3)
    for name, spacing in (("fine", FINE), ("coarse", COARSE)):
        write_model(folder / f"{name}.safetensors", spacing, "augment.mirror=true")
    return folder


def asked(place: Path, name: str, *assignments: str, **changes: object) -> InferOptions:
    return InferOptions(
        sources=(place / "data" / "imagesTr",),
        checkpoint=place / "fine.safetensors",
        output=place / name,
        assignments=assignments,
        run=RunOptions(workers=0, device="cpu"),
        **changes,  # type: ignore[arg-type]
    )


def mask_of(folder: Path, row: dict[str, str]) -> np.ndarray:
    return np.asarray(nibabel.load(folder / row["mask"]).dataobj)


def test_probabilities_lie_beside_the_mask_on_the_inputs_grid(place: Path) -> None:
    result = infer(asked(place, "chances", "infer.probabilities=true"))
    rows = read_predictions(result.folder)
    assert result.ok == 3
    for row in rows:
        image = nibabel.load(place / "data" / "imagesTr" / f"{row['case']}_0000.nii.gz")
        stored = nibabel.load(result.folder / row["probabilities"])
        np.testing.assert_allclose(stored.affine, image.affine, atol=1e-4)
        chances = np.asarray(stored.dataobj)
        # Organ and nodule; what is left is background, and the likeliest is the mask.
        assert chances.shape == (*image.shape, 2)
        background = 1 - chances.sum(axis=-1)
        likeliest = np.argmax(np.stack([background, *np.moveaxis(chances, -1, 0)]), axis=0)
        mask = mask_of(result.folder, row)
        # Where two are equal to the last digit, rounding decides.
        assert np.count_nonzero(likeliest != mask) < mask.size / 10_000
    record = json.loads((result.folder / "run.json").read_text("utf-8"))
    assert record["checkpoint"]["changed"] == ["infer.probabilities=true"]
    (one, *_) = record["cases"]
    assert any(name.startswith("probabilities/") for name in one["outputs_sha256"])


def test_without_being_asked_there_are_none(place: Path) -> None:
    result = infer(asked(place, "plain"))
    assert not (result.folder / "probabilities").exists()
    assert "probabilities" not in result.rows[0]


def test_step_and_mirroring_change_the_answer_and_windows_at_a_time_do_not(place: Path) -> None:
    model = load_model(place / "fine.safetensors", device="cpu")
    task = model.task
    (case, *_) = task.find(Source((place / "data" / "imagesTr",))).cases
    prepared = task.prepare(case)
    found = {}
    for name, assignments in (
        ("plain", ()),
        ("mirror", ("infer.mirror=true",)),
        ("step", ("infer.step=1.0",)),
        ("batch", ("infer.batch_windows=3",)),
    ):
        changed = load_model(place / "fine.safetensors", device="cpu", assignments=assignments)
        found[name] = changed.task.predict(changed, prepared, case).arrays["mask"]
    assert (found["plain"] != found["mirror"]).any()
    assert (found["plain"] != found["step"]).any()
    assert np.mean(found["plain"] != found["batch"]) < 1e-4


@pytest.mark.parametrize("key", ["mirror", "enabled"])
def test_a_model_that_never_saw_mirrored_patches_is_not_asked_with_them(key: str) -> None:
    settings = {"augment": {key: False}, "infer": {"mirror": True}}
    with pytest.raises(UsageError, match="learned from none"):
        Segment(Segment.settings_type.model_validate(settings))


@pytest.mark.parametrize("assignment", ["data.folder=x", "train.epochs=3", "model.dropout=0.5"])
def test_what_was_learned_cannot_be_changed(place: Path, assignment: str) -> None:
    with pytest.raises(UsageError, match="asked in another way"):
        infer(asked(place, "never", assignment))


def test_a_key_that_does_not_exist_is_named(place: Path) -> None:
    with pytest.raises(PresetError) as error:
        infer(asked(place, "never", "infer.steps=0.5"))
    assert "infer.step" in str(error.value.nearest) + str(error.value)


# --- a coarse model first -----------------------------------------------------------------------
class Brighter(nn.Module):
    """Stands for a trained network: label 1 where the first channel is over a level."""

    def __init__(self, level: float) -> None:
        super().__init__()
        self.level = level
        self.seen: list[tuple[int, ...]] = []

    def forward(self, batch: Tensor) -> Tensor:
        """Logits of background, organ, nodule."""
        self.seen.append(tuple(batch.shape[2:]))
        over = batch[:, :1] - self.level
        return torch.cat([-over, over, over * 0 - 100], dim=1)


def with_networks(place: Path, fine: nn.Module, coarse: nn.Module, *settings: str) -> Model:
    path = place / "coarse.safetensors"
    assignments = (f"infer.region_checkpoint={path}", *settings)
    model = load_model(place / "fine.safetensors", device="cpu", assignments=assignments)
    companion = dataclasses.replace(model.companions["region"], network=coarse)
    return dataclasses.replace(model, network=fine, companions={"region": companion})


def bright_ball(path: Path, grid_size: Sequence[int] = (60, 50, 40)) -> np.ndarray:
    """A volume of noise with a bright ball of 8 mm around voxel (20, 30, 36), and one far away."""
    x, y, z = grid_size
    index = np.indices((z, y, x), dtype=np.float64)
    image = np.random.default_rng(0).normal(0, 0.1, (z, y, x)).astype(np.float32)
    near = sum((index[k] - c) ** 2 for k, c in enumerate((20, 30, 36))) < 8**2
    image[near] = 30.0
    image[2:4, 2:4, 2:4] = 25.0
    write_nifti(path, image, Grid((x, y, z), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)))
    return near


def predicted(model: Model, path: Path):
    (case,) = model.task.find(Source((path,))).cases
    return model.task.predict(model, model.task.prepare(case), case)


@pytest.mark.parametrize("axes", ["[0, 1, 2]", "[2, 0, 1]"])
def test_only_around_what_the_coarse_model_found_is_looked(
    place: Path, tmp_path: Path, axes: str
) -> None:
    near = bright_ball(tmp_path / "ball.nii.gz")
    for name, spacing in (("fine", "[1.0, 1.0, 1.0]"), ("coarse", COARSE)):
        write_model(
            tmp_path / f"{name}.safetensors", spacing, f"data.preparation.axes_forward={axes}"
        )
    everywhere = load_model(tmp_path / "fine.safetensors", device="cpu")
    whole, fine, coarse = Brighter(1.0), Brighter(1.0), Brighter(2.0)
    found = predicted(dataclasses.replace(everywhere, network=whole), tmp_path / "ball.nii.gz")
    # The far one is found as well where everything is looked at.
    assert found.arrays["mask"][2:4, 2:4, 2:4].all()
    model = with_networks(tmp_path, fine, coarse, "infer.region_margin_mm=4")
    answer = predicted(model, tmp_path / "ball.nii.gz")
    assert not answer.findings
    mask = answer.arrays["mask"]
    assert (mask[near] == 1).all()
    assert not mask[~near].any()
    # Fewer windows, and none of them padded: all are as large as the patch.
    assert len(fine.seen) < len(whole.seen)
    assert set(fine.seen) == {(16, 16, 16)}


def test_too_little_found_is_the_whole_volume_and_is_said(place: Path, tmp_path: Path) -> None:
    bright_ball(tmp_path / "ball.nii.gz")
    for level, least in ((99.0, 1.0), (2.0, 50.0)):
        model = with_networks(
            place, Brighter(1.0), Brighter(level), f"infer.region_least_ml={least}"
        )
        answer = predicted(model, tmp_path / "ball.nii.gz")
        (finding,) = answer.findings
        assert (finding.code, finding.severity) == ("region-whole-volume", "warning")
        assert answer.arrays["mask"][2:4, 2:4, 2:4].all()


def test_several_coarse_models_in_one_file_answer_together(place: Path, tmp_path: Path) -> None:
    """From a fault: a file of several coarse models failed every study."""
    for name, spacing in (("finer", FINE), ("twin", COARSE)):
        write_model(tmp_path / f"{name}.safetensors", spacing)
    coarse = place / "coarse.safetensors"
    both = {"a": coarse, "b": tmp_path / "twin.safetensors"}
    write_ensemble(tmp_path / "both.safetensors", both)
    write_ensemble(
        tmp_path / "apart.safetensors", {"a": coarse, "b": tmp_path / "finer.safetensors"}
    )
    masks = []
    for file in (coarse, tmp_path / "both.safetensors", tmp_path / "apart.safetensors"):
        model = load_model(
            place / "fine.safetensors",
            device="cpu",
            assignments=(f"infer.region_checkpoint={file}",),
        )
        case = model.task.find(Source((place / "data" / "imagesTr",))).cases[0]
        masks.append(coarse_mask(model, case))
    assert all(isinstance(mask, np.ndarray) for mask in masks)
    # Twins say what each says, models of two grids something of their own.
    np.testing.assert_array_equal(masks[1], masks[0])
    assert masks[2].shape == masks[0].shape and (masks[2] != masks[0]).any()


def test_the_row_and_the_console_say_it(place: Path, medtool) -> None:
    words = ("infer", "data/imagesTr", "-c", "fine.safetensors", "--workers", "0")
    outcome = medtool(
        *words,
        *("-o", "region", "--region", "coarse.safetensors", "--probabilities", "--step", "1"),
        *("--set", "infer.region_least_ml=1e6"),
        folder=place,
    )
    assert outcome.status == 0, outcome.err
    rows = read_predictions(place / "region")
    assert all("region-whole-volume" in row["code"].split(";") for row in rows)
    assert all("the whole volume was looked at" in row["message"] for row in rows)
    assert "region-whole-volume" in outcome.err
    record = json.loads((place / "region" / "run.json").read_text("utf-8"))
    assert list(record["checkpoint"]["companions"]) == ["region"]
    assert "infer.step=1.0" in record["checkpoint"]["changed"]
    missing = medtool(*words, "-o", "none", "--region", "nowhere.safetensors", folder=place)
    assert missing.status == 2
    assert "nowhere.safetensors" in missing.err


def test_a_coarse_model_that_is_not_there_is_known_before_a_training(place: Path) -> None:
    settings = "infer.region_checkpoint=nowhere.safetensors"
    with pytest.raises(CheckpointError, match="no such checkpoint") as error:
        train(TrainOptions(Segment, data=place / "data", assignments=(settings,), folder=place))
    assert "nowhere" in error.value.where
    assert not (place / "runs").exists()


@pytest.fixture(scope="module")
def run(place: Path) -> Path:
    """A run that asks a coarse model, which it names by its path."""
    folder = place / "own"
    folder.mkdir()
    result = train(
        TrainOptions(
            Segment,
            data=place / "data",
            assignments=(
                *(*TWO_LEVELS, *ONE_EPOCH, "model.patch_size_vox=[16, 16, 16]"),
                f"infer.region_checkpoint={place / 'coarse.safetensors'}",
                "train.split=two-part",
            ),
            folder=folder,
            run=RunOptions(run="asking", workers=0, device="cpu", cache=place / "cache"),
        )
    )
    return result.run


def regions(result: InferResult) -> list[str]:
    record = json.loads((result.folder / "run.json").read_text("utf-8"))
    return list(record["checkpoint"]["companions"])


def test_a_run_knows_the_coarse_model_that_its_checkpoint_does_not_name(
    place: Path, run: Path
) -> None:
    best = run / "checkpoints" / "best.safetensors"
    assert read_header(best).document["companions"] == ["region"]
    assert files_naming(run / "checkpoints", str(place)) == []
    for number, known in enumerate((run, best)):
        found = infer(dataclasses.replace(asked(place, f"known-{number}"), checkpoint=known))
        assert regions(found) == ["region"]
        assert str(place) not in json.dumps(
            json.loads((found.folder / "run.json").read_text("utf-8"))["checkpoint"]
        )


def test_models_of_runs_that_answer_together_ask_it_as_well(place: Path, run: Path) -> None:
    second = Path(shutil.copytree(run, run.with_name("second")))
    change_weights(second / "checkpoints" / "best.safetensors")
    together = dataclasses.replace(
        asked(place, "together"), checkpoint=run, more_checkpoints=(second,)
    )
    assert regions(infer(together)) == ["region"]


def test_elsewhere_it_has_to_be_named(place: Path, run: Path, tmp_path: Path, medtool) -> None:
    """Nothing would show that the whole volume was looked at, and not as the model was judged."""
    alone = tmp_path / "given.safetensors"
    shutil.copyfile(run / "checkpoints" / "best.safetensors", alone)
    with pytest.raises(UsageError, match="asks other models") as error:
        infer(dataclasses.replace(asked(place, "never"), checkpoint=alone))
    assert "--region FILE" in error.value.how
    named = f"infer.region_checkpoint={place / 'coarse.safetensors'}"
    assert regions(infer(dataclasses.replace(asked(place, "told", named), checkpoint=alone))) == [
        "region"
    ]
    # Its own network is proved without the other one.
    proved = medtool("doctor", "--checkpoint", alone)
    assert proved.status == 0, proved.err
