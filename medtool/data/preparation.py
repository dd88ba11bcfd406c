"""Preparing many cases: one at a time in each worker, each failure its own.

Only facts come back from the workers (``medtool.data.pool``); arrays go to the cache.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medtool.core.progress import Reporter, Silent
from medtool.core.records import Case, CaseStatus
from medtool.data.cache import Cache
from medtool.data.estimate import Estimate, case_weight, estimate
from medtool.data.machine import require_disk, sensible_workers
from medtool.data.pool import LOST_CODES, Stop, WorkerPool
from medtool.data.worker import Answer, prepare_in_worker, prepare_one

if TYPE_CHECKING:
    from medtool.core.task import Task

DEFAULT_CASE_TIMEOUT_S = 600.0
# The first case of a worker also pays for its imports; after this long they do not matter.
WARM_UP_S = 5.0
# How many cases a stream prepares beyond the one that is wanted, for each worker.
AHEAD_OF_STREAM = 2


@dataclass(frozen=True)
class CaseDone:
    """What became of one case; ``path`` is its file in the cache when ``status`` is ok.

    ``reading_s`` is the part of ``seconds`` in which pixels were read.
    """

    case: Case
    status: CaseStatus
    path: Path | None = None
    code: str = ""
    message: str = ""
    seconds: float = 0.0
    reading_s: float = 0.0
    repaired: bool = False
    rebuilt: bool = False
    reused: bool = False
    stored_bytes: int = 0
    peak_bytes: int = 0


@dataclass(frozen=True)
class CaseFailure:
    """A case without a prepared file, and why."""

    case_id: str
    status: CaseStatus
    code: str
    message: str

    def as_dict(self) -> dict[str, str]:
        """Plain values, named as in predictions.csv."""
        return {
            "case": self.case_id,
            "status": self.status,
            "code": self.code,
            "message": self.message,
        }


@dataclass(frozen=True)
class PreparationReport:
    """What a preparation came to; ``paths`` holds every case that is ready."""

    paths: dict[str, Path]
    failures: tuple[CaseFailure, ...]
    seconds: float
    workers: int
    repaired: tuple[str, ...] = ()
    rebuilt: tuple[str, ...] = ()
    reused: tuple[str, ...] = ()
    estimate: Estimate | None = None
    stored_bytes: int = 0
    peak_worker_bytes: int = 0
    stopped: bool = False


def prepare_cases(
    task: Task,
    cases: Sequence[Case],
    cache: Cache,
    *,
    workers: int | None = None,
    case_timeout_s: float = DEFAULT_CASE_TIMEOUT_S,
    reporter: Reporter | None = None,
    stop: Stop | None = None,
) -> PreparationReport:
    """Prepare what is missing; a case that fails is told at the end and stops nothing.

    ``workers`` 0 prepares in this process (then nothing can enforce the timeout), None takes what
    cores and memory allow. As soon as a case was measured, seconds and disk for the rest are
    estimated and said; MachineError is raised when the disk will not do. ``stop`` is asked several
    times a second and ends the preparation tidily; so does Ctrl-C. What is done is kept.
    """
    reporter = reporter or Silent()
    started = time.perf_counter()
    count = workers_for(cases, workers)
    collected = _Collected(cases, cache, count)
    stream = prepare_stream(
        task,
        _pilot_first(cases, cache),
        cache,
        workers=count,
        case_timeout_s=case_timeout_s,
        reporter=reporter,
        stop=stop,
        ahead=len(cases),
    )
    with reporter.progress("Preparing", len(cases)) as advance:
        for done in stream:
            collected.take(done, reporter)
            advance(1, done.case.case_id)
    report = collected.report(time.perf_counter() - started)
    for failure in report.failures:
        reporter.warn(f"{failure.case_id}: {failure.status}, {failure.code}: {failure.message}")
    return report


def workers_for(cases: Sequence[Case], workers: int | None) -> int:
    """``workers`` as given, else what cores and memory allow for the largest case."""
    if workers is not None:
        return workers
    return sensible_workers(max((case_weight(case).memory_bytes for case in cases), default=0))


def _pilot_first(cases: Sequence[Case], cache: Cache) -> list[Case]:
    """The cases, a middling one of those that are missing first: it tells how long all take."""
    missing = sorted(
        (case for case in cases if not cache.has(case)), key=lambda c: case_weight(c).work
    )
    if not missing:
        return list(cases)
    pilot = missing[len(missing) // 2]
    return [pilot, *(case for case in cases if case is not pilot)]


class _Collected:
    """The report of ``prepare_cases`` while it grows."""

    def __init__(self, cases: Sequence[Case], cache: Cache, workers: int) -> None:
        self._cases = cases
        self._cache = cache
        self._workers = workers
        # As it was at the start: the estimate does not depend on who was quick.
        self._missing = [case for case in cases if not cache.has(case)]
        self._done: dict[str, CaseDone] = {}
        self._estimate: Estimate | None = None
        self._fresh = 0

    def take(self, done: CaseDone, reporter: Reporter) -> None:
        """Add one case; the first new one that no worker had to warm up for gives the estimate."""
        self._done[done.case.case_id] = done
        if done.status != "ok" or done.reused:
            return
        self._fresh += 1
        warm = self._fresh > self._workers or done.seconds > WARM_UP_S
        if self._estimate is not None or not warm:
            return
        missing = [case for case in self._missing if case.case_id not in self._done]
        self._estimate = estimate(
            done.case, done.seconds, done.stored_bytes, missing, self._workers, self._cache.folder
        )
        if missing:
            reporter.say(self._estimate.text())
            require_disk(
                self._estimate.cache_bytes,
                self._cache.folder,
                what="the prepared cases",
                how="free some space, or name another folder with --cache.",
            )

    def report(self, seconds: float) -> PreparationReport:
        """The whole, in the order of the cases."""
        done = [self._done[c.case_id] for c in self._cases if c.case_id in self._done]
        return PreparationReport(
            paths={d.case.case_id: d.path for d in done if d.path is not None},
            failures=tuple(
                CaseFailure(d.case.case_id, d.status, d.code, d.message)
                for d in done
                if d.path is None
            ),
            seconds=seconds,
            workers=self._workers,
            repaired=tuple(d.case.case_id for d in done if d.repaired),
            rebuilt=tuple(d.case.case_id for d in done if d.rebuilt),
            reused=tuple(d.case.case_id for d in done if d.reused and d.path is not None),
            estimate=self._estimate,
            stored_bytes=sum(d.stored_bytes for d in done),
            peak_worker_bytes=max((d.peak_bytes for d in done), default=0),
            stopped=len(done) < len(self._cases),
        )


def preparing_pool(
    task: Task, cache: Cache, *, workers: int, case_timeout_s: float = DEFAULT_CASE_TIMEOUT_S
) -> WorkerPool:
    """Workers that prepare cases into ``cache``, none of them started yet."""
    return WorkerPool(task, cache, prepare_in_worker, workers=workers, timeout_s=case_timeout_s)


def prepare_stream(
    task: Task,
    cases: Sequence[Case],
    cache: Cache,
    *,
    workers: int,
    case_timeout_s: float = DEFAULT_CASE_TIMEOUT_S,
    reporter: Reporter | None = None,
    stop: Stop | None = None,
    ahead: int | None = None,
    pool: WorkerPool | None = None,
) -> Generator[CaseDone, None, None]:
    """What became of each case, in their order, while workers prepare those that follow.

    At most ``ahead`` cases beyond the one that is wanted are begun (two a worker by default), so
    that disk and memory stay flat. Closing the iterator ends the workers. ``pool`` has them where
    they were started before (``preparing_pool``). Raises MachineError.
    """
    reporter = reporter or Silent()
    cache.open()
    if workers == 0:
        answers = _in_this_process(task, cases, cache, stop)
    else:
        if pool is None:
            pool = preparing_pool(task, cache, workers=workers, case_timeout_s=case_timeout_s)
        limit = ahead if ahead is not None else AHEAD_OF_STREAM * workers
        answers = pool.run(
            cases, ahead=limit, stop=stop, present=lambda case: _present(cache, case)
        )
    for case, answer in answers:
        if answer.code in LOST_CODES:
            # The worker is dead; what it could not write down is written here.
            cache.record(case.case_id, "failed", code=answer.code, message=answer.message)
        if answer.rebuilt:
            reporter.warn(f"{case.case_id}: its file in the cache was damaged and was made again")
        path = cache.path(case) if answer.status == "ok" else None
        yield CaseDone(
            case=case,
            status=answer.status,
            path=path,
            code=answer.code,
            message=answer.message,
            seconds=answer.seconds,
            reading_s=answer.reading_s,
            repaired=answer.repaired,
            rebuilt=answer.rebuilt,
            reused=answer.reused,
            stored_bytes=answer.stored_bytes,
            peak_bytes=answer.peak_bytes,
        )


def _present(cache: Cache, case: Case) -> Answer | None:
    """The answer for a case that needs no worker: whole in the cache, or known to be refused.

    Nothing is written, so that a cache that others own can be read.
    """
    if cache.has(case):
        stored_bytes = cache.path(case).stat().st_size
        return Answer("ok", reused=True, stored_bytes=stored_bytes) if cache.sound(case) else None
    refusal = cache.refusal(case)
    if refusal is None:
        return None
    return Answer("refused", refusal.code, refusal.message, reused=True)


def _in_this_process(
    task: Task, cases: Sequence[Case], cache: Cache, stop: Stop | None
) -> Iterator[tuple[Case, Answer]]:
    for case in cases:
        if stop is not None and stop():
            return
        yield case, _present(cache, case) or prepare_one(task, cache, case)
