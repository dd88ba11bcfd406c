"""Synthetic CT slices as DICOM files, with the geometry of real scanners."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

from medtool.dicom.tags import SYNTHETIC_MANUFACTURER

# UIDs under the root for UUID-derived names (PS3.5 B.2): 2.25.<128-bit number>.
UUID_ROOT = "2.25."


@dataclass(frozen=True)
class Acquisition:
    """How a study was scanned: what headers say and what geometry the slices have."""

    model: str
    kernel: str
    slices: int
    step_mm: float
    pixel_mm: float
    size_px: int
    tilt_degrees: float = 0.0
    noise_hu: float = 4.0


@dataclass(frozen=True)
class StudyHeader:
    """Who and when; ``name`` seeds the UIDs."""

    name: str
    patient_id: str
    accession: str
    study_date: str


def uid_for(name: str) -> str:
    """A valid UID that depends on ``name`` alone."""
    digest = hashlib.blake2b(name.encode(), digest_size=15).digest()
    return UUID_ROOT + str(int.from_bytes(digest, "big"))


def slice_planes(acquisition: Acquisition) -> tuple[NDArray[np.float64], tuple[float, ...]]:
    """Positions (n, 3) of the first pixels and the six cosines of the orientation.

    The table moves along z only, as on a scanner: with a tilted gantry the stack is sheared.
    """
    angle = np.radians(acquisition.tilt_degrees)
    row = np.array([1.0, 0.0, 0.0])
    column = np.array([0.0, np.cos(angle), -np.sin(angle)])
    half_mm = acquisition.pixel_mm * (acquisition.size_px - 1) / 2
    corner = -half_mm * row - half_mm * column
    steps_mm = (np.arange(acquisition.slices) - (acquisition.slices - 1) / 2) * acquisition.step_mm
    positions = corner[None, :] + steps_mm[:, None] * np.array([0.0, 0.0, 1.0])
    return positions, (*row.tolist(), *column.tolist())


def pixel_points(
    acquisition: Acquisition, position_mm: NDArray[np.float64], orientation: Sequence[float]
) -> NDArray[np.float64]:
    """Patient coordinates (rows, columns, 3) of the pixels of one slice."""
    row, column = np.asarray(orientation[:3]), np.asarray(orientation[3:])
    index = np.arange(acquisition.size_px) * acquisition.pixel_mm
    points: NDArray[np.float64] = (
        position_mm + index[None, :, None] * row + index[:, None, None] * column
    )
    return points


def write_slice(
    path: Path,
    hu: NDArray[np.float64],
    *,
    header: StudyHeader,
    acquisition: Acquisition,
    series: int,
    number: int,
    position_mm: Sequence[float],
    orientation: Sequence[float],
    image_type: Sequence[str] = ("ORIGINAL", "PRIMARY", "AXIAL"),
) -> None:
    """One CT image, explicit little endian, 12 bits unsigned with intercept -1024."""
    instance_uid = UID(uid_for(f"{header.name}/{series}/{number}"))
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = instance_uid
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, instance_uid
    image.StudyInstanceUID = uid_for(header.name)
    image.SeriesInstanceUID = uid_for(f"{header.name}/{series}")
    image.FrameOfReferenceUID = uid_for(f"{header.name}/frame")
    image.PatientID, image.PatientName = header.patient_id, "SYNTHETIC"
    image.AccessionNumber, image.StudyDate = header.accession, header.study_date
    image.Modality, image.Manufacturer = "CT", SYNTHETIC_MANUFACTURER
    image.ManufacturerModelName, image.ConvolutionKernel = acquisition.model, acquisition.kernel
    image.SeriesNumber, image.InstanceNumber = series, number
    image.SeriesDescription = "Head 5.0" if image_type[-1] == "AXIAL" else "Scout"
    image.ImageType, image.PatientPosition, image.KVP = list(image_type), "HFS", 120
    image.SliceThickness = acquisition.step_mm
    image.PixelSpacing = [acquisition.pixel_mm, acquisition.pixel_mm]
    image.ImagePositionPatient = [round(float(value), 6) for value in position_mm]
    image.ImageOrientationPatient = [round(float(value), 9) for value in orientation]
    image.Rows, image.Columns = hu.shape
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit = 16, 12, 11
    image.PixelRepresentation = 0
    image.RescaleIntercept, image.RescaleSlope, image.RescaleType = -1024, 1, "HU"
    image.WindowCenter, image.WindowWidth = 40, 80
    stored = np.clip(np.rint(hu + 1024), 0, 4095).astype("<u2")
    image.PixelData = stored.tobytes()
    image.save_as(path, enforce_file_format=True)
