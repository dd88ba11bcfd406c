"""The synthetic series that the DICOM benchmarks read: a head-like CT with realistic noise."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders import RLELosslessEncoder
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

SYNTAXES = {
    "uncompressed": ExplicitVRLittleEndian,
    "RLE": RLELossless,
    "JPEG-LS": JPEGLSLossless,
    "JPEG 2000": JPEG2000Lossless,
    "JPEG lossless": JPEGLosslessSV1,
    "HTJ2K": HTJ2KLossless,
}
# Encoding is slow; the planes of a series repeat after this many.
DISTINCT_PLANES = 20
NOISE_HU = 12.0
FIELD_MM = 250.0
# Forty slices of it hold as much brain as a head does.
STEP_MM = 1.5


def planes(rows: int, columns: int, count: int, seed: int = 7) -> NDArray[np.int16]:
    """Stored values (count, rows, columns): skull, brain, air, and noise as scanners have it."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1.0 : 1.0 : rows * 1j, -1.0 : 1.0 : columns * 1j]
    radius = np.hypot(x / 0.72, y / 0.85)
    head = np.select([radius < 0.88, radius < 1.0], [35.0, 900.0], -1000.0)
    slices = []
    for k in range(count):
        noise = rng.normal(scale=NOISE_HU, size=(rows, columns))
        texture = 8.0 * np.sin(9.0 * x + k) * np.cos(7.0 * y) * (radius < 0.88)
        slices.append(np.clip(head + texture + noise, -1024, 3071) + 1024)
    return np.rint(np.stack(slices)).astype(np.int16)


def write_series(
    folder: Path,
    syntax: str,
    *,
    slices: int,
    rows: int = 512,
    columns: int = 512,
    patient: str = "benchmark",
    step_mm: float = STEP_MM,
    seed: int = 7,
) -> list[Path]:
    """Write one CT series; files in ascending order along z. Another seed is another noise."""
    folder.mkdir(parents=True, exist_ok=True)
    stored = planes(rows, columns, min(slices, DISTINCT_PLANES), seed)
    encoded = [_encode(np.ascontiguousarray(plane), syntax) for plane in stored]
    study, series = generate_uid(), generate_uid()
    files = []
    for k in range(slices):
        data = _header(k, rows, columns, study, series)
        data.PatientID, data.SliceThickness = patient, f"{step_mm:g}"
        data.ImagePositionPatient = [-125.0, -125.0, k * step_mm]
        data.PixelData = encoded[k % len(encoded)]
        data["PixelData"].VR = "OW" if syntax == ExplicitVRLittleEndian else "OB"
        data["PixelData"].is_undefined_length = syntax != ExplicitVRLittleEndian
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
        meta.TransferSyntaxUID = syntax
        data.file_meta, data.preamble = meta, b"\0" * 128
        path = folder / f"{k:05d}.dcm"
        data.save_as(path, enforce_file_format=True)
        files.append(path)
    return files


def _header(k: int, rows: int, columns: int, study: str, series: str) -> Dataset:
    data = Dataset()
    data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, generate_uid()
    data.StudyDate, data.Modality, data.Manufacturer = "20200102", "CT", "Benchmark"
    data.StudyDescription, data.SeriesDescription = "Head", "Head 0.6"
    data.PatientName, data.PatientID, data.PatientPosition = "Nobody", "", "HFS"
    data.KVP, data.ConvolutionKernel = "120", "STANDARD"
    data.StudyInstanceUID, data.SeriesInstanceUID = study, series
    data.SeriesNumber, data.AcquisitionNumber, data.InstanceNumber = 2, 1, k + 1
    data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    data.FrameOfReferenceUID = study
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.Rows, data.Columns = rows, columns
    data.PixelSpacing = [round(FIELD_MM / rows, 6), round(FIELD_MM / columns, 6)]
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
    data.RescaleIntercept, data.RescaleSlope, data.RescaleType = "-1024", "1", "HU"
    return data


def _encode(plane: NDArray[np.int16], syntax: str) -> bytes:
    if syntax == ExplicitVRLittleEndian:
        return plane.tobytes()
    if syntax == RLELossless:
        frame = RLELosslessEncoder.encode(
            plane,
            encoding_plugin="pydicom",
            rows=plane.shape[0],
            columns=plane.shape[1],
            samples_per_pixel=1,
            number_of_frames=1,
            bits_allocated=16,
            bits_stored=16,
            pixel_representation=1,
            photometric_interpretation="MONOCHROME2",
        )
    elif syntax == JPEGLSLossless:
        frame = imagecodecs.jpegls_encode(plane.view(np.uint16))
    elif syntax == JPEG2000Lossless:
        frame = imagecodecs.jpeg2k_encode(plane, level=0, codecformat="j2k", reversible=True)
    elif syntax == JPEGLosslessSV1:
        frame = imagecodecs.jpeg8_encode(
            plane.view(np.uint16), lossless=True, predictor=1, bitspersample=16
        )
    else:
        frame = imagecodecs.htj2k_encode(plane, reversible=True)
    return encapsulate([bytes(frame)])
