"""Images of any kind as volumes: pictures as volumes of one slice, deep TIFFs with all their pages.

A picture does not say how large its pixels are. nnU-Net's NaturalImage2DIO takes 1 for them and 999
from slice to slice, a step that no scan has; so it is here, and plans and grids tell pictures from
scans. A TIFF of several pages has its spacing (z, y, x) in a JSON file beside it, as nnU-Net's
Tiff3DIO wants it, else 1 mm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medtool.core.errors import CaseRefused, LabelsError
from medtool.core.geometry import Grid
from medtool.core.records import Finding
from medtool.data.dataset_record import ImageReference
from medtool.data.grids import check_grid
from medtool.data.images import (
    binarised,
    page_count,
    read_picture,
    read_picture_mask,
    require_one_structure,
)
from medtool.data.json_file import read_json
from medtool.data.layout_files import image_ending, spacing_file
from medtool.data.volumes import VOLUME_ENDINGS, Volume, read_mask, read_volume, whole_labels

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Of a picture: from pixel to pixel, and from slice to slice. They stand for "not known".
PICTURE_PIXEL_MM, PICTURE_SLICE_MM = 1.0, 999.0
# In the JSON beside a TIFF of several pages.
SPACING_KEY = "spacing"
SPACING_UNKNOWN = "spacing-unknown"
AXES = 3


def is_volume(reference: ImageReference) -> bool:
    """Whether a file of this kind holds volumes; pictures and single DICOM files do not."""
    return reference.path.is_dir() or image_ending(reference.path).lower() in VOLUME_ENDINGS


def is_deep(path: Path) -> bool:
    """Whether a file is a TIFF of several pages."""
    return page_count(path) > 1


def is_of_pictures(spacing_mm: Sequence[float]) -> bool:
    """Whether a planned spacing is that of pictures, in any order of axes."""
    return PICTURE_SLICE_MM in spacing_mm


def measured(grid: Grid) -> Grid | None:
    """The grid; None for that of a picture, on which nothing can be measured."""
    return None if is_of_pictures(grid.spacing_mm) else grid


def read_image(reference: ImageReference) -> Volume:
    """An image of any kind as float32 (z, y, x).

    Raises CaseRefused: the codes of ``read_volume`` and ``read_picture``, ``channels-differ`` for
    colour where one channel is wanted.
    """
    if is_volume(reference):
        return read_volume(reference)
    if reference.component is None and is_deep(reference.path):
        pages, grid, said = _pages(reference)
        return Volume(pages.astype(np.float32), grid, said)
    picture = read_picture(reference)
    if picture.array.ndim != 2:
        raise CaseRefused(
            "channels-differ",
            "The picture is in colour, and one channel is wanted.",
            where=str(reference),
            met=f"{picture.array.shape[2]} channels in one file",
            wanted="a grey picture, or a data set that declares three channels",
        )
    grid = picture.grid or picture_grid(*picture.array.shape)
    return Volume(picture.array.astype(np.float32)[None], grid, picture.findings)


def read_image_mask(reference: ImageReference, image: Grid | None, *, binary: bool) -> Volume:
    """The mask of an image on the grid ``image``, of any kind, as ids (z, y, x).

    A picture lies where its image lies, and a binary one is cut at half of its range. Raises
    CaseRefused: the codes of ``read_mask`` and ``read_picture_mask``, ``mask-without-image``.
    """
    if is_volume(reference):
        return read_mask(reference)
    if image is None:
        raise CaseRefused("mask-without-image", "The mask has no image to be compared with.")
    if is_deep(reference.path):
        return _deep_mask(reference, image, binary=binary)
    columns, rows, slices = image.size
    if slices != 1:
        raise CaseRefused(
            "grids-differ",
            "The mask is a picture, and its image a volume.",
            where=str(reference),
            met=f"one slice, and {slices} of the image",
            wanted="one size; nothing is resampled silently",
        )
    picture = read_picture_mask(reference, (rows, columns), binary=binary)
    return Volume(picture.array[None], image, picture.findings)


def picture_grid(rows: int, columns: int) -> Grid:
    """The grid that stands for a picture, which does not say where it lies."""
    spacing = (PICTURE_PIXEL_MM, PICTURE_PIXEL_MM, PICTURE_SLICE_MM)
    return Grid((columns, rows, 1), spacing, (0.0, 0.0, 0.0))


# --- TIFFs of several pages -----------------------------------------------------------------
def _deep_mask(reference: ImageReference, image: Grid, *, binary: bool) -> Volume:
    pages, own, said = _pages(reference)
    if _spacing_beside(reference.path) is None and own.size == image.size:
        # A mask that does not say how large its voxels are lies where its image lies.
        own = image
    if binary:
        require_one_structure(pages, str(reference))
    labels, more = binarised(pages) if binary else whole_labels(pages, str(reference))
    # That the spacing is not known is said of the image.
    kept = [finding for finding in said if finding.code != SPACING_UNKNOWN]
    return Volume(labels, own, (*kept, *more))


def _pages(reference: ImageReference) -> tuple[NDArray[Any], Grid, tuple[Finding, ...]]:
    """All pages (z, y, x) of a TIFF, their grid, and what is said of it."""
    import cv2

    path = reference.path
    try:
        pages = list(cv2.imreadmulti(str(path), flags=cv2.IMREAD_UNCHANGED)[1])
    except cv2.error:
        pages = []
    if len(pages) < page_count(path):
        raise CaseRefused("damaged-file", "The pages cannot be decoded.", where=str(path))
    shapes = {page.shape for page in pages}
    if len(shapes) > 1 or pages[0].ndim != 2:
        raise CaseRefused(
            "not-a-volume",
            "The pages of the TIFF make no volume.",
            where=str(path),
            met=", ".join(sorted(" x ".join(map(str, shape)) for shape in shapes)),
            wanted="grey pages of one size",
        )
    values: NDArray[Any] = np.stack(pages)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        count = int(np.count_nonzero(~np.isfinite(values)))
        raise CaseRefused(
            "undefined-values", "Voxels hold no number.", where=str(path), met=f"{count} voxels"
        )
    spacing = _spacing_beside(path)
    z_mm, y_mm, x_mm = spacing or (1.0, 1.0, 1.0)
    slices, rows, columns = values.shape
    grid = Grid((columns, rows, slices), (x_mm, y_mm, z_mm), (0.0, 0.0, 0.0))
    check_grid(grid, str(path))
    if spacing is not None:
        return values, grid, ()
    text = f"no JSON beside {path.name} gives a spacing: voxels of 1 mm are taken"
    return values, grid, (Finding(SPACING_UNKNOWN, text, "warning"),)


def _spacing_beside(path: Path) -> tuple[float, float, float] | None:
    """The spacing (z, y, x) in the JSON that is named as the case; None where there is none."""
    file = spacing_file(path)
    if file is None:
        return None
    try:
        document, _ = read_json(file, kind="file of the spacing")
        given = document[SPACING_KEY] if isinstance(document, Mapping) else None
        spacing = [float(value) for value in given] if isinstance(given, Sequence) else []
    except (LabelsError, KeyError, TypeError, ValueError) as error:
        raise _no_spacing(file, str(error).partition("\n")[0]) from error
    if len(spacing) != AXES:
        raise _no_spacing(file, f"{given}")
    return spacing[0], spacing[1], spacing[2]


def _no_spacing(file: Path, met: str) -> CaseRefused:
    return CaseRefused(
        "invalid-spacing",
        "The JSON beside the image gives no spacing.",
        where=str(file),
        met=met,
        wanted='{"spacing": [z, y, x]} in mm',
    )
