"""Writes real DICOM series to disk, with geometry that the test decides.

All positions are worked out here from first principles (PS3.3 C.7.6.2.1.1), so that tests can
compare what was read with where things were put. Lengths are mm in LPS; arrays are [z, y, x].
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    LegacyConvertedEnhancedCTImageStorage,
    RLELossless,
    generate_uid,
)

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
NATIVE = {
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
}

SliceTags = Callable[[int], Mapping[str, Any]]


@dataclass(frozen=True)
class BuiltSeries:
    """What was written: files in ascending order along the normal, whatever their names are."""

    folder: Path
    files: tuple[Path, ...]
    series_uid: str
    study_uid: str
    patient_id: str
    orientation: tuple[float, ...]
    positions_mm: tuple[tuple[float, float, float], ...]
    spacing_mm: tuple[float, float]
    stored: NDArray[Any]

    def point(self, z: float, y: float, x: float) -> NDArray[np.float64]:
        """LPS mm of pixel (row y, column x) of slice z (whole numbers for z)."""
        row, column = np.asarray(self.orientation[:3]), np.asarray(self.orientation[3:])
        start = np.asarray(self.positions_mm[int(z)])
        return start + row * x * self.spacing_mm[1] + column * y * self.spacing_mm[0]


def normal_of(orientation: Sequence[float]) -> NDArray[np.float64]:
    """Row direction x column direction."""
    return np.cross(np.asarray(orientation[:3], float), np.asarray(orientation[3:], float))


def all_orientations() -> Iterator[tuple[float, ...]]:
    """The 24 pairs (row, column) of signed patient axes.

    Together with planes written in ascending or descending order these are the 48 axis orders
    and flips of a volume.
    """
    axes = [tuple(float(v) for v in sign * np.eye(3)[k]) for k in range(3) for sign in (1, -1)]
    for row, column in itertools.product(axes, axes):
        if not np.dot(row, column):
            yield (*row, *column)


def oblique(seed: int) -> tuple[float, ...]:
    """A random rotation's first two axes."""
    matrix, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return (*(float(v) for v in matrix[:, 0]), *(float(v) for v in matrix[:, 1]))


def stack_positions(
    distances_mm: Sequence[float],
    orientation: Sequence[float] = AXIAL,
    origin_mm: Sequence[float] = (0.0, 0.0, 0.0),
    shear_mm: Sequence[float] = (0.0, 0.0),
) -> list[tuple[float, float, float]]:
    """Positions at distances along the normal, moving ``shear_mm`` in the plane per mm of it."""
    row, column = np.asarray(orientation[:3]), np.asarray(orientation[3:])
    step = normal_of(orientation) + shear_mm[0] * row + shear_mm[1] * column
    points = [np.asarray(origin_mm) + (d - distances_mm[0]) * step for d in distances_mm]
    return [(float(p[0]), float(p[1]), float(p[2])) for p in points]


def ramp(shape: Sequence[int]) -> NDArray[np.int16]:
    """Stored values that differ in every voxel of a small volume, and in every slice."""
    size = int(np.prod(shape))
    return (np.arange(size).reshape(shape) % 4000).astype(np.int16)


def build_series(
    folder: Path,
    stored: NDArray[Any] | tuple[int, int, int] = (8, 12, 10),
    *,
    orientation: Sequence[float] = AXIAL,
    positions_mm: Sequence[Sequence[float]] | None = None,
    origin_mm: Sequence[float] = (-10.0, -20.0, 30.0),
    step_mm: float = 2.0,
    spacing_mm: tuple[float, float] = (1.0, 1.0),
    tilt_degrees: float = 0.0,
    slope: float = 1.0,
    intercept: float = -1024.0,
    transfer_syntax: str = ExplicitVRLittleEndian,
    patient_id: str = "patient-1",
    study_uid: str | None = None,
    series_uid: str | None = None,
    name: Callable[[int], str] = "{:04d}.dcm".format,
    shuffle: int | None = None,
    tags: Mapping[str, Any] | None = None,
    slice_tags: SliceTags | None = None,
) -> BuiltSeries:
    """Write one single-frame CT series; slice k is ``stored[k]`` at ``positions_mm[k]``.

    ``stored`` is an integer volume or only its shape. ``tilt_degrees`` leans the stack along its
    column direction, as a gantry does. ``shuffle`` seeds an order of names and instance numbers
    that has nothing to do with positions. ``tags`` and ``slice_tags(k)`` overwrite elements by
    keyword; the value None deletes one.
    """
    volume = ramp(stored) if isinstance(stored, tuple) else np.asarray(stored)
    count = volume.shape[0]
    lean = (0.0, float(np.tan(np.radians(tilt_degrees))))
    places = positions_mm or stack_positions(
        [k * step_mm for k in range(count)], orientation, origin_mm, lean
    )
    order = np.random.default_rng(shuffle).permutation(count) if shuffle is not None else None
    study = study_uid if study_uid is not None else generate_uid()
    series = series_uid if series_uid is not None else generate_uid()
    shared: dict[str, Any] = {"FrameOfReferenceUID": generate_uid(entropy_srcs=[study])}
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for k in range(count):
        number = int(order[k]) if order is not None else k
        path = folder / name(number)
        data = ct_dataset(volume[k], patient_id, study, series)
        data.InstanceNumber = number + 1
        data.ImagePositionPatient = [_decimal(v) for v in places[k]]
        data.ImageOrientationPatient = [_decimal(v) for v in orientation]
        data.PixelSpacing = [_decimal(v) for v in spacing_mm]
        data.SliceThickness = _decimal(step_mm)
        data.RescaleSlope, data.RescaleIntercept = _decimal(slope), _decimal(intercept)
        for keyword, value in {
            **shared,
            **(tags or {}),
            **(slice_tags(k) if slice_tags else {}),
        }.items():
            set_tag(data, keyword, value)
        write_dataset(path, data, transfer_syntax)
        files.append(path)
    return BuiltSeries(
        folder,
        tuple(files),
        series,
        study,
        patient_id,
        tuple(orientation),
        tuple((float(p[0]), float(p[1]), float(p[2])) for p in places),
        spacing_mm,
        volume,
    )


def ct_dataset(stored: NDArray[Any], patient_id: str, study_uid: str, series_uid: str) -> Dataset:
    """A CT image of one plane (or frames) of integers, without geometry."""
    data = Dataset()
    data.SOPClassUID = CTImageStorage
    data.SOPInstanceUID = generate_uid()
    data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    data.Modality = "CT"
    data.Manufacturer = "Test Works"
    data.StudyDate = "20200102"
    data.StudyTime = "101112"
    data.AccessionNumber = "A1"
    data.SeriesDescription = "Head 2.0"
    data.PatientName = "Nobody^Known"
    data.PatientID = patient_id
    data.PatientPosition = "HFS"
    data.StudyInstanceUID = study_uid
    data.SeriesInstanceUID = series_uid
    data.SeriesNumber = 2
    data.AcquisitionNumber = 1
    data.ConvolutionKernel = "STANDARD"
    data.KVP = "120"
    set_pixels(data, stored)
    return data


def set_pixels(data: Dataset, stored: NDArray[Any]) -> None:
    """Pixel description and native little-endian bytes of (rows, columns) or (frames, ...)."""
    values = stored if stored.dtype.itemsize <= 2 else stored.astype(np.int16)
    data.SamplesPerPixel = 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.Rows, data.Columns = values.shape[-2:]
    bits = values.dtype.itemsize * 8
    data.BitsAllocated, data.BitsStored, data.HighBit = bits, bits, bits - 1
    data.PixelRepresentation = int(values.dtype.kind == "i")
    if values.ndim == 3:
        data.NumberOfFrames = values.shape[0]
    raw = values.astype(values.dtype.newbyteorder("<")).tobytes()
    data.PixelData = raw + b"\0" * (len(raw) % 2)
    data["PixelData"].VR = "OW"


def build_enhanced(
    path: Path,
    stored: NDArray[Any] | tuple[int, int, int] = (6, 12, 10),
    *,
    orientation: Sequence[float] = AXIAL,
    positions_mm: Sequence[Sequence[float]] | None = None,
    step_mm: float = 2.0,
    spacing_mm: tuple[float, float] = (1.0, 1.0),
    rescale: Callable[[int], tuple[float, float]] = lambda _: (1.0, -1024.0),
    legacy_converted: bool = False,
    shared_geometry: bool = True,
    frame_content: Callable[[int], Mapping[str, Any]] | None = None,
    patient_id: str = "patient-1",
    tags: Mapping[str, Any] | None = None,
    transfer_syntax: str = ExplicitVRLittleEndian,
) -> BuiltSeries:
    """Write one enhanced (or legacy-converted) multi-frame CT; frame k at ``positions_mm[k]``."""
    volume = ramp(stored) if isinstance(stored, tuple) else np.asarray(stored)
    count = volume.shape[0]
    places = positions_mm or stack_positions([k * step_mm for k in range(count)], orientation)
    data = ct_dataset(volume, patient_id, generate_uid(), generate_uid())
    data.SOPClassUID = (
        LegacyConvertedEnhancedCTImageStorage if legacy_converted else EnhancedCTImageStorage
    )
    data.InstanceNumber = 1
    data.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    measures, plane_orientation = Dataset(), Dataset()
    measures.PixelSpacing = [_decimal(v) for v in spacing_mm]
    measures.SliceThickness = _decimal(step_mm)
    plane_orientation.ImageOrientationPatient = [_decimal(v) for v in orientation]
    geometry = {
        "PixelMeasuresSequence": measures,
        "PlaneOrientationSequence": plane_orientation,
    }
    shared, frames = Dataset(), []
    frame_type = Dataset()
    frame_type.FrameType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    shared.CTImageFrameTypeSequence = DicomSequence([frame_type])
    for k in range(count):
        frame, position, transformation, content = Dataset(), Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [_decimal(v) for v in places[k]]
        slope, intercept = rescale(k)
        transformation.RescaleSlope = _decimal(slope)
        transformation.RescaleIntercept = _decimal(intercept)
        transformation.RescaleType = "HU"
        for keyword, value in (frame_content(k) if frame_content else {}).items():
            setattr(content, keyword, value)
        frame.PlanePositionSequence = DicomSequence([position])
        frame.PixelValueTransformationSequence = DicomSequence([transformation])
        frame.FrameContentSequence = DicomSequence([content])
        for keyword, value in geometry.items():
            setattr(shared if shared_geometry else frame, keyword, DicomSequence([value]))
        frames.append(frame)
    data.SharedFunctionalGroupsSequence = DicomSequence([shared])
    data.PerFrameFunctionalGroupsSequence = DicomSequence(frames)
    for keyword, value in (tags or {}).items():
        set_tag(data, keyword, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_dataset(path, data, transfer_syntax)
    return BuiltSeries(
        path.parent,
        (path,),
        data.SeriesInstanceUID,
        data.StudyInstanceUID,
        patient_id,
        tuple(orientation),
        tuple((float(p[0]), float(p[1]), float(p[2])) for p in places),
        spacing_mm,
        volume,
    )


def set_tag(data: Dataset, keyword: str, value: Any) -> None:
    """Overwrite an element by keyword; None deletes it; a DataElement (odd VR) stands as it is."""
    if value is None:
        if keyword in data:
            delattr(data, keyword)
    elif isinstance(value, DataElement):
        data[keyword] = value
    else:
        setattr(data, keyword, value)


def write_dataset(path: Path, data: Dataset, transfer_syntax: str = ExplicitVRLittleEndian) -> None:
    """Write ``data`` as a DICOM file, encoding its pixels where the transfer syntax asks for it."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = data.get("SOPClassUID") or CTImageStorage
    meta.MediaStorageSOPInstanceUID = data.get("SOPInstanceUID") or generate_uid()
    meta.TransferSyntaxUID = pydicom.uid.UID(transfer_syntax)
    if "PixelData" in data and transfer_syntax not in {*NATIVE, RLELossless}:
        _encapsulate(data, transfer_syntax)
    elif (
        "PixelData" in data and transfer_syntax == ExplicitVRBigEndian and data.BitsAllocated == 16
    ):
        data.PixelData = np.frombuffer(data.PixelData, "<u2").astype(">u2").tobytes()
    data.file_meta, data.preamble = meta, b"\0" * 128
    if transfer_syntax == RLELossless:
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    data.save_as(path, enforce_file_format=True)


def _encapsulate(data: Dataset, transfer_syntax: str) -> None:
    import imagecodecs

    kind = "i" if data.PixelRepresentation else "u"
    dtype = np.dtype(f"<{kind}{data.BitsAllocated // 8}")
    frames = np.frombuffer(data.PixelData, dtype).reshape(-1, data.Rows, data.Columns)
    unsigned = frames.view(frames.dtype.str.replace("i", "u"))
    encoders: dict[str, Callable[[NDArray[Any]], bytes]] = {
        JPEGLSLossless: imagecodecs.jpegls_encode,
        JPEGLosslessSV1: lambda a: imagecodecs.ljpeg_encode(a, bitspersample=16),
        JPEG2000Lossless: lambda a: imagecodecs.jpeg2k_encode(
            a, level=0, codecformat="j2k", reversible=True
        ),
        HTJ2KLossless: lambda a: imagecodecs.htj2k_encode(a, reversible=True),
    }
    encoded = [bytes(encoders[transfer_syntax](np.ascontiguousarray(a))) for a in unsigned]
    data.PixelData = encapsulate(encoded)
    data["PixelData"].VR = "OB"
    data["PixelData"].is_undefined_length = True


def _decimal(value: float) -> str:
    """A decimal string (VR DS: at most 16 characters) that is as exact as it can be."""
    for digits in range(17, 5, -1):
        text = f"{float(value):.{digits}g}"
        if len(text) <= 16:
            return text
    raise ValueError(value)
