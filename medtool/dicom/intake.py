"""From paths to ``Intake``: find files, read headers, group, judge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

from medtool.core.progress import Reporter, Silent
from medtool.core.records import Finding, Skipped
from medtool.dicom.find import find_files
from medtool.dicom.group import group_images
from medtool.dicom.header import Header
from medtool.dicom.header_reader import read_header
from medtool.dicom.image import Image, images_of
from medtool.dicom.series import Intake, Series
from medtool.dicom.verdict import judge

# Fewer files are read sooner than a process starts.
FEWEST_FILES_A_WORKER = 5000
CHUNK_FILES = 250


def scan(paths: Sequence[Path], *, workers: int = 1, reporter: Reporter | None = None) -> Intake:
    """Every stack below ``paths`` with its verdict, and every file that belongs to none.

    Reads headers only, but for images at one position, whose pixels decide whether they are
    copies. The result does not depend on names, order of files or ``workers``. Raises InputError
    for a path that does not exist.
    """
    reporter = reporter or Silent()
    files, skipped = find_files([Path(path) for path in paths])
    images: list[Image] = []
    with reporter.progress("Reading headers", len(files)) as advance:
        for result in _read_all(files, workers):
            if isinstance(result, Skipped):
                skipped.append(result)
            else:
                images += result
            advance()
    series = [one for group in group_images(images) for one in judge(group)]
    series = _with_neighbours(series)
    return Intake(tuple(_with_keys(series)), tuple(skipped))


def read_images(path: Path) -> list[Image] | Skipped:
    """The images of one file, or why it has none."""
    header = read_header(path)
    return images_of(header) if isinstance(header, Header) else header


def _read_chunk(files: list[Path]) -> list[list[Image] | Skipped]:
    return [read_images(path) for path in files]


def _read_all(files: list[Path], workers: int) -> Iterator[list[Image] | Skipped]:
    if workers <= 1 or len(files) < 2 * FEWEST_FILES_A_WORKER:
        for path in files:
            yield read_images(path)
        return
    chunks = [files[k : k + CHUNK_FILES] for k in range(0, len(files), CHUNK_FILES)]
    with ProcessPoolExecutor(min(workers, len(files) // FEWEST_FILES_A_WORKER)) as pool:
        for results in pool.map(_read_chunk, chunks):
            yield from results


def _with_neighbours(series: list[Series]) -> list[Series]:
    """Warnings that need a look at more than one stack."""
    patients: dict[Path, set[str]] = {}
    unplaced: Counter[tuple[str, str]] = Counter()
    for one in series:
        patients.setdefault(one.folder, set()).add(one.patient_id)
        if {f.code for f in one.findings} & {"no-position", "invalid-geometry"}:
            unplaced[one.patient_id, one.uid] += len(one.planes)
    result = []
    for one in series:
        more = []
        if len(patients[one.folder]) > 1:
            text = f"the folder holds images of {len(patients[one.folder])} patients"
            more.append(Finding("several-patients", text, "warning"))
        lost = unplaced[one.patient_id, one.uid]
        if lost and one.geometry is not None:
            text = f"{lost} other images of this series have no usable position"
            more.append(Finding("unplaced-images", text, "warning"))
        result.append(replace(one, findings=(*one.findings, *more)) if more else one)
    return result


def _with_keys(series: list[Series]) -> list[Series]:
    """Stable keys, unique in this intake: the UID (or folder), numbered where several share it."""
    ordered = sorted(series, key=_order)
    totals = Counter(_stem(one) for one in ordered)
    seen: Counter[str] = Counter()
    keyed = []
    for one in ordered:
        stem = _stem(one)
        seen[stem] += 1
        keyed.append(replace(one, key=stem if totals[stem] == 1 else f"{stem}#{seen[stem]}"))
    return keyed


def _stem(one: Series) -> str:
    return one.uid or f"folder:{one.folder.as_posix()}"


def _order(one: Series) -> tuple[object, ...]:
    number = one.facts.get("number")
    first = one.planes[0]
    return (
        one.patient_id,
        one.study_uid,
        number if isinstance(number, int) else -1,
        one.uid,
        str(one.folder),
        str(one.facts.get("kernel")),
        -len(one.planes),
        first.sop_instance_uid,
        str(first.path),
        first.frame,
    )
