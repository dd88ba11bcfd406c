"""What runs in a worker process: one case at a time, from its files to its file in the cache.

Nothing heavy is imported before ``begin`` has limited the threads of the libraries below.
"""

from __future__ import annotations

import os
import pickle
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtool.core.clock import READING, stopwatch
from medtool.core.environment import limit_threads
from medtool.core.errors import CaseRefused, InputError, MachineError
from medtool.core.processes import begin_worker
from medtool.core.records import Case, CaseStatus, CheckedCase, Finding

if TYPE_CHECKING:
    from medtool.core.task import Task
    from medtool.data.cache import Cache


@dataclass(frozen=True)
class Answer:
    """What a worker says of one case; the prepared case itself is in the cache.

    ``reading_s`` is the part of ``seconds`` in which pixels were read.
    """

    status: CaseStatus
    code: str = ""
    message: str = ""
    seconds: float = 0.0
    reading_s: float = 0.0
    repaired: bool = False
    rebuilt: bool = False
    reused: bool = False
    stored_bytes: int = 0
    peak_bytes: int = 0
    checked: CheckedCase | None = None


class _Process:
    """What this worker process was started with."""

    task: Task
    cache: Cache | None


def begin(threads: int, pickled: bytes) -> None:
    """Set the process up: threads, signals, an end when the parent ends, task and cache."""
    limit_threads(threads)
    begin_worker()
    _Process.task, _Process.cache = pickle.loads(pickled)


def process_id() -> int:
    """So that the parent knows whom to kill; runs only once ``begin`` has succeeded."""
    return os.getpid()


def prepare_in_worker(case: Case) -> Answer:
    """``prepare_one`` with the task and cache of this process."""
    if _Process.cache is None:
        raise RuntimeError("this worker was started without a cache")
    return prepare_one(_Process.task, _Process.cache, case)


def check_in_worker(case: Case) -> Answer:
    """``check_one`` with the task of this process."""
    return check_one(_Process.task, case)


def check_one(task: Task, case: Case) -> Answer:
    """What the pixels of one case show; a case that cannot be read is a finding as well."""
    started = time.perf_counter()
    try:
        checked = task.checked(case)
    except MachineError:
        raise
    except InputError as error:
        code = error.code if isinstance(error, CaseRefused) else "refused"
        said = (Finding(code, error.what, "refusal"),)
        checked = CheckedCase(case.case_id, case.patient_id, said)
    except Exception as error:  # noqa: BLE001 - one case must not end the others
        return Answer("failed", *unforeseen(error), time.perf_counter() - started)
    return Answer("ok", seconds=time.perf_counter() - started, checked=checked)


def prepare_one(task: Task, cache: Cache, case: Case) -> Answer:
    """Prepare ``case`` into the cache unless it is there; everything but MachineError is told.

    A damaged file is made again. What the task refuses is remembered by the cache.
    """
    started = time.perf_counter()
    with cache.claim(case):
        existed = cache.has(case)
        if existed and cache.sound(case):
            return Answer("ok", reused=True, stored_bytes=cache.path(case).stat().st_size)
        remembered = cache.refusal(case)
        if remembered is not None:
            return Answer("refused", remembered.code, remembered.message, reused=True)
        try:
            with stopwatch() as spent:
                prepared = task.prepare(case)
        except Exception as error:  # noqa: BLE001 - one case must not end the others
            if isinstance(error, MachineError):
                raise
            return _refused_or_failed(cache, case, error, time.perf_counter() - started)
        path = cache.store(case, prepared)
        seconds = time.perf_counter() - started
        repaired = _was_repaired(case)
        cache.record(
            case.case_id,
            "repaired" if repaired else "done",
            seconds=round(seconds, 3),
            rebuilt=existed,
            codes=sorted({finding.code for finding in (*case.findings, *prepared.findings)}),
        )
        return Answer(
            "ok",
            seconds=seconds,
            reading_s=spent.get(READING, 0.0),
            repaired=repaired,
            rebuilt=existed,
            stored_bytes=path.stat().st_size,
            peak_bytes=peak_memory_bytes(),
        )


def _refused_or_failed(cache: Cache, case: Case, error: Exception, seconds: float) -> Answer:
    if isinstance(error, InputError):
        code = error.code if isinstance(error, CaseRefused) else "refused"
        message = error.what if not error.met else f"{error.what} (met: {error.met})"
        cache.refuse(case, code, message)
        cache.record(case.case_id, "refused", code=code, message=message)
        return Answer("refused", code, message, seconds)
    code, message = unforeseen(error)
    trace = traceback.format_exception(error)
    cache.record(case.case_id, "failed", code=code, message=message, trace="".join(trace))
    return Answer("failed", code, message, seconds)


def unforeseen(error: Exception) -> tuple[str, str]:
    """Code and message of an error that is no refusal and ends one case.

    Libraries quote headers in their messages, so that tables and the screen get the kind of error
    and its place in the code; what the system or the memory says is kept.
    """
    # torch's own is a RuntimeError; this file must do without torch.
    memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    code = "out-of-memory" if memory else "unforeseen"
    kind = type(error).__name__
    if memory:
        return code, f"{kind}: {error}".strip(": ")
    if isinstance(error, OSError) and error.strerror:
        return code, f"{kind}: {error.strerror}"
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return code, kind
    return (
        code,
        f"{kind} in {frames[-1].name} ({Path(frames[-1].filename).name}:{frames[-1].lineno})",
    )


def _was_repaired(case: Case) -> bool:
    return any(getattr(value, "verdict", "") == "repaired" for value in case.inputs.values())


def peak_memory_bytes() -> int:
    """The most memory that this process has held so far; 0 where the system does not say."""
    try:
        import resource
    except ImportError:
        return 0
    usage: Any = resource.getrusage(resource.RUSAGE_SELF)
    # Linux counts in kilobytes, macOS in bytes.
    return int(usage.ru_maxrss) * (1 if sys.platform == "darwin" else 1024)
