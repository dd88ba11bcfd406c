"""The script of continuous integration: without the real scans it ends, and says so."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / ".ci" / "run"


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
@pytest.mark.skipif(not SCRIPT.is_file(), reason="no checkout: a source distribution has no .ci")
def test_without_real_scans_it_fails_before_anything_else(tmp_path: Path) -> None:
    copy = tmp_path / "checkout" / ".ci" / "run"
    copy.parent.mkdir(parents=True)
    shutil.copyfile(SCRIPT, copy)
    done = subprocess.run(["bash", copy], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "missing: ../shared/data, the real scans of the tests\n"
    assert done.stdout == ""
