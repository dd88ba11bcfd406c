"""Tables of outcomes: units by hand, what is asked for, what is refused with its line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pet_ct_studies import write_table

from medtool.core.errors import LabelsError
from medtool.core.progress import Silent
from medtool.core.records import Case, Outcome
from medtool.data.matching import Labelled
from medtool.data.splits import make_split
from medtool.tasks.prognosis_codes import OUTCOME_CODES
from medtool.tasks.prognosis_data_settings import PrognosisDataSection
from medtool.tasks.prognosis_outcomes import require_references
from medtool.tasks.prognosis_settings import PrognosisSettings
from medtool.tasks.prognosis_tables import attach_outcomes

CASES = tuple(Case(name, name, f"1.2.{n}", {}) for n, name in enumerate(("a", "b", "c")))


def attached(
    folder: Path,
    header: str,
    rows: list[tuple[object, ...]],
    cases: tuple[Case, ...] = CASES,
    **data: Any,
) -> Labelled:
    file = write_table(folder / "outcomes.csv", header, rows)
    return attach_outcomes(cases, file, PrognosisDataSection(**data))


def outcomes(labelled: Labelled) -> dict[str, Outcome | None]:
    return {case.case_id: case.outcome for case in labelled.cases}


def codes(labelled: Labelled) -> set[str]:
    return {finding.code for finding in labelled.findings}


def refused(folder: Path, header: str, rows: list[tuple[object, ...]], **data: Any) -> str:
    """Everything that the refusal says."""
    with pytest.raises(LabelsError) as caught:
        attached(folder, header, rows, **data)
    error = caught.value
    return " | ".join((error.what, error.where, error.met, error.wanted, error.how))


# --- units --------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("column", "days"),
    [
        ("time_days", 10.0),
        ("Time (weeks)", 70.0),
        ("OS_months", 304.375),
        ("survival_years", 3652.5),
        ("follow-up time days", 10.0),
        ("RFS [mo]", 304.375),
        ("time_in_days", 10.0),
    ],
)
def test_the_unit_stands_in_the_name_of_the_column(
    tmp_path: Path, column: str, days: float
) -> None:
    found = attached(tmp_path, f"case,{column},event", [("a", 10, 1), ("b", 10, 0)])
    assert outcomes(found) == {"a": Outcome(days, True), "b": Outcome(days, False), "c": None}
    assert "case-without-label" in codes(found)


def test_the_preset_may_say_the_unit_and_the_columns(tmp_path: Path) -> None:
    rows: list[tuple[object, ...]] = [("a", 2, 1, 99), ("b", 3, 0, 98)]
    found = attached(
        tmp_path,
        "case,duration_of_life,gone,other",
        rows,
        time_column="duration_of_life",
        time_unit="weeks",
        event_column="GONE",
    )
    assert outcomes(found) == {"a": Outcome(14.0, True), "b": Outcome(21.0, False), "c": None}
    # Only what is no outcome is a covariate.
    assert found.cases[0].covariates == {"other": "99"}


def test_a_unit_that_is_not_named_is_asked_for(tmp_path: Path) -> None:
    said = refused(tmp_path, "case,time,event", [("a", 10, 1)])
    assert "unit of the time is not known" in said and "data.time_unit" in said


def test_days_and_months_in_one_table_are_asked_for(tmp_path: Path) -> None:
    said = refused(tmp_path, "case,time_days,time_months,event", [("a", 10, 1, 1)])
    assert "time_days, time_months" in said and "different units" in said
    assert "data.time_column" in said


def test_a_cell_with_a_unit_of_its_own_is_refused_with_its_line(tmp_path: Path) -> None:
    rows: list[tuple[object, ...]] = [("a", 100, 1), ("b", "12 months", 0)]
    said = refused(tmp_path, "case,time_days,event", rows)
    assert "line 3" in said and "'12 months' has a unit of its own" in said


def test_two_units_for_one_column_are_refused(tmp_path: Path) -> None:
    said = refused(tmp_path, "case,time_days,event", [("a", 10, 1)], time_unit="months")
    assert "said twice" in said and "days in its name, data.time_unit months" in said


# --- rows ---------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("time", "event", "why"),
    [
        (0, 1, "time '0' is not over 0"),
        (-5, 1, "time '-5' is not over 0"),
        ("soon", 1, "time 'soon' is no number"),
        ("nan", 1, "the time is missing"),
        ("inf", 1, "time 'inf' is not over 0"),
        (10, 2, "event '2' is neither 0 nor 1"),
        (10, "dead", "event 'dead' is neither 0 nor 1"),
        (10, "", "the event is missing"),
        ("", 0, "the time is missing"),
        (100_000, 0, "time '100000' is no follow-up of a patient in days"),
    ],
)
def test_what_is_no_outcome_is_refused_with_its_line(
    tmp_path: Path, time: object, event: object, why: str
) -> None:
    said = refused(tmp_path, "case,time_days,event", [("a", 10, 1), ("b", time, event)])
    assert f"line 3: {why}" in said


def test_every_fault_is_said_at_once(tmp_path: Path) -> None:
    rows: list[tuple[object, ...]] = [("a", 0, 1), ("b", 10, 3), ("c", "x", 0)]
    said = refused(tmp_path, "case,time_days,event", rows)
    assert all(f"line {number}" in said for number in (2, 3, 4))


def test_a_patient_twice_with_two_outcomes_is_refused_and_with_one_is_said(tmp_path: Path) -> None:
    torn: list[tuple[object, ...]] = [("a", 10, 1), ("b", 5, 0), ("a", 20, 1)]
    said = refused(tmp_path, "case,time_days,event", torn)
    assert "lines 2 and 4: 'a' has outcomes that contradict each other" in said
    twice: list[tuple[object, ...]] = [("a", 10, 1), ("b", 5, 0), ("a", 10, 1)]
    found = attached(tmp_path, "case,time_days,event", twice)
    assert outcomes(found)["a"] == Outcome(10.0, True)
    assert "outcome-duplicate" in codes(found)


def test_rows_without_an_outcome_and_all_censored_are_said(tmp_path: Path) -> None:
    rows: list[tuple[object, ...]] = [("a", 10, 0), ("b", "", ""), ("c", "NA", "n/a")]
    found = attached(tmp_path, "case,time_days,event", rows)
    assert outcomes(found) == {"a": Outcome(10.0, False), "b": None, "c": None}
    assert codes(found) >= {"outcome-empty", "outcomes-censored", "outcome-columns"}
    assert {code for code in codes(found) if code.startswith("outcome")} <= set(OUTCOME_CODES)


def test_numbers_as_excel_writes_them_in_german(tmp_path: Path) -> None:
    file = tmp_path / "outcomes.csv"
    file.write_text("case;time_months;event\na;1,5;1,0\nb;2;0\n", encoding="utf-8")
    found = attach_outcomes(CASES, file, PrognosisDataSection())
    assert outcomes(found)["a"] == Outcome(1.5 * 30.4375, True)


@pytest.mark.parametrize(
    ("header", "lacking"),
    [("case,time_days,age", "event"), ("case,event,age", "time"), ("case,age,sex", "outcome")],
)
def test_a_table_without_its_columns_is_refused(tmp_path: Path, header: str, lacking: str) -> None:
    said = refused(tmp_path, header, [("a", 1, 1)])
    assert lacking in said and f"data.{'time' if lacking == 'outcome' else lacking}_column" in said


def test_columns_that_could_both_be_the_event_are_asked_for(tmp_path: Path) -> None:
    said = refused(tmp_path, "case,time_days,death,relapse", [("a", 1, 1, 0)])
    assert "death, relapse" in said and "data.event_column" in said
    found = attached(
        tmp_path, "case,time_days,death,relapse", [("a", 1, 1, 0)], event_column="relapse"
    )
    assert outcomes(found)["a"] == Outcome(1.0, False)


# --- ids ----------------------------------------------------------------------------------
def test_ids_are_of_the_key_that_fits_most_rows(tmp_path: Path) -> None:
    cases = (Case("x", "007", "", {}), Case("y", "008", "", {}))
    found = attached(tmp_path, "patient,time_days,event", [("7", 5, 1), ("8", 6, 0)], cases)
    assert found.key == "PatientID"
    assert outcomes(found) == {"x": Outcome(5.0, True), "y": Outcome(6.0, False)}
    assert {"label-key", "id-relaxed"} <= codes(found)


def test_an_outcome_of_a_patient_counts_from_the_first_study(tmp_path: Path) -> None:
    cases = (
        Case("x1", "x", "", {}, study_date="20200105"),
        Case("x2", "x", "", {}, study_date="20210105"),
        Case("y1", "y", "", {}),
    )
    rows: list[tuple[object, ...]] = [("x", 500, 1), ("y", 600, 0)]
    found = attached(tmp_path, "patient,time_days,event", rows, cases)
    assert outcomes(found) == {"x1": Outcome(500.0, True), "x2": None, "y1": Outcome(600.0, False)}
    assert "outcome-first-study" in codes(found)
    undated = tuple(Case(c.case_id, c.patient_id, "", {}) for c in cases)
    with pytest.raises(LabelsError, match="not known from which the time counts"):
        attached(tmp_path, "patient,time_days,event", rows, undated)


def test_an_outcome_that_came_with_the_case_has_to_be_the_same(tmp_path: Path) -> None:
    cases = (Case("a", "a", "", {}, outcome=Outcome(10.0, True)), CASES[1])
    found = attached(tmp_path, "case,time_days,event", [("a", 10, 1), ("b", 5, 0)], cases)
    assert outcomes(found)["a"] == Outcome(10.0, True)
    with pytest.raises(LabelsError, match="contradicts the outcomes"):
        attached(tmp_path, "case,time_days,event", [("a", 11, 1), ("b", 5, 0)], cases)


def test_groups_within_which_patients_are_compared(tmp_path: Path) -> None:
    rows: list[tuple[object, ...]] = [("a", 10, 1, "north"), ("b", 5, 0, "south")]
    found = attached(tmp_path, "case,time_days,event,Centre", rows, stratum_column="centre")
    assert outcomes(found)["b"] == Outcome(5.0, False, "south")
    with pytest.raises(LabelsError, match="no table has a column|No table has a column"):
        attached(tmp_path, "case,time_days,event,Centre", rows, stratum_column="hospital")


# --- what can be learned ------------------------------------------------------------------
class Said(Silent):
    """Keeps warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


MASKED = Case("m", "m", "", {}, references={"mask": "m.nii"})
SEEN = Case("e", "e", "", {}, outcome=Outcome(5.0, True))
CENSORED = Case("c", "c", "", {}, outcome=Outcome(5.0, False))


@pytest.mark.parametrize(
    ("cases", "objectives", "warned"),
    [
        ((MASKED, SEEN), "both", ""),
        ((MASKED, CENSORED), "both", "no event was seen"),
        ((MASKED,), "both", "no case has an outcome"),
        ((SEEN, CENSORED), "both", "no case has a mask"),
        ((MASKED,), "segmentation", ""),
        ((SEEN,), "survival", ""),
    ],
)
def test_what_has_no_reference_is_not_learned_and_that_is_said(
    cases: tuple[Case, ...], objectives: str, warned: str
) -> None:
    reporter = Said()
    require_references(cases, objectives, reporter)
    assert len(reporter.warnings) == bool(warned)
    assert all(warned in text for text in reporter.warnings)


@pytest.mark.parametrize(
    ("cases", "objectives"),
    [
        ((CENSORED, CENSORED), "survival"),
        ((MASKED,), "survival"),
        ((CENSORED,), "both"),
        ((SEEN,), "segmentation"),
    ],
)
def test_where_nothing_can_be_learned_it_is_refused(
    cases: tuple[Case, ...], objectives: str
) -> None:
    with pytest.raises(LabelsError) as caught:
        require_references(cases, objectives, Silent())
    assert f"{len(cases)} cases" in caught.value.met


# --- parts --------------------------------------------------------------------------------
def cohort(events: int, censored: int) -> list[Case]:
    made = [Case(f"e{n}", f"e{n}", "", {}, outcome=Outcome(n + 1.0, True)) for n in range(events)]
    made += [
        Case(f"c{n}", f"c{n}", "", {}, outcome=Outcome(n + 1.0, False)) for n in range(censored)
    ]
    return made


def test_every_fold_has_its_share_of_events() -> None:
    settings = PrognosisSettings()
    cases = cohort(10, 40)
    tested: list[str] = []
    for fold in range(5):
        split = make_split(cases, settings.train, settings.data, fold=fold)
        held = [case for case in cases if split.parts[case.case_id] == "test"]
        assert len(held) == 10
        assert sum(case.outcome.event for case in held if case.outcome) == 2
        assert not split.findings
        tested += [case.case_id for case in held]
    assert sorted(tested) == sorted(case.case_id for case in cases)


def test_a_fold_without_an_event_is_said() -> None:
    settings = PrognosisSettings()
    said = set()
    for fold in range(5):
        split = make_split(cohort(2, 28), settings.train, settings.data, fold=fold)
        assert {finding.code for finding in split.findings} <= {"event-missing"}
        said |= {finding.message for finding in split.findings}
    assert "no event was seen in the part test: nothing of survival is said there" in said
