"""``infer``: scans in, a table of answers out, whatever a single study does."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from medtool.config import changed_task
from medtool.config.places import known_task
from medtool.core.checkpoint import CheckpointHeader, read_header
from medtool.core.ensemble import member_header, members_of
from medtool.core.errors import (
    CaseRefused,
    ExitStatus,
    GateError,
    InputError,
    Interrupted,
    UsageError,
)
from medtool.core.files import nearest_path
from medtool.core.names import counted
from medtool.core.progress import Reporter, Silent, tell
from medtool.core.records import Case, Cohort, RefusedStudy
from medtool.data.archive import is_archive, unpack
from medtool.data.cohort import keyed_patients, shared_patients
from medtool.data.locks import alone
from medtool.data.predictions import typed_rows
from medtool.data.scratch import Scratch
from medtool.data.told_apart import refused_archives
from medtool.verbs.infer_model import answering_file, require_machine, warn_of_promises
from medtool.verbs.infer_output import (
    Output,
    OutputPlace,
    clear,
    count_studies,
    guard,
    whole_run,
)
from medtool.verbs.infer_rows import RowMaker
from medtool.verbs.infer_said import ANSWERS_SAID, say_study, say_warnings
from medtool.verbs.options import RunOptions, timeout_of

if TYPE_CHECKING:
    from medtool.core.task import Task
    from medtool.data.pool import WorkerPool
    from medtool.predict.cases import CaseOutcome
    from medtool.predict.model import Model


# Of a preset, the keys that say how a trained model answers.
ANSWERING_KEYS = "infer."
# Of the scratch folder, where no other cache is named.
CACHE = "cache"


@dataclass(frozen=True)
class InferOptions:
    """What is asked of ``infer``; ``pseudonymise`` names the key file.

    ``more_checkpoints`` answer together with ``checkpoint``.
    """

    sources: tuple[Path, ...]
    checkpoint: Path
    output: Path
    more_checkpoints: tuple[Path, ...] = ()
    by: Literal["case", "patient"] | None = None
    overlays: bool = False
    dicom_seg: bool = False
    # Keys of [infer] in place of those that the model was trained with, ``infer.step=1.0``.
    assignments: Sequence[str] = ()
    pseudonymise: Path | None = None
    allow_demo: bool = False
    resume: bool = False
    force: bool = False
    series: Path | None = None
    case_timeout_s: float | None = None
    # What computes: for optimised models one of their engines, or auto.
    engine: str = ""
    # Patients that are not answered for: evaluate leaves out those seen in training.
    without_patients: frozenset[str] = frozenset()
    run: RunOptions = field(default_factory=RunOptions)
    command: str = ""


@dataclass(frozen=True)
class InferResult:
    """Where the answers are, and how many studies gave one; ``cases`` are those it found."""

    table: Path
    folder: Path
    ok: int
    refused: int
    failed: int
    rows: tuple[Mapping[str, Any], ...]
    cases: tuple[Case, ...] = ()

    @property
    def status(self) -> ExitStatus:
        """0 when all gave an answer, 1 when some did, 3 when none did."""
        if self.ok and not (self.refused or self.failed):
            return ExitStatus.DONE
        return ExitStatus.SOME_CASES_FAILED if self.ok else ExitStatus.NO_INPUT


def infer(options: InferOptions, reporter: Reporter | None = None) -> InferResult:
    """Answer for every study under ``options.sources``; see docs/outputs.md for the files.

    One study that fails is a row, never the end. Raises UsageError and its kinds for wrong
    options, InputError when there is nothing to read at all, GateError when a model of synthetic
    data meets patients, MachineError for devices and disks, Interrupted after Ctrl-C.
    """
    check_sources(options.sources)
    _check_assignments(options.assignments)
    with Scratch() as scratch:
        paths = (options.checkpoint, *options.more_checkpoints)
        file, found = answering_file(paths, scratch.path, options.engine)
        whole = replace(options, checkpoint=file, more_checkpoints=())
        return _infer(whole, found, scratch, reporter or Silent())


def _infer(options: InferOptions, found: str, scratch: Scratch, reporter: Reporter) -> InferResult:
    """As ``infer``, by one file; ``found`` says which it is."""
    started = time.perf_counter()
    place = OutputPlace.of(options.output)
    # The header reads without torch: a wrong name is refused, and a right one said, at once.
    file = options.checkpoint
    header = read_header(file)
    if options.resume and not options.force:
        task = _task_of(header, options)
        whole = whole_run(place, options, task)
        if whole is not None:
            reporter.say(
                f"{place.table} is whole already: nothing to do. Studies that were added since "
                "are not answered; --force starts anew."
            )
            return _result(typed_rows(whole.rows, task.columns), whole.studies, place, place.table)
    guard(place, force=options.force, resume=options.resume)
    reporter.say(f"Model: {found}; task {header.task}.")
    require_machine(file, _task_of(header, options), options.run, options.engine)
    sources, broken = _unpacked(options.sources, scratch.path)
    cohort = _find(_task_of(header, options), sources, options)
    # Else nobody knew the names in the table.
    tell([finding for finding in cohort.findings if finding.code == "names-shared"], reporter)
    refused = (*refused_archives(broken, cohort), *cohort.refused)
    # Refused studies share an id as well; an archive is no study.
    studies = [Case(s.case_id, s.patient_id, s.study_uid, {}) for s in cohort.refused]
    shared = shared_patients([*cohort.cases, *studies], by_share=False)
    if not cohort.cases and not refused:
        raise _nothing_found(options.sources, cohort)
    with _early_workers(header, cohort.cases, scratch.path, options) as pool:
        model = _model(options, reporter)
        _demo_gate(model, cohort.cases, allowed=options.allow_demo)
        maker = RowMaker(model, options, place, shared)
        if maker.new_key:
            reporter.warn(f"A new key was written to {maker.new_key}: keep it, and keep it secret.")
        maker.check_pooling()
        maker.check_dicom()
        maker.say_shared(reporter)
        startup_s = time.perf_counter() - started
        with alone(place.folder):
            if options.force:
                clear(place)
            output = Output(place, maker.identity())
            run = _Run(model, options, maker, output, scratch.path, startup_s, pool)
            try:
                return _answer_all(run, cohort, refused, reporter)
            finally:
                output.close()


def _task_of(header: CheckpointHeader, options: InferOptions) -> Task:
    """The task that finds and prepares cases, without torch; of several models the first's."""
    members = members_of(header)
    one = member_header(header, members[0]) if members else header
    return changed_task(known_task(one), options.assignments)


def _model(options: InferOptions, reporter: Reporter) -> Model:
    from medtool.nets.device import warn_of_precision
    from medtool.predict.engines.contract import AUTO_ENGINE
    from medtool.predict.model import load_model

    precision = options.run.precision or "auto"
    model = load_model(
        options.checkpoint,
        device=options.run.device,
        precision=precision,
        assignments=options.assignments,
        engine=options.engine,
    )
    if model.engine is not None:
        reporter.say(f"Engine: {model.found}.")
    else:
        warn_of_precision(precision, model.device, reporter)
    # Of auto every candidate was proved.
    warn_of_promises(model, reporter, proved=options.engine == AUTO_ENGINE)
    reporter.say(f"Answering on {model.computed_on}.")
    return model


@contextmanager
def _early_workers(
    header: CheckpointHeader, cases: Sequence[Case], scratch: Path, options: InferOptions
) -> Iterator[WorkerPool | None]:
    """Processes that import what preparing needs while this one imports torch.

    None where that is not known to help: several models may prepare in several ways, a kept cache
    may hold everything.
    """
    from medtool.data.cache import Cache
    from medtool.data.preparation import preparing_pool, workers_for

    count = workers_for(cases, options.run.workers)
    if count == 0 or options.run.cache is not None or members_of(header):
        yield None
        return
    task = _task_of(header, options)
    pool = preparing_pool(
        task,
        Cache(scratch / CACHE, task),
        workers=count,
        case_timeout_s=timeout_of(options.case_timeout_s, task),
    )
    pool.warm(len(cases))
    try:
        yield pool
    finally:
        pool.close()


@dataclass(frozen=True)
class _Run:
    model: Model
    options: InferOptions
    maker: RowMaker
    output: Output
    scratch: Path
    startup_s: float
    pool: WorkerPool | None


def check_sources(sources: Sequence[Path]) -> None:
    """Raises InputError for the first that does not exist."""
    for source in sources:
        if not source.exists():
            raise InputError(
                "There is nothing by this name.",
                where=str(source),
                wanted="a folder, a file or a zip archive with scans",
                nearest=nearest_path(source),
            )


def _check_assignments(assignments: Sequence[str]) -> None:
    """What was learned cannot be changed any more, only how it is asked."""
    for assignment in assignments:
        if not assignment.startswith(ANSWERING_KEYS):
            raise UsageError(
                "A model that was trained only lets itself be asked in another way.",
                met=f"--set {assignment}",
                wanted=f"a key of [{ANSWERING_KEYS.rstrip('.')}], as {ANSWERING_KEYS}step=0.75",
                how="other keys belong to 'medtool train'.",
            )


def _unpacked(
    sources: Sequence[Path], scratch: Path
) -> tuple[tuple[Path, ...], tuple[tuple[Path, CaseRefused], ...]]:
    """Sources with archives unpacked, and each archive that cannot be, with the reason."""
    archives = {source.resolve(): source for source in sources if is_archive(source)}
    unpacked: dict[Path, Path] = {}
    refused: list[tuple[Path, CaseRefused]] = []
    alike: Counter[tuple[str, str]] = Counter()
    # Each as the folder that it would be beside its file, in an order of their own: the names of
    # cases come from there, and neither the order of the sources nor a broken one changes them.
    for number, (place, source) in enumerate(sorted(archives.items())):
        own = (place.parent.name, source.stem)
        beside = f"{own[0]}-{alike[own] + 1}" if alike[own] else own[0]
        try:
            unpacked[place] = unpack(source, scratch / f"archive-{number}" / beside / source.stem)
            alike[own] += 1
        except CaseRefused as error:
            if len(sources) == 1:
                raise
            refused.append((source, error))
    places = [(source.resolve(), source) for source in sources]
    folders = [unpacked.get(at, one) for at, one in places if at in unpacked or at not in archives]
    return tuple(folders), tuple(refused)


def _find(task: Task, sources: tuple[Path, ...], options: InferOptions) -> Cohort:
    if not sources:
        return Cohort(cases=(), intake={"series": [], "skipped": []})
    from medtool.data.series_table import source_of
    from medtool.data.told_apart import find_cases

    cohort = find_cases(task, source_of(sources, series=options.series))
    cases = keyed_patients(cohort.cases, task.settings.data)
    kept = tuple(case for case in cases if case.patient_id not in options.without_patients)
    return replace(cohort, cases=kept)


def _nothing_found(sources: Sequence[Path], cohort: Cohort) -> InputError:
    skipped = cohort.intake.get("skipped", [])
    whys = Counter(f"{item['code']}: {item['why']}" for item in skipped)
    seen = "; ".join(f"{counted(number, 'file')}, {why}" for why, number in whys.items())
    return InputError(
        "There is no study here that can be read.",
        where=", ".join(str(source) for source in sources),
        met=seen or "no files",
        wanted="DICOM series, NIfTI files or a zip archive of them",
        how="'medtool check TASK FOLDER' says of every file what it is.",
    )


def _demo_gate(model: Model, cases: Sequence[Case], *, allowed: bool) -> None:
    patients = [case for case in cases if not case.facts.get("synthetic")]
    if model.synthetic and patients and not allowed:
        raise GateError(
            "This model learned from synthetic scans and knows nothing of patients.",
            where=str(model.path),
            met=f"not synthetic: {counted(len(patients), 'study', 'studies')}, "
            f"{patients[0].case_id} first",
            wanted="a model trained on patients' scans",
            how="--allow-demo lets it answer all the same; its answers mean nothing.",
        )


def _answer_all(
    run: _Run, cohort: Cohort, refused: Sequence[RefusedStudy], reporter: Reporter
) -> InferResult:
    maker, output = run.maker, run.output
    order = [maker.key(study.case_id) for study in refused]
    for study in refused:
        if maker.key(study.case_id) not in output.done:
            entry = maker.refused_entry(study)
            output.add(entry)
            say_study(entry["row"], maker.columns, reporter, many=False)
    order += [maker.key(case.case_id) for case in cohort.cases]
    waiting = [case for case in cohort.cases if maker.key(case.case_id) not in output.done]
    many = len(order) > ANSWERS_SAID
    try:
        with reporter.progress("Studies", len(waiting)) as advance:
            # References have no say in an answer, and a bad one must not stop it.
            asked = [replace(case, references={}) for case in waiting]
            for outcome in _outcomes(run, asked, reporter):
                entry = maker.entry(outcome)
                output.add(entry)
                say_study(entry["row"], maker.columns, reporter, many=many)
                advance()
    except KeyboardInterrupt:
        output.write_tables(*maker.tables(output.entries(order)), maker.columns)
        raise Interrupted(
            f"Interrupted; {len(output.done)} of {len(order)} studies are done and kept.",
            where=str(output.place.folder),
            how="the same command with --continue finishes the rest.",
        ) from None
    entries = output.entries(order)
    rows, elements = maker.tables(entries)
    table = output.write_tables(rows, elements, maker.columns)
    if table != output.place.table:
        reporter.warn(f"{output.place.table} is open elsewhere; the table is {table}.")
    if many:
        say_warnings(rows, reporter)
    studies = [entry["row"] for entry in entries]
    output.finish(maker.record(output, studies, cohort.intake, startup_s=run.startup_s))
    return _result(rows, count_studies(studies), output.place, table, cohort.cases)


def _outcomes(run: _Run, cases: Sequence[Case], reporter: Reporter) -> Iterator[CaseOutcome]:
    from medtool.data.cache import Cache
    from medtool.data.preparation import workers_for
    from medtool.predict.cases import predict_cases

    options = run.options
    kept = options.run.cache
    cache = Cache(kept or run.scratch / CACHE, run.model.task)
    return predict_cases(
        run.model,
        cases,
        cache=cache,
        workers=workers_for(cases, options.run.workers),
        case_timeout_s=timeout_of(options.case_timeout_s, run.model.task),
        reporter=reporter,
        keep_prepared=kept is not None,
        pool=run.pool,
    )


def _result(
    rows: Sequence[Mapping[str, Any]],
    studies: Mapping[str, int],
    place: OutputPlace,
    table: Path,
    cases: tuple[Case, ...] = (),
) -> InferResult:
    return InferResult(table=table, folder=place.folder, rows=tuple(rows), cases=cases, **studies)
