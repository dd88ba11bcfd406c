"""SUV: real series with known values, formulas by hand, and what is refused or only said."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
import series_by_hand
from dicom_builder import stack_positions
from hypothesis import given, settings
from hypothesis import strategies as st
from pet_builder import (
    DRUG,
    FACTOR,
    HALF_LIFE_S,
    TAGS,
    build_pet,
    drug_sequence,
    pet_dataset,
    refusal,
    said,
    scale,
)
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence

from medtool.core.errors import CaseRefused
from medtool.core.records import Finding
from medtool.dicom import scan
from medtool.dicom.codes import CODES
from medtool.dicom.suv import read_suv, suv_scale
from medtool.dicom.suv_body import body_surface_m2, lean_body_mass_kg

# One step of what the file stores: 0.01 in (cm2/mL), brought to body weight. The smallest value
# of this object is 0.0528 and stands there as 0.05.
TRUNCATED = {"DRO_2_3": 0.01 * 3.788}


# --- real series --------------------------------------------------------------------------------
def reference_objects(real_data: Path) -> list[dict[str, str]]:
    with (real_data / "petct/suv_reference_objects/expected.csv").open(encoding="utf-8-sig") as f:
        return list(csv.DictReader(f))


@pytest.mark.real_data
def test_reference_objects(real_data: Path) -> None:
    rows = reference_objects(real_data)
    assert len(rows) == 12
    for row in rows:
        folder = real_data / "petct/suv_reference_objects" / row["ID"]
        # Three slices of twenty are kept, which intake refuses as a gap; positions are real.
        array = read_suv(series_by_hand.series(sorted(folder.glob("*.dcm")))).array
        found = np.unique(array)
        assert found[0] == 0.0
        expected = [float(row[f"SUV{which}_expected"]) for which in ("min", "med", "max")]
        assert found[1:] == pytest.approx(expected, rel=0.01, abs=TRUNCATED.get(row["ID"], 0))


@pytest.mark.real_data
def test_headers_of_the_vendors(real_data: Path) -> None:
    folder = real_data / "petct/suv_headers"
    document = json.loads((folder / "expected_suvbw_factors.json").read_text())
    assert len(document["expected"]) == 8
    for name, factor in document["expected"].items():
        maker = next((m for m in ("GE", "CPS", "PHILIPS") if name.startswith(m)), "SIEMENS")
        values = json.loads((folder / f"{name}.json").read_text())
        headers = [as_dataset(one, maker) for one in values]
        assert scale(*headers).factors[0] == pytest.approx(factor, rel=1e-4), name


def as_dataset(values: Mapping[str, Any], manufacturer: str) -> Dataset:
    """Header values that were published without their files."""
    data, drug = Dataset(), Dataset()
    data.RescaleSlope, data.RescaleIntercept = "1", "0"
    for name, value in values.items():
        if name.startswith("Radi"):
            setattr(drug, name, value if isinstance(value, str) else str(value))
        elif name != "PhilipsPETPrivateGroup":
            setattr(data, name, value)
    data.RadiopharmaceuticalInformationSequence = DicomSequence([drug])
    factors = values["PhilipsPETPrivateGroup"]
    data.Manufacturer = manufacturer
    if factors:
        data.add_new((0x7053, 0x0010), "LO", "Philips PET Private Group")
    for name, element in (("SUVScaleFactor", 0x1000), ("ActivityConcentrationScaleFactor", 0x1009)):
        if name in factors:
            data.add_new((0x7053, element), "DS", factors[name].strip())
    return data


@pytest.mark.real_data
def test_a_raw_ge_series_equals_the_volume_that_others_made(real_data: Path) -> None:
    folder = real_data / "petct/ge_sts001"
    series = scan([folder / "pet_dicom"]).series[0]
    expected = json.loads((real_data / "petct/expected_suv.json").read_text())["ge_sts001"]
    assert suv_scale(series).factors[0] == pytest.approx(expected["suvbw_factor"], rel=1e-9)
    truth = np.asarray(nibabel.load(folder / "suv_truth.nii.gz").dataobj).transpose(2, 1, 0)
    # One joint of two beds is 0.02 mm wider: the planes are compared where they were measured.
    array = read_suv(series).array
    x, y, _ = expected["crop_index_xyz"]
    crop = array[:, y : y + truth.shape[1], x : x + truth.shape[2]]
    assert np.abs(crop - truth).max() < 0.001
    assert array.max() == pytest.approx(expected["suvmax_volume"], abs=1e-4)


@pytest.mark.real_data
def test_beds_are_not_decayed_by_their_own_times(real_data: Path) -> None:
    series = scan([real_data / "petct/siemens_qin0139/pet_dicom"]).series[0]
    found = suv_scale(series)
    assert found.factors == (pytest.approx(0.00040163497, rel=1e-4),) * 21
    assert read_suv(series, found).array.max() == pytest.approx(20.6052, rel=1e-4)
    assert set(said(found)) == {"suv-assumed"}
    assert found.facts["uptake_min"] == pytest.approx(6151.687 / 60)


@pytest.mark.real_data
def test_values_that_are_suv_already(real_data: Path) -> None:
    series = scan([real_data / "petct/ge_sts003_gml/pet_dicom"]).series[0]
    array = read_suv(series).array
    others = np.asarray(nibabel.load(real_data / "petct/ibsi_nifti/STS_003_pet.nii.gz").dataobj)
    assert np.abs(array - others.transpose(2, 1, 0)).max() < 2e-6


@pytest.mark.real_data
def test_jpeg_slices_one_of_which_is_no_suv(real_data: Path) -> None:
    folder = real_data / "petct/ge_jpeg_singles"
    # 90 kg, 474.6 MBq, injection 09:32:00, scan 11:00:36.
    expected = 90e3 / 474_592_928 * 2 ** (5316 / 6588)
    header = pydicom.dcmread(folder / "GH184.dcm", stop_before_pixels=True)
    assert scale(header).factors[0] == pytest.approx(expected, rel=1e-12)
    counts = pydicom.dcmread(folder / "GH610.dcm", stop_before_pixels=True)
    assert refusal(counts).code == "suv-units"
    assert "PROPCPS" in refusal(counts).met
    # In another unit it would still lack the correction for attenuation.
    counts.Units = "BQML"
    assert refusal(counts).code == "suv-uncorrected"


# --- formulas -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("changes", "factor"),
    [
        ({}, FACTOR),
        ({"SeriesTime": "095000", "AcquisitionTime": "095000"}, 2.5942680e-4),
        ({"DecayCorrection": "ADMIN"}, 1.8918919e-4),
    ],
)
def test_factor_by_hand(changes: Mapping[str, Any], factor: float) -> None:
    assert scale(pet_dataset(changes)).factors == (pytest.approx(factor, rel=1e-7),)


def test_frames_without_decay_correction_each_at_its_own_time() -> None:
    changes = {"DecayCorrection": "NONE", "CorrectedImage": ["ATTN"]}
    beds = [pet_dataset(changes | {"AcquisitionTime": t}) for t in ("100000", "100500")]
    found = scale(*beds).factors
    ratio = 70e3 / 370e6
    expected = [ratio * 2 ** ((3600 + s + 59.936855) / HALF_LIFE_S) for s in (0, 300)]
    assert found == pytest.approx(expected, rel=1e-8)


def test_lean_body_mass_and_body_surface_by_hand() -> None:
    # 70 kg and 175 cm: (W / H)^2 = 0.16, body mass index 22.857.
    assert lean_body_mass_kg("LBMJAMES128", "M", 70, 1.75) == pytest.approx(77 - 20.48)
    assert lean_body_mass_kg("LBM", "M", 70, 1.75) == pytest.approx(77 - 19.2)
    assert lean_body_mass_kg("LBM", "F", 70, 1.75) == pytest.approx(74.9 - 23.68)
    janma = 9270 * 70 / (8780 + 244 * 70 / 1.75**2)
    assert lean_body_mass_kg("LBMJANMA", "F", 70, 1.75) == pytest.approx(janma)
    assert body_surface_m2(70, 1.75) == pytest.approx(1.8481, abs=5e-5)


def test_each_plane_has_its_own_rescale_and_suv_comes_before_resampling(tmp_path: Path) -> None:
    stored = np.full((5, 4, 4), 1000, np.int16)
    distances = (0.0, 4.0, 8.0, 14.0, 18.0)
    built = build_pet(
        tmp_path,
        stored,
        positions_mm=stack_positions(distances),
        slice_tags=lambda k: {"RescaleSlope": str(k + 1), "RescaleIntercept": "-3"},
    )
    series = scan([built.folder]).series[0]
    assert series.verdict == "repaired"
    volume = read_suv(series)
    positions = volume.grid.origin_mm[2] + volume.grid.spacing_mm[2] * np.arange(len(volume.array))
    values = [(1000 * (k + 1) - 3) * FACTOR for k in range(5)]
    expected = np.interp(positions, distances, values)
    assert volume.array[:, 2, 2] == pytest.approx(expected, rel=1e-5)


# --- other units --------------------------------------------------------------------------------
PHILIPS = {"Manufacturer": "Philips", "Units": "CNTS"}


def test_philips_counts_by_either_factor() -> None:
    creator = (0x7053, 0x0010, "LO", "Philips PET Private Group")
    direct, activity = (0x7053, 0x1000, "DS", "0.0007"), (0x7053, 0x1009, "DS", "2.5")
    weightless = {**PHILIPS, "PatientWeight": None}
    assert scale(pet_dataset(weightless, private=[creator, direct])).factors == (0.0007,)
    both = scale(pet_dataset(PHILIPS, private=[creator, direct, activity]))
    assert both.factors == (0.0007,)
    # 2.5 * FACTOR / 0.0007 = 0.98692.
    assert set(said(both)) == set()
    far = scale(pet_dataset(PHILIPS, private=[creator, direct, (0x7053, 0x1009, "DS", "3")]))
    assert "+18.4 % higher" in said(far)["suv-factors-differ"]
    zero = (0x7053, 0x1000, "DS", "0.0")
    found = scale(pet_dataset(PHILIPS, private=[creator, zero, activity]))
    assert found.factors == (pytest.approx(2.5 * FACTOR, rel=1e-7),)
    assert "(7053,xx09)" in found.source


def test_suv_without_a_type_is_by_weight_which_is_said() -> None:
    found = scale(pet_dataset({"Units": "GML", "PatientWeight": None}))
    assert found.factors == (1.0,)
    assert "no SUVType" in said(found)["suv-assumed"]
    bare = scale(pet_dataset({"Units": "GML", "SUVType": "BW", "CorrectedImage": None}))
    assert "CorrectedImage is missing" in said(bare)["suv-assumed"]


def test_a_half_life_that_is_missing_is_that_of_the_nuclide() -> None:
    code = Dataset()
    code.CodeValue = "C-111A1"
    drug = {"RadionuclideHalfLife": None, "RadionuclideCodeSequence": DicomSequence([code])}
    found = scale(pet_dataset(drug=drug))
    assert found.factors == (pytest.approx(FACTOR, rel=1e-7),)
    assert "that of F-18" in said(found)["suv-assumed"]
    code.CodeValue = "C-131A3"
    error = refusal(pet_dataset(drug=drug | {"RadionuclideHalfLife": "6586.2"}))
    assert (error.code, error.met) == ("suv-half-life", "RadionuclideHalfLife 6586.2 s for Ga-68")


# --- refusals -----------------------------------------------------------------------------------
NO_DATES = {"RadiopharmaceuticalStartDateTime": None}


@pytest.mark.parametrize(
    ("changes", "drug", "code", "word"),
    [
        ({"Units": "PROPCPS"}, {}, "suv-units", "PROPCPS"),
        ({"Units": "CNTS"}, {}, "suv-units", "(7053,xx00)"),
        ({"Units": "CPS"}, {}, "suv-units", "CPS"),
        ({"Units": None}, {}, "suv-units", "not given"),
        ({"CorrectedImage": ["NORM", "DECY"]}, {}, "suv-uncorrected", "DECY, NORM"),
        ({"CorrectedImage": None}, {}, "suv-uncorrected", "not given"),
        ({"CorrectedImage": ["ATTN"]}, {}, "suv-uncorrected", "START"),
        ({"DecayCorrection": "NONE"}, {}, "suv-uncorrected", "NONE"),
        ({"DecayCorrection": None}, {}, "suv-uncorrected", "not given"),
        ({"PatientWeight": None}, {}, "suv-weight", "no PatientWeight"),
        ({"PatientWeight": "0"}, {}, "suv-weight", "PatientWeight 0"),
        ({"PatientWeight": "70000"}, {}, "suv-weight", "70000"),
        ({}, {"RadionuclideTotalDose": None}, "suv-dose", "no RadionuclideTotalDose"),
        ({}, {"RadionuclideTotalDose": "0"}, "suv-dose", "0"),
        # kBq, GBq, or neither Bq nor MBq.
        ({}, {"RadionuclideTotalDose": "370000"}, "suv-dose", "370000"),
        ({}, {"RadionuclideTotalDose": "0.37"}, "suv-dose", "0.37"),
        ({}, {"RadionuclideTotalDose": "50000"}, "suv-dose", "50000"),
        ({}, {"RadionuclideHalfLife": None}, "suv-half-life", "no nuclide"),
        ({}, {"RadionuclideHalfLife": "-1"}, "suv-half-life", "-1"),
        ({}, {**NO_DATES, "RadiopharmaceuticalStartTime": None}, "suv-times", "no Radio"),
        ({}, {**NO_DATES, "RadiopharmaceuticalStartTime": "noon"}, "suv-times", "no Radio"),
        # Injection after the scan, by the clock alone and with a date.
        ({}, {**NO_DATES, "RadiopharmaceuticalStartTime": "104000"}, "suv-times", "40.0 min after"),
        ({}, {"RadiopharmaceuticalStartDateTime": "20200102104000"}, "suv-times", "40.0 min after"),
        ({}, {"RadiopharmaceuticalStartDateTime": "20200102050000"}, "suv-times", "5.0 h before"),
        ({"Units": "GML", "SUVType": "IBW"}, {}, "suv-normalisation", "IBW"),
        ({"Units": "GML", "SUVType": "BSA"}, {}, "suv-normalisation", "BSA"),
        ({"Units": "GML", "SUVType": "LBM", "PatientSex": "O"}, {}, "suv-normalisation", "O"),
        ({"Units": "GML", "SUVType": "LBM", "PatientSize": None}, {}, "suv-normalisation", "Size"),
        ({"Units": "GML", "SUVType": "LBM", "PatientSize": "175"}, {}, "suv-normalisation", "175"),
        ({"Units": "CM2ML", "PatientWeight": None}, {}, "suv-weight", "no PatientWeight"),
        ({"RescaleSlope": None}, {}, "no-rescale", "none"),
    ],
)
def test_what_cannot_become_suv(
    changes: Mapping[str, Any], drug: Mapping[str, Any], code: str, word: str
) -> None:
    error = refusal(pet_dataset(changes, drug))
    assert error.code == code
    assert word in error.met
    assert code in CODES
    assert error.where == "here"


def test_a_weight_that_is_no_number() -> None:
    data = pet_dataset()
    put_raw(data, "PatientWeight", b"many")
    assert (refusal(data).code, refusal(data).met) == ("suv-weight", "PatientWeight nan")


def test_several_injections() -> None:
    data = pet_dataset()
    data.RadiopharmaceuticalInformationSequence.append(drug_sequence()[0])
    error = refusal(data)
    assert (error.code, error.met.split()[0]) == ("suv-dose", "2")


def test_files_that_contradict_one_another() -> None:
    error = refusal(pet_dataset(), pet_dataset({"PatientWeight": "71"}))
    assert (error.code, error.met) == ("suv-headers-differ", "different weight_kg")


def test_frames_without_decay_correction_need_their_times() -> None:
    changes = {"DecayCorrection": "NONE", "CorrectedImage": ["ATTN"], "ActualFrameDuration": None}
    assert refusal(pet_dataset(changes)).code == "suv-times"


def test_series_that_are_no_plain_pet(tmp_path: Path) -> None:
    series = scan([build_pet(tmp_path).folder]).series[0]
    enhanced = {**series.facts, "sop_class": "1.2.840.10008.5.1.4.1.1.130"}
    for changed, code in (
        (replace(series, modality="CT"), "suv-not-pet"),
        (replace(series, facts=enhanced), "suv-multiframe"),
    ):
        with pytest.raises(CaseRefused) as caught:
            suv_scale(changed)
        assert caught.value.code == code
    table = replace(series.planes[0], has_modality_lut=True)
    with pytest.raises(CaseRefused) as caught:
        read_suv(replace(series, planes=(table, *series.planes[1:])))
    assert caught.value.code == "invalid-rescale"


def test_a_file_that_went_away(tmp_path: Path) -> None:
    built = build_pet(tmp_path)
    series = scan([built.folder]).series[0]
    built.files[3].unlink()
    with pytest.raises(CaseRefused) as caught:
        suv_scale(series)
    assert caught.value.code == "unreadable"


def test_a_maximum_that_no_patient_has_is_said(tmp_path: Path) -> None:
    volume = read_suv(scan([build_pet(tmp_path, np.ones((4, 4, 4), np.int16)).folder]).series[0])
    unusual = [f for f in volume.findings if f.code == "suv-unusual"]
    assert unusual == [
        Finding(
            "suv-unusual",
            "the highest SUV is 0.0002763: weight, dose or times may be wrong",
            "warning",
        )
    ]


# --- whatever stands there ----------------------------------------------------------------------
TEXTS = st.one_of(
    st.sampled_from(
        [
            "",
            "0",
            "-1",
            "1e400",
            "nan",
            "inf",
            "70",
            "370",
            "3.7e8",
            "6586.2",
            "BQML",
            "GML",
            "CNTS",
        ]
        + ["START", "NONE", "ADMIN", "ATTN\\DECY", "ATTN", "20200102", "100000", "240000", "x" * 70]
        + ["20200102090000", "99991231235959.999999", "00010101000000", "M", "LBM", "GE", "Philips"]
    ),
    st.binary(max_size=12).map(lambda raw: raw.decode("latin-1")),
)
ELEMENTS = [name for name in TAGS if isinstance(TAGS[name], str | list)]


@given(
    st.dictionaries(st.sampled_from(ELEMENTS), TEXTS, max_size=3),
    st.dictionaries(st.sampled_from(list(DRUG)), TEXTS, max_size=2),
)
@settings(max_examples=150)
def test_any_text_gives_a_factor_or_a_refusal(
    changes: Mapping[str, str], drug: Mapping[str, str]
) -> None:
    data = pet_dataset()
    for values, item in ((changes, data), (drug, data.RadiopharmaceuticalInformationSequence[0])):
        for keyword, text in values.items():
            put_raw(item, keyword, text.encode("latin-1"))
    try:
        found = scale(data)
    except CaseRefused as error:
        assert error.code in CODES
        return
    assert math.isfinite(found.factors[0])
    assert found.factors[0] > 0


def put_raw(data: Dataset, keyword: str, value: bytes) -> None:
    """An element as it stands in a file, which pydicom converts when asked."""
    tag = pydicom.tag.Tag(keyword)
    representation = pydicom.datadict.dictionary_VR(tag)
    raw = pydicom.dataelem.RawDataElement(tag, representation, len(value), value, 0, False, True)
    data._dict[tag] = raw


def test_a_sequence_that_is_none() -> None:
    data = pet_dataset()
    put_raw(data, "RadiopharmaceuticalInformationSequence", b"garbled!")
    assert refusal(data).code == "suv-dose"
