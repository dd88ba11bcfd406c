"""Ctrl-C and SIGTERM reach a run of two processes: both end after the same step, all is saved."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_task import write_tiny_cohort

from medtool.core.checkpoint import read_header, verify_tensors
from medtool.data.run_folder import RunFolder

SUPPORT = Path(__file__).parents[1] / "support"
SETTINGS = ("train.epochs=5000", "metrics.bootstrap_draws=100")


def start(folder: Path) -> subprocess.Popen[str]:
    """A run on two devices in a session of its own, as a terminal or a scheduler gives it."""
    return subprocess.Popen(
        [sys.executable, str(SUPPORT / "tiny_run.py"), str(folder), "2", *SETTINGS],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def stop_after_an_epoch(folder: Path, process: subprocess.Popen[str], send: object) -> str:
    """Wait for a new checkpoint, ``send`` the signal, give what was said at the end."""
    last = RunFolder(folder / "runs" / "tiny" / "killed").checkpoints_folder / "last.safetensors"
    before = last.stat().st_mtime_ns if last.is_file() else 0
    while process.poll() is None and (not last.is_file() or last.stat().st_mtime_ns == before):
        time.sleep(0.01)
    send(process.pid)  # type: ignore[operator]
    return process.communicate()[1]


def interrupt_all(leader: int) -> None:
    """What Ctrl-C does: the terminal signals every process of the group."""
    os.killpg(leader, signal.SIGINT)


def terminate_first(leader: int) -> None:
    """What a scheduler or a person does to the process that it knows."""
    os.kill(leader, signal.SIGTERM)


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="no process groups")
def test_both_processes_save_and_the_run_goes_on(tmp_path: Path) -> None:
    folder = write_tiny_cohort(tmp_path, patients=20)
    run = RunFolder(folder / "runs" / "tiny" / "killed")
    steps = [0]
    for send in (interrupt_all, terminate_first):
        said = stop_after_an_epoch(folder, start(folder), send)
        assert "Stopped; everything learned so far is saved." in said, run.log_file.read_text()
        header = read_header(run.checkpoints_folder / "last.safetensors")
        assert verify_tensors(header) == []
        steps.append(header.document["step"])
    # The second one went on where the first one stopped.
    assert steps == sorted(set(steps))
    assert len(run.read_history()) <= steps[-1]
