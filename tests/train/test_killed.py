"""Nothing is lost: SIGKILL at random moments, SIGTERM, and the same bits at the end."""

import random
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from safetensors.numpy import load_file
from tiny_run import start_tiny_run
from tiny_task import write_tiny_cohort

from medtool.core.checkpoint import read_header, verify_tensors
from medtool.data.run_folder import RunFolder

KILLS = 10
EPOCHS = 60
EVERY_EPOCHS = 7
SETTINGS = (
    f"train.epochs={EPOCHS}",
    "train.average_decay=0.9",
    f"train.checkpoint_every_epochs={EVERY_EPOCHS}",
    "metrics.bootstrap_draws=100",
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


def epoch_s(run: RunFolder) -> float:
    """Seconds of an epoch with all that is written at its end, by the files that it left."""
    rows = [row for row in run.read_checkpoints() if row["kind"] in ("milestone", "last")]
    written_s = [(run.checkpoints_folder / row["file"]).stat().st_mtime for row in rows]
    first = min(row["epoch"] for row in rows)
    return (max(written_s) - min(written_s)) / (EPOCHS - 1 - first)


def wait_for_epoch(folder: Path, process: BaseProcess) -> bool:
    """Until the run has written something new; False when it ended."""
    last = run_of(folder).checkpoints_folder / "last.safetensors"
    before = last.stat().st_mtime_ns if last.is_file() else 0
    while process.is_alive():
        if last.is_file() and last.stat().st_mtime_ns != before:
            return True
        time.sleep(0.001)
    return False


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The run that nothing broke off."""
    folder = cohort(tmp_path_factory.mktemp("unbroken") / "whole")
    process, errors = start_tiny_run(folder, *SETTINGS)
    process.join()
    assert process.exitcode == 0, errors.read_text()
    return run_of(folder)


def test_killed_ten_times_it_ends_with_the_bits_of_an_unbroken_run(
    tmp_path: Path, whole: RunFolder
) -> None:
    killed, kills = cohort(tmp_path / "killed"), 0
    moments = random.Random(0)
    while True:
        process, errors = start_tiny_run(killed, *SETTINGS)
        if kills < KILLS and wait_for_epoch(killed, process):
            # Anywhere in the two epochs after the first one since the resume.
            time.sleep(moments.uniform(0, 2) * epoch_s(whole))
            if process.is_alive():
                process.kill()
                kills += 1
        process.join()
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL, errors.read_text()
    assert kills == KILLS
    two = run_of(killed)
    for name in ("last.safetensors", "best.safetensors"):
        same_weights(whole, two, name)
        assert verify_tensors(read_header(two.checkpoints_folder / name)) == []
    assert [row["loss"] for row in whole.read_history()] == [r["loss"] for r in two.read_history()]
    rows = [{k: row[k] for k in ("file", "kind", "epoch")} for row in whole.read_checkpoints()]
    assert rows == [{k: r[k] for k in ("file", "kind", "epoch")} for r in two.read_checkpoints()]
    names = {row["file"] for row in two.read_checkpoints()}
    # What a kill left half-written is gone as well.
    assert {f.name for f in two.checkpoints_folder.iterdir()} == names


def test_sigterm_saves_between_two_steps_and_the_run_goes_on(
    tmp_path: Path, whole: RunFolder
) -> None:
    stopped = cohort(tmp_path / "stopped")
    process, errors = start_tiny_run(stopped, *SETTINGS)
    assert wait_for_epoch(stopped, process)
    process.terminate()
    process.join()
    assert "Stopped; everything learned so far is saved." in errors.read_text()
    header = read_header(run_of(stopped).checkpoints_folder / "last.safetensors")
    assert 0 < header.document["step"] < EPOCHS * header.document["plan"]["steps_per_epoch"]
    process, errors = start_tiny_run(stopped, *SETTINGS)
    process.join()
    assert process.exitcode == 0, errors.read_text()
    same_weights(whole, run_of(stopped), "last.safetensors")
