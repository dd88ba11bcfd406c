"""DICOM SEG objects brought onto the image that they belong to.

Every frame is placed by its own position and orientation; that it says which image it was drawn on
is not relied upon.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medtool.core.errors import CaseRefused
from medtool.core.records import Finding
from medtool.dicom.provenance import mask_from_source
from medtool.dicom.series import Series, StackGeometry

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom.dataset import Dataset

# A frame lies on a plane where no corner is farther off than this share of a pixel, or of a step.
TOLERANCE = 0.05
SEGMENTATION_STORAGE = "1.2.840.10008.5.1.4.1.1.66.4"


@dataclass(frozen=True)
class ReadSegmentation:
    """``mask`` (z, y, x) of segment numbers on the grid of ``read(series)``, and their names.

    ``hidden_px`` counts the pixels where one segment stands over another: (under, over) -> pixels.
    """

    mask: NDArray[np.uint16]
    names: Mapping[int, str]
    findings: tuple[Finding, ...] = ()
    hidden_px: Mapping[tuple[int, int], int] = field(default_factory=dict)


def read_segmentation(
    path: Path, series: Series, *, segments: Sequence[int] | None = None, whole: bool = False
) -> ReadSegmentation:
    """The binary segments in ``path`` on the grid of ``read(series)``; those of ``segments`` alone.

    Where they overlap, the one that ``segments`` names later stands, without it the higher number.
    With ``whole`` a frame of them that shows something, and lies on no plane of the series or was
    drawn on images that are not in it, refuses the object. Raises CaseRefused: ``not-an-image``
    (no DICOM SEG), ``unsupported-pixels`` (not binary), ``segmentation-elsewhere`` (no frame lies
    on a plane of the series), ``mask-incomplete``.
    """
    from pydicom.pixels.utils import iter_pixels

    data = _segmentation_object(path)
    geometry = _geometry_of(series)
    names = {int(s.SegmentNumber): str(s.SegmentLabel) for s in data.SegmentSequence}
    order = sorted(names) if segments is None else segments
    painting = _Painting(len(series.planes), geometry, order)
    own = frozenset(plane.sop_instance_uid for plane in series.planes)
    lost = absent = asked = 0
    for frame, pixels in zip(_frames(data), iter_pixels(data), strict=True):
        if frame.segment not in order:
            continue
        asked += 1
        plane = _plane_of(frame, data, series, geometry)
        elsewhere = bool(frame.drawn_on) and not frame.drawn_on & own
        absent += bool((plane is None or elsewhere) and np.any(pixels))
        if plane is None:
            lost += 1
            continue
        painting.add(plane, frame.segment, pixels != 0)
    if whole:
        require_whole_mask(absent, "frames", path)
    findings = said_of_lost(lost, asked, "frames", path)
    mask = mask_from_source(series, painting.numbers()).astype(np.uint16, copy=False)
    return ReadSegmentation(mask, names, findings, painting.hidden_px)


class _Painting:
    """Segments on the planes of a series, each over those that stand before it in an order.

    Frames come in any order: ranks are painted, of which the highest stands.
    """

    def __init__(self, planes: int, geometry: StackGeometry, order: Sequence[int]) -> None:
        self._order = np.array([0, *order], np.uint16)
        self._ranks = {segment: rank for rank, segment in enumerate(order, start=1)}
        self._on_planes = np.zeros((planes, geometry.rows, geometry.columns), np.uint16)
        self.hidden_px: Counter[tuple[int, int]] = Counter()

    def add(self, plane: int, segment: int, inside: NDArray[np.bool_]) -> None:
        """Paint the pixels of one frame."""
        rank, there = self._ranks[segment], self._on_planes[plane]
        others, counts = np.unique(there[inside], return_counts=True)
        for other, count in zip(others.tolist(), counts.tolist(), strict=True):
            if other not in (0, rank):
                under, over = (int(self._order[k]) for k in sorted((other, rank)))
                self.hidden_px[under, over] += count
        there[inside] = np.maximum(there[inside], np.uint16(rank))

    def numbers(self) -> NDArray[np.uint16]:
        """Segment numbers (planes, rows, columns)."""
        return self._order.take(self._on_planes)


@dataclass(frozen=True)
class _Frame:
    """Segment number and place of one frame, from its own functional groups or the shared ones."""

    segment: int
    position_mm: NDArray[np.float64]
    orientation: NDArray[np.float64]
    pixel_spacing_mm: NDArray[np.float64]
    # SOP instances that the frame says it was drawn on; none where it does not say.
    drawn_on: frozenset[str]


def require_whole_mask(absent: int, parts: str, path: Path) -> None:
    """Refuse a mask of which some ``parts`` belong to images that are not there.

    Raises CaseRefused ``mask-incomplete``.
    """
    if absent:
        raise CaseRefused(
            "mask-incomplete",
            "A part of the mask was drawn on images that are not there.",
            where=str(path),
            met=f"{absent} {parts} that show something, on none of the images of the series",
            wanted="every image that the structure was drawn on",
            how="add the missing images, or leave the object out.",
        )


def said_of_lost(lost: int, total: int, parts: str, path: Path) -> tuple[Finding, ...]:
    """What is said of a mask of whose ``total`` ``parts`` some lie on no slice of the series.

    Raises CaseRefused ``segmentation-elsewhere`` where all do: nothing is moved or resampled.
    """
    if not lost:
        return ()
    if lost == total:
        raise CaseRefused(
            "segmentation-elsewhere",
            f"None of the {parts} of this mask lies on a slice of the series.",
            where=str(path),
            met=f"{total} {parts} elsewhere",
            wanted=f"{parts} on the slices of the series; nothing is moved or resampled silently",
        )
    text = f"{lost} of {total} {parts} of {path.name} lie on no slice of the series: left out."
    return (Finding("frames-without-slice", text, "warning"),)


def _segmentation_object(path: Path) -> Dataset:
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    try:
        data = dcmread(path)
    except InvalidDicomError:
        data = None
    if data is None or data.get("SOPClassUID") != SEGMENTATION_STORAGE:
        raise CaseRefused(
            "not-an-image",
            "This file is no DICOM SEG object.",
            where=str(path),
            wanted="a Segmentation Storage object",
        )
    kind = str(data.get("SegmentationType", ""))
    if kind != "BINARY":
        raise CaseRefused(
            "unsupported-pixels",
            "This DICOM SEG object holds no binary segments.",
            where=str(path),
            met=kind or "no SegmentationType",
            wanted="BINARY",
        )
    return data


def _geometry_of(series: Series) -> StackGeometry:
    if series.geometry is None:
        raise CaseRefused(
            "invalid-geometry", "The series does not make a volume.", where=str(series.folder)
        )
    return series.geometry


def _frames(data: Dataset) -> Iterator[_Frame]:
    shared = data.SharedFunctionalGroupsSequence[0]
    for own in data.PerFrameFunctionalGroupsSequence:

        def group(name: str, own: Dataset = own) -> Any:
            return (own.get(name) or shared.get(name))[0]

        yield _Frame(
            int(group("SegmentIdentificationSequence").ReferencedSegmentNumber),
            np.asarray(group("PlanePositionSequence").ImagePositionPatient, float),
            np.asarray(group("PlaneOrientationSequence").ImageOrientationPatient, float),
            np.asarray(group("PixelMeasuresSequence").PixelSpacing, float),
            _source_images(own),
        )


def images_of_frames(data: Dataset) -> frozenset[str]:
    """SOP instances that frames of a DICOM SEG say they were drawn on; none where none says."""
    frames = data.get("PerFrameFunctionalGroupsSequence", ())
    return frozenset[str]().union(*map(_source_images, frames))


def _source_images(frame: Dataset) -> frozenset[str]:
    return frozenset(
        str(image.get("ReferencedSOPInstanceUID", ""))
        for derived in frame.get("DerivationImageSequence", ())
        for image in derived.get("SourceImageSequence", ())
    ) - {""}


def _plane_of(frame: _Frame, data: Dataset, series: Series, geometry: StackGeometry) -> int | None:
    """The index of the plane that every corner of the frame lies on; None where there is none."""
    if (int(data.Rows), int(data.Columns)) != (geometry.rows, geometry.columns):
        return None
    heights = [
        abs(np.dot(geometry.normal, frame.position_mm - plane.position_mm))
        for plane in series.planes
    ]
    nearest = int(np.argmin(heights))
    theirs = _corners(frame.position_mm, frame.orientation, frame.pixel_spacing_mm, geometry)
    ours = _corners(
        np.asarray(series.planes[nearest].position_mm),
        np.asarray([*geometry.row_direction, *geometry.column_direction]),
        np.asarray([geometry.row_spacing_mm, geometry.column_spacing_mm]),
        geometry,
    )
    smallest_mm = min(
        geometry.row_spacing_mm, geometry.column_spacing_mm, geometry.slice_spacing_mm
    )
    apart_mm = np.linalg.norm(theirs - ours, axis=1).max()
    return nearest if apart_mm <= TOLERANCE * smallest_mm else None


def _corners(
    position_mm: NDArray[np.float64],
    orientation: NDArray[np.float64],
    pixel_spacing_mm: NDArray[np.float64],
    geometry: StackGeometry,
) -> NDArray[np.float64]:
    """Centres of the four corner pixels; ``pixel_spacing_mm`` is (rows, columns) as in DICOM."""
    along_row = orientation[:3] * pixel_spacing_mm[1] * (geometry.columns - 1)
    along_column = orientation[3:] * pixel_spacing_mm[0] * (geometry.rows - 1)
    moves = [along_row * x + along_column * y for x in (0, 1) for y in (0, 1)]
    corners: NDArray[np.float64] = position_mm + np.array(moves)
    return corners
