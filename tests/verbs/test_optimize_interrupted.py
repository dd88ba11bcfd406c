"""``optimize`` stopped by real signals: nothing half-written stays, what was there does.

After a kill nothing can be cleared away at once: the next start does.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from faulty_place import wait_for_an_empty_group, wait_until
from listening import Listening
from trained_heart import train_heart

from medtool.core.errors import UsageError
from medtool.core.files import file_sha256
from medtool.verbs.optimize import optimize
from medtool.verbs.optimize_options import OptimizeOptions
from medtool.verbs.optimize_output import sweep_rooms
from medtool.verbs.options import RunOptions

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are of POSIX")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, and ``made / "small"``: its optimised model."""
    folder = tmp_path_factory.mktemp("interrupted")
    run = train_heart(folder, "train.epochs=1")
    optimize(
        OptimizeOptions(
            checkpoint=run,
            output=folder / "made" / "small",
            formats=("float16",),
            assignments=("optimize.measure_runs=0",),
            run=RunOptions(workers=0, device="cpu", cache=folder / "cache"),
        )
    )
    return folder


def sums(folder: Path) -> dict[str, str]:
    return {path.name: file_sha256(path) for path in folder.iterdir()}


def started(place: Path) -> subprocess.Popen[str]:
    """The command while it works on the network that it has exported."""
    words = ["optimize", "runs/heart/a", "-o", "made/small", "--force", "--tolerance", "0.9"]
    words += ["--cache", "cache", "--device", "cpu", "--workers", "0", "--quiet"]
    process = subprocess.Popen(
        [sys.executable, "-m", "medtool.cli.app", *words],
        cwd=place,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    # It calibrates, judges and measures after that.
    wait_until(lambda: list((place / "made").glob(".writing-*/new/model.onnx")), process)
    return process


@pytest.mark.parametrize("how", ["sigterm", "ctrl-c"])
def test_interrupted_it_leaves_what_was_there_and_nothing_else(place: Path, how: str) -> None:
    made = place / "made"
    before = sums(made / "small")
    process = started(place)
    if how == "sigterm":
        process.send_signal(signal.SIGTERM)
    else:
        os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (130, "")
    assert err.splitlines() == [
        "medtool: Interrupted; no model was written.",
        "  how to go on: run the same command again.",
    ]
    assert [path.name for path in made.iterdir()] == ["small"]
    assert sums(made / "small") == before
    wait_for_an_empty_group(process.pid)


def test_what_a_killed_one_left_goes_at_the_next_start_beside_it(place: Path) -> None:
    """From a fault: a folder with the names of patients stayed for good."""
    made = place / "made"
    before = sums(made / "small")
    process = started(place)
    (room,) = made.glob(".writing-*")
    said = Listening()
    sweep_rooms(made / "other", said)
    assert (room / "new" / "model.onnx").is_file() and said.lines == []
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=120)
    wait_for_an_empty_group(process.pid)
    assert (room / "new" / "model.onnx").is_file()
    with pytest.raises(UsageError):
        # However that ends.
        optimize(OptimizeOptions(place / "runs/heart/a", made / "other", assignments=("x=1",)))
    assert [path.name for path in made.iterdir()] == ["small"]
    assert sums(made / "small") == before
