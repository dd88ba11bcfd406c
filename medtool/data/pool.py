"""Worker processes that take one case at a time and are replaced when they hang or die.

Each worker is a ``concurrent.futures`` executor of one process, so that killing what hangs, or
losing what the system kills, breaks the future of one case and nothing else. Processes are
spawned on every system alike.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import active_children, get_context
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING

from medtool.core.errors import MachineError
from medtool.core.records import Case
from medtool.data.machine import usable_cores
from medtool.data.worker import Answer, begin, process_id

if TYPE_CHECKING:
    from medtool.core.task import Task
    from medtool.data.cache import Cache

Stop = Callable[[], bool]
Job = Callable[[Case], Answer]

# How long the parent waits before it looks at timeouts and ``stop`` again.
POLL_S = 0.2
# Codes of cases whose worker is gone.
TIMEOUT_CODE, DIED_CODE = "case-timeout", "worker-died"
LOST_CODES = (TIMEOUT_CODE, DIED_CODE)


@dataclass
class _Lane:
    """One worker process, started when there is work, and the case it is at."""

    executor: ProcessPoolExecutor | None = None
    process: BaseProcess | None = None
    ready: Future[int] | None = None
    answer: Future[Answer] | None = None
    index: int = -1
    since: float = 0.0

    @property
    def busy(self) -> bool:
        return self.answer is not None

    @property
    def up(self) -> bool:
        return self.ready is not None and self.ready.done() and self.ready.exception() is None

    def kill(self) -> None:
        """End the process at once, whatever it does, also while it is still starting."""
        if self.executor is None:
            return
        # Without this the shutdown would wait for a case that may never end.
        if self.process is not None:
            self.process.kill()
        self.executor.shutdown(wait=True, cancel_futures=True)
        self.executor = self.process = self.ready = self.answer = None

    def open(self, threads: int, pickled: bytes) -> ProcessPoolExecutor:
        """The lane's executor, with its process started."""
        if self.executor is None:
            self.executor = ProcessPoolExecutor(
                1,
                mp_context=get_context("spawn"),
                initializer=begin,
                initargs=(threads, pickled),
            )
            before = set(active_children())
            self.ready = self.executor.submit(process_id)
            # The first work starts the process; the executor does not say which one it is.
            self.process = next(iter(set(active_children()) - before), None)
        return self.executor


class WorkerPool:
    """Runs ``job`` (a function of ``medtool.data.worker``) for cases."""

    def __init__(
        self, task: Task, cache: Cache | None, job: Job, *, workers: int, timeout_s: float
    ) -> None:
        self._job = job
        self._lanes = [_Lane() for _ in range(workers)]
        self._timeout_s = timeout_s
        self._threads = max(1, usable_cores() // workers)
        try:
            self._pickled = pickle.dumps((task, cache))
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise MachineError(
                f"The task '{task.name}' cannot be sent to worker processes.",
                met=str(error),
                wanted="a class at the top of a module that can be imported",
                how="--workers 0 works in one process.",
            ) from error

    def warm(self, processes: int) -> None:
        """Start some processes before there is work: they import while the caller does."""
        for lane in self._lanes[:processes]:
            lane.open(self._threads, self._pickled)

    def close(self) -> None:
        """End all processes, whatever they do."""
        for lane in self._lanes:
            lane.kill()

    def run(
        self,
        cases: Sequence[Case],
        *,
        ahead: int,
        stop: Stop | None = None,
        present: Callable[[Case], Answer | None] = lambda case: None,
    ) -> Iterator[tuple[Case, Answer]]:
        """Answers in the order of the cases, at most ``ahead`` of them begun before their turn.

        ``present`` answers for cases that need no worker. Ends early when ``stop`` says so;
        closing the iterator ends the workers. Raises MachineError.
        """
        answers: dict[int, Answer] = {}
        begun = 0
        try:
            for wanted, case in enumerate(cases):
                while wanted not in answers:
                    begun = self._begin(cases, begun, wanted + ahead, answers, present)
                    if wanted in answers:
                        break
                    if stop is not None and stop():
                        return
                    self._collect(answers)
                # Before the consumer takes its time, everybody gets work.
                begun = self._begin(cases, begun, wanted + ahead, answers, present)
                if begun == len(cases):
                    self._end_idle()
                yield case, answers.pop(wanted)
        finally:
            self.close()

    def _end_idle(self) -> None:
        """End the processes for which there is no work left: their memory is the consumer's."""
        for lane in self._lanes:
            if not lane.busy:
                lane.kill()

    def _begin(
        self,
        cases: Sequence[Case],
        begun: int,
        last: int,
        answers: dict[int, Answer],
        present: Callable[[Case], Answer | None],
    ) -> int:
        """Give idle lanes work up to the case ``last``; gives the number of cases begun."""
        for lane in self._lanes:
            while not lane.busy and begun < len(cases) and begun <= last:
                answer = present(cases[begun])
                if answer is not None:
                    answers[begun] = answer
                else:
                    self._start(lane, begun, cases[begun])
                begun += 1
        return begun

    def _start(self, lane: _Lane, index: int, case: Case) -> None:
        executor = lane.open(self._threads, self._pickled)
        # The clock starts when the process is up, not while it imports.
        lane.index, lane.since = index, time.monotonic() if lane.up else 0.0
        try:
            lane.answer = executor.submit(self._job, case)
        except BrokenProcessPool:
            # It died between two cases, so this one has lost nothing: a fresh process takes it.
            lane.kill()
            self._start(lane, index, case)

    def _collect(self, answers: dict[int, Answer]) -> None:
        """Wait a moment; take what is finished, give up what is broken or too late."""
        wait(
            [lane.answer for lane in self._lanes if lane.answer is not None],
            timeout=POLL_S,
            return_when=FIRST_COMPLETED,
        )
        now = time.monotonic()
        for lane in self._lanes:
            if lane.answer is None:
                continue
            if lane.answer.done():
                answers[lane.index] = self._take(lane, lane.answer)
            elif not lane.since:
                lane.since = now if lane.up else 0.0
            elif now - lane.since > self._timeout_s:
                lane.kill()
                message = f"not ready after {self._timeout_s:g} s; given up"
                answers[lane.index] = Answer("failed", TIMEOUT_CODE, message, self._timeout_s)

    def _take(self, lane: _Lane, answer: Future[Answer]) -> Answer:
        lane.answer = None
        try:
            return answer.result()
        except BrokenProcessPool as error:
            was_up, seconds = lane.up, time.monotonic() - lane.since if lane.since else 0.0
            lane.kill()
            if not was_up:
                raise MachineError(
                    "Worker processes cannot be started.",
                    met=str(error),
                    how="--workers 0 works in one process; a Python script that calls medtool "
                    "needs 'if __name__ == \"__main__\":' around the call.",
                ) from error
            message = "the worker process was killed, perhaps for want of memory"
            return Answer("failed", DIED_CODE, message, seconds)
