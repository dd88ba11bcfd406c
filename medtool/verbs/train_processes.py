"""Learning in several processes: what the first one says reaches the person who waits."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from multiprocessing.managers import SyncManager
from typing import TYPE_CHECKING, Any

from medtool.core.errors import MachineError, MedtoolError
from medtool.core.processes import begin_worker, end_with_parent, quiet_libraries
from medtool.core.progress import Advance, Reporter
from medtool.data.run_folder import RunFolder
from medtool.verbs.train_run import Learned, Order, learn, stop_signals

if TYPE_CHECKING:
    from lightning_fabric import Fabric

END = "end"
POLL_S = 0.2


class FarReporter:
    """A reporter in another process: everything goes through a queue."""

    def __init__(self, queue: Any) -> None:
        self._queue = queue

    def say(self, text: str) -> None:
        """Send a note."""
        self._queue.put(("say", text))

    def warn(self, text: str) -> None:
        """Send a warning."""
        self._queue.put(("warn", text))

    def fail(self, error: MedtoolError) -> None:
        """Send a refusal: raised in this process, it would reach nobody whole."""
        self._queue.put(("error", error))

    @contextmanager
    def progress(self, description: str, total: int | None) -> Iterator[Advance]:
        """A bar in the other process."""
        self._queue.put(("bar", (description, total)))

        def advance(steps: int = 1, note: str = "") -> None:
            self._queue.put(("advance", (steps, note)))

        yield advance
        self._queue.put(("bar-end", None))


class _Parcel:
    """An order on its way; Fabric opens plain dataclasses, and may not change a frozen one."""

    def __init__(self, order: Order) -> None:
        self.order = order


def learn_in_processes(fabric: Fabric, order: Order, reporter: Reporter) -> Learned:
    """Launch ``learn`` in every process of ``fabric``; gives what the first one gave.

    SIGTERM and Ctrl-C are passed on, so that all end after the same step. Raises MachineError
    where a process ends before its time, KeyboardInterrupt where it did so since all were asked
    to stop, and whatever ``learn`` refuses.
    """
    context = multiprocessing.get_context("spawn")
    manager = SyncManager(ctx=context)
    manager.start(_begin_manager)
    others = set(multiprocessing.active_children())
    queue = manager.Queue()
    relay = _Relay(queue, reporter)
    listener = threading.Thread(target=relay.run, daemon=True)
    listener.start()
    with stop_signals() as asked:
        watcher = threading.Thread(target=_pass_on, args=(asked, relay.over, others), daemon=True)
        watcher.start()
        try:
            launch: Any = fabric.launch
            return Learned(**launch(_learn_far, _Parcel(order), FarReporter(queue)))
        except Exception as error:
            relay.over.wait(POLL_S)
            if relay.error is not None:
                raise relay.error from error
            RunFolder(order.run).log(f"A process ended before its time: {error}")
            if asked():
                # Before the first step there was nothing to save yet.
                raise KeyboardInterrupt from error
            raise MachineError(
                "A process of the training ended before its time.",
                met=str(error).strip().splitlines()[-1] if str(error).strip() else repr(error),
                how="see log.txt of the run; it goes on from its last checkpoint with --resume.",
            ) from error
        finally:
            relay.over.set()
            with suppress(EOFError, OSError):
                queue.put((END, None))
            listener.join()


def _begin_manager() -> None:
    """The queue outlives every signal: what the run says at its end goes through it."""
    begin_worker()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _learn_far(fabric: Fabric, parcel: _Parcel, reporter: FarReporter) -> dict[str, Any]:
    # Before and after ``learn``, which takes signals itself, there is nothing to stop.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    quiet_libraries()
    end_with_parent()
    try:
        learned = asdict(learn(fabric, parcel.order, reporter))
    except MedtoolError as error:
        reporter.fail(error)
        raise
    _hang_up(fabric)
    return learned


def _hang_up(fabric: Fabric) -> None:
    """End the connections between the processes; one that just ended would take others down."""
    import torch

    # All that was learned is saved by now: an other end that has gone first harms nothing.
    with suppress(RuntimeError):
        fabric.barrier()
        torch.distributed.destroy_process_group()


def _pass_on(
    asked: Callable[[], bool], over: threading.Event, others: set[multiprocessing.Process]
) -> None:
    """Tell the learning processes to stop, again and again: one may still be starting."""
    while not over.wait(POLL_S):
        if asked():
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()


class _Relay:
    """Takes what the far reporter sent and says it here."""

    def __init__(self, queue: Any, reporter: Reporter) -> None:
        self._queue = queue
        self._reporter = reporter
        self.over = threading.Event()
        self.error: MedtoolError | None = None

    def run(self) -> None:
        """Until the end is sent."""
        with suppress(EOFError, OSError):
            self._notes()

    def _notes(self) -> None:
        while True:
            kind, value = self._queue.get()
            if kind == END:
                return
            if kind == "bar":
                if self._bar(*value):
                    return
            elif kind == "error":
                self.error = value
            else:
                getattr(self._reporter, kind)(value)

    def _bar(self, description: str, total: int | None) -> bool:
        """Relay one bar; gives whether all is over."""
        with self._reporter.progress(description, total) as advance:
            while True:
                kind, value = self._queue.get()
                if kind == "advance":
                    advance(*value)
                elif kind == "error":
                    self.error = value
                elif kind in ("bar-end", END):
                    return bool(kind == END)
                else:
                    getattr(self._reporter, kind)(value)
