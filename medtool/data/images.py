"""Single 2D images and their masks: PNG, TIFF, JPEG, 2D NIfTI, and frames of DICOM files.

Pixels of pictures keep their type, so that 8 bits stay 8 bits; what DICOM measures is float32 (HU
for CT). Colour is red, green, blue. Every frame of a cine series is an image of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from medtool.core.errors import CaseRefused
from medtool.core.geometry import Grid
from medtool.core.records import Finding, Skipped
from medtool.data.contours import filled_contour, read_contour
from medtool.data.dataset_record import ImageReference
from medtool.data.grids import check_grid
from medtool.data.layout_files import PICTURE_ENDINGS, TIFF_ENDINGS, image_ending
from medtool.data.nifti import read_header
from medtool.data.volumes import NIFTI_ENDINGS, read_plane, whole_labels
from medtool.dicom.image import Image
from medtool.dicom.intake import read_images
from medtool.dicom.pixels import PlaneReader, check_rescale, measure

if TYPE_CHECKING:
    from numpy.typing import NDArray

CONTOUR_ENDING = ".txt"
# A mask in grey reaches further; whole numbers up to here, of several kinds, are ids of labels.
MOST_IDS = 32
FULL_8_BIT = 255
# How files of these kinds end when they are whole: the PNG chunk IEND with its checksum, and the
# JPEG marker EOI. Decoders fill up what is missing without a word.
_PNG_START, _PNG_END = b"\x89PNG", b"IEND\xaeB`\x82"
_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
# Writers of JPEG may pad the end of a file.
_END_BYTES = 64


@dataclass(frozen=True)
class Picture:
    """Pixels (rows, columns), or (rows, columns, 3) in colour.

    ``spacing_mm`` is the step from row to row and from column to column, ``grid`` where the pixels
    lie, one slice deep; None where the file does not say. ``modality`` is DICOM's, "" elsewhere.
    """

    array: NDArray[Any]
    spacing_mm: tuple[float, float] | None = None
    findings: tuple[Finding, ...] = ()
    grid: Grid | None = None
    modality: str = ""


def read_picture(reference: ImageReference) -> Picture:
    """One 2D image; a file of several pages or frames needs the reference's component.

    Of a colour picture a component is one channel.

    Raises CaseRefused: ``not-a-picture``, ``transparent``, ``damaged-file``, ``undefined-values``
    and other codes of files.
    """
    ending = image_ending(reference.path).lower()
    if ending in PICTURE_ENDINGS:
        array, findings = _without_alpha(_decoded(reference), str(reference))
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            count = int(np.count_nonzero(~np.isfinite(array)))
            _refuse("undefined-values", "Pixels hold no number.", reference, f"{count} pixels")
        if reference.component is not None and page_count(reference.path) == 1:
            array = _channel(array, reference)
        return Picture(array, findings=findings)
    if ending in NIFTI_ENDINGS:
        plane = read_plane(reference)
        across, down, _ = plane.grid.spacing_mm
        return Picture(plane.array[0], (down, across), plane.findings, plane.grid)
    return _dicom_frame(reference)


def pictures_of(path: Path) -> tuple[ImageReference, ...]:
    """A reference to each 2D image in a file: pages of a TIFF, frames of a DICOM file."""
    ending = image_ending(path).lower()
    if ending in PICTURE_ENDINGS:
        count = page_count(path)
    elif ending in NIFTI_ENDINGS:
        count = 1
    else:
        count = len(_images(path))
    return tuple(ImageReference(path, index if count > 1 else None) for index in range(count))


def is_flat(path: Path) -> bool:
    """Whether a NIfTI file holds one slice, by its header; False where that is broken."""
    try:
        shape = read_header(path).shape
    except CaseRefused:
        return False
    return all(size == 1 for size in shape[2:])


def page_count(path: Path) -> int:
    """How many pages a TIFF has; other pictures have one."""
    import cv2

    if path.suffix.lower() not in TIFF_ENDINGS:
        return 1
    try:
        return int(cv2.imcount(str(path), cv2.IMREAD_UNCHANGED))
    except cv2.error:
        return 1


def read_picture_mask(
    reference: ImageReference, image_shape: tuple[int, ...], *, binary: bool
) -> Picture:
    """The mask of an image of ``image_shape``, as ids (rows, columns): int16.

    A binary mask is cut at half of its range (``binarised``). An outline in a text file is
    filled. Raises CaseRefused: ``grids-differ`` (another size), ``mask-colour``,
    ``not-labels``, ``label-undeclared`` (several ids where it is binary), and the codes of
    ``read_picture``.
    """
    rows, columns = image_shape[:2]
    if reference.path.suffix.lower() == CONTOUR_ENDING:
        filled = filled_contour(read_contour(reference.path), (rows, columns))
        return Picture(filled.astype(np.int16))
    picture = read_picture(reference)
    array = _grey(picture.array, str(reference))
    if array.shape != (rows, columns):
        raise CaseRefused(
            "grids-differ",
            "The mask has another size than its image.",
            where=str(reference),
            met=f"mask {array.shape[0]} x {array.shape[1]}, image {rows} x {columns} pixels",
            wanted="one size; nothing is resampled silently",
        )
    if binary:
        require_one_structure(array, str(reference))
    labels, findings = binarised(array) if binary else whole_labels(array, str(reference))
    return Picture(labels, picture.spacing_mm, (*picture.findings, *findings))


def require_one_structure(values: NDArray[Any], where: str) -> None:
    """Refuse a mask of several ids where one structure is wanted; grey edges may be cut.

    Raises CaseRefused ``label-undeclared``.
    """
    if not 1 < values.max(initial=0) <= MOST_IDS:
        return
    ids = np.unique(values)
    if len(ids) > 2 and np.array_equal(ids, np.rint(ids)):
        raise CaseRefused(
            "label-undeclared",
            "The mask holds several ids, and one structure is wanted.",
            where=where,
            met=", ".join(f"{number:g}" for number in ids[:8]),
            wanted="0 and one other value; grey values up to 255 are cut at half",
            how="name the labels in the preset: data.label_ids.",
        )


def binarised(values: NDArray[Any]) -> tuple[NDArray[np.int16], tuple[Finding, ...]]:
    """1 where a value lies above half of the range, else 0; grey values are said.

    The range is that of the file's values: 0 and 1 are a mask as much as 0 and 255 are. Grey values
    of 8 bits have 255: what a lossy file leaves of an empty mask is no structure.
    """
    highest = float(values.max(initial=0))
    between = int(np.count_nonzero((values != 0) & (values != highest)))
    half = FULL_8_BIT / 2 if between and values.dtype == np.uint8 else highest / 2
    findings = []
    if between:
        text = f"{between} pixels of the mask lie between 0 and {highest:g}; cut at {half:g}"
        findings.append(Finding("mask-binarised", text, "warning"))
    return (values > half).astype(np.int16), tuple(findings)


def _decoded(reference: ImageReference) -> NDArray[Any]:
    """Pixels of a picture file in the order red, green, blue (, alpha)."""
    import cv2

    path = reference.path
    try:
        content = path.read_bytes()
    except OSError as error:
        _refuse("unreadable", "The file cannot be read.", path, error.strerror or "")
    _require_whole(content, path)
    array = None
    if (count := page_count(path)) > 1:
        if reference.component is None or reference.component >= count:
            _refuse("not-a-picture", "The file holds several images.", path, f"{count} pages")
        done, pages = cv2.imreadmulti(
            str(path), start=reference.component, count=1, flags=cv2.IMREAD_UNCHANGED
        )
        array = pages[0] if done and pages else None
    else:
        try:
            array = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
        except cv2.error as error:
            _refuse("damaged-file", "The picture cannot be decoded.", path, str(error.err)[:80])
    if array is None:
        _refuse("damaged-file", "The picture cannot be decoded.", path, f"{len(content)} bytes")
    if array.ndim == 3 and array.shape[2] in (3, 4):
        array = array[..., [2, 1, 0, 3][: array.shape[2]]]
    return np.asarray(array)


def _require_whole(content: bytes, path: Path) -> None:
    for start, end in ((_PNG_START, _PNG_END), (_JPEG_START, _JPEG_END)):
        if content.startswith(start) and end not in content[-_END_BYTES:]:
            _refuse("truncated-file", "The picture breaks off.", path, f"{len(content)} bytes")


def _without_alpha(array: NDArray[Any], where: str) -> tuple[NDArray[Any], tuple[Finding, ...]]:
    """Grey or colour alone: an opaque alpha channel is dropped and said, another refused."""
    if array.ndim == 2 or array.shape[2] == 3:
        return array, ()
    if array.shape[2] not in (2, 4):
        _refuse("not-a-picture", "The image is neither grey nor colour.", where,
                f"{array.shape[2]} channels")  # fmt: skip
    alpha = array[..., -1]
    full = np.iinfo(alpha.dtype).max if alpha.dtype.kind in "iu" else 1.0
    if not np.all(alpha == full):
        _refuse("transparent", "The image is partly transparent.", where,
                f"{np.count_nonzero(alpha != full)} pixels")  # fmt: skip
    rest = array[..., 0] if array.shape[2] == 2 else array[..., :3]
    finding = Finding("alpha-dropped", "an opaque alpha channel was dropped")
    return np.ascontiguousarray(rest), (finding,)


def _channel(array: NDArray[Any], reference: ImageReference) -> NDArray[Any]:
    """One channel of a colour picture, as nnU-Net counts them: 0 is red."""
    channels = array.reshape(*array.shape[:2], -1)
    index = reference.component or 0
    if index >= channels.shape[2]:
        _refuse("channels-differ", "The picture has fewer channels.", reference,
                f"{channels.shape[2]} channels")  # fmt: skip
    return np.ascontiguousarray(channels[..., index])


def _grey(array: NDArray[Any], where: str) -> NDArray[Any]:
    """A mask that was saved as colour, as one channel; channels that differ are refused."""
    if array.ndim == 2:
        return array
    if np.all(array == array[..., :1]):
        return np.ascontiguousarray(array[..., 0])
    _refuse("mask-colour", "The mask is in colour.", where, "channels that differ")


def _images(path: Path) -> list[Image]:
    found = read_images(path)
    if isinstance(found, Skipped):
        _refuse(found.code, "The file holds no image that can be read.", path, found.why)
    return found


def _dicom_frame(reference: ImageReference) -> Picture:
    """One frame in its own values, padding as air."""
    images = _images(reference.path)
    if reference.component is None and len(images) > 1:
        _refuse(
            "not-a-picture", "The file holds several images.", reference, f"{len(images)} frames"
        )
    index = reference.component or 0
    if index >= len(images):
        _refuse("not-a-picture", "There is no such frame.", reference, f"{len(images)} frames")
    image = images[index]
    for problem in image.problems:
        _refuse(problem.code, "The image cannot be read truly.", reference, problem.message)
    check_rescale(image.plane)
    stored, said = PlaneReader(bytearray()).stored(image.plane)
    array = np.empty(stored.shape, dtype=np.float32)
    measured = measure(image.plane, stored, array, is_ct=image.kind.modality == "CT")
    spacing = image.frame.spacing_mm
    return Picture(
        array,
        (spacing[0], spacing[1]) if len(spacing) == 2 else None,
        (*said, *measured.findings),
        _frame_grid(image),
        image.kind.modality,
    )


def _frame_grid(image: Image) -> Grid | None:
    """Where one frame lies, as deep as its slice is thick; None where the header does not say."""
    frame, pixels = image.frame, image.plane.pixels
    known = len(image.position) == 3 and len(frame.orientation) == 6 and len(frame.spacing_mm) == 2
    if not known or frame.thickness_mm is None:
        return None
    along, down = np.reshape(frame.orientation, (2, 3))
    directions = np.stack([along, down, np.cross(along, down)], axis=1)
    x, y, z = image.position
    row_step, column_step = frame.spacing_mm
    grid = Grid(
        (pixels.columns, pixels.rows, 1),
        (column_step, row_step, frame.thickness_mm),
        (x, y, z),
        tuple(directions.ravel().tolist()),
    )
    try:
        check_grid(grid, str(image.plane.path))
    except CaseRefused:
        return None
    return grid


def _refuse(code: str, what: str, where: object, met: str) -> NoReturn:
    raise CaseRefused(code, what, where=str(where), met=met)
