"""Slices and masks that cannot be used, or not without a word: each says what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from medtool_heart import Heart

from medtool.config import resolve
from medtool.core.errors import (
    CaseRefused,
    InputError,
    LeakageError,
    PresetError,
    UnknownNameError,
    UsageError,
)
from medtool.core.geometry import Grid
from medtool.core.records import Case, Source
from medtool.data.cache import Cache
from medtool.data.nifti_writer import write_nifti
from medtool.verbs.options import RunOptions
from medtool.verbs.train import TrainOptions, train

GREY = (np.arange(24 * 32) % 251).astype(np.uint8).reshape(24, 32)
MASK = np.zeros((24, 32), np.uint8)
MASK[6:12, 8:20] = 255


def picture(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), values)
    return path


def pair(folder: Path, image: np.ndarray = GREY, mask: np.ndarray = MASK, name: str = "a") -> None:
    picture(folder / "images" / f"{name}.png", image)
    picture(folder / "masks" / f"{name}.png", mask)


def task_for(folder: Path, *assignments: str) -> Any:
    """The task that knows its labels, with everything fixed that data could settle."""
    fixed = ("data.preparation.size_px=[32, 32]", "data.preparation.intensity=percentiles")
    settings = resolve(Heart, None, folder=folder, assignments=(*fixed, *assignments)).settings
    task = Heart(settings)
    return task.informed(task.find(Source((folder,))).intake)


def only_case(folder: Path, task: Any) -> Case:
    (case,) = task.find(Source((folder,))).cases
    return case


def refusal_of(folder: Path, *assignments: str) -> CaseRefused:
    """What ``prepare`` refuses, which ``check`` has to find as well."""
    task = task_for(folder, *assignments)
    case = only_case(folder, task)
    with pytest.raises(CaseRefused) as caught:
        task.prepare(case)
    assert [f.code for f in task.check(case) if f.severity == "refusal"] == [caught.value.code]
    return caught.value


def test_a_mask_of_another_size(tmp_path: Path) -> None:
    pair(tmp_path, mask=MASK[:-1])
    refusal = refusal_of(tmp_path)
    assert refusal.code == "grids-differ"
    assert "23 x 32" in refusal.met and "24 x 32" in refusal.met


def test_a_mask_in_colour(tmp_path: Path) -> None:
    pair(tmp_path, mask=np.stack([MASK, MASK * 0, MASK], axis=-1))
    assert refusal_of(tmp_path).code == "mask-colour"


def test_grey_masks_are_cut_at_half_and_that_is_said(tmp_path: Path) -> None:
    soft = MASK.copy()
    soft[6, 8:20] = 100
    soft[7, 8:20] = 200
    pair(tmp_path, mask=soft)
    task = task_for(tmp_path)
    case = only_case(tmp_path, task)
    truth = task.truth(case).arrays["mask"]
    assert np.array_equal(truth[0], soft > 127)
    assert "mask-binarised" in [finding.code for finding in task.check(case)]


def test_ids_where_one_structure_is_wanted(tmp_path: Path) -> None:
    ids = MASK // 255
    ids[9:12, 8:20] = 2
    pair(tmp_path, mask=ids)
    refusal = refusal_of(tmp_path)
    assert refusal.code == "label-undeclared"
    assert "0, 1, 2" in refusal.met and "label_ids" in refusal.how


def test_an_id_that_no_label_declares(tmp_path: Path) -> None:
    ids = MASK // 255
    ids[9:12, 8:20] = 3
    pair(tmp_path, mask=ids)
    refusal = refusal_of(tmp_path, "data.label_ids={ a = [1], b = [2] }")
    assert (refusal.code, refusal.met) == ("label-undeclared", "3")


def test_a_picture_that_breaks_off(tmp_path: Path) -> None:
    pair(tmp_path)
    image = tmp_path / "images" / "a.png"
    image.write_bytes(image.read_bytes()[:-20])
    assert refusal_of(tmp_path).code == "truncated-file"


def test_a_picture_in_colour_for_a_grey_network(tmp_path: Path) -> None:
    """Once the preset takes colour, the refusal that the cache remembers must not come back."""
    pair(tmp_path, image=np.stack([GREY, GREY // 2, GREY // 3], axis=-1))
    refusal = refusal_of(tmp_path, "model.input_channels=1")
    assert refusal.code == "channels-differ"
    assert "input_channels = 3" in refusal.how
    grey, colour = (task_for(tmp_path, f"model.input_channels={n}") for n in (1, 3))
    assert Cache(tmp_path, grey).folder != Cache(tmp_path, colour).folder
    prepared = colour.prepare(only_case(tmp_path, colour))
    assert prepared.arrays["image"].shape == (1, 32, 32, 3)


def test_pixels_of_another_kind_than_the_preset_says(tmp_path: Path) -> None:
    pair(tmp_path)
    window = refusal_of(tmp_path, "data.preparation.intensity=window")
    assert window.code == "scale-differs" and "HU" in window.wanted
    pair(tmp_path, image=GREY.astype(np.uint16) * 100)
    assert refusal_of(tmp_path, "data.preparation.intensity=8-bit").code == "scale-differs"


def test_an_empty_mask_and_a_flat_image_are_said(tmp_path: Path) -> None:
    pair(tmp_path, image=GREY * 0 + 7, mask=MASK * 0)
    task = task_for(tmp_path)
    codes = [finding.code for finding in task.check(only_case(tmp_path, task))]
    assert {"image-constant", "mask-empty"} <= set(codes)
    assert task.prepare(only_case(tmp_path, task)).facts["labelled_slices"] == []


def volume(path: Path, shape: tuple[int, ...], *, origin_mm: float = 0.0) -> None:
    rng = np.random.default_rng(0)
    z, y, x = shape
    grid = Grid((x, y, z), (1.5, 1.5, 8.0), (origin_mm, 0.0, 0.0))
    write_nifti(path, (rng.random(shape) > 0.7).astype(np.uint8), grid)


@pytest.mark.parametrize(
    ("shape", "origin_mm"), [((3, 24, 32), 5.0), ((2, 24, 32), 0.0)], ids=["place", "slices"]
)
def test_volumes_on_two_grids(tmp_path: Path, shape: tuple[int, ...], origin_mm: float) -> None:
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    volume(tmp_path / "images" / "a.nii.gz", (3, 24, 32))
    volume(tmp_path / "masks" / "a.nii.gz", shape, origin_mm=origin_mm)
    assert refusal_of(tmp_path).code == "grids-differ"


def test_a_picture_as_the_mask_of_a_volume(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    volume(tmp_path / "images" / "a.nii.gz", (3, 24, 32))
    picture(tmp_path / "masks" / "a.png", MASK)
    refusal = refusal_of(tmp_path)
    assert refusal.code == "grids-differ" and "3 slices" in refusal.met


def test_pairs_say_their_rule_what_was_left_over_and_that_patients_are_unknown(
    tmp_path: Path,
) -> None:
    pair(tmp_path)
    picture(tmp_path / "images" / "lonely.png", GREY)
    picture(tmp_path / "masks" / "strange.png", MASK)
    found = task_for(tmp_path).find(Source((tmp_path,)))
    said = {finding.code: finding for finding in found.findings}
    assert "images/NAME is masks/NAME" in said["pairs-rule"].message
    assert "lonely" in said["mask-missing"].message
    assert "strange.png" in said["file-unmatched"].message
    assert said["patients-by-case"].severity == "warning"


def learn(folder: Path, *assignments: str) -> None:
    small = ("data.preparation.size_px=[32, 32]", "model.first_features=4", "model.levels=2")
    train(
        TrainOptions(
            task=Heart,
            data=folder,
            assignments=(*small, "train.epochs=1", *assignments),
            folder=folder,
            run=RunOptions(run="a", workers=0, cache=folder / "cache", device="cpu"),
        )
    )


def test_images_without_any_mask_cannot_be_learned_from(tmp_path: Path) -> None:
    picture(tmp_path / "pictures" / "a.png", GREY)
    with pytest.raises(InputError, match="No case has a mask"):
        learn(tmp_path)


def test_one_picture_under_two_names_is_no_two_patients(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(8):
        noise = rng.integers(0, 255, (24, 32)).astype(np.uint8)
        pair(tmp_path, image=GREY if number < 2 else noise, name=f"p{number}")
    with pytest.raises(LeakageError, match="identical pixels"):
        learn(tmp_path)


@pytest.mark.parametrize(
    ("assignments", "kind", "met"),
    [
        (("data.preparation.size_px=[30, 32]",), UsageError, "multiples of 16 x 16"),
        (("data.preparation.size_px=[16, 16]",), UsageError, "more than one pixel"),
        (('model.encoder="resnet1818"',), UnknownNameError, "resnet18"),
        (('augment.kind="fourfold"',), PresetError, "examples_per_case"),
        (("data.label_ids={ a = [300] }",), PresetError, "255"),
        (("model.input_channels=2",), PresetError, "input_channels"),
    ],
)
def test_settings_that_cannot_work(
    tmp_path: Path, assignments: tuple[str, ...], kind: type[Exception], met: str
) -> None:
    pair(tmp_path)
    with pytest.raises(kind, match=met):
        task_for(tmp_path, *assignments).network()
