"""A whole tiny training in a process of its own, for tests that kill it or spread it.

Called as ``python tiny_run.py FOLDER DEVICES [FIELD=VALUE...]``, or as a function of a process
that ``start_tiny_run`` starts: it starts or resumes the run "killed" on the cohort in FOLDER.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path

SUPPORT = Path(__file__).parent
# Imported once by the server, so that a process that is forked from it begins at once.
PRELOADED = (
    "medtool.verbs.train_learn",
    "medtool.verbs.train_finish",
    "medtool.report.figures",
    "torch.utils.tensorboard",
)


def main(folder: Path, assignments: list[str], device_count: int, errors: Path | None) -> None:
    """Start or resume, quietly; ``errors`` takes what is said on stderr."""
    if errors is not None:
        with errors.open("wb") as file:
            os.dup2(file.fileno(), 2)
    from tiny_task import TinyTask

    from medtool.verbs.options import RunOptions
    from medtool.verbs.train import TrainOptions, train

    os.chdir(folder)
    train(
        TrainOptions(
            task=TinyTask,
            data=Path(),
            assignments=assignments,
            start_or_resume=True,
            run=RunOptions(run="killed", device="cpu", devices=device_count, workers=0),
        )
    )


def start_tiny_run(folder: Path, *assignments: str) -> tuple[BaseProcess, Path]:
    """Start ``main`` in a process that has everything imported; gives it and its stderr."""
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    if "forkserver" in methods:
        context.set_forkserver_preload(list(PRELOADED))
    errors = folder / "stderr.txt"
    process = context.Process(target=main, args=(folder, list(assignments), 1, errors))
    process.start()
    return process, errors


if __name__ == "__main__":
    sys.path.insert(0, str(SUPPORT))
    main(Path(sys.argv[1]), sys.argv[3:], int(sys.argv[2]), None)
