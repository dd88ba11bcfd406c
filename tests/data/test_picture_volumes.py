"""Pictures as volumes: of one slice, of all pages of a TIFF, with spacings as nnU-Net has them."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import nibabel
import numpy as np
import pytest

from medtool.core.errors import CaseRefused
from medtool.core.geometry import Grid
from medtool.core.records import Case
from medtool.data.cache import case_stem
from medtool.data.dataset_record import ImageReference
from medtool.data.picture_volumes import measured, read_image, read_image_mask

GREY = np.arange(12, dtype=np.uint8).reshape(3, 4)
STACK = np.arange(24, dtype=np.uint16).reshape(2, 3, 4)


def written(path: Path, values: np.ndarray) -> ImageReference:
    if values.ndim == 3 and path.suffix == ".tif":
        assert cv2.imwritemulti(str(path), list(values))
    else:
        assert cv2.imwrite(str(path), values[..., ::-1] if values.ndim == 3 else values)
    return ImageReference(path)


def code_of(read: object, *arguments: object, **options: object) -> str:
    with pytest.raises(CaseRefused) as error:
        read(*arguments, **options)  # type: ignore[operator]
    return error.value.code


@pytest.mark.parametrize("ending", ["png", "bmp", "tif", "tiff"])
def test_a_picture_is_one_slice_of_an_unknown_size(tmp_path: Path, ending: str) -> None:
    volume = read_image(written(tmp_path / f"a.{ending}", GREY))
    assert volume.array.dtype == np.float32
    np.testing.assert_array_equal(volume.array, GREY[None])
    # As nnU-Net's NaturalImage2DIO: 999 from slice to slice, 1 within it.
    assert volume.grid.size == (4, 3, 1) and volume.grid.spacing_mm == (1.0, 1.0, 999.0)
    assert measured(volume.grid) is None


def test_colour_is_read_by_channels_only(tmp_path: Path) -> None:
    reference = written(tmp_path / "a.png", np.stack([GREY, GREY + 20, GREY + 40], axis=-1))
    assert code_of(read_image, reference) == "channels-differ"
    for number in range(3):
        volume = read_image(ImageReference(reference.path, number))
        np.testing.assert_array_equal(volume.array[0], GREY + 20 * number)


def test_masks_of_pictures(tmp_path: Path) -> None:
    grid = read_image(written(tmp_path / "a.png", GREY)).grid
    white = written(tmp_path / "m.png", (GREY > 5) * np.uint8(255))
    mask = read_image_mask(white, grid, binary=True)
    np.testing.assert_array_equal(mask.array, (GREY > 5)[None])
    assert mask.grid == grid and mask.array.dtype == np.int16
    ids = written(tmp_path / "n.png", GREY % 3)
    np.testing.assert_array_equal(read_image_mask(ids, grid, binary=False).array[0], GREY % 3)
    small = written(tmp_path / "s.png", GREY[:2])
    assert code_of(read_image_mask, small, grid, binary=True) == "grids-differ"
    assert code_of(read_image_mask, ids, None, binary=True) == "mask-without-image"


def test_a_picture_is_the_mask_of_a_volume_of_one_slice(tmp_path: Path) -> None:
    nibabel.save(
        nibabel.Nifti1Image(GREY.T[..., None].astype("f4"), np.diag([2, 3, 8, 1])),
        tmp_path / "i.nii",
    )
    grid = read_image(ImageReference(tmp_path / "i.nii")).grid
    white = written(tmp_path / "m.png", (GREY > 5) * np.uint8(255))
    mask = read_image_mask(white, grid, binary=True)
    assert mask.grid == grid and mask.array.shape == (1, 3, 4)
    deep = Grid((4, 3, 2), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    assert code_of(read_image_mask, white, deep, binary=True) == "grids-differ"


@pytest.mark.parametrize("kind", ["u1", "u2", "f4"])
def test_pages_are_slices_of_the_spacing_beside_them(tmp_path: Path, kind: str) -> None:
    image = written(tmp_path / "a_0000.tif", STACK.astype(kind))
    volume = read_image(image)
    np.testing.assert_array_equal(volume.array, STACK)
    assert volume.grid.spacing_mm == (1.0, 1.0, 1.0)
    assert [f.code for f in volume.findings] == ["spacing-unknown"]
    (tmp_path / "a.json").write_text(json.dumps({"spacing": [2.5, 0.5, 0.25]}))
    volume = read_image(image)
    # In the order of the array: z, y, x.
    assert volume.grid.spacing_mm == (0.25, 0.5, 2.5) and volume.findings == ()
    assert volume.grid.size == (4, 3, 2) and measured(volume.grid) == volume.grid
    # A mask that says nothing lies where its image lies; one that says more is believed.
    (tmp_path / "m").mkdir()
    mask = written(tmp_path / "m" / "a.tif", (STACK % 3).astype(np.uint8))
    found = read_image_mask(mask, volume.grid, binary=False)
    np.testing.assert_array_equal(found.array, STACK % 3)
    assert found.grid == volume.grid and found.findings == ()
    (tmp_path / "m" / "a.json").write_text(json.dumps({"spacing": [1, 1, 1]}))
    assert read_image_mask(mask, volume.grid, binary=False).grid.spacing_mm == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    "text", ["no json", "[1, 2]", "{}", '{"spacing": [1, 1]}', '{"spacing": ["a", 1, 1]}',
             '{"spacing": [0, 1, 1]}', '{"spacing": [999, 1, 1]}', '{"spacing": 1}'],
)  # fmt: skip
def test_spacings_that_are_none(tmp_path: Path, text: str) -> None:
    image = written(tmp_path / "a_0000.tif", STACK)
    (tmp_path / "a.json").write_text(text)
    assert code_of(read_image, image) == "invalid-spacing"


def test_pages_that_make_no_volume(tmp_path: Path) -> None:
    assert cv2.imwritemulti(str(tmp_path / "a.tif"), [GREY, GREY[:2]])
    assert code_of(read_image, ImageReference(tmp_path / "a.tif")) == "not-a-volume"
    image = written(tmp_path / "b.tif", np.full((2, 3, 4), np.nan, np.float32))
    assert code_of(read_image, image) == "undefined-values"


def test_what_is_kept_of_a_case_follows_its_spacing(tmp_path: Path) -> None:
    image = written(tmp_path / "a_0000.tif", STACK)
    case = Case("a", "a", "", {"image": image.path})
    before = case_stem(case)
    (tmp_path / "a.json").write_text(json.dumps({"spacing": [2, 1, 1]}))
    assert case_stem(case) != before
