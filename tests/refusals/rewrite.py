"""Write the golden texts of refusals anew from what the program says now."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "support")]
os.environ.update(NO_COLOR="1", COLUMNS="80")  # noqa: TID251 - as conftest.py does for the tests

import golden  # noqa: E402 - stands beside this file
import setups  # noqa: E402 - likewise


def rewrite(file: Path) -> None:
    """Run the case of ``file`` and put down its status and stderr."""
    from medtool.cli.app import main

    case = golden.read_golden(file)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        case.fill(folder)
        if case.setup:
            getattr(setups, case.setup)(folder)
        err = io.StringIO()
        with contextlib.chdir(folder), contextlib.redirect_stderr(err):
            case.status = main(case.words())
        case.stderr = golden.normalised(err.getvalue(), folder)
    file.write_text(case.text(), encoding="utf-8")


if __name__ == "__main__":
    for path in sorted((HERE / "texts").glob("*.txt")):
        rewrite(path)
