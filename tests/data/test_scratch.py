"""Patients' temporary files do not outlive their process by more than one start."""

import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

from medtool.data import scratch
from medtool.data.scratch import Scratch


def test_it_is_gone_at_the_end(tmp_path) -> None:
    with Scratch(tmp_path / "root") as own:
        (own.path / "slice").write_bytes(b"x")
        folder = own.path
    assert not folder.exists()
    assert not (tmp_path / "root").exists()


def test_a_killed_process_is_swept_and_a_living_one_is_not(tmp_path) -> None:
    script = textwrap.dedent(f"""
        import sys, time
        from pathlib import Path
        from medtool.data.scratch import Scratch
        with Scratch(Path({str(tmp_path / "root")!r})) as scratch:
            (scratch.path / "patient").write_text("x")
            print(scratch.path, flush=True)
            time.sleep(60)
    """)
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        left = process.stdout.readline().strip()
        with Scratch(tmp_path / "root"):
            assert (tmp_path / "root").joinpath(left).joinpath("patient").exists()
        process.kill()
        process.wait()
    with Scratch(tmp_path / "root"):
        assert not (tmp_path / "root").joinpath(left).exists()


def test_a_folder_swept_before_it_was_locked_is_made_again(tmp_path, monkeypatch) -> None:
    """A sweeper that comes between the making and the locking once left a process without one."""
    real, calls = scratch.try_lock, []

    def late(path: Path) -> IO[bytes] | None:
        calls.append(path)
        if len(calls) > 1:
            return real(path)
        held = real(path)  # the file is there and not yet locked by its owner: a sweeper takes it
        assert held is not None
        held.close()
        assert scratch.sweep(tmp_path / "root") == 1
        return None

    monkeypatch.setattr(scratch, "try_lock", late)
    with Scratch(tmp_path / "root") as own:
        assert own.path.is_dir()
        assert own.path != calls[0].parent


def test_processes_that_begin_and_end_at_once_do_not_take_the_folder_from_each_other(
    tmp_path,
) -> None:
    """The one that ended last once removed the root that another had just made."""

    def often(_: int) -> None:
        for _ in range(100):
            with Scratch(tmp_path / "root"):
                pass

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(often, range(4)))
