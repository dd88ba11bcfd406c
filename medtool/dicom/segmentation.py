"""Masks as DICOM SEG objects on the slices that they were found on (PS3.3 A.51, C.8.20).

One binary segment a structure, frames only where it is. Each frame names its source image. Masks
of sheared or resampled series go back to the source slices first (``medtool.dicom.provenance``).
The same mask of the same series by the same model gives the same bytes, UIDs and all: an archive
that has the object already sees no second one. Patient and study are those of the source images,
as archives ask for.
"""

from __future__ import annotations

import hashlib
import json
import uuid
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medtool.core.errors import CaseRefused
from medtool.core.files import replacing
from medtool.dicom.provenance import mask_to_source
from medtool.dicom.series import Series, StackGeometry

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom.dataset import Dataset

# Well above the numbers that scanners give to their own series.
SERIES_NUMBER = 9_001
MANUFACTURER = "medtool"
NOTICE = "research use only"
# Longest values of VR LO and SH (PS3.5 6.2).
LONGEST_TEXT = 64
# What source images may leave out (type 2 or 3 there), and the object has to have.
_MAY_LACK = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
)
# Values of PatientSex (PS3.3 C.7.1.1).
_SEXES = ("", "M", "F", "O")
# The day and time of objects whose study has none.
_NO_DATE, _NO_TIME = "19000101", "000000"


@dataclass(frozen=True)
class Code:
    """A coded concept: ``scheme`` SCT is SNOMED CT."""

    value: str
    scheme: str
    meaning: str


ANATOMICAL_STRUCTURE = Code("123037004", "SCT", "Anatomical Structure")
TISSUE = Code("85756007", "SCT", "Tissue")


@dataclass(frozen=True)
class Segment:
    """One structure: its labels in the mask (several for a region), and what it is.

    ``category`` and ``kind`` are codes of the context groups 7150 and 7151 (PS3.16), ``region`` of
    an anatomic region, as a preset gives them; the defaults say no more than that it is tissue.
    """

    name: str
    labels: tuple[int, ...]
    category: Code = ANATOMICAL_STRUCTURE
    kind: Code = TISSUE
    region: Code | None = None


@dataclass(frozen=True)
class Maker:
    """What found the mask: model and version as text, and the checkpoint's SHA-256."""

    model: str
    version: str
    fingerprint: str


def write_segmentation(
    mask: NDArray[np.unsignedinteger[Any]],
    series: Series,
    segments: Sequence[Segment],
    path: Path,
    *,
    maker: Maker,
) -> None:
    """Write ``mask`` (z, y, x), on the grid of ``read(series)``, as the DICOM SEG ``path``.

    Raises CaseRefused (``invalid-geometry``) where the series makes no volume, ValueError where
    mask and series do not fit or there is no segment, MachineError where the file cannot be
    written.
    """
    if not segments:
        raise ValueError("a segmentation has at least one segment")
    on_planes = mask_to_source(series, mask)
    if series.geometry is None:
        raise CaseRefused("invalid-geometry", "The series does not make a volume.")
    identity = _Identity.of(on_planes, series, segments, maker)
    with warnings.catch_warnings():
        # Values that the source has and the standard has not are copied as they are; a warning
        # would show them, and a patient's name may be among them.
        warnings.simplefilter("ignore")
        made = _segmentation(on_planes, series, series.geometry, segments, maker, identity)
        with replacing(path) as file:
            made.save_as(file, enforce_file_format=True)


@dataclass(frozen=True)
class _Identity:
    """What all UIDs of an object are derived from: sources, model and content."""

    text: str

    @classmethod
    def of(
        cls,
        on_planes: NDArray[np.generic],
        series: Series,
        segments: Sequence[Segment],
        maker: Maker,
    ) -> _Identity:
        sources = [(plane.sop_instance_uid, plane.frame) for plane in series.planes]
        content = hashlib.sha256(np.ascontiguousarray(on_planes).data).hexdigest()
        made_of = [series.uid, sources, [asdict(s) for s in segments], asdict(maker), content]
        return cls(json.dumps(made_of, sort_keys=True))

    def uid(self, purpose: str) -> str:
        """A UID in the form that PS3.5 B.2 gives for UUIDs; the same for the same content."""
        digest = hashlib.sha256(f"{purpose}\n{self.text}".encode()).digest()
        return f"2.25.{uuid.UUID(bytes=digest[:16], version=5).int}"


def _segmentation(
    on_planes: NDArray[np.generic],
    series: Series,
    geometry: StackGeometry,
    segments: Sequence[Segment],
    maker: Maker,
    identity: _Identity,
) -> Dataset:
    import highdicom
    from pydicom.uid import ExplicitVRLittleEndian

    sources = _source_headers(series)
    date = str(sources[0].StudyDate or _NO_DATE)
    time = str(sources[0].StudyTime or _NO_TIME)
    frames = _segment_frames(on_planes, segments)
    made = highdicom.seg.Segmentation(
        source_images=sources,
        pixel_array=frames,
        segmentation_type="BINARY",
        segment_descriptions=[
            _description(number, segment, maker) for number, segment in enumerate(segments, 1)
        ],
        series_instance_uid=identity.uid("series"),
        series_number=SERIES_NUMBER,
        sop_instance_uid=identity.uid("instance"),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=maker.model[:LONGEST_TEXT],
        software_versions=maker.version[:LONGEST_TEXT],
        device_serial_number=maker.fingerprint[:LONGEST_TEXT],
        content_label="SEGMENTATION",
        content_description=NOTICE,
        series_description=f"{maker.model} ({NOTICE})"[:LONGEST_TEXT],
        transfer_syntax_uid=ExplicitVRLittleEndian,
        # An object without any frame is none: where nothing was found, its frames say so.
        omit_empty_frames=bool(frames.any()),
        content_date=date,
        content_time=time,
        **_geometry(series, geometry),
    )
    _fix(made, identity, date, time)
    return made


def _geometry(series: Series, geometry: StackGeometry) -> dict[str, Any]:
    """Where each plane lies: of the stack that was read, not of the headers' first image."""
    import highdicom

    coordinates = highdicom.CoordinateSystemNames.PATIENT
    measures = highdicom.PixelMeasuresSequence(
        pixel_spacing=(geometry.row_spacing_mm, geometry.column_spacing_mm),
        slice_thickness=float(series.facts.get("thickness_mm") or geometry.slice_spacing_mm),
        spacing_between_slices=None if geometry.is_resampled else geometry.slice_spacing_mm,
    )
    orientation = highdicom.PlaneOrientationSequence(
        coordinates, (*geometry.row_direction, *geometry.column_direction)
    )
    positions = [
        highdicom.PlanePositionSequence(coordinates, plane.position_mm) for plane in series.planes
    ]
    return {
        "pixel_measures": measures,
        "plane_orientation": orientation,
        "plane_positions": positions,
    }


def _segment_frames(on_planes: NDArray[Any], segments: Sequence[Segment]) -> NDArray[np.uint8]:
    """Segment numbers (planes, rows, columns); where segments overlap, a last axis of segments."""
    labels = [label for segment in segments for label in segment.labels]
    if len(set(labels)) < len(labels):
        return np.stack(
            [np.isin(on_planes, segment.labels) for segment in segments], axis=-1
        ).astype(np.uint8)
    kind = np.min_scalar_type(len(segments))
    numbers = np.zeros(max(int(on_planes.max(initial=0)), *labels) + 1, dtype=kind)
    for number, segment in enumerate(segments, 1):
        numbers[list(segment.labels)] = number
    found: NDArray[np.uint8] = numbers.take(on_planes)
    return found


def _description(number: int, segment: Segment, maker: Maker) -> Any:
    import highdicom

    return highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=segment.name[:LONGEST_TEXT],
        segmented_property_category=_coded(segment.category),
        segmented_property_type=_coded(segment.kind),
        anatomic_regions=None if segment.region is None else [_coded(segment.region)],
        algorithm_type="AUTOMATIC",
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name=maker.model[:LONGEST_TEXT],
            version=maker.version[:LONGEST_TEXT],
            family=_coded(Code("123109", "DCM", "Artificial Intelligence")),
        ),
    )


def _coded(code: Code) -> Any:
    import highdicom

    return highdicom.sr.CodedConcept(code.value, code.scheme, code.meaning)


def _source_headers(series: Series) -> list[Dataset]:
    """Headers of the source images, one a file in the order of the planes; what lacks is empty."""
    from pydicom import dcmread

    headers: list[Dataset] = []
    for file in dict.fromkeys(plane.path for plane in series.planes):
        header = dcmread(file, stop_before_pixels=True, force=True)
        for keyword in _MAY_LACK:
            if keyword not in header or not _allowed(keyword, header[keyword].value):
                setattr(header, keyword, "")
        if not header.get("FrameOfReferenceUID"):
            header.FrameOfReferenceUID = _Identity(series.uid).uid("frame of reference")
        headers.append(header)
    return headers


def _allowed(keyword: str, value: Any) -> bool:
    """Whether the standard has such a value: anonymisers write 00000000 for a date."""
    from pydicom.valuerep import DA, TM

    text = str(value or "")
    if keyword == "PatientSex":
        return text in _SEXES
    kind = {"StudyDate": DA, "PatientBirthDate": DA, "StudyTime": TM}.get(keyword)
    try:
        return kind is None or not text or kind(text) is not None
    except ValueError:
        return False


def _fix(made: Dataset, identity: _Identity, date: str, time: str) -> None:
    """What would differ from run to run: the hour of making, and UIDs that are drawn at random.

    The study's own date stands for the former; ``run.json`` has the true one.
    """
    made.InstanceCreationDate, made.InstanceCreationTime = date, time
    for equipment in made.get("ContributingEquipmentSequence", ()):
        equipment.pop("ContributionDateTime", None)
    organisation = identity.uid("dimensions")
    for item in (*made.DimensionOrganizationSequence, *made.DimensionIndexSequence):
        item.DimensionOrganizationUID = organisation
