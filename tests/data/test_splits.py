"""Splits: by patient, stratified, deterministic, whatever the order of the input."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from medtool.config.sections import DataSection, TrainSection
from medtool.core.errors import LabelsError, UsageError
from medtool.core.records import Case
from medtool.data.cohort import (
    keyed_patients,
    require_patients,
    shared_patients,
    suspicious_patients,
)
from medtool.data.fold_files import fold_of_parts, nnunet_folds, read_folds, write_folds
from medtool.data.run_folder import RunFolder
from medtool.data.splits import make_split, split_scheme

DATA = DataSection()


def _case(patient: str, study: int = 0, label: float | None = 0.0, **changes: str) -> Case:
    values = {
        "case_id": f"{patient}-{study}",
        "patient_id": patient,
        "study_uid": f"1.{study}",
        "folder": patient,
    } | changes
    return Case(inputs={}, label=label, **values)


def _cohort(positives: int, negatives: int) -> list[Case]:
    return [_case(f"p{n}", label=float(n < positives)) for n in range(positives + negatives)]


COHORTS = st.lists(
    st.tuples(st.integers(0, 60), st.sampled_from([0.0, 1.0, 1.0, 0.0, None])),
    min_size=12,
    max_size=120,
).map(lambda rows: [_case(f"P{patient}", n, label) for n, (patient, label) in enumerate(rows)])
TRAINS = st.builds(
    TrainSection,
    seed=st.integers(0, 99),
    folds=st.integers(2, 5),
    split=st.sampled_from(["auto", "two-part", "three-part", "folds"]),
)


@given(COHORTS, TRAINS, st.randoms(use_true_random=False))
def test_parts_are_whole_by_patient_and_independent_of_order(
    cases: list[Case], train: TrainSection, shuffle: random.Random
) -> None:
    try:
        split = make_split(cases, train, DATA, fold=None)
    except (UsageError, LabelsError):
        assume(False)
    assert set(split.parts) == {case.case_id for case in cases}
    part_of_patient = {(case.patient_id, split.parts[case.case_id]) for case in cases}
    assert len(part_of_patient) == len({case.patient_id for case in cases})
    assert {"train", "selection"} <= set(split.parts.values())
    assert split.optimistic == ("test" not in split.parts.values())
    mixed = list(cases)
    shuffle.shuffle(mixed)
    assert make_split(mixed, train, DATA, fold=None) == split


@given(COHORTS, TRAINS)
def test_folds_test_every_patient_once(cases: list[Case], train: TrainSection) -> None:
    try:
        splits = [make_split(cases, train, DATA, fold=k) for k in range(train.folds)]
    except (UsageError, LabelsError):
        assume(False)
    tested = Counter(c.patient_id for s in splits for c in s.cases_of(cases, "test"))
    studies = Counter(case.patient_id for case in cases)
    assert tested == studies
    sizes = [len({c.patient_id for c in s.cases_of(cases, "test")}) for s in splits]
    assert max(sizes) - min(sizes) <= 1


def test_shares_and_strata_worked_out_by_hand() -> None:
    # 40 positive and 160 negative patients, 70/15/15: 6 + 24 tested, 6 + 24 choosing.
    cases = _cohort(40, 160)
    split = make_split(cases, TrainSection(), DATA, fold=None)
    counts = Counter((split.parts[case.case_id], case.label) for case in cases)
    assert split.scheme == "three-part"
    assert counts == {
        ("test", 1.0): 6, ("test", 0.0): 24, ("selection", 1.0): 6, ("selection", 0.0): 24,
        ("train", 1.0): 28, ("train", 0.0): 112,
    }  # fmt: skip


def test_a_fold_takes_its_selection_from_the_training_patients() -> None:
    # 5 folds of 100: 20 tested (4 + 16); of the other 16 + 64, 15 %: 2 + 10.
    cases = _cohort(20, 80)
    split = make_split(cases, TrainSection(), DATA, fold=3)
    counts = Counter((split.parts[case.case_id], case.label) for case in cases)
    assert (split.scheme, split.fold) == ("folds", 3)
    assert counts == {
        ("test", 1.0): 4, ("test", 0.0): 16, ("selection", 1.0): 2, ("selection", 0.0): 10,
        ("train", 1.0): 14, ("train", 0.0): 54,
    }  # fmt: skip


def test_a_patient_with_one_positive_study_is_a_positive_patient() -> None:
    cases = [*_cohort(20, 80), _case("p90", 7, 1.0)]
    split = make_split(cases, TrainSection(), DATA, fold=None)
    assert split.parts["p90-0"] == split.parts["p90-7"]


def test_the_seed_changes_the_parts() -> None:
    cases = _cohort(20, 80)
    splits = [make_split(cases, TrainSection(seed=s), DATA, fold=None).parts for s in (1, 2)]
    assert splits[0] != splits[1]


def test_two_parts_are_optimistic() -> None:
    split = make_split(_cohort(10, 10), TrainSection(split="two-part"), DATA, fold=None)
    assert split.optimistic
    assert Counter(split.parts.values()) == {"train": 16, "selection": 4}


def test_auto_depends_on_patients_and_on_what_was_asked() -> None:
    train = TrainSection()
    assert split_scheme(train, 499, several=True) == "folds"
    assert split_scheme(train, 500, several=True) == "three-part"
    assert split_scheme(train, 10, several=False) == "three-part"
    assert split_scheme(TrainSection(split="two-part"), 10, several=True) == "two-part"


@pytest.mark.parametrize(
    ("cases", "train", "fold", "words"),
    [
        (_cohort(2, 1), TrainSection(), 0, "fewer patients than folds"),
        (_cohort(5, 5), TrainSection(), 5, "no fold 5"),
        ([], TrainSection(), None, "no cases"),
        ([_case("p0", label=None)], TrainSection(), None, "too few patients"),
        (_cohort(1, 1), TrainSection(folds=2), 0, "too few patients"),
        (_cohort(1, 20), TrainSection(), None, "would have no case of class 1"),
        (_cohort(9, 9), TrainSection(test_share=0.5, selection_share=0.5), None, "left to train"),
    ],
)
def test_refusals(cases: list[Case], train: TrainSection, fold: int | None, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        make_split(cases, train, DATA, fold=fold)
    assert caught.value.exit_status == 2


def test_one_class_only_is_refused() -> None:
    with pytest.raises(LabelsError, match="one class") as caught:
        make_split(_cohort(0, 9), TrainSection(), DATA, fold=None)
    assert caught.value.met == "9 cases, all 0"


def test_a_fold_without_positives_is_said() -> None:
    findings = [
        finding.code
        for fold in range(5)
        for finding in make_split(_cohort(4, 26), TrainSection(), DATA, fold=fold).findings
    ]
    assert findings == ["class-missing"]


def test_the_cases_of_a_run_are_a_split_file_that_gives_its_split(tmp_path: Path) -> None:
    cases = _cohort(10, 30)
    split = make_split(cases, TrainSection(seed=3), DATA, fold=None)
    run = RunFolder(tmp_path)
    run.write_cases(
        [
            {"case": c.case_id, "patient": c.patient_id, "part": split.parts[c.case_id]}
            for c in cases
        ]
    )
    again = make_split(cases, TrainSection(), DataSection(split_file=run.cases_file), fold=None)
    assert again.parts == split.parts
    assert again.scheme == "file"
    assert not again.optimistic


def test_a_split_by_patient_and_what_it_lacks(tmp_path: Path) -> None:
    file = tmp_path / "split.csv"
    rows = [f"p{n};{'Training' if n % 4 else 'held-out'}" for n in range(39)]
    file.write_text("patient;part\n" + "\n".join(rows))
    cases = _cohort(10, 30)
    split = make_split(cases, TrainSection(), DataSection(split_file=file), fold=None)
    assert [f.code for f in split.findings] == ["split-given", "not-in-split", "selection-taken"]
    assert "p39-0" not in split.parts
    assert {c.patient_id for c in split.cases_of(cases, "test")} == {
        f"p{n}" for n in range(0, 39, 4)
    }
    assert split.cases_of(cases, "selection")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("case,group\np1-0,train\n", "lacks a column"),
        ("case,part\nx,train\n", "fits any case"),
        ("case,part\np1-0,trian\n", "has a part 'trian'"),
        ("case,part\np1-0,train\np1-0,test\n", "into two parts"),
        ("case,part\np1-0,test\np2-0,selection\n", "nobody to train on"),
    ],
)
def test_split_files_that_cannot_be_honoured(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "split.csv"
    file.write_text(text)
    with pytest.raises(LabelsError, match=words):
        make_split(_cohort(2, 2), TrainSection(), DataSection(split_file=file), fold=None)


def test_a_table_of_parts_has_no_folds(tmp_path: Path) -> None:
    """From a fault: every fold trained on the same parts, and each test case counted for all."""
    file = tmp_path / "split.csv"
    file.write_text("case,part\np1-0,train\np2-0,selection\n")
    with pytest.raises(UsageError, match="has no folds") as error:
        make_split(_cohort(2, 2), TrainSection(), DataSection(split_file=file), fold=0)
    assert error.value.where == str(file)


def test_anon_is_refused_until_the_key_is_named() -> None:
    cases = [_case("ANON", n, float(n % 2), folder=f"f{n}") for n in range(30)]
    assert [f.code for f in suspicious_patients(cases)] == ["patient-id-shared"]
    with pytest.raises(UsageError, match="cannot be told apart") as caught:
        make_split(cases, TrainSection(), DATA, fold=None)
    assert "data.patient_key=folder" in caught.value.how
    keyed = keyed_patients(cases, DataSection(patient_key="folder"))
    assert {case.patient_id for case in keyed} == {f"f{n}" for n in range(30)}
    assert set(make_split(keyed, TrainSection(), DATA, fold=None).parts) == {
        c.case_id for c in cases
    }
    by_case = keyed_patients(cases, DataSection(patient_key="case"))
    assert by_case[3].patient_id == "ANON-3"


@pytest.mark.parametrize(
    ("patient", "studies", "others", "suspicious"),
    [
        ("", 2, 50, True),
        ("", 1, 50, False),
        ("Anonymous", 2, 50, True),
        ("12345", 5, 0, True),
        ("12345", 5, 6, False),
        ("12345", 20, 200, False),
        ("12345", 21, 200, True),
    ],
)
def test_what_is_implausible(patient: str, studies: int, others: int, suspicious: bool) -> None:
    cases = [_case(patient, n, folder=f"f{n}") for n in range(studies)]
    cases += [_case(f"q{n}") for n in range(others)]
    assert bool(suspicious_patients(cases)) == suspicious


def test_a_person_can_vouch_for_an_id() -> None:
    cases = [_case("12345", n) for n in range(25)]
    with pytest.raises(UsageError):
        require_patients(cases)
    require_patients(cases, allow=["patient=12345"])


def test_top_folders_tell_patients_apart() -> None:
    case = replace(_case("ANON"), folder="p7/study1")
    assert keyed_patients([case], DataSection(patient_key="folder"))[0].patient_id == "p7"


# --- nnU-Net's folds -----------------------------------------------------------------------------
def test_default_folds_of_nnunet() -> None:
    """Golden: what nnunetv2 2.8.1 gives for ten cases."""
    folds = nnunet_folds([f"c{n:02d}" for n in reversed(range(10))])
    assert len(folds) == 5
    assert folds[0].held_out == ("c00", "c07")
    assert folds[4].held_out == ("c02", "c05")
    assert folds[4].train == ("c00", "c01", "c03", "c04", "c06", "c07", "c08", "c09")
    # Thirteen cases: 3, 3, 3, 2, 2, each held out once.
    folds = nnunet_folds([f"c{n:02d}" for n in range(13)])
    assert [len(fold.held_out) for fold in folds] == [3, 3, 3, 2, 2]
    assert sorted(name for fold in folds for name in fold.held_out) == sorted(
        folds[0].train + folds[0].held_out
    )
    with pytest.raises(UsageError, match="fewer cases than folds"):
        nnunet_folds(["a", "b"])


def test_folds_are_written_and_read(tmp_path: Path) -> None:
    folds = nnunet_folds([f"c{n:02d}" for n in range(10)])
    write_folds(tmp_path / "splits_final.json", folds)
    assert read_folds(tmp_path / "splits_final.json") == folds
    document = json.loads((tmp_path / "splits_final.json").read_text())
    assert document[0]["val"] == ["c00", "c07"] and set(document[0]) == {"train", "val"}


def _fold_file(tmp_path: Path, *folds: tuple[list[str], list[str]]) -> DataSection:
    path = tmp_path / "splits_final.json"
    path.write_text(json.dumps([{"train": train, "val": held} for train, held in folds]))
    return DataSection(split_file=path)


def test_a_fold_of_the_file_is_the_split(tmp_path: Path) -> None:
    cases = [_case(f"p{n}", label=None) for n in range(12)]
    ids = [case.case_id for case in cases]
    data = _fold_file(tmp_path, (ids[:8], ids[8:11]), (ids[3:11], ids[:3]))
    split = make_split(cases, TrainSection(), data, fold=1)
    assert {name for name, part in split.parts.items() if part == "test"} == set(ids[:3])
    # Checkpoints are chosen by an inner part of the training cases, never by those held out.
    chosen = {name for name, part in split.parts.items() if part == "selection"}
    assert chosen and chosen < set(ids[3:11]) and not split.optimistic
    assert split.fold == 1 and ids[11] not in split.parts
    codes = [finding.code for finding in split.findings]
    assert codes == ["split-given", "not-in-split", "selection-taken"]
    first = make_split(cases, TrainSection(), data, fold=None)
    assert "fold 0 of the 2" in first.findings[0].message and first.fold == 0


def test_folds_beside_the_data_are_honoured_unless_another_split_is_asked_for(
    tmp_path: Path,
) -> None:
    """A file in the folder of the data was passed over in silence."""
    cases = [_case(f"p{n}", label=None) for n in range(12)]
    ids = [case.case_id for case in cases]
    _fold_file(tmp_path, (ids[:8], ids[8:]), (ids[3:], ids[:3]))
    split = make_split(cases, TrainSection(), DATA, fold=1, beside=tmp_path)
    assert {name for name, part in split.parts.items() if part == "test"} == set(ids[:3])
    assert "fold 1 of the 2 of splits_final.json" in split.findings[0].message
    with pytest.raises(UsageError, match="no fold 2"):
        make_split(cases, TrainSection(), DATA, fold=2, beside=tmp_path)
    asked = make_split(cases, TrainSection(split="two-part"), DATA, fold=None, beside=tmp_path)
    assert asked.scheme == "two-part"
    assert make_split(cases, TrainSection(), DATA, fold=None, beside=tmp_path / "no").fold is None


def test_parts_are_a_fold_that_gives_them_back(tmp_path: Path) -> None:
    cases = [_case(f"p{n}", label=None) for n in range(12)]
    split = make_split(cases, TrainSection(folds=3), DATA, fold=2)
    write_folds(tmp_path / "splits_final.json", [fold_of_parts(split.parts)])
    data = DataSection(split_file=tmp_path / "splits_final.json")
    again = make_split(cases, TrainSection(), data, fold=None)
    assert again.cases_of(cases, "test") == split.cases_of(cases, "test") != ()
    # Where nobody only scores, nnU-Net's "val" is the part that chooses.
    two = fold_of_parts({"b": "train", "c": "selection", "a": "train"})
    assert (two.train, two.held_out) == (("a", "b"), ("c",))


def test_the_default_folds_of_nnunet_are_a_split() -> None:
    cases = [_case(f"c{n:02d}", case_id=f"c{n:02d}", label=None) for n in range(10)]
    train = TrainSection(split="nnunet")
    split = make_split(cases, train, DATA, fold=4)
    assert {c.case_id for c in split.cases_of(cases, "test")} == {"c02", "c05"}
    assert (split.scheme, split.fold, set(split.parts)) == ("nnunet", 4, {c.case_id for c in cases})
    with pytest.raises(UsageError, match="no fold 5"):
        make_split(cases, train, DATA, fold=5)


def test_a_fold_that_the_file_lacks_is_refused(tmp_path: Path) -> None:
    cases = [_case(f"p{n}", label=None) for n in range(12)]
    data = _fold_file(tmp_path, ([cases[0].case_id], [cases[1].case_id]))
    for fold in (1, -1, 5):
        with pytest.raises(UsageError, match=f"no fold {fold}"):
            make_split(cases, TrainSection(), data, fold=fold)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{}", "no list of folds"),
        ("[]", "no list of folds"),
        ('[{"train": ["a"]}]', "fold 0 has no lists"),
        ('[{"train": ["a", "b"], "val": ["b"]}]', "fold 0 names twice: b"),
        ('[{"train": ["a"], "val": []}]', "nobody held out"),
        ('[{"train": ["a"], "val": ["b"]}]', "fits any case"),
        ("[", "no JSON"),
    ],
)
def test_files_without_usable_folds(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "splits_final.json"
    path.write_text(text)
    with pytest.raises(LabelsError) as caught:
        make_split([_case("p")], TrainSection(), DataSection(split_file=path), fold=0)
    assert words in str(caught.value)


def _named(classes: dict[str, int]) -> list[Case]:
    """So many patients of each class, which have names."""
    numbers = [(n, name) for n, (name, count) in enumerate(classes.items()) for _ in range(count)]
    return [
        replace(_case(f"p{place}", label=float(n)), facts={"class": name})
        for place, (n, name) in enumerate(numbers)
    ]


def test_every_class_of_a_name_is_in_training_and_selection() -> None:
    cases = _named({"cystic": 9, "solid": 20, "neuroendocrine": 4})
    split = make_split(cases, TrainSection(), DATA, fold=None)
    for part in ("train", "selection", "test"):
        found = {case.facts["class"] for case in split.cases_of(cases, part)}
        assert found == {"cystic", "solid", "neuroendocrine"}, part


def test_a_class_too_rare_to_be_split_is_named() -> None:
    with pytest.raises(UsageError, match="no case of class neuroendocrine") as caught:
        make_split(_named({"solid": 20, "neuroendocrine": 1}), TrainSection(), DATA, fold=None)
    assert "1 patients of class neuroendocrine" in caught.value.met
    assert caught.value.wanted == "every class in every part"


def test_a_fold_that_lacks_a_class_says_which() -> None:
    cases = _named({"solid": 20, "cystic": 3})
    said = [
        finding.message
        for fold in range(5)
        for finding in make_split(cases, TrainSection(folds=5), DATA, fold=fold).findings
        if finding.code == "class-missing"
    ]
    assert said == ["the part test has no case of class cystic: nothing is said of it there"] * 2


def test_one_named_class_only_is_refused() -> None:
    with pytest.raises(LabelsError, match="one class") as caught:
        make_split(_named({"solid": 20}), TrainSection(), DATA, fold=None)
    assert "all solid" in caught.value.met
    assert "leave the classes out" in caught.value.how


def test_who_is_asked_about_one_patient_alone_has_nobody_elses() -> None:
    """From a fault: five studies of one patient, named alone, were not pooled."""
    cases = [Case(f"c{n}", "P1", f"1.{n}", {}, folder=f"f{n}") for n in range(6)]
    assert set(shared_patients(cases)) == {"P1"}
    assert shared_patients(cases, by_share=False) == {}
    assert set(shared_patients([*cases, *cases, *cases, *cases], by_share=False)) == {"P1"}
    strangers = [Case(f"c{n}", "ANON", f"1.{n}", {}, folder=f"f{n}") for n in range(2)]
    assert set(shared_patients(strangers, by_share=False)) == {"ANON"}
