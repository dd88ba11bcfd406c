"""Preparing many cases: a process a worker, one case at a time, each failure its own.

Each worker is a ``concurrent.futures`` executor of one process, so that killing what hangs, or
losing what the system kills, breaks the future of one case and nothing else. Processes are
spawned on every system alike. Only facts come back; arrays go to the cache.
"""

from __future__ import annotations

import os
import pickle
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

from medtool.core.errors import MachineError
from medtool.core.progress import Reporter, Silent
from medtool.core.records import Case, CaseStatus
from medtool.data.cache import Cache
from medtool.data.estimate import Estimate, case_weight, estimate, require_disk
from medtool.data.machine import sensible_workers, usable_cores
from medtool.data.worker import Answer, begin, prepare_in_worker, prepare_one, process_id

if TYPE_CHECKING:
    from medtool.core.task import Task

Stop = Callable[[], bool]

DEFAULT_CASE_TIMEOUT_S = 600.0
# How long the parent waits before it looks at timeouts and ``stop`` again.
POLL_S = 0.2
# How many cases a stream prepares beyond the one that is wanted, for each worker.
AHEAD_OF_STREAM = 2


@dataclass(frozen=True)
class CaseDone:
    """What became of one case; ``path`` is its file in the cache when ``status`` is ok."""

    case: Case
    status: CaseStatus
    path: Path | None = None
    code: str = ""
    message: str = ""
    seconds: float = 0.0
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
    cores and memory allow. After the first new case, seconds and disk for the rest are estimated
    and said; MachineError is raised when the disk will not do. ``stop`` is asked several times a
    second and ends the preparation tidily; so does Ctrl-C. What is done is kept in either case.
    """
    reporter = reporter or Silent()
    started = time.perf_counter()
    count = _workers_for(cases, workers)
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


def _workers_for(cases: Sequence[Case], workers: int | None) -> int:
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

    def take(self, done: CaseDone, reporter: Reporter) -> None:
        """Add one case; the first new one gives the estimate."""
        self._done[done.case.case_id] = done
        if self._estimate is not None or done.status != "ok" or done.reused:
            return
        missing = [case for case in self._missing if case is not done.case]
        self._estimate = estimate(
            done.case, done.seconds, done.stored_bytes, missing, self._workers, self._cache.folder
        )
        if missing:
            reporter.say(self._estimate.text())
            require_disk(self._estimate, self._cache.folder)

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
) -> Iterator[CaseDone]:
    """What became of each case, in their order, while workers prepare those that follow.

    At most ``ahead`` cases beyond the one that is wanted are begun (two a worker by default), so
    that disk and memory stay flat. Closing the iterator ends the workers. Raises MachineError.
    """
    reporter = reporter or Silent()
    cache.open()
    if workers == 0:
        answers = _in_this_process(task, cases, cache, stop)
    else:
        limit = ahead if ahead is not None else AHEAD_OF_STREAM * workers
        pool = _Pool(task, cache, workers=min(workers, len(cases) or 1), timeout_s=case_timeout_s)
        answers = pool.run(cases, limit, stop)
    for case, answer in answers:
        if answer.rebuilt:
            reporter.warn(f"{case.case_id}: its file in the cache was damaged and was made again")
        path = cache.path(case) if answer.status == "ok" else None
        yield CaseDone(case=case, path=path, **answer.__dict__)


def _in_this_process(
    task: Task, cases: Sequence[Case], cache: Cache, stop: Stop | None
) -> Iterator[tuple[Case, Answer]]:
    for case in cases:
        if stop is not None and stop():
            return
        yield case, prepare_one(task, cache, case)


@dataclass
class _Lane:
    """One worker process, started when there is work, and the case it is at."""

    executor: ProcessPoolExecutor | None = None
    pid: Future[int] | None = None
    answer: Future[Answer] | None = None
    index: int = -1
    since: float = field(default=0.0)

    @property
    def busy(self) -> bool:
        return self.answer is not None

    def kill(self) -> None:
        """End the process at once, whatever it does."""
        if self.executor is None:
            return
        if self.pid is not None and self.pid.done() and self.pid.exception() is None:
            with suppress(OSError):
                os.kill(self.pid.result(), getattr(signal, "SIGKILL", signal.SIGTERM))
        self.executor.shutdown(wait=True, cancel_futures=True)
        self.executor = self.pid = self.answer = None


class _Pool:
    """Workers that prepare cases and are replaced when they die."""

    def __init__(self, task: Task, cache: Cache, *, workers: int, timeout_s: float) -> None:
        self._cache = cache
        self._lanes = [_Lane() for _ in range(workers)]
        self._timeout_s = timeout_s
        self._threads = max(1, usable_cores() // workers)
        self._pickled = pickle.dumps((task, cache))

    def run(
        self, cases: Sequence[Case], ahead: int, stop: Stop | None
    ) -> Iterator[tuple[Case, Answer]]:
        """Answers in the order of the cases."""
        answers: dict[int, Answer] = {}
        begun = 0
        try:
            for wanted, case in enumerate(cases):
                while True:
                    begun = self._begin(cases, begun, wanted + ahead, answers)
                    if wanted in answers:
                        break
                    if stop is not None and stop():
                        return
                    self._collect(cases, answers)
                yield case, answers.pop(wanted)
        finally:
            for lane in self._lanes:
                lane.kill()

    def _begin(
        self, cases: Sequence[Case], begun: int, last: int, answers: dict[int, Answer]
    ) -> int:
        """Give idle lanes work up to the case ``last``; what is in the cache needs no lane."""
        for lane in self._lanes:
            while not lane.busy and begun < len(cases) and begun <= last:
                present = self._present(cases[begun])
                if present is not None:
                    answers[begun] = present
                else:
                    self._start(lane, begun, cases[begun])
                begun += 1
        return begun

    def _present(self, case: Case) -> Answer | None:
        path = self._cache.path(case)
        if not path.is_file() or not self._cache.sound(case):
            return None
        return Answer("ok", reused=True, stored_bytes=path.stat().st_size)

    def _start(self, lane: _Lane, index: int, case: Case) -> None:
        if lane.executor is None:
            lane.executor = ProcessPoolExecutor(
                1,
                mp_context=get_context("spawn"),
                initializer=begin,
                initargs=(self._threads, self._pickled),
            )
            lane.pid = lane.executor.submit(process_id)
        lane.index, lane.since = index, 0.0
        try:
            lane.answer = lane.executor.submit(prepare_in_worker, case)
        except BrokenProcessPool:
            # It died between two cases, so this one has lost nothing: a fresh process takes it.
            lane.kill()
            self._start(lane, index, case)

    def _collect(self, cases: Sequence[Case], answers: dict[int, Answer]) -> None:
        """Wait a moment; take what is finished, give up what is broken or too late."""
        busy = [lane for lane in self._lanes if lane.answer is not None]
        waiting = {lane.answer for lane in busy if lane.answer is not None}
        wait(waiting, timeout=POLL_S, return_when=FIRST_COMPLETED)
        now = time.monotonic()
        for lane in busy:
            if lane.answer is not None and lane.answer.done():
                answers[lane.index] = self._answer(lane, cases[lane.index])
            elif lane.pid is not None and lane.pid.done() and not lane.since:
                # The clock starts when the process is up, not while it imports.
                lane.since = now
            elif lane.since and now - lane.since > self._timeout_s:
                lane.kill()
                message = f"not ready after {self._timeout_s:g} s; given up"
                answers[lane.index] = self._failure(
                    cases[lane.index], "case-timeout", message, self._timeout_s
                )

    def _answer(self, lane: _Lane, case: Case) -> Answer:
        future, lane.answer = lane.answer, None
        if future is None or lane.pid is None:
            raise RuntimeError("a lane without work was asked for an answer")
        try:
            return future.result()
        except BrokenProcessPool as error:
            started = lane.pid.done() and lane.pid.exception() is None
            seconds = time.monotonic() - lane.since if lane.since else 0.0
            lane.kill()
            if not started:
                raise MachineError(
                    "Worker processes cannot be started.",
                    met=str(error),
                    how="--workers 0 works in one process; a Python script that calls medtool "
                    "needs 'if __name__ == \"__main__\":' around the call.",
                ) from error
            message = "the worker process was killed, perhaps for want of memory"
            return self._failure(case, "worker-died", message, seconds)

    def _failure(self, case: Case, code: str, message: str, seconds: float) -> Answer:
        self._cache.record(case.case_id, "failed", code=code, message=message)
        return Answer("failed", code, message, seconds)
