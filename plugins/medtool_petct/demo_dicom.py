"""One synthetic study as DICOM: a PET in Bq/mL and a CT in HU of one examination.

What a scanner writes that SUV needs (weight, dose, half-life, times) stands in the headers, so that
the way from stored numbers to SUV is the one that patients' studies take.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    PositronEmissionTomographyImageStorage,
    generate_uid,
)

from medtool.dicom.tags import SYNTHETIC_MANUFACTURER

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medtool.core.geometry import Grid
    from medtool_petct.demo import DemoCase

# F-18, injected an hour before the scan; weight and dose are nobody's.
WEIGHT_KG, DOSE_BQ, HALF_LIFE_S, WAITED_S = 70.0, 3.7e8, 6586.2, 3600.0
DATE, INJECTED, SCANNED = "20200102", "090000", "100000"
# SUV of one Bq/mL: grams of body over the dose that is left at the scan.
SUV_PER_BQ_ML = 1000.0 * WEIGHT_KG / (DOSE_BQ * 2.0 ** (-WAITED_S / HALF_LIFE_S))
HU_INTERCEPT = -1024


def write_study(folder: Path, case: DemoCase, patient_id: str, suv_step: float) -> None:
    """Write ``folder/pet`` and ``folder/ct``; SUV is kept in steps of ``suv_step``."""
    pet = {
        "Modality": "PT",
        "SOPClassUID": PositronEmissionTomographyImageStorage,
        "SeriesDescription": "PET AC",
        "Units": "BQML",
        "SeriesType": ["STATIC", "IMAGE"],
        "DecayCorrection": "START",
        "CorrectedImage": ["NORM", "ATTN", "DECY"],
        "FrameReferenceTime": 0,
        "ActualFrameDuration": 120000,
        "RadiopharmaceuticalInformationSequence": Items([_drug()]),
        "RescaleSlope": f"{suv_step / SUV_PER_BQ_ML:.10g}",
        "RescaleIntercept": 0,
    }
    ct = {
        "Modality": "CT",
        "SOPClassUID": CTImageStorage,
        "SeriesDescription": "CT low dose",
        "KVP": 120,
        "RescaleSlope": 1,
        "RescaleIntercept": HU_INTERCEPT,
        "RescaleType": "HU",
    }
    counts = np.rint(case.suv / suv_step)
    _write_series(folder / "pet", counts, case.pet_grid, patient_id, pet)
    _write_series(folder / "ct", case.hu - HU_INTERCEPT, case.ct_grid, patient_id, ct)


def _drug() -> Dataset:
    item = Dataset()
    item.RadiopharmaceuticalStartDateTime = DATE + INJECTED
    item.RadiopharmaceuticalStartTime = INJECTED
    item.RadionuclideTotalDose = DOSE_BQ
    item.RadionuclideHalfLife = HALF_LIFE_S
    return item


def _write_series(
    folder: Path, values: NDArray[Any], grid: Grid, patient_id: str, tags: Mapping[str, Any]
) -> None:
    """One file a slice of ``values`` (z, y, x), stored as 16 bits without sign."""
    folder.mkdir(parents=True, exist_ok=True)
    series = f"{patient_id}/{tags['Modality']}"
    for number, plane in enumerate(values.astype("<u2")):
        uid = generate_uid(entropy_srcs=[f"{series}/{number}"])
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = tags["SOPClassUID"], uid
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        for name, value in {**_shared(patient_id), **tags}.items():
            setattr(image, name, value)
        image.SOPInstanceUID = uid
        image.SeriesInstanceUID = generate_uid(entropy_srcs=[series])
        image.InstanceNumber, image.ImageIndex = number + 1, number + 1
        x, y, z = grid.origin_mm
        place = (x, y, z + number * grid.spacing_mm[2])
        image.ImagePositionPatient = [f"{value:.6f}" for value in place]
        image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        image.PixelSpacing = [grid.spacing_mm[1], grid.spacing_mm[0]]
        image.SliceThickness = grid.spacing_mm[2]
        image.Rows, image.Columns = plane.shape
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        image.BitsAllocated, image.BitsStored, image.HighBit = 16, 16, 15
        image.PixelRepresentation = 0
        image.PixelData = plane.tobytes()
        image.save_as(folder / f"{number:03d}.dcm", enforce_file_format=True)


def _shared(patient_id: str) -> dict[str, Any]:
    """What both series say of patient and examination."""
    return {
        "PatientID": patient_id,
        "PatientName": "SYNTHETIC",
        "PatientSex": "O",
        "PatientWeight": WEIGHT_KG,
        "StudyInstanceUID": generate_uid(entropy_srcs=[patient_id]),
        "FrameOfReferenceUID": generate_uid(entropy_srcs=[f"{patient_id}/frame"]),
        "StudyDate": DATE,
        "SeriesDate": DATE,
        "SeriesTime": SCANNED,
        "AcquisitionDate": DATE,
        "AcquisitionTime": SCANNED,
        "Manufacturer": SYNTHETIC_MANUFACTURER,
        "ManufacturerModelName": "Phantom PET/CT",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "PatientPosition": "HFS",
    }
