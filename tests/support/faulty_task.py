"""The tiny task with cases that misbehave in preparation, by the end of their id."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
from tiny_task import SIDE_PX, TinyTask

from medtool.core.errors import CaseRefused, MachineError
from medtool.core.records import Case, Finding, Prepared


class FaultyTask(TinyTask):
    """``..._hang``, ``_killed``, ``_refused``, ``_error``, ``_memory``, ``_machine``, ``_slow``."""

    name = "faulty"

    def check(self, case: Case) -> list[Finding]:
        """As the tiny task, with the same faults."""
        self._misbehave(case)
        return super().check(case)

    def prepare(self, case: Case) -> Prepared:
        """As the tiny task, after the fault that the id names."""
        self._misbehave(case)
        return super().prepare(case)

    def _misbehave(self, case: Case) -> None:
        kind = case.case_id.rpartition("_")[2]
        if kind == "hang":
            time.sleep(600)
        elif kind == "killed":
            os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
        elif kind == "slow":
            time.sleep(0.5)
        elif kind == "refused":
            raise CaseRefused("too-strange", "The scan is too strange.", met="a cow")
        elif kind == "error":
            raise ZeroDivisionError("nothing to divide by")
        elif kind == "memory":
            raise MemoryError
        elif kind == "machine":
            raise MachineError("The disk is full.")


def write_scans(folder: Path, *names: str) -> Path:
    """One small scan of its own patient for each name."""
    draw = np.random.default_rng(0)
    for name in names:
        file = folder / "scans" / f"patient-{name}" / f"{name}.npy"
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, draw.normal(0, 1, (3, SIDE_PX, SIDE_PX)).astype(np.float32))
    return folder
