"""A working folder of a task whose cases misbehave, and real commands that can be signalled."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from tiny_task import SIDE_PX, SQUARE_PX

SUPPORT = Path(__file__).parent
TRAIN = ("train", "faulty", "--device", "cpu", "--quiet", "--set", "metrics.bootstrap_draws=100")
LONGEST_WAIT_S = 120


@dataclass(frozen=True)
class Place:
    """A working folder: slow scans, labels, and the run ``runs/faulty/one`` on them."""

    folder: Path
    site: Path

    @property
    def run(self) -> Path:
        return self.folder / "runs" / "faulty" / "one"

    def start(self, *words: str | Path) -> subprocess.Popen[str]:
        """``medtool WORDS...`` as a process group of its own."""
        paths = os.pathsep.join([str(self.site), str(SUPPORT)])
        return subprocess.Popen(
            [sys.executable, "-m", "medtool.cli.app", *map(str, words)],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": paths},  # noqa: TID251 - the command's, not ours
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )


def write_slow_scans(folder: Path, *names: str) -> None:
    """One scan a name, each of its own patient; every other one has a bright square."""
    draw = np.random.default_rng(0)
    for number, name in enumerate(names):
        scan = draw.normal(0, 1, (3, SIDE_PX, SIDE_PX)).astype(np.float32)
        if number % 2:
            scan[1, :SQUARE_PX, :SQUARE_PX] += 6
        file = folder / f"patient-{name}" / f"{name}.npy"
        file.parent.mkdir(parents=True)
        np.save(file, scan)


def wait_until(true: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Until ``true`` is; fails when the process ends before."""
    until = time.monotonic() + LONGEST_WAIT_S
    while not true():
        if process.poll() is not None:
            pytest.fail(f"it ended before: {process.communicate()[1]}")
        assert time.monotonic() < until, "it never came so far"
        time.sleep(0.02)


def wait_for_an_empty_group(group: int) -> None:
    """Until no process of the group is left; fails when one stays."""
    until = time.monotonic() + LONGEST_WAIT_S
    while time.monotonic() < until:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail("a process outlived the command")
