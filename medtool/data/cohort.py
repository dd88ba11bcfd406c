"""Cases with their labels and patients: what every verb that learns or scores begins with."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from medtool.config.sections import DataSection
from medtool.core.errors import UsageError
from medtool.core.progress import Reporter, Silent, tell
from medtool.core.records import Case, Cohort, Finding, RefusedStudy, Source
from medtool.data.labels import LABELS_PATTERN, find_labels, read_labels
from medtool.data.matching import Labelled, attach_labels
from medtool.data.told_apart import find_cases

if TYPE_CHECKING:
    from medtool.core.task import Task

# Under this name the intake has the names of the classes, where they have names of their own.
CLASSES = "classes"
# What is said where a task names classes and no case has one.
NO_CLASSES = (
    "no case has a class, in a table of labels, a manifest or by data.class_pattern: the "
    "classification head is off, or not scored"
)
# The code of an id that is no patient's own.
PATIENT_ID_SHARED = "patient-id-shared"
# What anonymisers write into PatientID of everybody, in lower case without punctuation.
PLACEHOLDERS = frozenset(
    "anon anonym anonymous anonymised anonymized deidentified unknown none null na nn removed "
    "patient test xxx xxxx 0 00 000 0000".split()
)
# More imaging sessions of one body part than this are not followed up in one patient.
MOST_STUDIES_OF_ONE_PATIENT = 20
# One id that has this many studies and most of the cohort is no patient's either.
STUDIES_THAT_MAKE_A_SHARE = 5
LARGEST_SHARE = 0.5


@dataclass(frozen=True)
class LabelledCohort:
    """A cohort with patients told apart as the preset says, and labels where there are any.

    ``cases`` are all of them; ``labels`` is None where no table was given or found.
    """

    cohort: Cohort
    cases: tuple[Case, ...]
    labels: Labelled | None
    labels_file: Path | None
    findings: tuple[Finding, ...]

    @property
    def with_label(self) -> tuple[Case, ...]:
        """The cases whose label is known."""
        return tuple(case for case in self.cases if case.label is not None)


def build_cohort(
    task: Task, source: Source, *, judge_labels: bool = False, reporter: Reporter | None = None
) -> LabelledCohort:
    """Find the cases, tell patients apart, attach the labels of ``source`` or beside the scans.

    Without any case no labels are read, unless ``judge_labels``: then they are judged beside the
    studies that cannot be used. Raises InputError (no such data), LabelsError.
    """
    reporter = reporter or Silent()
    cohort = task.self_labelled(find_cases(task, source))
    # What the data say of themselves, such as names of classes, holds for their tables as well.
    data = task.informed(cohort.intake).settings.data
    cases = keyed_patients(cohort.cases, data)
    findings = [*cohort.findings, *suspicious_patients(cases)]
    file = _table_of_labels(task, source, data)
    labelled = None
    if file is not None and cases:
        labelled, classes = _labelled(task, cases, file, data)
        cases = labelled.cases
        findings.extend(labelled.findings)
        if classes:
            cohort = replace(cohort, intake={**cohort.intake, CLASSES: list(classes)})
    elif file is not None and judge_labels:
        labelled = _judged(task, cohort.refused, file, data)
        findings.extend(labelled.findings)
    if data.names_classes and cases and all(case.label is None for case in cases):
        findings.append(Finding("classes-none", NO_CLASSES))
    tell(findings, reporter)
    return LabelledCohort(cohort, cases, labelled, file, tuple(findings))


def _labelled(
    task: Task, cases: Sequence[Case], file: Path, data: DataSection
) -> tuple[Labelled, tuple[str, ...]]:
    """Cases with what the table says of them, and the names of its classes."""
    own = task.labelled(cases, file)
    if own is not None:
        return own, ()
    table = read_labels(file, data)
    return attach_labels(cases, table), table.classes


def _judged(task: Task, refused: Sequence[RefusedStudy], file: Path, data: DataSection) -> Labelled:
    """What is to be said of a table of labels where no study can be used: it has no cases."""
    studies = [Case(one.case_id, one.patient_id, one.study_uid, {}) for one in refused]
    if studies:
        return replace(_labelled(task, studies, file, data)[0], cases=())
    own = task.labelled((), file)
    if own is not None:
        return own
    table = read_labels(file, data)
    return Labelled((), table.findings, "", table.rows)


def _table_of_labels(task: Task, source: Source, data: DataSection) -> Path | None:
    """The table, for a task that has something to learn from one. Raises UsageError."""
    if task.reads_labels:
        return labels_file(source, data, task.labels_patterns)
    if source.labels is not None:
        raise UsageError(
            f"The task '{task.name}' reads no table of labels.",
            met=str(source.labels),
            wanted=f"a {task.reference} for each case",
            how="leave --labels out.",
        )
    return None


def labels_file(
    source: Source, data: DataSection, patterns: Sequence[str] = (LABELS_PATTERN,)
) -> Path | None:
    """The table that was named, else the one of the preset, else the one beside the scans."""
    if source.labels is not None:
        return source.labels
    if data.labels is not None:
        return data.labels
    for path in source.paths:
        folder = path if path.is_dir() else path.parent
        found = find_labels(folder, patterns) if folder.is_dir() else None
        if found is not None:
            return found
    return None


def keyed_patients(cases: Sequence[Case], data: DataSection) -> tuple[Case, ...]:
    """Cases whose patient id is what ``data.patient_key`` says tells patients apart."""
    if data.patient_key == "folder":
        return tuple(replace(case, patient_id=_top(case) or case.case_id) for case in cases)
    if data.patient_key == "case":
        return tuple(replace(case, patient_id=case.case_id) for case in cases)
    return tuple(cases)


def _top(case: Case) -> str:
    parts = PurePosixPath(case.folder.replace("\\", "/")).parts
    return parts[0] if parts else ""


def shared_patients(cases: Sequence[Case], *, by_share: bool = True) -> dict[str, str]:
    """Each patient id that implausibly many studies share, and why it is no patient's own.

    ``by_share``: also one that most of the studies have. Who is asked about one patient alone has
    nobody else's.
    """
    studies: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        studies[case.patient_id].append(case)
    found = {
        patient: _why_implausible(patient, same, len(cases) if by_share else None)
        for patient, same in sorted(studies.items())
    }
    return {patient: why for patient, why in found.items() if why}


def suspicious_patients(cases: Sequence[Case]) -> list[Finding]:
    """One finding for each patient id that implausibly many studies share."""
    return [
        Finding(
            PATIENT_ID_SHARED,
            f"'{patient}': {why}" if patient else f"an empty patient id: {why}",
            "warning",
        )
        for patient, why in shared_patients(cases).items()
    ]


def _why_implausible(patient: str, same: Sequence[Case], total: int | None) -> str:
    if len(same) < 2:
        return ""
    plain = "".join(character for character in patient.lower() if character.isalnum())
    if not plain or plain in PLACEHOLDERS:
        return f"no patient's own id, and {len(same)} studies share it"
    if len(same) > MOST_STUDIES_OF_ONE_PATIENT:
        return f"{len(same)} studies share it, more than one patient has"
    if total is None:
        return ""
    folders = {_top(case) for case in same} - {""}
    mostly = len(same) >= STUDIES_THAT_MAKE_A_SHARE and len(same) > LARGEST_SHARE * total
    if mostly and len(folders) == len(same):
        return f"{len(same)} of {total} studies share it, each in a folder of its own"
    return ""


def require_patients(cases: Sequence[Case], *, allow: Sequence[str] = ()) -> None:
    """Refuse to split when an id that is no patient's own would hold many patients together.

    ``allow`` holds ids that a person vouches for. Raises UsageError.
    """
    trusted = {name.removeprefix("patient=") for name in allow}
    shared = suspicious_patients([case for case in cases if case.patient_id not in trusted])
    if not shared:
        return
    raise UsageError(
        "Patients cannot be told apart, so that they cannot be split.",
        met="; ".join(finding.message for finding in shared),
        wanted="an id of its own for each patient",
        how="say what tells patients apart: --set data.patient_key=folder (one folder each) or "
        "--set data.patient_key=case (one study each); or vouch for an id: "
        "--allow-leak patient=ID.",
    )
