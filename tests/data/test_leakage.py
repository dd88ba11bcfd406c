"""The leakage gate: small cohorts with the answer worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from medtool.core.errors import LeakageError, UnknownNameError
from medtool.core.records import Case
from medtool.data.leakage import leakage_gate, patients_alike
from medtool.dicom.series import Series

CASES = [
    Case("a1", "A", "1", {}),
    Case("a2", "A", "2", {}),
    Case("b1", "B", "3", {}),
    Case("c1", "C", "4", {}),
]
CLEAN = {"a1": "train", "a2": "train", "b1": "selection", "c1": "test"}
TORN = CLEAN | {"a2": "test"}
HASHES = {"a1": ["1", "2"], "a2": ["1"], "b1": ["3"], "c1": ["4"]}


def test_a_clean_split_passes() -> None:
    assert leakage_gate(CASES, CLEAN, HASHES) == []


def test_a_patient_in_two_parts_ends_the_run() -> None:
    with pytest.raises(LeakageError, match="more than one part") as caught:
        leakage_gate(CASES, TORN, HASHES)
    assert caught.value.exit_status == 4
    assert caught.value.met == "A: test (a2) and train (a1)"
    assert "--allow-leak patient=A" in caught.value.how


def test_identical_pixels_under_two_patients_end_the_run() -> None:
    hashes = HASHES | {"c1": ["4", "3", "9"], "b1": ["9", "3"]}
    with pytest.raises(LeakageError, match="identical pixels") as caught:
        leakage_gate(CASES, CLEAN, hashes)
    assert caught.value.met == "B and C: 2 identical slices"
    # The parts do not matter: in another fold they are others.
    with pytest.raises(LeakageError, match="identical pixels"):
        leakage_gate(CASES, CLEAN | {"c1": "selection"}, hashes)


def test_both_leaks_are_said_at_once() -> None:
    with pytest.raises(LeakageError) as caught:
        leakage_gate(CASES, TORN, HASHES | {"c1": ["3"]})
    assert "A: " in caught.value.met
    assert "B and C" in caught.value.met


@pytest.mark.parametrize("name", ["A", "patient=A"])
def test_a_leak_allowed_by_name_is_a_warning(name: str) -> None:
    findings = leakage_gate(CASES, TORN, HASHES, allow=[name])
    assert [(f.code, f.severity) for f in findings] == [("leak-allowed", "warning")]
    with pytest.raises(LeakageError):
        leakage_gate(CASES, TORN, HASHES | {"c1": ["3"]}, allow=[name])
    pixels = leakage_gate(CASES, TORN, HASHES | {"c1": ["3"]}, allow=[name, "patient=C"])
    assert [f.code for f in pixels] == ["leak-allowed", "leak-allowed"]


def test_an_allowed_patient_does_not_excuse_two_others() -> None:
    hashes = {"a1": ["9"], "b1": ["9"], "c1": ["9"]}
    with pytest.raises(LeakageError) as caught:
        leakage_gate(CASES, CLEAN, hashes, allow=["A"])
    assert caught.value.met == "B and C: 1 identical slices"
    findings = leakage_gate(CASES, CLEAN, hashes, allow=["A", "B"])
    assert {finding.code for finding in findings} == {"leak-allowed"}


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(UnknownNameError):
        leakage_gate(CASES, CLEAN, HASHES, allow=["patient=Z"])


def test_cases_in_no_part_do_not_tear_a_patient() -> None:
    parts = {key: part for key, part in CLEAN.items() if key != "a2"}
    assert leakage_gate(CASES, parts, HASHES) == []


# --- one study under two ids ---


def series_of(case: Case, uid: str, study: str = "") -> Series:
    return Series(
        key=uid,
        uid=uid,
        patient_id=case.patient_id,
        study_uid=study,
        accession="",
        study_date="",
        modality="CT",
        description="",
        folder=Path(),
        planes=(),
        verdict="accepted",
        findings=(),
        geometry=None,
    )


def with_series(case: Case, uid: str, study: str = "") -> Case:
    return replace(case, inputs={"ct": series_of(case, uid, study)})


def test_one_study_under_two_patients_ends_the_run_whatever_its_pixels() -> None:
    """From a fault: after a migration of the archive a study was in train, its lossy copy in
    test, under an id without its zeros."""
    cases = [
        Case("0012345", "0012345", "1.2.3", {}),
        Case("12345", "12345", "1.2.3", {}),
        Case("7", "7", "1.2.4", {}),
    ]
    parts = {"0012345": "train", "12345": "test", "7": "selection"}
    # Before anything is prepared, and after.
    for hashes in ({}, {"0012345": ["1"], "12345": ["2"]}):
        with pytest.raises(LeakageError, match="one study or series stands under two") as caught:
            leakage_gate(cases, parts, hashes)
        assert caught.value.exit_status == 4
        assert caught.value.met == "0012345 and 12345: StudyInstanceUID 1.2.3"
        assert "--allow-leak patient=12345" in caught.value.how
        (allowed,) = leakage_gate(cases, parts, hashes, allow=["patient=12345"])
        assert (allowed.code, allowed.severity) == ("leak-allowed", "warning")
        assert "share StudyInstanceUID 1.2.3: allowed by name" in allowed.message
    # With other folds the parts are others.
    with pytest.raises(LeakageError):
        leakage_gate(cases, parts | {"12345": "train"}, {})


def test_an_allowed_patient_does_not_excuse_two_others_of_one_study() -> None:
    cases = [Case(name, name, "1.2.3", {}) for name in "ABC"]
    parts = dict.fromkeys("ABC", "train")
    with pytest.raises(LeakageError) as caught:
        leakage_gate(cases, parts, {}, allow=["A"])
    assert caught.value.met == "B and C: StudyInstanceUID 1.2.3"
    assert len(leakage_gate(cases, parts, {}, allow=["A", "B"])) == 2


def test_one_series_under_two_patients_ends_the_run() -> None:
    cases = [with_series(CASES[0], "1.1"), with_series(CASES[2], "1.1")]
    with pytest.raises(LeakageError) as caught:
        leakage_gate(cases, CLEAN, {})
    assert caught.value.met == "A and B: SeriesInstanceUID 1.1"
    # Of a case without a study's UID its series may know it; the series need no word then.
    cases = [replace(case, study_uid="") for case in CASES]
    cases = [with_series(cases[0], "1.1", "1"), with_series(cases[2], "1.1", "1")]
    with pytest.raises(LeakageError) as caught:
        leakage_gate(cases, CLEAN, {})
    assert caught.value.met == "A and B: StudyInstanceUID 1"


def test_uids_that_are_empty_or_of_one_patient_are_no_leak() -> None:
    files = [replace(case, study_uid="", inputs={"ct": Path("a.nii.gz")}) for case in CASES]
    assert leakage_gate(files, CLEAN, HASHES) == []
    nameless = [with_series(replace(case, study_uid=""), "") for case in CASES]
    assert leakage_gate(nameless, CLEAN, HASHES) == []
    same = [with_series(replace(case, study_uid="1"), "1.1") for case in CASES[:2]]
    assert leakage_gate([*same, *CASES[2:]], CLEAN, HASHES) == []


def test_a_uid_that_everybody_has_is_nobodys() -> None:
    """A script that anonymises may write one for all: refused, nobody could go on."""
    cases = [Case(name, name, "1.2.3", {}) for name in "ABCD"]
    (said,) = leakage_gate(cases, dict.fromkeys("ABCD", "train"), {})
    assert (said.code, said.severity) == ("uid-of-nobody", "warning")
    assert "StudyInstanceUID 1.2.3 of 4 patients" in said.message


def test_ids_that_a_spreadsheet_makes_one_are_warned_of_across_parts() -> None:
    cases = [
        Case("a", "0012345", "1", {}),
        Case("b", "12345", "2", {}),
        Case("c", "007", "3", {}),
        Case("d", "7", "4", {}),
        Case("e", "other", "5", {}),
    ]
    parts = {"a": "train", "b": "test", "c": "train", "d": "train", "e": "test"}
    assert leakage_gate(cases, parts, {}) == []
    (said,) = patients_alike(cases, parts)
    assert (said.code, said.severity) == ("patients-alike", "warning")
    assert "0012345 (train) and 12345 (test)" in said.message
    assert "007" not in said.message
    assert patients_alike(cases[2:], parts) == []
    # One patient in two parts is refused elsewhere, and no two ids.
    assert patients_alike(CASES, TORN) == []
