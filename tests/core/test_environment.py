"""What is read from the environment, and what is written there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from medtool.core import environment


def test_recorded_are_torchs_and_slurms_and_no_persons(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("SLURM_JOB_USER", "somebody")
    monkeypatch.setenv("MEDTOOL_ANYTHING", "1")
    recorded = environment.recorded_environment()
    assert recorded["SLURM_JOB_ID"] == "17"
    assert recorded["WORLD_SIZE"] == "2"
    assert not {"SLURM_JOB_USER", "MEDTOOL_ANYTHING"} & set(recorded)


@pytest.mark.parametrize(("value", "forbidden"), [("1", True), ("", False), (None, False)])
def test_no_color(monkeypatch, value, forbidden):
    if value is None:
        monkeypatch.delenv("NO_COLOR")
    else:
        monkeypatch.setenv("NO_COLOR", value)
    assert environment.colour_forbidden() is forbidden


def test_no_setting_of_ours_is_a_variable():
    assert not [name for name in environment.RECORDED_VARIABLES if "MEDTOOL" in name]


LARGE_PAGES_OF_LINUX = Path("/sys/kernel/mm/transparent_hugepage/enabled")
TAKES_MEMORY = """
import re
from pathlib import Path
from medtool.core.environment import ask_for_large_pages
if {ask}: ask_for_large_pages()
import torch
maps = torch.zeros(64 * 2**20, dtype=torch.uint8)
found = re.search(r"AnonHugePages: *([0-9]+) kB", Path("/proc/self/smaps_rollup").read_text())
print(found[1])
"""


def _on_request() -> bool:
    """Whether this Linux gives large pages to those who ask."""
    try:
        return "[madvise]" in LARGE_PAGES_OF_LINUX.read_text()
    except OSError:
        return False


@pytest.mark.skipif(not _on_request(), reason="no large pages on request")
@pytest.mark.parametrize(("ask", "own"), [(True, None), (True, "0"), (False, None)])
def test_torch_takes_large_pages_when_asked(
    monkeypatch: pytest.MonkeyPatch, ask: bool, own: str | None
) -> None:
    monkeypatch.setenv(environment.LARGE_PAGES, own or "")
    if own is None:
        monkeypatch.delenv(environment.LARGE_PAGES)
    done = subprocess.run(
        [sys.executable, "-c", TAKES_MEMORY.format(ask=ask)],
        capture_output=True,
        text=True,
        check=True,
    )
    # At least half of it: the system may be out of them.
    assert (int(done.stdout) > 32 * 1024) == (ask and own is None)


def asked() -> str | None:
    """What stands in the environment now."""
    return os.environ.get(environment.LARGE_PAGES)  # noqa: TID251 - what the command wrote


def test_only_what_answers_asks_for_large_pages(monkeypatch, medtool, tmp_path):
    monkeypatch.setenv(environment.LARGE_PAGES, "")
    monkeypatch.delenv(environment.LARGE_PAGES)
    assert medtool("train", "brainmet", "--data", tmp_path / "none").status != 0
    assert asked() is None
    words = ["infer", tmp_path / "none", "-c", tmp_path / "none", "-o", tmp_path / "out"]
    assert medtool(*words).status != 0
    assert asked() == "1"
