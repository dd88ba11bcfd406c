"""Patients' temporary files do not outlive their process by more than one start."""

import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

from medtool.data.scratch import Scratch


def test_it_is_gone_at_the_end(tmp_path) -> None:
    with Scratch(tmp_path / "root") as scratch:
        (scratch.path / "slice").write_bytes(b"x")
        folder = scratch.path
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
