"""A whole tiny training in a process of its own, for tests that kill it or spread it.

Called as ``python tiny_run.py FOLDER [FIELD=VALUE...]``: FIELD of RunOptions or of [train]; it
starts or resumes the run "killed" on the cohort in FOLDER.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

SUPPORT = Path(__file__).parent


def main(folder: Path, assignments: list[str], device_count: int) -> None:
    """Start or resume, quietly."""
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


if __name__ == "__main__":
    sys.path.insert(0, str(SUPPORT))
    main(Path(sys.argv[1]), sys.argv[3:], int(sys.argv[2]))
