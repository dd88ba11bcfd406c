"""No two cases of one name, wherever they were found."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_builder import build_series, ramp
from medtool_segment import Segment

from medtool.config import resolve
from medtool.core.errors import CaseRefused
from medtool.core.geometry import Grid
from medtool.core.names import case_file_stem
from medtool.core.records import Case, Cohort, RefusedStudy, Source
from medtool.data.cache import case_stem
from medtool.data.nifti_writer import write_nifti
from medtool.data.told_apart import find_cases, refused_archives, told_apart

GRID = Grid((6, 5, 4), (1.0, 1.0, 2.0), (0.0, 0.0, 0.0))


def write_scan(path: Path, seed: int = 0) -> Path:
    values = np.random.default_rng(seed).normal(100, 20, (4, 5, 6)).astype(np.float32)
    write_nifti(path, values, GRID)
    return path


def write_study(folder: Path, study: str, series: str) -> None:
    built = ramp((5, 8, 8))
    build_series(folder, built, patient_id="P1", study_uid=study, series_uid=series)


def found(*sources: Path, channels: str = '["ct"]') -> Cohort:
    settings = resolve(Segment, None, assignments=(f"data.channels={channels}",)).settings
    return find_cases(Segment(settings), Source(sources))


def paths_of(cohort: Cohort) -> dict[str, Path]:
    return {case.case_id: Path(*case.inputs.values()) for case in cohort.cases}


def test_numbers_of_patients_are_no_numbers_of_channels(tmp_path: Path) -> None:
    """From a fault: four digits at the end were taken off, and all patients were one case."""
    for name in ("PANCREAS_0001", "PANCREAS_0002", "liver_0000"):
        write_scan(tmp_path / f"{name}.nii.gz")
    cohort = found(tmp_path)
    names = ["PANCREAS_0001", "PANCREAS_0002", "liver"]
    assert [case.case_id for case in cohort.cases] == names
    assert [case.patient_id for case in cohort.cases] == names
    assert {finding.code for finding in cohort.findings} == {"patients-by-place"}


def test_files_of_one_name_from_several_places_are_several_cases(tmp_path: Path) -> None:
    """From a fault: the answer of the last stood for all, in their rows and in one mask."""
    files = [write_scan(tmp_path / name / "ct.nii.gz", seed) for seed, name in enumerate("ab")]
    for sources in (files, [file.parent for file in files]):
        cohort = found(*sources)
        assert len(cohort.cases) == 2
        assert all(case.case_id.startswith("ct_") for case in cohort.cases)
        # Nobody knows whether they are one patient; as two each has an answer of its own.
        assert all(case.patient_id == case.case_id for case in cohort.cases)
        assert {*paths_of(cohort).values()} == {*files}
        rows = {row["case"]: Path(row["folder"]) for row in cohort.intake["series"]}
        assert rows == {case_id: path.parent for case_id, path in paths_of(cohort).items()}
        assert cohort.findings[-1].code == "names-shared"
    # The mark is that of the place, whoever stands beside it.
    other = write_scan(tmp_path / "c" / "ct.nii.gz")
    assert {*paths_of(found(*files))} < {*paths_of(found(*files, other))}


def test_one_file_that_is_named_twice_is_one_case(tmp_path: Path) -> None:
    file = write_scan(tmp_path / "a" / "ct.nii.gz")
    cohort = found(file.parent, file.parent)
    assert [*paths_of(cohort).values()] == [file]
    assert cohort.refused == ()


def test_cases_of_channels_in_several_folders_have_names_of_their_own(tmp_path: Path) -> None:
    for folder in "ab":
        for channel in range(2):
            write_scan(tmp_path / folder / f"scan_000{channel}.nii.gz", channel)
    cases = found(tmp_path, channels='["T1", "T2"]').cases
    assert len({case.case_id for case in cases}) == len(cases) == 2


def test_a_second_file_for_a_channel_is_named(tmp_path: Path) -> None:
    """From a fault: it took the place of the first without a word."""
    for name in ("a_0000.nii", "a_0000.nii.gz", "a_0001.nii"):
        write_scan(tmp_path / name)
    cohort = found(tmp_path, channels='["T1", "T2"]')
    (case,) = cohort.cases
    (skipped,) = cohort.intake["skipped"]
    assert skipped["code"] == "file-unmatched"
    assert {Path(skipped["file"]), case.inputs["T1"]} == {
        tmp_path / "a_0000.nii", tmp_path / "a_0000.nii.gz",
    }  # fmt: skip


def case(name: str, **inputs: Any) -> Case:
    return Case(name, name, "", inputs)


def test_what_is_refused_has_a_row_of_its_own(tmp_path: Path) -> None:
    """From a fault: where a case had its name, the refusal stood in its place."""
    both = (case("a", ct=tmp_path / "a.nii"), case("B", ct=tmp_path / "b.nii"))
    none = [RefusedStudy("b", "b", uid, "no-usable-series", "") for uid in ("1", "2")]
    cohort = told_apart(Cohort(both, {"series": []}, (), tuple(none)), Source((tmp_path,)))
    names = [one.case_id for one in (*cohort.cases, *cohort.refused)]
    # Some disks know no capitals.
    assert len({name.casefold() for name in names}) == 4
    assert "a" in names


def test_two_that_nothing_tells_apart_are_one_case_and_a_refusal(tmp_path: Path) -> None:
    twins = (case("a", ct=tmp_path / "x" / "s.nii"), case("a", ct=tmp_path / "y" / "s.nii"))
    sources = Source((tmp_path / "x" / "s.nii", tmp_path / "y" / "s.nii"))
    assert len(told_apart(Cohort(twins, {"series": []}), sources).cases) == 2
    # Two series of one study, from two sources: its mark is the same for both.
    for folder, uid in (("monday", "1.1.1"), ("tuesday", "1.1.2")):
        write_study(tmp_path / folder, "1.1", uid)
    cohort = found(tmp_path / "monday", tmp_path / "tuesday")
    assert [one.patient_id for one in cohort.cases] == ["P1"]
    assert [one.code for one in cohort.refused] == ["case-twice"]


def test_a_patient_whom_a_header_names_stays_one(tmp_path: Path) -> None:
    """From a fault: two studies of P1 in two sources became two patients."""
    for folder, study in (("monday", "1.1"), ("tuesday", "1.2")):
        write_study(tmp_path / folder, study, f"{study}.1")
    cohort = found(tmp_path / "monday", tmp_path / "tuesday")
    assert [case.patient_id for case in cohort.cases] == ["P1", "P1"]
    named = {case.study_uid: case.case_id for case in cohort.cases}
    assert len({*named.values()}) == 2
    assert {row["study"]: row["case"] for row in cohort.intake["series"]} == named
    # As they are called when one source holds both.
    assert {case.case_id for case in found(tmp_path).cases} == {*named.values()}


@pytest.mark.parametrize(
    "names", [("Müller", "Möller"), ("A 1", "A_1"), ("张三", "李四"), ("a" * 120, "a" * 121)]
)
def test_files_of_different_cases_never_have_one_name(names: tuple[str, str]) -> None:
    """From a fault: both masks were M_ller.nii.gz."""
    first, second = map(case_file_stem, names)
    assert first != second
    assert case_file_stem("A_1") == "A_1"


def test_scans_that_look_alike_from_outside_are_not_one_in_the_cache(tmp_path: Path) -> None:
    """From a fault: one patient's prepared scan was taken for another's of equal size and time."""
    stems = []
    for seed, folder in enumerate("ab"):
        file = write_scan(tmp_path / folder / "ct.nii", seed)
        os.utime(file, (1e9, 1e9))
        stems.append(case_stem(case("ct", ct=file)))
    assert stems[0] != stems[1]


def broken(*archives: Path) -> list[tuple[Path, CaseRefused]]:
    refusal = CaseRefused("archive-broken", "The archive cannot be unpacked.")
    return [(archive, refusal) for archive in archives]


def test_an_archive_that_cannot_be_unpacked_takes_no_name_of_a_study(tmp_path: Path) -> None:
    cohort = Cohort((Case("P001", "P001", "1", {}),), {}, (), ())
    (row,) = refused_archives(broken(tmp_path / "P001.zip"), cohort)
    assert (row.case_id, row.patient_id, row.study_uid) == ("P001.zip", "", "")
    assert row.code == "archive-broken"
    assert row.message == f"{tmp_path / 'P001.zip'}: The archive cannot be unpacked."
    # Whatever the others are called, the name is its own.
    other = replace(cohort, refused=(RefusedStudy("p001.ZIP", "", "", "no-volume", ""),))
    (row,) = refused_archives(broken(tmp_path / "P001.zip"), other)
    assert row.case_id.startswith("P001.zip_")


def test_archives_of_one_name_are_told_apart_in_any_order(tmp_path: Path) -> None:
    archives = [tmp_path / place / "P001.zip" for place in ("a", "b")]
    cohort = Cohort((), {})
    rows = refused_archives(broken(*archives, tmp_path / "P002.zip"), cohort)
    first, second, third = (row.case_id for row in rows)
    assert first != second
    assert {first[:9], second[:9]} == {"P001.zip_"}
    assert third == "P002.zip"
    again = refused_archives(broken(*reversed(archives)), cohort)
    assert [row.case_id for row in again] == [second, first]
