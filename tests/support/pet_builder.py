"""Headers and series of PET that the test decides on: F-18, 70 kg, 370 MBq, one hour."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from dicom_builder import BuiltSeries, SliceTags, build_series, set_tag
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import PositronEmissionTomographyImageStorage

from medtool.core.errors import CaseRefused
from medtool.dicom.codes import CODES
from medtool.dicom.suv import SuvScale, scale_of
from medtool.dicom.suv_header import merged_headers, pet_header

HALF_LIFE_S = 6586.2
# 1000 * 70 / 370e6 * 2 ** (3600 / 6586.2), worked out apart from the program.
FACTOR = 2.7633668e-4

DRUG: Mapping[str, Any] = {
    "RadiopharmaceuticalStartDateTime": "20200102090000",
    "RadiopharmaceuticalStartTime": "090000",
    "RadionuclideTotalDose": "370000000",
    "RadionuclideHalfLife": "6586.2",
}
TAGS: Mapping[str, Any] = {
    "SOPClassUID": PositronEmissionTomographyImageStorage,
    "ImageType": ["ORIGINAL", "PRIMARY"],
    "Modality": "PT",
    "Manufacturer": "Test Works",
    "SeriesDescription": "WB AC",
    "SeriesDate": "20200102",
    "SeriesTime": "100000",
    "AcquisitionDate": "20200102",
    "AcquisitionTime": "100000",
    "ConvolutionKernel": None,
    "KVP": None,
    "PatientSex": "M",
    "PatientWeight": "70",
    "PatientSize": "1.75",
    "Units": "BQML",
    "SeriesType": ["STATIC", "IMAGE"],
    "DecayCorrection": "START",
    "CorrectedImage": ["NORM", "ATTN", "DECY"],
    "FrameReferenceTime": "59936.86",
    "ActualFrameDuration": "120000",
    "RescaleSlope": "1",
    "RescaleIntercept": "0",
}


def drug_sequence(changes: Mapping[str, Any] | None = None) -> DicomSequence:
    """RadiopharmaceuticalInformationSequence with elements changed; None leaves one out."""
    item = Dataset()
    with warnings.catch_warnings():
        # Values that are none are written on purpose.
        warnings.simplefilter("ignore")
        for keyword, value in {**DRUG, **(changes or {})}.items():
            if value is not None:
                setattr(item, keyword, value)
    return DicomSequence([item])


def pet_tags(
    changes: Mapping[str, Any] | None = None, drug: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Elements of a PET, with some changed; None deletes one."""
    sequence = {"RadiopharmaceuticalInformationSequence": drug_sequence(drug)}
    return {**TAGS, **sequence, **(changes or {})}


def pet_dataset(
    changes: Mapping[str, Any] | None = None,
    drug: Mapping[str, Any] | None = None,
    private: Sequence[tuple[int, int, str, Any]] = (),
) -> Dataset:
    """The header of one PET file; ``private`` are (group, element, VR, value)."""
    data = Dataset()
    for keyword, value in pet_tags(changes, drug).items():
        set_tag(data, keyword, value)
    for group, element, representation, value in private:
        data.add_new((group, element), representation, value)
    return data


def build_pet(
    folder: Path,
    stored: Any = (8, 12, 10),
    changes: Mapping[str, Any] | None = None,
    drug: Mapping[str, Any] | None = None,
    **options: Any,
) -> BuiltSeries:
    """Write a PET series; ``options`` are those of ``dicom_builder.build_series``."""
    slice_tags: SliceTags | None = options.pop("slice_tags", None)
    tags = pet_tags(changes, drug)
    # Slopes and intercepts of single slices come from slice_tags, which win.
    return build_series(folder, stored, tags=tags, slice_tags=slice_tags, **options)


def scale(*datasets: Dataset) -> SuvScale:
    """What makes SUV of a series of these headers."""
    return scale_of(merged_headers([pet_header(d) for d in datasets], "here"), "here")


def refusal(*datasets: Dataset) -> CaseRefused:
    """Why nothing does."""
    with pytest.raises(CaseRefused) as caught:
        scale(*datasets)
    return caught.value


def said(found: SuvScale) -> dict[str, str]:
    """Findings by code, without the one that every scale has."""
    assert all(f.code in CODES for f in found.findings)
    return {f.code: f.message for f in found.findings if f.code != "suv-factor"}
