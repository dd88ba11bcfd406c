"""Makes a ``Series`` out of files the slow, plain way: with pydicom, one file after the other.

For tests of pixels and geometry that should not depend on the intake.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset

from medtool.dicom.series import PixelFormat, Plane, Series
from medtool.dicom.stack import stack_geometry

_IMPLICIT = "1.2.840.10008.1.2"


def read_header(path: Path) -> Dataset:
    return pydicom.dcmread(path, stop_before_pixels=True, force=True)


def pixel_format(header: Dataset) -> PixelFormat:
    """PixelFormat of a pydicom data set; a headless file is taken for implicit little endian."""
    meta = getattr(header, "file_meta", None)
    stored = int(header.BitsStored)
    return PixelFormat(
        str(getattr(meta, "TransferSyntaxUID", _IMPLICIT)),
        int(header.Rows),
        int(header.Columns),
        int(header.BitsAllocated),
        stored,
        int(header.get("HighBit", stored - 1)),
        bool(header.PixelRepresentation),
        int(header.get("SamplesPerPixel", 1)),
        str(header.get("PhotometricInterpretation", "MONOCHROME2")),
        int(header.get("NumberOfFrames", 1) or 1),
    )


def plane(path: Path, frame: int = 0, **changes: Any) -> Plane:
    """One plane of a file, from the elements at the top of its header."""
    header = read_header(path)
    position = header.get("ImagePositionPatient", (0.0, 0.0, 0.0))
    padding = header.get("PixelPaddingValue")
    limit = header.get("PixelPaddingRangeLimit", padding)
    values: dict[str, Any] = {
        "path": path,
        "frame": frame,
        "sop_instance_uid": str(header.get("SOPInstanceUID", "")),
        "instance_number": header.get("InstanceNumber"),
        "position_mm": tuple(float(v) for v in position),
        "along_normal_mm": 0.0,
        "pixels": pixel_format(header),
        "slope": float(header.get("RescaleSlope", 1.0)),
        "intercept": float(header.get("RescaleIntercept", 0.0)),
        "padding_low": padding,
        "padding_high": limit,
        "has_modality_lut": "ModalityLUTSequence" in header,
    }
    return Plane(**{**values, **changes})


def series(files: Sequence[Path], **changes: Any) -> Series:
    """A series of single-frame files that share orientation and spacing."""
    header = read_header(files[0])
    stack = stack_geometry(
        [plane(path) for path in files], header.ImageOrientationPatient, header.PixelSpacing
    )
    refused = any(f.severity == "refusal" for f in stack.findings)
    values: dict[str, Any] = {
        "key": "by-hand",
        "uid": str(header.get("SeriesInstanceUID", "")),
        "patient_id": str(header.get("PatientID", "")),
        "study_uid": str(header.get("StudyInstanceUID", "")),
        "accession": "",
        "study_date": "",
        "modality": str(header.get("Modality", "")),
        "description": "",
        "folder": files[0].parent,
        "planes": stack.planes,
        "verdict": "refused" if refused else "repaired" if stack.findings else "accepted",
        "findings": stack.findings,
        "geometry": stack.geometry,
        "files": len(files),
    }
    return Series(**{**values, **changes})
