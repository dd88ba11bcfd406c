"""Ctrl-C, SIGTERM and SIGKILL through the real command: nothing lost, nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from faulty_place import TRAIN, Place, wait_for_an_empty_group, wait_until
from safetensors.numpy import load_file

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are of POSIX")


def lines_of(file: Path) -> int:
    return len(file.read_bytes().splitlines()) if file.is_file() else 0


def hidden(folder: Path) -> list[Path]:
    return [path for path in folder.rglob(".*")]


def learned(run: Path) -> dict[str, bytes]:
    """The bits of everything that was learned in a run."""
    tensors = load_file(run / "checkpoints" / "last.safetensors")
    return {k: v.tobytes() for k, v in tensors.items() if k.startswith(("model.", "optimizer."))}


def press_ctrl_c(process: subprocess.Popen[str]) -> tuple[int, str]:
    """As a terminal does: to every process of the group."""
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=120)
    return process.returncode, err


@pytest.fixture(scope="module")
def answers(place: Place) -> Path:
    """What an unbroken run gives."""
    from medtool.cli.app import main

    out = place.folder / "unbroken"
    words = ["infer", "scans", "-c", str(place.run), "-o", str(out), "--workers", "0", "--quiet"]
    assert main([*words, "--device", "cpu"]) == 0
    return out


@pytest.mark.parametrize("how", ["ctrl-c", "killed"])
def test_infer_goes_on_with_the_same_files(place: Place, answers: Path, medtool, how: str) -> None:
    out = place.folder / f"answers-{how}"
    words = ["infer", "scans", "-c", place.run, "-o", out, "--device", "cpu", "--workers", "1"]
    process = place.start(*words)
    wait_until(lambda: lines_of(out / ".partial" / "journal.jsonl") >= 3, process)
    second = medtool(*words, "--force")
    assert (second.status, process.poll()) == (2, None)
    assert "Another process is writing here." in second.err
    if how == "ctrl-c":
        status, err = press_ctrl_c(process)
        assert status == 130
        assert "studies are done and kept" in err
        assert "--continue" in err
    else:
        process.kill()
        process.communicate()
    wait_for_an_empty_group(process.pid)
    again = medtool(*words)
    assert again.status == 2
    assert "--continue finishes it" in again.err
    assert medtool(*words[:-1], "0", "--continue").status == 0
    for name in ("predictions.csv", "slices.csv"):
        assert (out / name).read_bytes() == (answers / name).read_bytes()
    assert hidden(out) == []


def test_train_interrupted_while_preparing_goes_on(place: Place, medtool) -> None:
    cache = place.folder / "cache-of-train"
    words = [*TRAIN, "--run", "two", "--set", "train.epochs=2", "--cache", cache]
    process = place.start(*words, "--workers", "1")
    wait_until(lambda: len(list(cache.rglob("*_slow*"))) >= 2, process)
    status, err = press_ctrl_c(process)
    assert status == 130
    assert "how to go on: the same command with --run two --start-or-resume." in err
    wait_for_an_empty_group(process.pid)
    done = medtool(*words, "--workers", "0", "--start-or-resume")
    assert done.status == 0
    run = place.run.with_name("two")
    assert learned(run) == learned(place.run)
    assert hidden(run) == []


def test_preprocess_interrupted_goes_on(place: Place, medtool) -> None:
    cache = place.folder / "cache-of-preprocess"
    words = ["preprocess", "faulty", "--cache", cache, "--workers", "1"]
    process = place.start(*words)
    wait_until(lambda: len(list(cache.rglob("*_slow*"))) >= 2, process)
    status, err = press_ctrl_c(process)
    assert status == 130
    assert "how to go on: run the same command again." in err
    wait_for_an_empty_group(process.pid)
    assert [file for file in cache.rglob(".writing-*")] == []
    done = medtool(*words)
    assert done.status == 0
    assert "8 studies are ready (" in done.out
    assert "(0 were before)" not in done.out


def test_a_killed_training_leaves_no_process(place: Place) -> None:
    words = [*TRAIN, "--run", "orphans", "--set", "train.epochs=2000", "--workers", "1"]
    process = place.start(*words)
    last = place.run.with_name("orphans") / "checkpoints" / "last.safetensors"
    wait_until(last.is_file, process)
    process.kill()
    process.wait()
    # torch watches the parent of its loaders, which under a fork server is not the training.
    wait_for_an_empty_group(process.pid)
    process.communicate()
