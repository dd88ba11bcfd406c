"""Which labels ``evaluate`` compares with, and how it reads them: as the model learned them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from medtool.config import resolve
from medtool.config.sections import DataSection
from medtool.core.checkpoint import find_checkpoint, read_header
from medtool.core.errors import LabelsError, PresetError, UnknownNameError, UsageError
from medtool.core.progress import Reporter
from medtool.core.records import Finding
from medtool.core.registry import load_task
from medtool.data.labels import LABELS_PATTERN, find_labels, read_labels
from medtool.data.matching import attach_labels
from medtool.verbs.evaluate_subjects import Subject, is_checkpoint

if TYPE_CHECKING:
    from medtool.verbs.evaluate import EvaluateOptions

# Settings that other verbs take by --set, and what evaluate has in their place.
OWN_OPTIONS = {
    "data.label_column": "--label-column NAME.",
    "data.id_column": "--id-column NAME.",
    "data.positive_values": "correct them or empty the cell (the values are those that the model "
    "was trained with), or name another column: --label-column NAME.",
}


@dataclass(frozen=True)
class Places:
    """Where data lie as medtool.toml says; where it is silent, in the working folder."""

    folder: Path = Path()
    labels: Path | None = None


def project_places(task_name: str) -> Places:
    """The places of a task, read as ``check`` and ``train`` read them.

    Raises PresetError for faults; of a task that is not installed medtool.toml says nothing.
    """
    try:
        task_class = load_task(task_name)
    except UnknownNameError:
        return Places()
    data = resolve(task_class, None).settings.data
    return Places(data.folder, data.labels)


def with_default_data(options: EvaluateOptions, reporter: Reporter) -> EvaluateOptions:
    """The options; where nothing but models was named and no data, with those of medtool.toml."""
    models = (*options.subjects, *options.checkpoints)
    if options.data is not None or not models or not all(map(is_checkpoint, options.subjects)):
        return options
    header = read_header(find_checkpoint(models[0])[0])
    folder = project_places(header.task).folder
    reporter.say(f"Data: {folder.resolve()}, as no --data was named.")
    return replace(options, data=folder)


def labels_by_default(
    data: Path | None, task_name: str, patterns: Sequence[str] = (LABELS_PATTERN,)
) -> Path | None:
    """The table that belongs to ``data``, or to the data of medtool.toml where none are named.

    The table that medtool.toml names is that of its own folder: elsewhere ids of other patients
    may look alike. Raises LabelsError where several lie beside the scans.
    """
    try:
        places = project_places(task_name)
    except PresetError:
        # Faults of what is not used end nothing.
        if data is None:
            raise
        places = Places()
    folder = places.folder if data is None else data
    if places.labels is not None and folder.resolve() == places.folder.resolve():
        return places.labels
    return find_labels(folder, patterns) if folder.is_dir() else None


def as_asked(data: DataSection, columns: DataSection) -> DataSection:
    """``data`` with what ``columns`` states in place of it."""
    stated = {key: getattr(columns, key) for key in columns.model_fields_set}
    return data.model_copy(
        update={key: value for key, value in stated.items() if value is not None}
    )


def how_read(subjects: Sequence[Subject], columns: DataSection) -> list[DataSection]:
    """How each of ``subjects`` wants labels to be read.

    What one that does not say it answered is compared by the labels of one that does.
    """
    known = [subject.data() for subject in subjects]
    otherwise = next((data for data in known if data is not None), DataSection())
    return [as_asked(otherwise if data is None else data, columns) for data in known]


@contextmanager
def in_own_words() -> Iterator[None]:
    """Refusals of labels name options of ``evaluate``, which has no --set."""
    try:
        yield
    except LabelsError as error:
        error.how = next((own for key, own in OWN_OPTIONS.items() if key in error.how), error.how)
        raise


def labelled(
    subject: Subject, data: DataSection, options: EvaluateOptions
) -> tuple[Subject, list[Finding]]:
    """The subject with labels of the table that was named, else of its own, else by default.

    Raises UsageError where there are none, LabelsError.
    """
    carried = any(row.case.label is not None for row in subject.rows)
    path = options.labels
    if path is None and (options.data is not None or not carried):
        path = labels_by_default(options.data, subject.known_task_name)
    if path is None:
        if carried:
            return subject, []
        raise UsageError(
            "There are no labels to compare with.",
            where=subject.name,
            wanted="a table with an id and a label for each case",
            how="--labels FILE.",
        )
    with in_own_words():
        attached = attach_labels(subject.cases, read_labels(path, data))
    known = {case.case_id: case for case in attached.cases}
    rows = tuple(replace(row, case=known[row.case.case_id]) for row in subject.rows)
    return replace(subject, rows=rows, cases=attached.cases), list(attached.findings)
