"""Does a task keep the contract? ``check_task(MyTask)`` is one line in a plugin's tests.

``TASK_CHECKS`` are the same checks one by one, for a test runner that names them:

    @pytest.mark.parametrize("check", TASK_CHECKS, ids=lambda check: check.__name__)
    def test_contract(bench, check):
        check(bench)

(``bench`` is a fixture that gives ``Workbench(MyTask, folder)``.)

They write the task's own demo, prepare a few of its cases, take a training step, save and load the
network, and answer. Nothing outside ``folder`` is touched.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medtool.core.task import Task
from medtool.testing.checks import TASK_CHECKS, BrokenContract
from medtool.testing.workbench import Workbench

__all__ = ["TASK_CHECKS", "BrokenContract", "Workbench", "check_task"]


def check_task(task: type[Task] | str, *, folder: Path | None = None, seed: int = 0) -> None:
    """Run every check; raises one BrokenContract that lists all promises that were broken.

    ``task`` is the class or its registered name; ``folder`` (by default a temporary one) takes
    demo and cache.
    """
    with _folder(folder) as place:
        bench = Workbench(task, place, seed=seed)
        broken = []
        for check in TASK_CHECKS:
            try:
                check(bench)
            except BrokenContract as error:
                broken.append(f"{check.__name__}: {error.what} {error.met}".strip())
    if broken:
        raise BrokenContract(
            f"The task '{bench.task_class.name}' breaks {len(broken)} promise(s).",
            met="\n    ".join(broken),
            wanted="all of them kept: see medtool.core.task",
        )


@contextmanager
def _folder(folder: Path | None) -> Iterator[Path]:
    if folder is not None:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="medtool-check-") as name:
        yield Path(name)
