"""``model-card.json`` of every family: licence, threshold, preparation in words and in numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from medtool_brainmet import Brainmet
from medtool_pancreas import Pancreas
from medtool_petct import Petct
from medtool_segment import Segment
from optimised import CLASSES_IN_VOLUMES
from tiny_bag import TinyBag, tiny_settings
from two_levels import TWO_LEVELS

from medtool.config import resolve
from medtool.core.task import Task
from medtool.optimize.export import ExportedFile
from medtool.optimize.model_card import NO_LICENCE, model_card
from medtool.tasks.prognosis_covariates import with_known_covariates

NETWORK = (
    *TWO_LEVELS,
    "model.patch_size_vox=[8, 16, 32]",
    "train.batch_cases=2",
    "train.batch_dice=false",
)
LABELS = "data.label_ids={organ=[1], nodule=[2]}"
CT_AND_MR = (
    'data.channels=["CT", "MR"]',
    'data.preparation.configuration="3d_fullres"',
    "data.preparation.axes_forward=[2, 0, 1]",
    "data.preparation.spacing_mm=[3.0, 1.5, 1.25]",
    'data.preparation.normalisation=["ct", "z-score"]',
    "data.preparation.mask_for_normalisation=[false, true]",
    "data.preparation.intensities=["
    + ", ".join(
        f"{{mean={mean}, median=50.0, std={std}, low=-900.0, high=900.0, percentile_00_5={low},"
        f" percentile_99_5={high}}}"
        for mean, std, low, high in ((60.0, 40.0, -120.0, 310.0), (0.0, 1.0, 0.0, 1.0))
    )
    + "]",
)


def built(task: type[Task], folder: Path, *assignments: str) -> Any:
    return task(resolve(task, None, folder=folder, assignments=assignments).settings)


def card_of(task: Task, **document: Any) -> dict[str, Any]:
    """The card of a file of ``task``, of a checkpoint with ``document``."""
    spec = task.exported_deployment()
    exported = ExportedFile(Path("model.onnx"), 18, spec.inputs, spec.outputs)
    return model_card(task, document, exported)


@pytest.mark.parametrize(
    ("weights", "wanted"),
    [
        ({"licence": "CC BY-NC 4.0"}, "CC BY-NC 4.0"),
        ({"source": ""}, NO_LICENCE),
        ({"source": "", "licence": ""}, NO_LICENCE),
    ],
)
def test_the_licence_is_that_of_the_weights_or_asked_for(
    tmp_path: Path, weights: dict[str, str], wanted: str
) -> None:
    for task in (TinyBag(tiny_settings()), built(Segment, tmp_path, LABELS, *CT_AND_MR, *NETWORK)):
        assert card_of(task, weights=weights)["licence"] == wanted
        assert "not a medical device" in card_of(task)["notice"]
    assert "ask whoever trained it" in NO_LICENCE


def test_the_card_of_studies_of_slices(tmp_path: Path) -> None:
    task = built(
        Brainmet,
        tmp_path,
        "model.backbone=resnet10t",
        "model.pooling=max",
        "model.normalisation=brain_zscore",
        "data.preparation.size_px=64",
        "data.preparation.field_mm=200",
        "data.preparation.window_level_hu=35",
        "data.preparation.window_width_hu=90",
        "data.preparation.quality.least_brain_share=0.07",
    )
    card = card_of(task, threshold=0.37, threshold_rule="youden", synthetic=True)
    assert (card["threshold"], card["threshold_rule"], card["synthetic"]) == (0.37, "youden", True)
    assert card["window_hu"] == [-10, 80]
    assert card["normalisation"] == "brain_zscore"
    hu, outline, window, field, left_out = card["preparation"]
    assert "HU" in hu and "tilt" in hu
    assert "brain" in outline
    assert "-10 to 80 HU to 0 to 1" in window
    assert "200 mm around the brain" in field and "64 x 64 pixels" in field
    assert "under 7% brain" in left_out
    assert card["grid"] == {"size_px": [64, 64]}
    assert set(card["inputs"]) == {"slices", "mask"}
    assert card["inputs"]["slices"]["axes"] == ["slices", "rows", "columns"]
    assert card["answer"] == [
        "The study is the largest probability of a slice.",
        "It is positive where its probability is at least the threshold.",
    ]


@pytest.mark.parametrize(
    ("pooling", "words"),
    [
        ("max", "the largest probability"),
        ("mean", "the mean probability"),
        ("top-k", "the mean of the largest 0.3"),
        ("lse", "r = 7"),
        ("noisy-or", "1 - product of (1 - p)"),
        ("attention", "weighted by attention"),
    ],
)
def test_the_card_says_how_slices_become_a_study(pooling: str, words: str) -> None:
    model = {"pooling": pooling, "top_share": 0.3, "lse_sharpness": 7.0}
    card = card_of(TinyBag(tiny_settings(model=model)), threshold=0.5)
    assert words in card["answer"][0]
    # Slices of this task come normalised: there is no mask, but a channel.
    assert "channels" in card["inputs"]["slices"]["axes"]
    assert ("before" in card["inputs"]) == (pooling == "attention")


def test_the_card_of_volumes(tmp_path: Path) -> None:
    task = built(Segment, tmp_path, LABELS, *CT_AND_MR, *NETWORK, "infer.step=0.25")
    kept = [{"kind": "largest-component", "labels": [1]}]
    card = card_of(task, postprocessing=kept)
    assert card["postprocessing"] == kept
    assert card["grid"] == {
        "spacing_mm": [3.0, 1.5, 1.25],
        "axes_forward": [2, 0, 1],
        "window_vox": [8, 16, 32],
    }
    text = " ".join(card["preparation"])
    for words in (
        "axes z, y, x, and put its axes in the order [2, 0, 1]",
        "zero in all channels",
        "Clip the channel CT to -120 to 310.",
        "Scale the channel MR by the image itself",
        "spacing of 3 x 1.5 x 1.25 mm",
        "over 3 times as coarse",
        "windows of 8 x 16 x 32 voxels",
    ):
        assert words in text, words
    ct, mr = card["inputs"]["image"]["channels"]
    assert (ct["unit"], ct["scaled_inside"], ct["clip"]) == ("HU", True, [-120.0, 310.0])
    assert (mr["scaled_inside"], "clip" in mr) == (False, False)
    assert "not zero" in mr["how"]
    # What the file does inside is what the numbers say.
    hu = torch.tensor([[[[[20.0]]], [[[0.5]]]]])
    scaled = task.input_scale()(hu).flatten().tolist()
    assert scaled == pytest.approx([(20.0 - ct["mean"]) / ct["std"], 0.5])
    assert "0.25 of a window" in card["answer"][0]
    assert card["outputs"]["probabilities"]["of"] == ["background", "organ", "nodule"]
    assert card["labels"] == {"ids": {"organ": [1], "nodule": [2]}, "written": [0, 1, 2]}
    assert "largest" in card["answer"][-1]


def test_regions_have_a_threshold_in_words(tmp_path: Path) -> None:
    regions = ("data.label_ids={whole=[1, 2], core=[2]}", "data.regions_order=[1, 2]")
    card = card_of(built(Segment, tmp_path, *CT_AND_MR, *NETWORK, *regions))
    assert "over 0.5, its id of [1, 2] is written, later ones over earlier" in card["answer"][-1]
    assert card["outputs"]["probabilities"]["activation"] == "sigmoid"
    assert card["outputs"]["probabilities"]["of"] == ["whole", "core"]


def test_the_card_of_volumes_with_classes(tmp_path: Path) -> None:
    card = card_of(
        built(Pancreas, tmp_path, *CLASSES_IN_VOLUMES, *NETWORK), weights={"licence": "MIT"}
    )
    assert card["licence"] == "MIT"
    assert card["classes"] == ["cystic", "solid"]
    assert card["outputs"]["class_probabilities"]["of"] == ["cystic", "solid"]
    assert card["outputs"]["class_probabilities"]["activation"] == "softmax"
    assert card["outputs"]["probabilities"]["of"] == ["background", "pancreas", "lesion"]
    (channel,) = card["inputs"]["image"]["channels"]
    assert channel["how"] == "(value - mean) / standard deviation of the whole image"
    assert "spacing of 1 x 1 x 1 mm" in " ".join(card["preparation"])
    assert "largest piece of the lesion" in card["answer"][-1]


def petct(folder: Path, *assignments: str) -> Petct:
    outlines = ("data.label_ids={tumour=[1]}", "data.regions_order=[1]")
    settings = resolve(Petct, None, folder=folder, assignments=(*outlines, *assignments)).settings
    return Petct(with_known_covariates(settings, []))  # type: ignore[arg-type]


def test_the_card_of_pet_and_ct(tmp_path: Path) -> None:
    small = ("model.first_features=4", "data.preparation.suv_maximum=25", "infer.passes=7")
    card = card_of(petct(tmp_path, *small), weights={"licence": "CC0"})
    assert card["licence"] == "CC0"
    suv, grid, clipped, window = card["preparation"]
    assert "SUV" in suv and "body weight" in suv
    assert "256 x 256 pixels" in grid and "that of the PET's slices" in grid
    assert "0 to 25" in clipped
    # The preset's own window: soft tissue.
    assert window == "Make -300 to 300 HU to -1 to 1 and clip what is beyond."
    assert card["scaled_inside"] == {"suv_that_becomes_1": 5.0}
    units = {one["name"]: one["unit"] for one in card["inputs"]["image"]["channels"]}
    assert units == {"pet": "SUV, g/mL", "ct": "-1 to 1 over the window"}
    assert card["passes"] == 7
    assert "mean of 7 passes" in card["answer"][0]
    assert "over 0.5" in card["answer"][2]
    assert "higher is worse" in card["outputs"]["risks"]["meaning"]
    kept = 1 - 0.3
    assert f"a share of {kept:g}" in card["inputs"]["masks"]["meaning"]


def test_the_card_of_patches_of_pet_and_ct(tmp_path: Path) -> None:
    given = (
        "data.preparation.size_px=[]",
        "data.preparation.spacing_mm=[4.0, 4.0, 5.0]",
        "model.patch_size_vox=[8, 16, 16]",
        "model.first_features=4",
        "model.levels=3",
        "infer.passes=0",
    )
    card = card_of(petct(tmp_path, *given))
    assert "voxels of 4 x 4 x 5 mm (x, y, z)" in card["preparation"][1]
    assert card["grid"]["window_vox"] == [8, 16, 16]
    assert card["answer"][0] == "There is one pass."
    assert "masks" not in card["inputs"]
