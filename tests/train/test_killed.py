"""Nothing is lost: SIGKILL at random moments, SIGTERM, and the same bits at the end."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from safetensors.numpy import load_file
from tiny_task import write_tiny_cohort

from medtool.core.checkpoint import read_header, verify_tensors
from medtool.core.files import TEMPORARY_PREFIX
from medtool.data.run_folder import RunFolder

SUPPORT = Path(__file__).parents[1] / "support"
KILLS = 10
EPOCHS = 60
SETTINGS = (f"train.epochs={EPOCHS}", "train.average_decay=0.9", "train.checkpoint_every_epochs=7")


def start(folder: Path, *settings: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, str(SUPPORT / "tiny_run.py"), str(folder), "1", *SETTINGS, *settings],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def cohort(folder: Path) -> Path:
    folder.mkdir()
    return write_tiny_cohort(folder, patients=20)


def run_of(folder: Path) -> RunFolder:
    return RunFolder(folder / "runs" / "tiny" / "killed")


def same_weights(one: RunFolder, two: RunFolder, name: str) -> None:
    first = load_file(one.checkpoints_folder / name)
    second = load_file(two.checkpoints_folder / name)
    assert first.keys() == second.keys()
    for key in first:
        assert first[key].tobytes() == second[key].tobytes(), key


def wait_for_epoch(folder: Path, process: subprocess.Popen[bytes]) -> bool:
    """Until the run has written something new; False when it ended."""
    last = run_of(folder).checkpoints_folder / "last.safetensors"
    before = last.stat().st_mtime_ns if last.is_file() else 0
    while process.poll() is None:
        if last.is_file() and last.stat().st_mtime_ns != before:
            return True
        time.sleep(0.005)
    return False


def test_killed_ten_times_it_ends_with_the_bits_of_an_unbroken_run(tmp_path: Path) -> None:
    whole = cohort(tmp_path / "whole")
    process = start(whole)
    _, err = process.communicate()
    assert process.returncode == 0, err.decode()
    killed, kills = cohort(tmp_path / "killed"), 0
    moments = random.Random(0)
    while True:
        process = start(killed)
        if kills < KILLS and wait_for_epoch(killed, process):
            # Some epochs last a few milliseconds: anywhere in the first few after the resume.
            time.sleep(moments.uniform(0, 0.08))
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                kills += 1
        _, err = process.communicate()
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, err.decode()
    assert kills == KILLS
    one, two = run_of(whole), run_of(killed)
    for name in ("last.safetensors", "best.safetensors"):
        same_weights(one, two, name)
        assert verify_tensors(read_header(two.checkpoints_folder / name)) == []
    assert [row["loss"] for row in one.read_history()] == [r["loss"] for r in two.read_history()]
    rows = [{k: row[k] for k in ("file", "kind", "epoch")} for row in one.read_checkpoints()]
    assert rows == [{k: r[k] for k in ("file", "kind", "epoch")} for r in two.read_checkpoints()]
    names = {row["file"] for row in two.read_checkpoints()}
    there = {f.name for f in two.checkpoints_folder.iterdir()}
    assert {n for n in there if not n.startswith((TEMPORARY_PREFIX, ".linking"))} == names


def test_sigterm_saves_between_two_steps_and_the_run_goes_on(tmp_path: Path) -> None:
    whole, stopped = cohort(tmp_path / "whole"), cohort(tmp_path / "stopped")
    process = start(whole)
    process.communicate()
    process = start(stopped)
    assert wait_for_epoch(stopped, process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    assert b"Stopped; everything learned so far is saved." in err
    header = read_header(run_of(stopped).checkpoints_folder / "last.safetensors")
    assert 0 < header.document["step"] < EPOCHS * header.document["plan"]["steps_per_epoch"]
    process = start(stopped)
    process.communicate()
    assert process.returncode == 0
    same_weights(run_of(whole), run_of(stopped), "last.safetensors")
