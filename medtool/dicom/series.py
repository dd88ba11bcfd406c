"""The records of DICOM intake: a plane of pixels, a stack of planes, everything that was found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from medtool.core.geometry import Triple
from medtool.core.records import Finding, Skipped

Verdict = Literal["accepted", "repaired", "refused"]


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """How the stored values of one plane are to be read."""

    transfer_syntax: str
    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    samples: int = 1
    photometric: str = "MONOCHROME2"
    frames_in_file: int = 1


@dataclass(frozen=True, slots=True)
class Plane:
    """One image plane: a single-frame file, or one frame of a multi-frame file.

    ``position_mm`` is the centre of the first pixel in LPS; ``along_normal_mm`` its projection on
    the stack's normal. ``padding_low``/``padding_high`` bound, inclusively and in stored units,
    the values that mean "no measurement" (both None: there are none). ``fragments_start`` is where
    the header reader saw the value of encapsulated pixel data begin, without a table of frames
    before it (-1: it did not): the file need not be searched for them.
    """

    path: Path
    frame: int
    sop_instance_uid: str
    instance_number: int | None
    position_mm: Triple
    along_normal_mm: float
    pixels: PixelFormat
    slope: float = 1.0
    intercept: float = 0.0
    padding_low: int | None = None
    padding_high: int | None = None
    has_modality_lut: bool = False
    fragments_start: int = -1


@dataclass(frozen=True)
class StackGeometry:
    """True geometry of a stack of planes, worked out from positions alone.

    ``row_direction`` is the direction of increasing column index, ``column_direction`` of
    increasing row index; ``normal`` is their cross product, along which planes ascend.
    ``tilt_degrees`` is the angle between stacking direction and normal, ``shear_mm`` the in-plane
    vector (along row_direction, along column_direction) that the stack moves per mm of normal.
    ``target_positions_mm`` are the positions along the normal of the slices that ``read`` gives
    (equal to the planes' own when nothing was resampled).
    """

    row_direction: Triple
    column_direction: Triple
    normal: Triple
    row_spacing_mm: float
    column_spacing_mm: float
    rows: int
    columns: int
    slice_spacing_mm: float
    tilt_degrees: float
    shear_mm: tuple[float, float]
    positions_mm: tuple[float, ...]
    target_positions_mm: tuple[float, ...]

    @property
    def is_sheared(self) -> bool:
        """Whether ``read`` has to undo a shear."""
        return self.shear_mm != (0.0, 0.0)

    @property
    def is_resampled(self) -> bool:
        """Whether ``read`` has to resample along the normal."""
        return self.target_positions_mm != self.positions_mm


@dataclass(frozen=True)
class Series:
    """One stack of planes that belongs together, with the verdict on it.

    One DICOM series may give several (phases, kernels, sizes); ``uid`` is then shared and ``key``
    tells them apart. ``geometry`` is None where positions do not make a stack.
    """

    key: str
    uid: str
    patient_id: str
    study_uid: str
    accession: str
    study_date: str
    modality: str
    description: str
    folder: Path
    planes: tuple[Plane, ...]
    verdict: Verdict
    findings: tuple[Finding, ...]
    geometry: StackGeometry | None
    score: float = 0.0
    score_reasons: tuple[str, ...] = ()
    files: int = 0
    # manufacturer, model, kernel, thickness_mm, kvp, exposure, image_type, frame_of_reference,
    # number, patient_position, window, ...: plain values.
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Intake:
    """Everything below a folder: stacks with verdicts, and files that belong to none."""

    series: tuple[Series, ...]
    skipped: tuple[Skipped, ...]


@dataclass(frozen=True)
class SliceOrigin:
    """Where one slice of a read image came from.

    ``planes`` and ``weights`` say which source planes it was made of (one plane with weight 1
    where nothing was resampled); ``nearest`` is the one to name to a person.
    """

    index: int
    position_mm: Triple
    along_normal_mm: float
    nearest: Plane
    planes: tuple[int, ...]
    weights: tuple[float, ...]
    # In-plane shift, in pixels (columns, rows), that undoing the shear applied to each plane.
    shift_px: tuple[tuple[float, float], ...] = ()
