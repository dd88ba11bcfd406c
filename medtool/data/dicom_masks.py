"""Masks that DICOM keeps beside a series: segmentations (SEG) and structure sets (RTSTRUCT).

Both name the series that they were drawn on. Contours are filled on the plane that they lie on, a
pixel where its centre is inside; several contours of a structure on one plane exclude each other
(even and odd), so that an inner one is a hole (PS3.3 C.8.8.6.3).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from medtool.core.errors import CaseRefused
from medtool.core.records import Finding, Skipped
from medtool.data.contours import filled_contour
from medtool.dicom.provenance import mask_from_source
from medtool.dicom.segmentation_reader import (
    SEGMENTATION_STORAGE,
    images_of_frames,
    read_segmentation,
    require_whole_mask,
    said_of_lost,
)
from medtool.dicom.series import Series, StackGeometry

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom.dataset import Dataset

STRUCTURE_SET_STORAGE = "1.2.840.10008.5.1.4.1.1.481.3"
# A contour lies on a plane where all of it is nearer than this share of the step between planes.
PLANE_SHARE = 0.25
# Contours that enclose an area (PS3.3 C.8.8.6.1), and the fewest points that do.
CLOSED_KINDS = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
LEAST_POINTS = 3


@dataclass(frozen=True)
class MaskObject:
    """One file with masks: the series that it was drawn on, and the names of its structures.

    ``numbers`` are those of the structures, in the order of ``names``, of which several may be the
    same. ``frames_of_reference`` are the coordinate systems that its places are in.
    """

    path: Path
    kind: Literal["SEG", "RTSTRUCT"]
    series_uids: frozenset[str]
    names: tuple[str, ...]
    numbers: tuple[int, ...] = ()
    frames_of_reference: frozenset[str] = frozenset()
    study_uid: str = ""

    def named(self, key: str) -> list[int]:
        """Numbers of the structures that ``key`` names, by name or as ``#number``."""
        pairs = zip(self.numbers, self.names, strict=True)
        return [number for number, name in pairs if key in (name, f"#{number}")]


def find_masks(files: Iterable[Path]) -> tuple[list[MaskObject], list[Skipped]]:
    """Those of ``files`` that are SEG or RTSTRUCT objects, and those that lack what these need.

    They are read without their pixels.
    """
    objects: list[MaskObject] = []
    broken: list[Skipped] = []
    for path in files:
        try:
            found = _mask_object(path)
        # On damaged bytes, and without what the standard wants, pydicom may raise anything.
        except Exception as error:  # noqa: BLE001
            why = f"a mask that cannot be read: {error or type(error).__name__}"
            broken.append(Skipped(path, "broken-header", why))
            continue
        objects += () if found is None else (found,)
    return objects, broken


def mask_objects(files: Iterable[Path]) -> list[MaskObject]:
    """Those of ``files`` that are SEG or RTSTRUCT objects with all that these need."""
    return find_masks(files)[0]


def _mask_object(path: Path) -> MaskObject | None:
    data = _header(path)
    kind = None if data is None else data.get("SOPClassUID")
    if data is None or kind not in (SEGMENTATION_STORAGE, STRUCTURE_SET_STORAGE):
        return None
    study = str(data.get("StudyInstanceUID", ""))
    if kind == SEGMENTATION_STORAGE:
        segments = data.get("SegmentSequence", ())
        series = {str(one.SeriesInstanceUID) for one in data.get("ReferencedSeriesSequence", ())}
        return MaskObject(
            path,
            "SEG",
            frozenset(series),
            tuple(str(one.SegmentLabel) for one in segments),
            tuple(int(one.SegmentNumber) for one in segments),
            frozenset((str(data.get("FrameOfReferenceUID", "")),)) - {""},
            study,
        )
    rois = data.get("StructureSetROISequence", ())
    frames = data.get("ReferencedFrameOfReferenceSequence", ())
    return MaskObject(
        path,
        "RTSTRUCT",
        frozenset(_series_of_structures(data)),
        tuple(str(one.ROIName) for one in rois),
        tuple(int(one.ROINumber) for one in rois),
        frozenset(str(one.get("FrameOfReferenceUID", "")) for one in frames) - {""},
        study,
    )


def _header(path: Path) -> Dataset | None:
    """What stands before the pixels; None where the file is no DICOM, or cannot be read."""
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    try:
        return dcmread(path, stop_before_pixels=True, defer_size=1024)
    except (InvalidDicomError, OSError):
        return None


def images_drawn_on(found: MaskObject) -> frozenset[str]:
    """SOP instances that frames or contours say they were drawn on; none where none says."""
    data = _header(found.path)
    if data is None:
        return frozenset()
    if found.kind == "SEG":
        return images_of_frames(data)
    return frozenset[str]().union(
        *(
            _images_of(contour)
            for structure in data.get("ROIContourSequence", ())
            for contour in structure.get("ContourSequence", ())
        )
    )


def _series_of_structures(data: Dataset) -> set[str]:
    return {
        str(series.SeriesInstanceUID)
        for frame in data.get("ReferencedFrameOfReferenceSequence", ())
        for study in frame.get("RTReferencedStudySequence", ())
        for series in study.get("RTReferencedSeriesSequence", ())
    }


def read_dicom_mask(
    path: Path, series: Series, ids: Mapping[str, int], *, whole: bool = False
) -> tuple[NDArray[np.int16], tuple[Finding, ...]]:
    """The mask (z, y, x) on the grid of ``read(series)``; ``ids`` has the id of each structure.

    Structures are named, or numbered (``#3``) where several have one name. Where they overlap, the
    one that ``ids`` names later stands. Overlaps, structures that ``ids`` does not name, names that
    the object lacks, and frames or contours that lie on no slice are said; with ``whole`` those
    that show something, or were drawn on images that are not in the series, refuse the object.
    Raises CaseRefused: ``not-an-image``, ``unsupported-pixels``, ``segmentation-elsewhere``,
    ``mask-incomplete``, ``contours-open``, ``invalid-geometry``.
    """
    (found,) = mask_objects([path]) or (None,)
    if found is None:
        raise CaseRefused(
            "not-an-image",
            "This file holds no masks.",
            where=str(path),
            wanted="a DICOM SEG or RTSTRUCT object",
        )
    read = _of_segments if found.kind == "SEG" else _of_contours
    mask, findings = read(found, series, ids, whole=whole)
    # As masks of files are: signed, so that voxels outside the body can have a number.
    return mask.astype(np.int16), (*findings, *_said_of_names(found, ids))


def _said_of_names(found: MaskObject, ids: Mapping[str, int]) -> tuple[Finding, ...]:
    taken = {number for key in ids for number in found.named(key)}
    pairs = zip(found.numbers, found.names, strict=True)
    others = sorted({name for number, name in pairs if number not in taken})
    missing = [key for key in ids if not found.named(key)]
    said = []
    if others:
        text = f"{found.path.name} holds structures that are no label: {', '.join(others)}"
        said.append(Finding("structures-left-out", f"{text}."))
    if missing:
        text = f"{found.path.name} has no structure {', '.join(missing)}: nothing is there."
        said.append(Finding("structures-missing", text, "warning"))
    return tuple(said)


def _said_of_overlap(
    path: Path, ids: Mapping[str, int], hidden_px: Mapping[tuple[int, int], int]
) -> tuple[Finding, ...]:
    """What is said where labels overlap; ``hidden_px`` counts pixels by (under, over), as ids."""
    names = {value: name for name, value in ids.items()}
    parts = [
        f"{names[over]} stands over {names[under]} in {count} pixels"
        for (under, over), count in sorted(hidden_px.items())
    ]
    if not parts:
        return ()
    text = f"{path.name} holds structures that overlap: {'; '.join(parts)}. "
    text += "The label that is named later stands."
    return (Finding("structures-overlap", text, "warning"),)


def _of_segments(
    found: MaskObject, series: Series, ids: Mapping[str, int], *, whole: bool
) -> tuple[NDArray[np.uint16], tuple[Finding, ...]]:
    asked: dict[int, int] = {}
    for key, value in ids.items():
        for number in found.named(key):
            # A segment that is named twice has the place of the later name.
            asked.pop(number, None)
            asked[number] = value
    read = read_segmentation(found.path, series, segments=list(asked) or None, whole=whole)
    values = np.zeros(max(found.numbers, default=0) + 1, np.uint16)
    values[list(asked)] = list(asked.values())
    hidden_px: Counter[tuple[int, int]] = Counter()
    for pair, count in read.hidden_px.items():
        under, over = (int(values[number]) for number in pair)
        if under != over:
            hidden_px[under, over] += count
    return values.take(read.mask), (
        *read.findings,
        *_said_of_overlap(found.path, ids, hidden_px),
    )


def _of_contours(
    found: MaskObject, series: Series, ids: Mapping[str, int], *, whole: bool
) -> tuple[NDArray[np.uint16], tuple[Finding, ...]]:
    from pydicom import dcmread

    geometry = series.geometry
    if geometry is None:
        raise CaseRefused(
            "invalid-geometry", "The series does not make a volume.", where=str(series.folder)
        )
    on_planes = np.zeros((len(series.planes), geometry.rows, geometry.columns), np.uint16)
    own = frozenset(plane.sop_instance_uid for plane in series.planes)
    drawn = {int(one.ReferencedROINumber): one for one in dcmread(found.path).ROIContourSequence}
    hidden_px: Counter[tuple[int, int]] = Counter()
    lost = total = absent = 0
    for key, value in ids.items():
        for number in found.named(key):
            inside = np.zeros(on_planes.shape, np.bool_)
            for contour in _contours(drawn.get(number), geometry, found.path):
                total += 1
                plane = _plane_of(contour.points_mm, series, geometry)
                elsewhere = bool(contour.drawn_on) and not contour.drawn_on & own
                absent += plane is None or elsewhere
                if plane is None:
                    lost += 1
                    continue
                pixels = _pixels_of(contour.points_mm, series, plane, geometry)
                inside[plane] ^= filled_contour(pixels, (geometry.rows, geometry.columns))
            for under, count in zip(*np.unique(on_planes[inside], return_counts=True), strict=True):
                if under not in (0, value):
                    hidden_px[int(under), value] += int(count)
            on_planes[inside] = value
    if whole:
        require_whole_mask(absent, "contours", found.path)
    mask = mask_from_source(series, on_planes).astype(np.uint16, copy=False)
    return mask, (
        *said_of_lost(lost, total, "contours", found.path),
        *_said_of_overlap(found.path, ids, hidden_px),
    )


@dataclass(frozen=True)
class _Contour:
    """Points (n, 3) in mm of a closed contour, and the SOP instances that it was drawn on."""

    points_mm: NDArray[np.float64]
    drawn_on: frozenset[str]


def _contours(structure: Any, geometry: StackGeometry, path: Path) -> Iterator[_Contour]:
    """The contours of a structure that enclose something.

    An open one whose ends meet within half a pixel is closed; another is refused: what it encloses
    is not known. Single points enclose nothing.
    """
    meets_mm = min(geometry.row_spacing_mm, geometry.column_spacing_mm) / 2
    for contour in () if structure is None else structure.get("ContourSequence", ()):
        points = np.asarray(contour.get("ContourData") or (), dtype=np.float64).reshape(-1, 3)
        kind = str(contour.get("ContourGeometricType", ""))
        if kind not in CLOSED_KINDS and len(points) > 1:
            gap_mm = float(np.linalg.norm(points[0] - points[-1]))
            if gap_mm > meets_mm:
                raise CaseRefused(
                    "contours-open",
                    "A contour of the structure is open: what it encloses is not known.",
                    where=str(path),
                    met=f"{kind or 'no ContourGeometricType'} of {len(points)} points, whose ends "
                    f"are {gap_mm:.1f} mm apart",
                    wanted=" or ".join(CLOSED_KINDS),
                    how="close the contours in the program that drew them.",
                )
        if len(points) >= LEAST_POINTS:
            yield _Contour(points, _images_of(contour))


def _images_of(contour: Dataset) -> frozenset[str]:
    images = contour.get("ContourImageSequence", ())
    return frozenset(str(image.get("ReferencedSOPInstanceUID", "")) for image in images) - {""}


def _plane_of(points: NDArray[np.float64], series: Series, geometry: StackGeometry) -> int | None:
    """The index of the plane that all points lie on; None where there is none."""
    heights = points @ np.asarray(geometry.normal)
    planes = np.array([np.dot(geometry.normal, plane.position_mm) for plane in series.planes])
    nearest = int(np.abs(planes - heights.mean()).argmin())
    apart_mm = float(np.abs(heights - planes[nearest]).max())
    return nearest if apart_mm <= PLANE_SHARE * geometry.slice_spacing_mm else None


def _pixels_of(
    points: NDArray[np.float64], series: Series, plane: int, geometry: StackGeometry
) -> NDArray[np.float64]:
    """Points (n, 2) as x, y in pixels of the plane."""
    away = points - np.asarray(series.planes[plane].position_mm)
    x = away @ np.asarray(geometry.row_direction) / geometry.column_spacing_mm
    y = away @ np.asarray(geometry.column_direction) / geometry.row_spacing_mm
    return np.stack([x, y], axis=1)
