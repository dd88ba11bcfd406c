"""The leakage gate: small cohorts with the answer worked out by hand."""

from __future__ import annotations

import pytest

from medtool.core.errors import LeakageError, UnknownNameError
from medtool.core.records import Case
from medtool.data.leakage import leakage_gate

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
