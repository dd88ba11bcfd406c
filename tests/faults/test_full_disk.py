"""A disk that fills up, through the real command, on a small file system of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from faulty_place import TRAIN, Place
from tiny_classified import SMALL, write_tiny_classified

from medtool.verbs.planning import FINGERPRINTS_FOLDER

DISK_KB = 512
# What a file takes at least of a tmpfs.
PAGE_BYTES = 4096


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder with half a megabyte; skips where this user may not mount one."""
    if sys.platform != "linux":
        pytest.skip("only Linux mounts a tmpfs for a test")
    disk = tmp_path / "disk"
    disk.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={DISK_KB}k", "tmpfs", str(disk)]
    if subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a file system")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill(disk: Path, *, leave_kb: int) -> Path:
    """A file that leaves only so much room."""
    ballast = disk / "ballast"
    ballast.write_bytes(bytes((DISK_KB - leave_kb) * 1024))
    return ballast


def test_infer_keeps_what_it_has_and_goes_on(
    place: Place, small_disk: Path, medtool, monkeypatch
) -> None:
    out = small_disk / "out"
    words = ["infer", "scans", "-c", place.run, "-o", out, "--device", "cpu", "--workers", "0"]
    ballast = fill(small_disk, leave_kb=8)
    full = medtool(*words)
    assert full.status == 5
    assert "The disk is full." in full.err
    assert f"where: {out}" in full.err
    assert "what was finished is kept" in full.err
    assert list(out.glob(".writing-*")) == []
    ballast.unlink()
    assert medtool(*words, "--continue").status == 0
    assert medtool(*words[:4], "-o", place.folder / "roomy", *words[6:]).status == 0
    for name in ("predictions.csv", "slices.csv"):
        assert (out / name).read_bytes() == (place.folder / "roomy" / name).read_bytes()


def test_a_training_goes_on_when_there_is_room_again(
    place: Place, small_disk: Path, medtool
) -> None:
    """The first epoch fits, the second checkpoint does not."""
    (small_disk / "medtool.toml").write_text(
        f'[paths]\nruns = "{small_disk / "runs"}"\n[data]\nfolder = "{place.folder}"\n'
    )
    words = [*TRAIN, "--run", "full", "--workers", "0", "--cache", place.folder / "cache-here"]
    words += ["--set", "train.epochs=2", "--start-or-resume"]
    ballast = fill(small_disk, leave_kb=90)
    full = medtool(*words, folder=small_disk)
    assert full.status == 5
    assert "The disk is full." in full.err
    run = small_disk / "runs" / "faulty" / "full"
    assert list(run.rglob(".writing-*")) == []
    ballast.unlink()
    assert medtool(*words, folder=small_disk).status == 0
    assert (run / "report.html").is_file()


def is_prepared(path: Path) -> bool:
    """Whether this file of a cache is a prepared case; what was measured for the plan is none."""
    return path.suffix == ".b2" and FINGERPRINTS_FOLDER not in path.parts


@pytest.mark.parametrize("workers", [0, 1])
def test_a_preparation_goes_on_when_there_is_room_again(
    tmp_path: Path, small_disk: Path, medtool, monkeypatch, workers: int
) -> None:
    """Somebody else fills the disk after it was found large enough."""
    monkeypatch.setattr("medtool.data.preparation.require_disk", lambda *_, **__: None)
    write_tiny_classified(tmp_path / "data", cases=8)
    settings = [word for assignment in SMALL for word in ("--set", assignment)]
    words = ["preprocess", "pancreas", "--data", tmp_path / "data", *settings]
    words += ["--workers", workers, "--cache"]
    assert medtool(*words, tmp_path / "roomy").status == 0
    sizes_kb = {
        path: -(-path.stat().st_size // PAGE_BYTES) * PAGE_BYTES // 1024
        for path in (tmp_path / "roomy").rglob("*")
        if path.is_file()
    }
    prepared = [path for path in sizes_kb if is_prepared(path)]
    assert len(prepared) == 8
    # Room for the plan and for half of the cases.
    half_kb = sum(sizes_kb[path] for path in prepared) // 2
    ballast = fill(small_disk, leave_kb=sum(sizes_kb.values()) - half_kb)
    cache = small_disk / "cache"
    full = medtool(*words, cache)
    assert full.status == 5
    assert "The disk is full." in full.err
    assert list(cache.rglob(".writing-*")) == []
    kept = {path: path.stat().st_mtime_ns for path in cache.rglob("*") if is_prepared(path)}
    assert 0 < len(kept) < 8
    ballast.unlink()
    assert medtool(*words, cache).status == 0
    there = {path.name for path in cache.rglob("*") if is_prepared(path)}
    assert there == {path.name for path in prepared}
    assert all(path.stat().st_mtime_ns == changed for path, changed in kept.items())
