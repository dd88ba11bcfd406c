"""Studies are found in every layout; what is not usable is named, with the right code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_builder import build_series, ramp
from tiny_bag import TinyBag, tiny_settings

from medtool.config.sections import DataSection
from medtool.core.errors import CaseRefused, InputError, LabelsError
from medtool.core.records import Case, Cohort, Source
from medtool.data.cohort import keyed_patients
from medtool.dicom.series import Series
from medtool.dicom.volume import series_grid


def find(*paths: Path, settings: Mapping[str, Any] | None = None, **more: Any) -> Cohort:
    task = TinyBag(tiny_settings(data=settings or {}))
    return task.find(Source(paths, **more))


def write(folder: Path, patient: str, study: str, series: str, **tags: Any) -> None:
    build_series(
        folder,
        ramp((5, 8, 8)),
        patient_id=patient,
        study_uid=study,
        series_uid=series,
        tags=tags,
        name=(series + "-{:02d}.dcm").format,
    )


def nifti(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(np.zeros((4, 6, 8), np.float32))
    image.SetSpacing((0.5, 0.5, 2.0))
    sitk.WriteImage(image, str(path))


def test_a_case_is_a_study_not_a_patient(tmp_path: Path) -> None:
    write(tmp_path / "CTs" / "a" / "first", "P1", "1.1", "1.1.1")
    write(tmp_path / "CTs" / "a" / "second", "P1", "1.2", "1.2.1")
    write(tmp_path / "CTs" / "b", "P2", "1.3", "1.3.1")
    cohort = find(tmp_path)
    assert [case.patient_id for case in cohort.cases] == ["P1", "P1", "P2"]
    assert {case.study_uid for case in cohort.cases} == {"1.1", "1.2", "1.3"}
    assert cohort.cases[2].case_id == "P2"
    assert len({case.case_id for case in cohort.cases}) == 3
    assert {case.folder for case in cohort.cases} == {"a", "b"}
    assert [finding.code for finding in cohort.findings] == ["layout"]


def test_names_of_cases_do_not_depend_on_file_names(tmp_path: Path) -> None:
    for root, first, second in (("x", "a", "b"), ("y", "b", "a")):
        write(tmp_path / root / "p" / first, "P1", "1.1", "1.1.1")
        write(tmp_path / root / "p" / second, "P1", "1.2", "1.2.1")
    names = [
        {case.study_uid: case.case_id for case in find(tmp_path / root).cases} for root in "xy"
    ]
    assert names[0] == names[1]


def test_the_better_series_is_chosen_and_the_other_named(tmp_path: Path) -> None:
    write(tmp_path / "p", "P1", "1.1", "1.1.1", ConvolutionKernel="BONE", SeriesNumber=1)
    write(tmp_path / "p", "P1", "1.1", "1.1.2", ConvolutionKernel="STANDARD", SeriesNumber=2)
    (case,) = find(tmp_path).cases
    assert case.inputs["ct"].uid == "1.1.2"
    (note,) = [finding for finding in case.findings if finding.code == "not-chosen"]
    assert "1.1.1" in note.message
    assert "score" in note.message


def test_a_person_overrules_the_choice(tmp_path: Path) -> None:
    write(tmp_path / "p", "P1", "1.1", "1.1.1", ConvolutionKernel="BONE")
    write(tmp_path / "p", "P1", "1.1", "1.1.2", ConvolutionKernel="STANDARD")
    said = {"1.1.1": True}
    (case,) = find(tmp_path, series_overrides=said, overrides_from="series.csv").cases
    assert case.inputs["ct"].uid == "1.1.1"
    (note,) = [finding for finding in case.findings if finding.code == "chosen-by-person"]
    assert "series.csv" in note.message
    (case,) = find(tmp_path, series_overrides={"1.1.2": False}).cases
    assert case.inputs["ct"].uid == "1.1.1"
    assert "left-out-by-person" in {finding.code for finding in case.findings}


def _said(tmp_path: Path, **said: bool) -> Cohort:
    named = {key.replace("_", "."): use for key, use in said.items()}
    return find(tmp_path, series_overrides=named, overrides_from="series.csv")


def test_a_person_takes_a_series_that_its_header_speaks_against(tmp_path: Path) -> None:
    kind = ["DERIVED", "PRIMARY", "AXIAL", "REFORMATTED"]
    write(tmp_path / "p", "P1", "1.1", "1.1.1", ImageType=kind)
    assert [row.code for row in find(tmp_path).refused] == ["reformat"]
    cohort = _said(tmp_path, **{"1_1_1": True})
    (case,) = cohort.cases
    assert case.inputs["ct"].verdict == "accepted"
    (said,) = [finding for finding in case.findings if finding.code == "reformat"]
    assert said.severity == "warning"
    assert "series.csv" in said.message
    (series,) = cohort.intake["series"]
    assert (series["verdict"], series["chosen"], series["reasons"]) == ("accepted", True, [])
    # It has the grid of any other.
    assert series_grid(case.inputs["ct"]).size == (8, 8, 5)


def test_what_cannot_be_read_stays_refused_whatever_a_person_says(tmp_path: Path) -> None:
    build_series(
        tmp_path / "p", ramp((2, 8, 8)), patient_id="P1", study_uid="1.1", series_uid="1.2"
    )
    (row,) = _said(tmp_path, **{"1_2": True}).refused
    assert row.code == "too-few-slices;cannot-be-overruled"
    assert "at least 3 slices. It stays refused, though series.csv says to use it" in row.message
    # Beside a series that the table leaves at yes the study falls back on that, and says so.
    write(tmp_path / "p", "P1", "1.1", "1.1.1")
    (case,) = _said(tmp_path, **{"1_2": True}).cases
    assert case.inputs["ct"].uid == "1.1.1"
    (warning,) = [f for f in case.findings if f.code == "cannot-be-overruled"]
    assert (warning.severity, "1.2" in warning.message) == ("warning", True)
    # Left out too: nothing remains.
    (row,) = _said(tmp_path, **{"1_2": True, "1_1_1": False}).refused
    assert "cannot-be-overruled" in row.code


def test_another_modality_is_not_overruled(tmp_path: Path) -> None:
    write(tmp_path / "p", "P1", "1.1", "1.1.1", Modality="PT")
    (row,) = _said(tmp_path, **{"1_1_1": True}).refused
    assert row.code == "wrong-modality;cannot-be-overruled"


def test_a_person_leaves_out_a_nifti_file(tmp_path: Path) -> None:
    nifti(tmp_path / "a.nii")
    nifti(tmp_path / "b.nii")
    cohort = find(tmp_path, series_overrides={"a": False}, overrides_from="series.csv")
    assert [case.case_id for case in cohort.cases] == ["b"]
    assert [(row.case_id, row.code) for row in cohort.refused] == [("a", "left-out-by-person")]
    assert {row["case"]: row["chosen"] for row in cohort.intake["series"]} == {
        "a": False,
        "b": True,
    }


def test_a_study_that_a_person_left_out_is_a_refused_row(tmp_path: Path) -> None:
    write(tmp_path / "p", "P1", "1.1", "1.1.1")
    cohort = find(tmp_path, series_overrides={"1.1.1": False})
    assert cohort.cases == ()
    assert [row.code for row in cohort.refused] == ["left-out-by-person"]


def test_pet_is_another_modality(tmp_path: Path) -> None:
    write(tmp_path / "p", "P1", "1.1", "1.1.1", Modality="PT")
    cohort = find(tmp_path)
    assert [(row.case_id, row.code) for row in cohort.refused] == [("P1", "wrong-modality")]
    (series,) = cohort.intake["series"]
    assert [finding["code"] for finding in series["findings"]] == ["wrong-modality"]
    assert (series["case"], series["chosen"]) == ("P1", False)


def test_a_study_with_too_few_slices_says_so(tmp_path: Path) -> None:
    build_series(tmp_path / "p", ramp((2, 8, 8)), patient_id="P1", study_uid="1.1")
    (row,) = find(tmp_path).refused
    assert row.code == "too-few-slices"


def test_every_reason_of_a_refused_study_is_given(tmp_path: Path) -> None:
    # Two slices, 32.5 mm apart: too few, and some between them are missing.
    build_series(
        tmp_path, ramp((2, 8, 8)), patient_id="P1", step_mm=32.5, tags={"SliceThickness": "5"}
    )
    (row,) = find(tmp_path).refused
    assert row.code == "too-few-slices;missing-slices"
    assert "only 2 slices" in row.message
    assert "slices are missing" in row.message


def test_patients_by_folder(tmp_path: Path) -> None:
    write(tmp_path / "left", "ANON", "1.1", "1.1.1")
    write(tmp_path / "right", "ANON", "1.2", "1.2.1")
    by_folder = find(tmp_path, settings={"patient_key": "folder"})
    assert [case.patient_id for case in by_folder.cases] == ["left", "right"]
    by_case = find(tmp_path, settings={"patient_key": "case"})
    assert [case.patient_id for case in by_case.cases] == [c.case_id for c in by_case.cases]


def test_without_patient_id_the_folder_stands_for_the_patient(tmp_path: Path) -> None:
    write(tmp_path / "somebody" / "deep", "", "1.1", "1.1.1")
    (case,) = find(tmp_path).cases
    assert case.patient_id == "somebody"
    assert "patient-id-missing" in {finding.code for finding in case.findings}


def test_facts_tell_the_scanner_and_the_stack(tmp_path: Path) -> None:
    write(tmp_path / "p", "P1", "1.1", "1.1.1", Manufacturer="ACME", ConvolutionKernel="STANDARD")
    (case,) = find(tmp_path).cases
    assert case.facts["manufacturer"] == "ACME"
    assert case.facts["kernel"] == "STANDARD"
    assert case.facts["slices"] == 5


def test_nifti_files_are_cases(tmp_path: Path) -> None:
    nifti(tmp_path / "CTs" / "P1" / "head.nii.gz")
    nifti(tmp_path / "CTs" / "P2" / "head.nii.gz")
    cohort = find(tmp_path)
    assert [(c.case_id, c.patient_id) for c in cohort.cases] == [
        ("P1_head", "P1"),
        ("P2_head", "P2"),
    ]
    assert cohort.cases[0].facts["slice_spacing_mm"] == 2.0
    assert [row["size"] for row in cohort.intake["series"]] == [[8, 6, 4]] * 2
    assert cohort.intake["skipped"] == []


def test_a_broken_nifti_is_a_refused_row(tmp_path: Path) -> None:
    (tmp_path / "x.nii").write_bytes(b"not an image")
    (row,) = find(tmp_path).refused
    assert (row.case_id, row.code) == ("x", "unreadable-nifti")


def test_a_manifest_names_cases_patients_and_labels(tmp_path: Path) -> None:
    nifti(tmp_path / "images" / "a.nii.gz")
    write(tmp_path / "dicom", "whatever", "1.1", "1.1.1")
    table = tmp_path / "cases.csv"
    table.write_text(
        "case,patient,image,label,age\nc1,007,images/a.nii.gz,yes,61\nc2,008,dicom,no,\n"
    )
    cohort = find(table)
    rows = [(c.case_id, c.patient_id, c.label) for c in cohort.cases]
    assert rows == [("c1", "007", 1.0), ("c2", "008", 0.0)]
    assert cohort.cases[0].covariates == {"age": "61"}
    assert isinstance(cohort.cases[1].inputs["ct"], Series)


@pytest.mark.parametrize(("separator", "encoding"), [(";", "utf-8-sig"), ("\t", "utf-16")])
def test_a_manifest_from_excel_on_windows(separator: str, encoding: str, tmp_path: Path) -> None:
    nifti(tmp_path / "images" / "a.nii.gz")
    rows = [["Case", "Image", "Label"], ["c1", "images\\a.nii.gz", "yes"]]
    text = "".join(separator.join(row) + "\r\n" for row in rows)
    (tmp_path / "cases.csv").write_bytes(text.encode(encoding))
    (case,) = find(tmp_path / "cases.csv").cases
    assert (case.case_id, case.label) == ("c1", 1.0)


def test_an_empty_folder_of_a_manifest_is_a_refused_row(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "m.csv").write_text("case,image\nc1,empty\n")
    cohort = find(tmp_path / "m.csv")
    assert [(row.case_id, row.code) for row in cohort.refused] == [("c1", "no-usable-series")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("case,imago\nc1,x\n", "no column 'image'"),
        ("case,image\nc1,gone.nii\n", "line 2: there is no 'gone.nii'"),
        ("case,image,label\nc1,.,maybe\n", "label 'maybe'"),
        ("case,image\nc1,.\nc1,.\n", "case 'c1' is there twice"),
    ],
)
def test_a_manifest_with_faults_is_refused(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(LabelsError) as caught:
        find(tmp_path / "m.csv")
    assert said in str(caught.value)


def test_a_path_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        find(tmp_path / "nowhere")


def test_an_empty_folder_has_no_cases(tmp_path: Path) -> None:
    cohort = find(tmp_path)
    assert (cohort.cases, cohort.refused) == ((), ())


def test_a_case_without_its_series_is_refused_when_it_is_prepared() -> None:
    task = TinyBag(tiny_settings())
    with pytest.raises(CaseRefused) as caught:
        task.input_of(Case("c", "p", "1", {}))
    assert caught.value.code == "no-usable-series"


@pytest.mark.real_data
def test_real_studies_get_a_case_or_a_reason(real_data: Path) -> None:
    heads = find(real_data / "head_ct")
    assert {case.folder for case in heads.cases} == {"ge_tilt_uneven", "philips_phantom_tilt"}
    scans = find(real_data / "petct" / "ge_sts001")
    assert {row.code for row in scans.refused} == {"wrong-modality"}


def test_nifti_files_side_by_side_are_patients_of_their_own(tmp_path: Path) -> None:
    for name in ("a.nii.gz", "b.nii", "P3/one.nii.gz", "P3/later/two.nii"):
        nifti(tmp_path / "CTs" / name)
    cohort = find(tmp_path)
    rows = [(c.case_id, c.patient_id, c.folder) for c in cohort.cases]
    assert rows == [("a", "a", ""), ("b", "b", ""), ("one", "P3", "P3"), ("two", "P3", "P3")]
    by_folder = keyed_patients(cohort.cases, DataSection(patient_key="folder"))
    assert [c.patient_id for c in by_folder] == ["a", "b", "P3", "P3"]
    (said,) = [f.message for f in cohort.findings if f.code == "patients-by-place"]
    assert "the folder stands for the patient (2 in 1 folder)" in said
    assert "each of 2 files is taken for a patient of its own" in said


def test_nifti_files_whose_names_are_alike_are_cases_of_their_own(tmp_path: Path) -> None:
    for name in ("a.nii.gz", "a.nii", "b c.nii", "b_c.nii"):
        nifti(tmp_path / name)
    cases = find(tmp_path).cases
    assert len({case.case_id for case in cases}) == len({c.patient_id for c in cases}) == 4
