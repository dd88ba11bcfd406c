"""Preparation in real worker processes: resumes, survives kills and hangs, tells its failures."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import pytest
from faulty_task import FaultyTask, write_scans
from tiny_task import TinySettings, TinyTask, write_tiny_cohort

from medtool.core.clock import about
from medtool.core.errors import MachineError
from medtool.core.records import Case, Source
from medtool.data.cache import Cache
from medtool.data.estimate import case_weight, estimate
from medtool.data.machine import require_disk
from medtool.data.preparation import prepare_cases, prepare_stream, preparing_pool


class Notes:
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.warned: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def warn(self, text: str) -> None:
        self.warned.append(text)

    def progress(self, description: str, total: int | None):  # type: ignore[no-untyped-def]
        from medtool.core.progress import Silent

        return Silent().progress(description, total)


def _faulty(folder: Path, *names: str) -> tuple[FaultyTask, tuple[Case, ...], Cache]:
    task = FaultyTask(TinySettings())
    cases = task.find(Source((write_scans(folder / "data", *names),))).cases
    return task, cases, Cache(folder / "cache", task)


def _children() -> set[str]:
    """Worker processes of this process."""
    listed = subprocess.run(
        ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(os.getpid())],
        capture_output=True,
        text=True,
    )
    return {line for line in listed.stdout.splitlines() if "spawn_main" in line}


@pytest.mark.parametrize("workers", [0, 2])
def test_everything_is_prepared_once(tmp_path: Path, workers: int) -> None:
    task = TinyTask(TinySettings())
    cases = task.find(Source((write_tiny_cohort(tmp_path / "data", patients=4),))).cases
    cache = Cache(tmp_path / "cache", task)
    notes = Notes()
    report = prepare_cases(task, cases, cache, workers=workers, reporter=notes)
    assert list(report.paths) == [case.case_id for case in cases]
    assert report.failures == ()
    assert report.estimate is not None
    # One that paid for the imports of each worker, then one that was measured.
    assert report.estimate.cases == len(cases) - (workers + 1)
    assert f"{report.estimate.cases} more cases" in notes.said[0]
    for case in cases:
        np.testing.assert_array_equal(
            cache.load(case).arrays["slices"], np.load(case.inputs["scan"])
        )
    times = {path: path.stat().st_mtime_ns for path in report.paths.values()}
    again = prepare_cases(task, cases, cache, workers=workers)
    assert again.reused == tuple(case.case_id for case in cases)
    assert {path: path.stat().st_mtime_ns for path in again.paths.values()} == times


def test_a_resumed_preparation_does_the_rest_and_mends_what_is_damaged(tmp_path: Path) -> None:
    task = TinyTask(TinySettings())
    cases = task.find(Source((write_tiny_cohort(tmp_path / "data", patients=4),))).cases
    cache = Cache(tmp_path / "cache", task)
    first = prepare_cases(task, cases[:3], cache, workers=0)
    damaged = first.paths[cases[1].case_id]
    damaged.write_bytes(damaged.read_bytes()[:-9] + b"123456789")
    notes = Notes()
    report = prepare_cases(task, cases, cache, workers=0, reporter=notes)
    assert report.reused == (cases[0].case_id, cases[2].case_id)
    assert report.rebuilt == (cases[1].case_id,)
    assert any("damaged" in text and cases[1].case_id in text for text in notes.warned)
    assert len(report.paths) == len(cases)
    assert cache.sound(cases[1])
    assert [line["rebuilt"] for line in cache.ledger() if line["case"] == cases[1].case_id] == [
        False,
        True,
    ]


def test_each_failure_is_its_own(tmp_path: Path) -> None:
    names = ("a_hang", "b", "c_killed", "d_refused", "e_error", "f_memory", "g")
    task, cases, cache = _faulty(tmp_path, *names)
    before = _children()
    notes = Notes()
    report = prepare_cases(task, cases, cache, workers=2, case_timeout_s=2.0, reporter=notes)
    assert set(report.paths) == {"b", "g"}
    assert {f.case_id: (f.status, f.code) for f in report.failures} == {
        "a_hang": ("failed", "case-timeout"),
        "c_killed": ("failed", "worker-died"),
        "d_refused": ("refused", "too-strange"),
        "e_error": ("failed", "unforeseen"),
        "f_memory": ("failed", "out-of-memory"),
    }
    assert len(notes.warned) == 5
    assert "ZeroDivisionError in _misbehave (faulty_task.py:" in "\n".join(notes.warned)
    assert _children() <= before
    recorded = {line["case"]: line["what"] for line in cache.ledger()}
    assert recorded["d_refused"] == "refused"
    assert {recorded[n] for n in ("a_hang", "c_killed", "e_error", "f_memory")} == {"failed"}
    # A refusal is remembered, a failure is tried again.
    refused = next(case for case in cases if case.case_id == "d_refused")
    failed = next(case for case in cases if case.case_id == "e_error")
    assert cache.refusal(refused) is not None
    assert cache.refusal(failed) is None


def test_in_this_process_failures_are_told_alike(tmp_path: Path) -> None:
    task, cases, cache = _faulty(tmp_path, "a_refused", "b_error", "c_memory", "d")
    report = prepare_cases(task, cases, cache, workers=0)
    assert [f.code for f in report.failures] == ["too-strange", "unforeseen", "out-of-memory"]
    assert list(report.paths) == ["d"]


@pytest.mark.parametrize("workers", [0, 1])
def test_the_machines_fault_ends_it(tmp_path: Path, workers: int) -> None:
    task, cases, cache = _faulty(tmp_path, "a", "b_machine", "c")
    before = _children()
    with pytest.raises(MachineError, match="disk is full"):
        prepare_cases(task, cases, cache, workers=workers)
    assert _children() <= before


def test_a_task_that_cannot_travel_is_refused(tmp_path: Path) -> None:
    class Homeless(TinyTask):
        """A class that no other process can import."""

    _, cases, _ = _faulty(tmp_path, "a")
    task = Homeless(TinySettings())
    with pytest.raises(MachineError, match="cannot be sent") as caught:
        prepare_cases(task, cases, Cache(tmp_path / "c", task), workers=1)
    assert "--workers 0" in caught.value.how
    assert prepare_cases(task, cases, Cache(tmp_path / "c", task), workers=0).paths


def test_a_stream_keeps_the_order_and_does_not_run_ahead(tmp_path: Path) -> None:
    names = [f"{n:02d}" for n in range(12)] + ["zz_slow"]
    task, cases, cache = _faulty(tmp_path, *names)
    order = [cases[-1], *cases[:-1]]
    stream = prepare_stream(task, order, cache, workers=2, ahead=3)
    assert next(stream).case.case_id == "zz_slow"
    time.sleep(0.3)
    assert sum(cache.has(case) for case in cases) <= 5
    assert [done.case.case_id for done in stream] == names[:12]


def test_workers_that_were_started_before_do_the_work(tmp_path: Path) -> None:
    task, cases, cache = _faulty(tmp_path, "a", "b")
    before = _children()
    pool = preparing_pool(task, cache, workers=1)
    pool.warm(len(cases))
    started = _children() - before
    assert len(started) == 1
    stream = prepare_stream(task, cases, cache, workers=1, pool=pool)
    assert next(stream).status == "ok"
    assert _children() - before == started
    assert [done.status for done in stream] == ["ok"]
    assert _children() <= before


def test_workers_without_any_work_end_when_they_are_told(tmp_path: Path) -> None:
    task, _, cache = _faulty(tmp_path, "a")
    before = _children()
    pool = preparing_pool(task, cache, workers=2)
    pool.warm(2)
    assert len(_children() - before) == 2
    pool.close()
    assert _children() <= before


def test_a_closed_stream_leaves_no_process(tmp_path: Path) -> None:
    task, cases, cache = _faulty(tmp_path, "a", "b_hang", "c_hang")
    before = _children()
    stream = prepare_stream(task, cases, cache, workers=2)
    assert next(stream).status == "ok"
    assert _children() > before
    stream.close()  # type: ignore[attr-defined]
    assert _children() <= before


def test_workers_that_are_still_starting_end_too(tmp_path: Path) -> None:
    # Came from a hang: a process that was not up yet took its case along into the shutdown.
    task, cases, cache = _faulty(tmp_path, "a_hang", "b_hang")
    before = _children()
    asked = iter([False, True])
    began = time.monotonic()
    report = prepare_cases(task, cases, cache, workers=2, stop=lambda: next(asked))
    assert (report.stopped, report.paths) == (True, {})
    assert time.monotonic() - began < 300
    assert _children() <= before


@pytest.mark.parametrize("workers", [0, 1])
def test_stop_ends_tidily(tmp_path: Path, workers: int) -> None:
    task, cases, cache = _faulty(tmp_path, "a", "b", "c_hang" if workers else "c")
    report = prepare_cases(task, cases, cache, workers=workers, stop=lambda: cache.has(cases[1]))
    assert report.stopped
    assert list(report.paths)[0] == "b"  # the pilot
    assert "c_hang" not in report.paths


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {support!r})
from faulty_task import FaultyTask
from tiny_task import TinySettings
from medtool.core.records import Source
from medtool.data.cache import Cache
from medtool.data.preparation import prepare_cases

if __name__ == "__main__":
    task = FaultyTask(TinySettings())
    cases = task.find(Source((Path({data!r}),))).cases
    prepare_cases(task, cases, Cache(Path({cache!r}), task), workers=2)
"""


def _wait_for(condition, seconds: float = 60.0) -> bool:  # type: ignore[no-untyped-def]
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


LIMITED = """
import resource
import sys
from pathlib import Path
sys.path.insert(0, {support!r})
from tiny_task import TinySettings, TinyTask
from medtool.core.errors import MachineError
from medtool.core.records import Source
from medtool.data.cache import Cache
from medtool.data.preparation import prepare_cases

task = TinyTask(TinySettings())
cases = task.find(Source((Path({data!r}),))).cases
cache = Cache(Path({cache!r}), task)
prepare_cases(task, cases[:2], cache, workers=0)
# From here on every write beyond 1000 bytes fails, as on a full disk.
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
try:
    prepare_cases(task, cases, cache, workers=0)
except MachineError as error:
    print(error.exit_status.value, error.what)
"""


@pytest.mark.skipif(os.name != "posix", reason="limits of POSIX")
def test_a_disk_that_fills_up_ends_it_and_keeps_what_is_done(tmp_path: Path) -> None:
    task = TinyTask(TinySettings())
    cases = task.find(Source((write_tiny_cohort(tmp_path / "data", patients=4),))).cases
    cache = Cache(tmp_path / "cache", task)
    script = tmp_path / "script.py"
    support = str(Path(__file__).parents[1] / "support")
    script.write_text(
        LIMITED.format(support=support, data=str(tmp_path / "data"), cache=str(cache.root))
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("5 ")
    assert [cache.has(case) for case in cases] == [True, True, False, False, False]
    assert all(cache.sound(case) for case in cases[:2])
    assert not list(cache.folder.glob(".writing-*"))


def test_a_cache_that_cannot_be_written_can_be_read(tmp_path: Path) -> None:
    task, cases, cache = _faulty(tmp_path, "a", "b_refused")
    first = prepare_cases(task, cases, cache, workers=0)
    for folder in (cache.folder / "locks", cache.folder):
        folder.chmod(0o555)
    before = sorted(file.stat().st_mtime_ns for file in cache.folder.rglob("*"))
    again = prepare_cases(task, cases, cache, workers=1)
    assert (again.paths, again.failures) == (first.paths, first.failures)
    assert sorted(file.stat().st_mtime_ns for file in cache.folder.rglob("*")) == before
    for folder in (cache.folder, cache.folder / "locks"):
        folder.chmod(0o755)


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_or_killed_it_leaves_whole_files_and_no_process(
    tmp_path: Path, signal_number: signal.Signals
) -> None:
    task, cases, cache = _faulty(tmp_path, "a", "b", "c_hang", "d_hang")
    script = tmp_path / "script.py"
    support = str(Path(__file__).parents[1] / "support")
    script.write_text(
        SCRIPT.format(support=support, data=str(tmp_path / "data"), cache=str(tmp_path / "cache"))
    )
    process = subprocess.Popen(
        [sys.executable, script], stderr=subprocess.PIPE, start_new_session=True
    )

    def group() -> list[str]:
        listed = subprocess.run(["ps", "-ww", "-o", "pid=,args=", "-s", str(process.pid)],
                                capture_output=True, text=True)  # fmt: skip
        return [line for line in listed.stdout.splitlines() if "spawn_main" in line]

    try:
        assert _wait_for(lambda: cache.has(cases[0]) and cache.has(cases[1]))
        assert _wait_for(lambda: len(group()) >= 2)
        os.kill(process.pid, signal_number)
        process.wait(timeout=120)
        assert _wait_for(lambda: not group())
    finally:
        process.kill()
        process.communicate()
    assert [cache.sound(case) for case in cases] == [True, True, False, False]
    assert not list(cache.folder.glob(".writing-*"))


def test_workers_end_when_nothing_is_left_for_them(tmp_path: Path) -> None:
    task, cases, cache = _faulty(tmp_path, "a", "b", "c")
    stream = prepare_stream(task, cases, cache, workers=2)
    assert [next(stream).case for _ in cases] == list(cases)
    # The stream is not closed yet: its consumer is busy with the last case.
    assert not active_children()
    assert next(stream, None) is None


def test_several_processes_share_a_cache(tmp_path: Path) -> None:
    task, cases, cache = _faulty(tmp_path, *(f"{n}_slow" for n in range(4)))
    support = str(Path(__file__).parents[1] / "support")
    script = tmp_path / "script.py"
    script.write_text(
        SCRIPT.format(support=support, data=str(tmp_path / "data"), cache=str(tmp_path / "cache"))
    )
    both = [subprocess.Popen([sys.executable, script]) for _ in range(2)]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    assert all(cache.sound(case) for case in cases)
    # Each case was prepared by one of them only.
    assert sorted(line["case"] for line in cache.ledger()) == sorted(c.case_id for c in cases)


def test_the_estimate_is_in_proportion(tmp_path: Path) -> None:
    # A pilot of 1000 bytes took 2 s and 300 bytes; 9000 bytes more on 2 workers: 9 s, 2700 bytes.
    cases = []
    for number, size in enumerate((1000, 4000, 5000)):
        file = tmp_path / f"{number}.npy"
        file.write_bytes(bytes(size))
        cases.append(Case(f"c{number}", "p", "u", {"scan": file}))
    assert case_weight(cases[1]).work == 4 * case_weight(cases[0]).work
    result = estimate(cases[0], 2.0, 300, cases[1:], 2, tmp_path)
    assert (result.seconds, result.cache_bytes, result.cases) == (9.0, 2700, 2)


def test_a_disk_that_is_too_small_is_said_before(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="disk is too small for the cases") as caught:
        require_disk(10**18, tmp_path, what="the cases", how="buy one.")
    assert caught.value.exit_status == 5
    require_disk(0, tmp_path, what="nothing", how="")


def test_an_estimated_time_is_said_as_roughly_as_it_is_known() -> None:
    assert [about(s) for s in (4.4, 89, 90, 5399, 12600)] == [
        "4 s",
        "89 s",
        "2 min",
        "90 min",
        "3.5 h",
    ]


def test_memory_stays_flat(tmp_path: Path) -> None:
    # Volumes of 2 MB in float32: if workers kept them, 30 would be 60 MB.
    draw = np.random.default_rng(0)
    for number in range(30):
        file = tmp_path / "data" / "scans" / f"p{number}" / f"c{number}.npy"
        file.parent.mkdir(parents=True)
        np.save(file, draw.normal(0, 1, (2048, 16, 16)).astype(np.float32))
    task = TinyTask(TinySettings())
    cases = task.find(Source((tmp_path / "data",))).cases
    peaks = [
        prepare_cases(
            task, some, Cache(tmp_path / f"cache{len(some)}", task), workers=1
        ).peak_worker_bytes
        for some in (cases[:4], cases)
    ]
    assert 0 < peaks[1] < peaks[0] + 25_000_000
