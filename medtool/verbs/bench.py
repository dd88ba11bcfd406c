"""``bench``: how fast a model is in every engine of this machine; nothing is judged."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtool.core.deployed import find_deployed
from medtool.core.errors import (
    CheckpointError,
    Interrupted,
    MedtoolError,
    OutputExistsError,
    UsageError,
)
from medtool.core.files import require_writable
from medtool.core.progress import Reporter, Silent
from medtool.data.machine import usable_cores
from medtool.data.run_folder import write_json
from medtool.data.scratch import Scratch
from medtool.verbs.infer import check_sources
from medtool.verbs.infer_model import answering_file

if TYPE_CHECKING:
    from medtool.optimize.bench import Benched, Candidate, Measured
    from medtool.optimize.memory import PeakMemory

RESULT_FILE = "bench.json"
FIGURE_FILE = "bench.svg"
BATCHES = (1, 8)
RUNS = 50


@dataclass(frozen=True)
class BenchOptions:
    """What is asked of ``bench``. ``models`` are checkpoints, runs, or optimised folders.

    ``sources`` are scans that are answered from file to file as well. ``engines`` () are all that
    are installed, ``threads`` () 1, 2, 4, ... up to those that this process may use, ``batches`` ()
    BATCHES, of which those are left out that a model does not take or that are too large for the
    memory of a usual machine.
    """

    models: tuple[Path, ...]
    sources: tuple[Path, ...] = ()
    engines: tuple[str, ...] = ()
    threads: tuple[int, ...] = ()
    batches: tuple[int, ...] = ()
    runs: int = RUNS
    memory: bool = True
    compiled: bool = True
    output: Path | None = None
    force: bool = False


@dataclass(frozen=True)
class BenchResult:
    """Rows of the network alone, rows from file to file, and the machine that they belong to.

    ``left_out`` says what was not measured, and why.
    """

    rows: tuple[dict[str, Any], ...]
    from_files: tuple[dict[str, Any], ...]
    machine: dict[str, Any]
    folder: Path | None = None
    left_out: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "machine": self.machine,
            "network": list(self.rows),
            "from_files": list(self.from_files),
            "left_out": list(self.left_out),
        }


def bench(options: BenchOptions, reporter: Reporter | None = None) -> BenchResult:
    """Time every way to compute the models, one after another; see docs/verbs/bench.md.

    Raises CheckpointError (no usable model), UnknownNameError (no such engine), MachineError (an
    engine that is asked for is not installed), UsageError (numbers that make no sense), InputError
    (no such scans).
    """
    from medtool.optimize.processor import processor_record

    reporter = reporter or Silent()
    threads = _checked(options)
    with Scratch() as scratch:
        benched = _models(options, scratch.path)
        batches, left_out = _batches(benched, options)
        left_out = [*_ways_left_out(benched, options), *left_out]
        for why in left_out:
            reporter.say(f"Not measured: {why}.")
        rows = _network_rows(benched, threads, batches, options, reporter)
        from_files = _file_rows(benched, options, scratch.path, reporter)
    result = BenchResult(
        tuple(rows), tuple(from_files), processor_record(), options.output, tuple(left_out)
    )
    if options.output is not None:
        _write(result, options.output)
    return result


def _checked(options: BenchOptions) -> tuple[int, ...]:
    """The numbers of threads; everything that can be refused at once is refused here."""
    from medtool.predict.engines.presence import require_engine

    for name in options.engines:
        require_engine(name)
    check_sources(options.sources)
    for what, numbers in (
        ("--threads", options.threads),
        ("--batch", options.batches),
        ("--runs", (options.runs,)),
    ):
        if any(number < 1 for number in numbers):
            raise UsageError(
                "Nothing can be measured with less than one.",
                met=f"{what} {min(numbers)}",
                wanted="1 or more",
            )
    if options.output is not None:
        made = [options.output / name for name in (RESULT_FILE, FIGURE_FILE)]
        if not options.force and any(file.exists() for file in made):
            raise OutputExistsError(
                "There is a benchmark already.",
                where=str(options.output),
                how="--force writes over it; -o OTHER keeps both.",
            )
        require_writable(options.output)
    return options.threads or thread_counts(usable_cores())


def thread_counts(most: int) -> tuple[int, ...]:
    """1, 2, 4, ... and ``most``."""
    powers = [2**n for n in range(most.bit_length()) if 2**n < most]
    return (*powers, most)


def _models(options: BenchOptions, scratch: Path) -> list[Benched]:
    from medtool.optimize.bench import ways_to_compute

    found = []
    for number, path in enumerate(options.models):
        own = scratch / f"model_{number}"
        own.mkdir()
        # The folds of a run answer together, as everywhere.
        file = answering_file((path,), own)[0] if find_deployed(path) is None else path
        found.append(
            ways_to_compute(
                file, own, engines=options.engines, compiled=options.compiled, named=path
            )
        )
    if not any(one.candidates for one in found):
        raise CheckpointError(
            "No engine that is asked for can compute this model.",
            where=", ".join(map(str, options.models)),
            met=", ".join(options.engines) or "no engine",
            how="leave --engine out; PyTorch needs the checkpoint, not an optimised folder.",
        )
    return found


def _batches(
    benched: Sequence[Benched], options: BenchOptions
) -> tuple[list[Sequence[int]], list[str]]:
    """How many images one call of each model answers, and which numbers are left out with why."""
    from medtool.optimize.measure import fitting_batches

    if options.batches:
        return [options.batches for _ in benched], []
    found = [fitting_batches(one.spec, BATCHES) for one in benched]
    left_out = dict.fromkeys(why for _, whys in found for why in whys)
    return [batches for batches, _ in found], list(left_out)


def _ways_left_out(benched: Sequence[Benched], options: BenchOptions) -> list[str]:
    """What this machine, or what was named, does not have."""
    from medtool.predict.engines import READERS
    from medtool.predict.engines.contract import PYTORCH
    from medtool.predict.engines.presence import engines_here

    ways = list(dict.fromkeys(why for one in benched for why in one.left_out))
    measured = {candidate.engine for one in benched for candidate in one.candidates}
    for engine in engines_here():
        asked = engine.name in options.engines or not options.engines
        if engine.name in measured or not asked:
            continue
        endings = " or ".join(ending for ending, names in READERS.items() if engine.name in names)
        if not engine.installed:
            ways.append(f"{engine.name}: not installed ({engine.install_line})")
        elif engine.name == PYTORCH:
            ways.append(f"{PYTORCH}: needs the checkpoint; name it beside the optimised folder")
        else:
            ways.append(
                f"{engine.name}: reads {endings}, which a folder of 'medtool optimize' may have"
            )
    return ways


def _network_rows(
    benched: Sequence[Benched],
    threads: Sequence[int],
    batches: Sequence[Sequence[int]],
    options: BenchOptions,
    reporter: Reporter,
) -> list[dict[str, Any]]:
    from medtool.optimize.bench import measure_all

    rows: list[dict[str, Any]] = []
    measured: list[Measured] = []
    each = zip(benched, batches, strict=True)
    total = sum(len(one.candidates) * len(threads) * len(own) for one, own in each)
    with reporter.progress("Measuring", total) as advance:
        for one, own in zip(benched, batches, strict=True):
            for fact in measure_all(one, threads=threads, batches=own, runs=options.runs):
                measured.append(fact)
                advance(1, fact.candidate.name)
    peaks = _peaks(benched, max(threads), options, reporter)
    baseline = baseline_seconds(measured)
    for fact in measured:
        rows.append(_row(fact, baseline.get((fact.threads, fact.batch)), peaks))
    return rows


def baseline_seconds(measured: Sequence[Measured]) -> dict[tuple[int, int], float]:
    """Seconds of what others are compared with, by threads and images: PyTorch of the first
    checkpoint that was named.
    """
    first = next((fact.candidate for fact in measured if fact.candidate.is_baseline), None)
    return {
        (fact.threads, fact.batch): fact.latency.median_s
        for fact in measured
        if fact.candidate is first and fact.latency is not None
    }


def _row(
    fact: Measured, baseline_s: float | None, peaks: dict[tuple[Path, str], dict[str, int]]
) -> dict[str, Any]:
    candidate, latency = fact.candidate, fact.latency
    row: dict[str, Any] = {
        "name": candidate.name,
        "engine": candidate.engine,
        "arithmetic": candidate.arithmetic,
        "way": candidate.way,
        "model": str(candidate.model),
        "file": candidate.file.name,
        "bytes": candidate.size_bytes,
        "threads": fact.threads,
        "batch": fact.batch,
    }
    if latency is None:
        return row | {"per_second": None, "why_not": fact.why_not}
    faster = None if baseline_s is None else round(baseline_s / latency.median_s, 3)
    plain = candidate.way != "compiled" and candidate.arithmetic != "bfloat16"
    peak = peaks.get((candidate.file, candidate.engine), {}) if plain else {}
    return row | latency.as_dict() | {"times_faster": faster, **peak}


def _peaks(
    benched: Sequence[Benched], threads: int, options: BenchOptions, reporter: Reporter
) -> dict[tuple[Path, str], dict[str, int]]:
    """Peak memory of each file in each engine, for one image."""
    if not options.memory:
        return {}
    found = {}
    ways = [(one, candidate) for one in benched for candidate in one.candidates]
    with reporter.progress("Measuring memory", len(ways)) as advance:
        for one, candidate in ways:
            if (peak := _peak(one, candidate, threads)) is not None:
                found[candidate.file, candidate.engine] = peak.as_dict()
            advance(1, candidate.name)
    return found


def _peak(one: Benched, candidate: Candidate, threads: int) -> PeakMemory | None:
    from medtool.optimize.measure import example_inputs

    if candidate.memory is None:
        return None
    try:
        return candidate.memory(example_inputs(one.spec, 1), threads)
    except (MedtoolError, RuntimeError):
        # Why it cannot compute stands in its row already; a process that was ended for its memory
        # is no reason to lose the times.
        return None


def _file_rows(
    benched: Sequence[Benched], options: BenchOptions, scratch: Path, reporter: Reporter
) -> list[dict[str, Any]]:
    """The whole way, from scans to the table, once in each engine with all threads."""
    if not options.sources:
        return []
    ways = [
        (candidate, candidate.answers_from)
        for one in benched
        for candidate in one.candidates
        if candidate.answers_from is not None
    ]
    rows = []
    with reporter.progress("From file to file", len(ways)) as advance:
        for number, (candidate, model) in enumerate(ways):
            rows.append(_answered(candidate, model, options, scratch / f"answers_{number}"))
            advance(1, candidate.name)
    return rows


def _answered(
    candidate: Candidate, model: Path, options: BenchOptions, output: Path
) -> dict[str, Any]:
    from medtool.predict.engines.contract import PYTORCH
    from medtool.verbs.infer import InferOptions, infer
    from medtool.verbs.options import RunOptions

    row: dict[str, Any] = {
        "name": candidate.name,
        "engine": candidate.engine,
        "arithmetic": candidate.arithmetic,
        "model": str(candidate.model),
        "file": candidate.file.name,
    }
    began = time.perf_counter()
    try:
        result = infer(
            InferOptions(
                sources=options.sources,
                checkpoint=model,
                output=output,
                allow_demo=True,
                engine="" if candidate.engine == PYTORCH else candidate.engine,
                # PyTorch computes in float32 there, and a file as it was made.
                run=RunOptions(device="cpu"),
            )
        )
    except Interrupted:
        # What it says of answers that are kept is not true here: they go with the scratch folder.
        raise KeyboardInterrupt from None
    except MedtoolError as error:
        return row | {"studies": 0, "answered": 0, "seconds": None, "why_not": error.what}
    seconds = time.perf_counter() - began
    studies = len(result.rows)
    return row | {
        "studies": studies,
        "answered": result.ok,
        "seconds": round(seconds, 3),
        "seconds_each": round(seconds / max(1, studies), 3),
    }


def _write(result: BenchResult, folder: Path) -> None:
    from medtool.report.bench_figure import bench_figure

    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / RESULT_FILE, result.as_dict())
    # Names of files may be wider than their panel.
    bench_figure(result.rows).savefig(
        folder / FIGURE_FILE, metadata={"Date": None}, bbox_inches="tight"
    )
