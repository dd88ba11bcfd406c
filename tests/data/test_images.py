"""Single 2D images, their masks, outlines drawn by hand, and frames of DICOM files."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import nibabel
import numpy as np
import pytest
from dicom_builder import ct_dataset, set_tag, write_dataset

from medtool.core.errors import CaseRefused
from medtool.data.contours import filled_contour, read_contour
from medtool.data.dataset_record import ImageReference
from medtool.data.images import binarised, pictures_of, read_picture, read_picture_mask

GREY = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20


def written(path: Path, values: np.ndarray) -> ImageReference:
    """A picture; colour is given as red, green, blue (, alpha), as OpenCV does not have it."""
    if values.ndim == 3:
        values = values[..., [2, 1, 0, 3][: values.shape[2]]]
    assert cv2.imwrite(str(path), values)
    return ImageReference(path)


def code_of(reference: ImageReference) -> str:
    with pytest.raises(CaseRefused) as caught:
        read_picture(reference)
    return caught.value.code


# --- pictures ------------------------------------------------------------------------------------
@pytest.mark.parametrize("ending", ["png", "tif", "bmp"])
def test_pixels_keep_their_type(tmp_path: Path, ending: str) -> None:
    picture = read_picture(written(tmp_path / f"a.{ending}", GREY))
    assert picture.array.dtype == np.uint8 and np.array_equal(picture.array, GREY)
    assert picture.spacing_mm is None and not picture.findings
    if ending != "bmp":
        deep = GREY.astype(np.uint16) * 257
        picture = read_picture(written(tmp_path / f"b.{ending}", deep))
        assert picture.array.dtype == np.uint16 and np.array_equal(picture.array, deep)
    if ending == "tif":
        floats = GREY.astype(np.float32) - 0.5
        assert np.array_equal(read_picture(written(tmp_path / "c.tif", floats)).array, floats)
        floats[0, 0] = np.nan
        assert code_of(written(tmp_path / "d.tif", floats)) == "undefined-values"


def test_colour_is_red_green_blue(tmp_path: Path) -> None:
    colour = np.stack([GREY, GREY + 1, GREY + 2], axis=-1)
    reference = written(tmp_path / "a.png", colour)
    assert np.array_equal(read_picture(reference).array, colour)
    green = ImageReference(reference.path, 1)
    assert np.array_equal(read_picture(green).array, GREY + 1)
    assert code_of(ImageReference(reference.path, 3)) == "channels-differ"


def test_alpha_is_dropped_where_opaque_and_refused_elsewhere(tmp_path: Path) -> None:
    alpha = np.full_like(GREY, 255)
    colour = np.stack([GREY, GREY + 1, GREY + 2, alpha], axis=-1)
    picture = read_picture(written(tmp_path / "a.png", colour))
    assert np.array_equal(picture.array, colour[..., :3])
    assert [f.code for f in picture.findings] == ["alpha-dropped"]
    colour[0, 0, 3] = 254
    assert code_of(written(tmp_path / "b.png", colour)) == "transparent"


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.bmp"])
def test_broken_pictures(tmp_path: Path, name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (40, 40)).astype(np.uint8)
    reference = written(tmp_path / name, noise)
    whole = reference.path.read_bytes()
    for size in (0, 20, len(whole) // 2, len(whole) - 13):
        reference.path.write_bytes(whole[:size])
        assert code_of(reference) in ("truncated-file", "damaged-file"), size
    reference.path.write_bytes(b"words " * 50)
    assert code_of(reference) == "damaged-file"
    assert code_of(ImageReference(tmp_path / f"no-{name}")) == "unreadable"


def test_pages_of_a_tiff(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    assert cv2.imwritemulti(str(path), [GREY, GREY + 5])
    assert code_of(ImageReference(path)) == "not-a-picture"
    assert code_of(ImageReference(path, 2)) == "not-a-picture"
    pages = pictures_of(path)
    assert pages == (ImageReference(path, 0), ImageReference(path, 1))
    assert np.array_equal(read_picture(pages[1]).array, GREY + 5)
    assert pictures_of(written(tmp_path / "b.png", GREY).path) == (
        ImageReference(tmp_path / "b.png"),
    )


def test_2d_nifti(tmp_path: Path) -> None:
    for values in (GREY.T, GREY.T[..., None]):
        nibabel.save(nibabel.Nifti1Image(values, np.diag([2, 3, 1, 1])), tmp_path / "a.nii")
        picture = read_picture(ImageReference(tmp_path / "a.nii"))
        assert np.array_equal(picture.array, GREY) and picture.array.dtype == np.float32
        assert picture.spacing_mm == (3.0, 2.0), "rows step along y"
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 3, 2), "u1"), np.eye(4)), tmp_path / "b.nii")
    assert code_of(ImageReference(tmp_path / "b.nii")) == "not-a-picture"


# --- DICOM ---------------------------------------------------------------------------------------
def test_a_dicom_slice_is_in_hu(tmp_path: Path) -> None:
    data = ct_dataset(np.arange(12, dtype=np.int16).reshape(3, 4), "p", "1.2", "1.3")
    data.RescaleSlope, data.RescaleIntercept, data.PixelSpacing = "2", "-1024", [0.5, 0.75]
    write_dataset(tmp_path / "a.dcm", data)
    picture = read_picture(ImageReference(tmp_path / "a.dcm"))
    assert np.array_equal(picture.array, np.arange(12).reshape(3, 4) * 2 - 1024)
    assert picture.array.dtype == np.float32 and picture.spacing_mm == (0.5, 0.75)


def test_every_frame_is_an_image_of_its_own(tmp_path: Path) -> None:
    frames = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    data = ct_dataset(frames, "p", "1.2", "1.3")
    data.RescaleSlope, data.RescaleIntercept = "1", "0"
    path = tmp_path / "cine.dcm"
    write_dataset(path, data)
    assert code_of(ImageReference(path)) == "not-a-picture"
    assert pictures_of(path) == (ImageReference(path, 0), ImageReference(path, 1))
    assert np.array_equal(read_picture(ImageReference(path, 1)).array, frames[1])
    assert code_of(ImageReference(path, 2)) == "not-a-picture"


def test_dicom_that_cannot_be_read_truly(tmp_path: Path) -> None:
    data = ct_dataset(np.zeros((3, 4), np.int16), "p", "1.2", "1.3")
    write_dataset(tmp_path / "a.dcm", data)
    assert code_of(ImageReference(tmp_path / "a.dcm")) == "no-rescale"
    data.RescaleSlope, data.RescaleIntercept = "0", "0"
    write_dataset(tmp_path / "b.dcm", data)
    assert code_of(ImageReference(tmp_path / "b.dcm")) == "invalid-rescale"
    set_tag(data, "PhotometricInterpretation", "RGB")
    write_dataset(tmp_path / "c.dcm", data)
    assert code_of(ImageReference(tmp_path / "c.dcm")) == "colour-image"
    (tmp_path / "d.dcm").write_text("words")
    assert code_of(ImageReference(tmp_path / "d.dcm")) == "not-dicom"


# --- masks ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("highest", [1, 2, 100, 255, 65535])
def test_masks_are_cut_at_half_of_their_range(highest: int) -> None:
    values = np.array([[0, highest], [highest, 0]], dtype=np.uint16)
    labels, findings = binarised(values)
    assert labels.tolist() == [[0, 1], [1, 0]] and not findings
    assert binarised(np.zeros((2, 2), np.uint8))[0].max() == 0


def test_grey_values_of_a_mask_are_said() -> None:
    # Half of 200 is 100: above it is inside.
    labels, findings = binarised(np.array([[0, 99, 100, 101, 200]], dtype=np.uint16))
    assert labels.tolist() == [[0, 0, 0, 1, 1]]
    assert [f.code for f in findings] == ["mask-binarised"]
    assert findings[0].message.startswith("3 pixels")


def test_grey_values_of_8_bits_are_cut_at_half_of_255(tmp_path: Path) -> None:
    """What a JPEG leaves of an empty mask was once cut at half of its own largest value."""
    labels, findings = binarised(np.array([[0, 99, 101, 127, 128, 200]], dtype=np.uint8))
    assert labels.tolist() == [[0, 0, 0, 0, 1, 1]]
    assert "cut at 127.5" in findings[0].message
    assert not binarised(np.array([[0, 1, 2, 40]], dtype=np.uint8))[0].any()
    square = np.zeros((40, 40), np.uint8)
    square[7:29, 9:33] = 255
    for name, mask in (("square", square), ("noise", np.eye(40, dtype=np.uint8) * 60)):
        path = tmp_path / f"{name}.jpg"
        assert cv2.imwrite(str(path), mask, [cv2.IMWRITE_JPEG_QUALITY, 60])
        found = read_picture_mask(ImageReference(path), (40, 40), binary=True)
        assert len(np.unique(cv2.imread(str(path), cv2.IMREAD_UNCHANGED))) > 3
        assert np.array_equal(found.array, mask > 127), name


def test_masks_of_pictures(tmp_path: Path) -> None:
    inside = (GREY > 100).astype(np.uint8)
    colour = written(tmp_path / "c.png", np.repeat(inside[..., None] * 255, 3, axis=2))
    assert np.array_equal(read_picture_mask(colour, (3, 4, 3), binary=True).array, inside)
    several = written(tmp_path / "s.png", inside * 3)
    assert read_picture_mask(several, (3, 4), binary=False).array.max() == 3
    painted = written(tmp_path / "p.png", np.stack([inside * 255, inside, inside], axis=-1))
    for reference, shape, code in (
        (painted, (3, 4), "mask-colour"),
        (several, (4, 3), "grids-differ"),
        (several, (3, 5, 3), "grids-differ"),
    ):
        with pytest.raises(CaseRefused) as caught:
            read_picture_mask(reference, shape, binary=True)
        assert caught.value.code == code
    assert "mask 3 x 4, image 3 x 5 pixels" in caught.value.met


# --- outlines ------------------------------------------------------------------------------------
def test_an_outline_is_filled_by_hand() -> None:
    # A square from 0.5 to 3.5 holds the centres 1, 2, 3.
    square = np.array([[0.5, 0.5], [3.5, 0.5], [3.5, 2.5], [0.5, 2.5]])
    expected = np.zeros((4, 5), bool)
    expected[1:3, 1:4] = True
    assert np.array_equal(filled_contour(square, (4, 5)), expected)
    assert np.array_equal(filled_contour(square[::-1], (4, 5)), expected)
    closed = np.vstack([square, square[:1]])
    assert np.array_equal(filled_contour(closed, (4, 5)), expected), "closed by hand as well"
    # What lies twice inside is outside; what leaves the image is cut.
    twice = np.vstack([square, square])
    assert not filled_contour(twice, (4, 5)).any()
    assert filled_contour(square * 100 - 100, (4, 5)).all()


@pytest.mark.parametrize(
    "text", ["", "1 2\n3 4\n", "1 2\n3 4\n5 x\n", "1 2\n3 4\n5 nan\n", "1 2 3\n" * 4]
)
def test_what_is_no_outline(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(CaseRefused) as caught:
        read_contour(tmp_path / "a.txt")
    assert caught.value.code == "broken-contour"


@pytest.mark.real_data
def test_real_outlines_and_frames(real_data: Path) -> None:
    """The masks there were filled by others; areas stand in the table."""
    folder = real_data / "heart_mr"
    rows = list(csv.DictReader((folder / "index.csv").read_text().splitlines()))
    assert len(rows) == 41
    for row in rows:
        image = read_picture(ImageReference(folder / row["dicom"]))
        assert image.array.shape == (256, 256) and image.array.max() > 50
        assert image.spacing_mm is not None and 1.2 < image.spacing_mm[0] < 1.4
        outline = ImageReference(folder / row["i_contour"])
        mask = read_picture_mask(outline, image.array.shape, binary=True).array
        given = read_picture_mask(ImageReference(folder / row["mask"]), (256, 256), binary=True)
        assert np.array_equal(mask, given.array) and not given.findings
        assert mask.sum() == int(row["i_area_px"])
