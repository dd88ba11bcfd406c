"""Who learns, who chooses and who scores: parts by patient, stratified, seeded, written down.

Within each stratum (patients with a positive study, without, without label; where there are
outcomes, with an event, censored, without) patients are put in the order of a keyed hash of their
id and dealt out: the result depends on the seed and on who is there, not on the order of the input.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from medtool.config.sections import DataSection, TrainSection
from medtool.core.errors import LabelsError, UsageError
from medtool.core.names import counted, nearest_name
from medtool.core.records import Case, Finding, Part
from medtool.data.cohort import require_patients
from medtool.data.fold_files import FOLDS_FILE, Fold, fold_numbered, nnunet_folds, read_folds
from medtool.data.foreign_table import ForeignTable, read_foreign_table
from medtool.data.labels import MOST_CLASSES
from medtool.data.matching import CLASS_FACT, shown

Scheme = Literal["folds", "three-part", "two-part", "nnunet", "file"]
PARTS: tuple[Part, ...] = get_args(Part)
# Without them nothing is learned and no epoch is chosen.
NEEDED_PARTS: tuple[Part, ...] = ("train", "selection")

# From this many patients on, one test part says enough and folds cost more than they give.
FEW_PATIENTS = 500
# Strata of patients whose outcome is known.
EVENT, CENSORED = "event", "censored"
NNUNET_DEFAULT = "nnU-Net's default split"

PART_SYNONYMS: Mapping[str, Part] = {
    "training": "train",
    "val": "selection",
    "valid": "selection",
    "validation": "selection",
    "tune": "selection",
    "dev": "selection",
    "testing": "test",
    "held-out": "test",
    "holdout": "test",
}


@dataclass(frozen=True)
class Split:
    """``parts``: case id -> part. ``optimistic``: nobody only scores, so numbers flatter."""

    parts: Mapping[str, Part]
    scheme: Scheme
    fold: int | None
    findings: tuple[Finding, ...]
    optimistic: bool

    def cases_of(self, cases: Sequence[Case], part: Part) -> tuple[Case, ...]:
        """The cases of one part, in the order given."""
        return tuple(case for case in cases if self.parts.get(case.case_id) == part)


def split_scheme(train: TrainSection, patients: int, *, several: bool) -> Scheme:
    """What ``split = "auto"`` means for this many patients; ``several``: folds were asked for."""
    if train.split != "auto":
        return train.split
    return "folds" if several and patients < FEW_PATIENTS else "three-part"


def make_split(
    cases: Sequence[Case],
    train: TrainSection,
    data: DataSection,
    *,
    fold: int | None,
    allow: Sequence[str] = (),
    beside: Path | None = None,
) -> Split:
    """Every case in one part, every patient in one part.

    ``fold`` (counted from 0) asks for that fold of ``train.folds``. In a fold the selection part
    is ``selection_share`` of the patients that are not tested; with three parts it is that share
    of all patients (70/15/15 by default); with two parts, of all. A split file is honoured first:
    a table, which has no folds, or a ``splits_final.json``, of which ``fold`` (by default 0) is
    taken; one that lies in ``beside``, the folder of the data, is honoured where nothing else was
    asked for. ``allow`` names patient ids vouched for (``cohort.require_patients``). Raises
    UsageError (too few patients, unknown fold, a fold of a table, ids shared by many patients) and
    LabelsError (the split file, a single class).
    """
    if not cases:
        raise UsageError("There are no cases to split.")
    given = data.split_file
    if given is None and beside is not None and train.split == "auto":
        given = beside / FOLDS_FILE if (beside / FOLDS_FILE).is_file() else None
    if given is not None:
        if given.suffix.lower() == ".json":
            return _split_from_folds(cases, read_folds(given), given, train, fold)
        if fold is not None:
            raise UsageError(
                "A table of parts has no folds: each of them would be the same training.",
                where=str(given),
                met=f"fold {fold}",
                wanted=f"a {FOLDS_FILE}, which has a list for each fold",
                how="leave out --folds and --fold, or the split file (data.split_file).",
            )
        return _split_from_file(cases, given, train)
    require_patients(cases, allow=allow)
    if train.split == "nnunet":
        folds = nnunet_folds([case.case_id for case in cases], train.folds)
        return _split_from_folds(cases, folds, None, train, fold)
    strata = _strata(cases)
    scheme: Scheme = (
        "folds" if fold is not None else split_scheme(train, len(strata), several=False)
    )
    if scheme == "folds":
        number = 0 if fold is None else fold
        places = _fold_parts(strata, train, number)
    else:
        number = None
        places = _share_parts(strata, train, three=scheme == "three-part")
    _require_parts(places, scheme)
    parts = {case.case_id: places[case.patient_id] for case in cases}
    findings = _require_both_classes(cases, parts, train, scheme) + _without_event(cases, parts)
    return Split(parts, scheme, number, tuple(findings), optimistic=scheme == "two-part")


def _require_parts(places: Mapping[str, Part], scheme: Scheme) -> None:
    """Raises UsageError where a part that is needed got no patient."""
    needed = [part for part in PARTS if part in NEEDED_PARTS or scheme != "two-part"]
    empty = [part for part in needed if part not in places.values()]
    if empty:
        raise UsageError(
            "There are too few patients to train.",
            met=f"{counted(len(places), 'patient')}: none is left for the part {empty[0]}",
            wanted="patients to learn from, others to choose the epoch by, and others to score",
            how="'medtool check' says of every study why it cannot be used; add patients.",
        )


def _strata(cases: Sequence[Case]) -> dict[str, str]:
    """Patient -> stratum: the class, else whether the event was seen.

    Raises LabelsError when all labels are one class.
    """
    if all(case.label is None for case in cases):
        return _event_strata(cases)
    labels: dict[str, list[float]] = defaultdict(list)
    for case in cases:
        labels[case.patient_id].extend([] if case.label is None else [case.label])
    values = {label for same in labels.values() for label in same}
    if len(values) == 1:
        named = _class_names(cases)
        only = next(iter(values))
        raise LabelsError(
            "All labels are of one class.",
            met=f"{len(cases)} cases, all {named.get(only, f'{only:g}')}",
            wanted="cases of two classes" if named else "cases of both classes",
            how="add cases of another class, or leave the classes out."
            if named
            else "add cases of the other class, or name its values in the preset "
            "(data.positive_values, data.negative_values).",
        )
    if len(values) > MOST_CLASSES:
        return dict.fromkeys(labels, "")
    # The rarer question decides: a patient with one positive study is a positive patient.
    return {patient: str(max(same)) if same else "" for patient, same in labels.items()}


def _event_strata(cases: Sequence[Case]) -> dict[str, str]:
    """Patient -> whether its event was seen, it was censored, or nothing is known ("")."""
    strata: dict[str, str] = {}
    for case in cases:
        before = strata.setdefault(case.patient_id, "")
        if case.outcome is not None and before != EVENT:
            strata[case.patient_id] = EVENT if case.outcome.event else CENSORED
    return strata


def _without_event(cases: Sequence[Case], parts: Mapping[str, Part]) -> list[Finding]:
    """What is said of parts whose cases have outcomes, and no event among them."""
    findings = []
    for part in PARTS:
        outcomes = [
            case.outcome
            for case in cases
            if parts.get(case.case_id) == part and case.outcome is not None
        ]
        if outcomes and not any(outcome.event for outcome in outcomes):
            what = "learned" if part == "train" else "said"
            text = f"no event was seen in the part {part}: nothing of survival is {what} there"
            findings.append(Finding("event-missing", text, "warning"))
    return findings


def _class_names(cases: Sequence[Case]) -> dict[float, str]:
    """Names of the classes by number, where they have names of their own."""
    return {
        case.label: str(case.facts[CLASS_FACT])
        for case in cases
        if case.label is not None and CLASS_FACT in case.facts
    }


def _dealt(strata: Mapping[str, str], seed: int, purpose: str) -> dict[str, list[str]]:
    """Stratum -> its patients in the order of a keyed hash."""

    def place(patient: str) -> bytes:
        return hashlib.blake2b(f"{purpose}/{seed}/{patient}".encode(), digest_size=16).digest()

    order: dict[str, list[str]] = defaultdict(list)
    for patient, stratum in sorted(strata.items(), key=lambda item: (place(item[0]), item[0])):
        order[stratum].append(patient)
    return dict(sorted(order.items()))


def _shares(count: int, shares: Sequence[float]) -> list[int]:
    """How many of ``count`` go to each share: rounded, at least one each while that is possible.

    What is left, at least one where there is any, belongs to training.
    """
    numbers = [round(count * share) for share in shares]
    numbers = [max(1, number) if count > len(shares) else number for number in numbers]
    while sum(numbers) >= count > 0:
        largest = max(range(len(numbers)), key=lambda i: numbers[i])
        numbers[largest] -= 1
    return numbers


def _share_parts(strata: Mapping[str, str], train: TrainSection, *, three: bool) -> dict[str, Part]:
    if three and train.selection_share + train.test_share >= 1:
        raise UsageError(
            "Nothing would be left to train on.",
            met=f"train.selection_share {train.selection_share:g} and train.test_share "
            f"{train.test_share:g}",
            wanted="together below 1",
        )
    shares = [train.selection_share, train.test_share] if three else [train.selection_share]
    places: dict[str, Part] = {}
    for patients in _dealt(strata, train.seed, "parts").values():
        selection, *test = _shares(len(patients), shares)
        tested = test[0] if test else 0
        for index, patient in enumerate(patients):
            in_selection = index < tested + selection
            places[patient] = "test" if index < tested else "selection" if in_selection else "train"
    return places


def _fold_parts(strata: Mapping[str, str], train: TrainSection, fold: int) -> dict[str, Part]:
    if not 0 <= fold < train.folds:
        raise UsageError(
            f"There is no fold {fold}.",
            wanted=f"0 to {train.folds - 1} (train.folds is {train.folds})",
        )
    if len(strata) < train.folds:
        raise UsageError(
            "There are fewer patients than folds.",
            met=f"{len(strata)} patients, {train.folds} folds",
            wanted="at least one patient a fold",
            how=f"--folds {max(2, len(strata))} or less, or more patients.",
        )
    places: dict[str, Part] = {}
    dealt = 0
    rest: dict[str, str] = {}
    for stratum, patients in _dealt(strata, train.seed, "folds").items():
        # Dealing goes on where the last stratum ended, so that folds differ by one at most.
        for patient in patients:
            if dealt % train.folds == fold:
                places[patient] = "test"
            else:
                rest[patient] = stratum
            dealt += 1
    for patients in _dealt(rest, train.seed, f"selection of fold {fold}").values():
        (selection,) = _shares(len(patients), [train.selection_share])
        for index, patient in enumerate(patients):
            places[patient] = "selection" if index < selection else "train"
    return places


def _require_both_classes(
    cases: Sequence[Case], parts: Mapping[str, Part], train: TrainSection, scheme: Scheme
) -> list[Finding]:
    """Every class in each part; only the test part of a fold may lack one, said."""
    named = _class_names(cases)
    classes = {case.label for case in cases} - {None}
    if not 2 <= len(classes) <= MOST_CLASSES:
        return []
    findings = []
    for part in PARTS:
        present = {c.label for c in cases if parts.get(c.case_id) == part} - {None}
        if not present and part == "test":
            continue
        lacking = sorted(value for value in classes - present if value is not None)
        if not lacking:
            continue
        which = ", ".join(named.get(value, f"{value:g}") for value in lacking)
        if part == "test" and scheme in ("folds", "nnunet", "file"):
            outcome = "nothing is said of it there" if named else "its own AUROC is undefined"
            message = f"the part test has no case of class {which}: {outcome}"
            findings.append(Finding("class-missing", message, "warning"))
            continue
        patients = Counter(label for _, label in {(c.patient_id, c.label) for c in cases})
        raise UsageError(
            f"The part {part} would have no case of class {which}.",
            met=", ".join(
                f"{count} patients of class {named.get(label, f'{label:g}')}"
                for label, count in sorted(patients.items(), key=lambda item: str(item[0]))
                if label is not None
            ),
            wanted="every class in every part" if named else "both classes in every part",
            how="add patients of that class, or give a split file (data.split_file).",
        )
    return findings


def _split_from_file(cases: Sequence[Case], path: Path, train: TrainSection) -> Split:
    table = read_foreign_table(path, kind="split file")
    column = next((c for c in table.columns if c.casefold() == "part"), "")
    key = next((k for k in ("case", "patient") if _has(table, k)), "")
    if not column or not key:
        raise LabelsError(
            "The split file lacks a column.",
            where=str(path),
            met="columns " + ", ".join(table.columns),
            wanted="case or patient, and part (train, selection, test)",
        )
    part_of = _parts_of_table(table, column, key)
    named = {
        case.case_id: part_of[ident]
        for case in cases
        if (ident := case.case_id if key == "case" else case.patient_id) in part_of
    }
    if not named:
        raise LabelsError(
            "No row of the split file fits any case.",
            where=str(path),
            met=f"{key} " + ", ".join(list(part_of)[:3]),
            wanted=f"{key} such as "
            + ", ".join((c.case_id if key == "case" else c.patient_id) for c in cases[:3]),
        )
    said = Finding("split-given", f"the parts are those of {path.name}, by {key}")
    return _completed(cases, named, (path.name, str(path)), train, None, said)


def _split_from_folds(
    cases: Sequence[Case],
    folds: Sequence[Fold],
    path: Path | None,
    train: TrainSection,
    fold: int | None,
) -> Split:
    """One of nnU-Net's folds, of a file or its default ones: its "val" is the test part."""
    number = 0 if fold is None else fold
    where = NNUNET_DEFAULT if path is None else str(path)
    chosen = fold_numbered(folds, number, where)
    part_of: dict[str, Part] = dict.fromkeys(chosen.train, "train")
    part_of |= dict.fromkeys(chosen.held_out, "test")
    parts = {case.case_id: part_of[case.case_id] for case in cases if case.case_id in part_of}
    if not parts:
        raise LabelsError(
            "No name in the split file fits any case.",
            where=where,
            met="cases " + ", ".join(list(part_of)[:3]),
            wanted="cases such as " + ", ".join(case.case_id for case in cases[:3]),
        )
    name = where if path is None else path.name
    text = f"fold {number} of the {len(folds)} of {name}: its 'val' is the test part"
    return _completed(cases, parts, (name, where), train, number, Finding("split-given", text))


def _completed(
    cases: Sequence[Case],
    named: Mapping[str, Part],
    source: tuple[str, str],
    train: TrainSection,
    fold: int | None,
    said: Finding,
) -> Split:
    """The split that a file gives, with a selection part where it has none.

    ``source`` is the file's name and its path.
    """
    name, where = source
    findings = [said]
    parts = dict(named)
    left_out = [case.case_id for case in cases if case.case_id not in parts]
    if left_out:
        message = f"{len(left_out)} cases are not in {name} and in no part: {shown(left_out)}"
        findings.append(Finding("not-in-split", message, "warning"))
    if "train" not in parts.values():
        raise LabelsError("The split file gives nobody to train on.", where=where)
    if "selection" not in parts.values():
        parts |= _selection_from_training(cases, parts, train)
        message = f"{name} has no selection part: taken from its training patients by seed"
        findings.append(Finding("selection-taken", message))
    scheme: Scheme = "nnunet" if where == NNUNET_DEFAULT else "file"
    findings += _require_both_classes(cases, parts, train, scheme)
    findings += _without_event(cases, parts)
    return Split(parts, scheme, fold, tuple(findings), optimistic="test" not in parts.values())


def _has(table: ForeignTable, name: str) -> str:
    return next((c for c in table.columns if c.casefold() == name), "")


def _parts_of_table(table: ForeignTable, column: str, key: str) -> dict[str, Part]:
    """Id -> part; unknown parts and ids with two parts are refused."""
    result: dict[str, Part] = {}
    identifier_column = _has(table, key)
    for row in table.rows:
        identifier, text = row.cells[identifier_column], row.cells[column].strip().lower()
        if not identifier or not text:
            continue
        try:
            part = part_named(text)
        except ValueError as error:
            raise LabelsError(
                f"The split file has a part '{text}'.",
                where=f"{table.path}, line {row.line}",
                wanted=", ".join(PARTS),
                nearest=nearest_name(text, PARTS, PART_SYNONYMS),
            ) from error
        if result.setdefault(identifier, part) != part:
            raise LabelsError(
                f"The split file puts one {key} into two parts.",
                where=f"{table.path}, line {row.line}",
                met=f"{identifier}: {result[identifier]} and {part}",
            )
    return result


def part_named(text: str) -> Part:
    """The part that ``text`` names, also by a synonym; raises ValueError for none."""
    name = text.strip().lower()
    part = next((p for p in PARTS if p == name), PART_SYNONYMS.get(name))
    if part is None:
        raise ValueError(f"part '{text}' is none of {', '.join(PARTS)}")
    return part


def _selection_from_training(
    cases: Sequence[Case], parts: Mapping[str, Part], train: TrainSection
) -> dict[str, Part]:
    training = [case for case in cases if parts.get(case.case_id) == "train"]
    chosen: set[str] = set()
    for patients in _dealt(_strata(training), train.seed, "selection of file").values():
        (selection,) = _shares(len(patients), [train.selection_share])
        chosen.update(patients[:selection])
    return {case.case_id: "selection" for case in training if case.patient_id in chosen}
