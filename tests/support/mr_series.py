"""A plain MR series by pydicom alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray

from medtool.core.geometry import Grid


def write_mr_series(
    folder: Path, image: NDArray[np.float32], grid: Grid, patient: str = "made"
) -> None:
    """A plain MR series by pydicom alone: axial, one file a slice."""
    folder.mkdir(parents=True)
    study, series, frame = (pydicom.uid.generate_uid() for _ in range(3))
    scale = 4000 / float(image.max())
    for number, plane in enumerate(image):
        header = pydicom.Dataset()
        header.file_meta = pydicom.dataset.FileMetaDataset()
        header.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        header.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
        header.SOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
        header.SOPInstanceUID = pydicom.uid.generate_uid()
        header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
        header.StudyInstanceUID, header.SeriesInstanceUID = study, series
        header.FrameOfReferenceUID = frame
        header.PatientID, header.PatientName, header.Modality = patient, "", "MR"
        header.PatientBirthDate = header.PatientSex = ""
        header.StudyDate = header.StudyTime = header.AccessionNumber = header.StudyID = ""
        header.ReferringPhysicianName = ""
        header.InstanceNumber, header.SeriesNumber = number + 1, 1
        header.ImageType = ["ORIGINAL", "PRIMARY", "M"]
        x, y, z = grid.origin_mm
        header.ImagePositionPatient = [round(v, 6) for v in (x, y, z + number * grid.spacing_mm[2])]
        header.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        header.PixelSpacing = [round(v, 6) for v in (grid.spacing_mm[1], grid.spacing_mm[0])]
        header.SliceThickness = round(grid.spacing_mm[2], 6)
        header.Rows, header.Columns = plane.shape
        header.BitsAllocated = header.BitsStored = 16
        header.HighBit, header.PixelRepresentation, header.SamplesPerPixel = 15, 0, 1
        header.PhotometricInterpretation = "MONOCHROME2"
        header.PixelData = (plane.clip(min=0) * scale).astype("<u2").tobytes()
        header.save_as(folder / f"{number:03d}.dcm", enforce_file_format=True)
