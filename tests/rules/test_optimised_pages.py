"""The pages on optimised models: commands within lines and in blocks of text are run as well.

Those in blocks of a shell are run by ``test_docs``. Words in capitals stand for files that are made
here.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from documented import ROOT, commands_in_text, inline_code, name_of, pages
from optimised import optimised, write_heart

from medtool.core.geometry import Grid
from medtool.data.nifti_writer import write_nifti

PAGES = [ROOT / "docs" / f"{name}.md" for name in ("optimisation", "pruning", "deploying")]
STANDS_FOR = {"FOLDER": "optimised", "OUT": "out"}
# Commands that are whole without another word.
NEED_NOTHING = ("doctor",)
# Blocks of text with commands that need what cannot be installed beside medtool.
IN_TEXT = {"docs/optimisation.md": 1}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an optimised model under the names of the pages, and scans."""
    folder = tmp_path_factory.mktemp("pages")
    settings = ("data.preparation.intensity=window", 'data.channels=["CT"]')
    checkpoint = write_heart(folder / "heart.safetensors", *settings)
    optimised(checkpoint, folder / "optimised")
    shutil.copytree(folder / "optimised", folder / "small")
    hu = np.random.default_rng(0).normal(40, 300, (4, 40, 50)).astype(np.float32)
    write_nifti(folder / "scan.nii.gz", hu, Grid((50, 40, 4), (1.5, 1.25, 5.0), (0.0, 0.0, 0.0)))
    (folder / "scans").mkdir()
    shutil.copy(folder / "scan.nii.gz", folder / "scans")
    return folder


def calls(page: Path) -> list[list[str]]:
    """The words behind ``medtool`` of commands within lines that could be typed so."""
    found = [shlex.split(code)[1:] for code in inline_code(page) if code.startswith("medtool ")]
    return [words for words in found if len(words) > 1 or words[0] in NEED_NOTHING]


def test_commands_within_lines_are_found() -> None:
    found = {page.stem: [" ".join(words) for words in calls(page)] for page in PAGES}
    assert "doctor --checkpoint small" in found["optimisation"]
    assert "infer scan.nii.gz --checkpoint optimised -o answers" in found["deploying"]
    assert len(found["deploying"]) >= 4


@pytest.mark.parametrize("page", [page for page in PAGES if calls(page)], ids=name_of)
def test_commands_within_lines_run(
    page: Path, place: Path, tmp_path: Path, medtool: Callable[..., Any]
) -> None:
    folder = shutil.copytree(place, tmp_path / "work")
    for words in calls(page):
        told = medtool(*(STANDS_FOR.get(word, word) for word in words), folder=folder)
        assert told.status == 0, f"{words}\n{told.out}\n{told.err}"


def test_no_command_hides_in_a_block_that_nothing_runs() -> None:
    found = {name_of(page): len(commands_in_text(page)) for page in pages()}
    assert {name: count for name, count in found.items() if count} == IN_TEXT


def test_the_command_for_phones_wants_nothing_but_the_converter(
    tmp_path: Path, medtool: Callable[..., Any]
) -> None:
    """With one, tests/verbs/test_optimize_litert.py runs it to its end."""
    (words,) = commands_in_text(PAGES[0])
    run = tmp_path / "runs" / "heart" / "first" / "checkpoints"
    run.mkdir(parents=True)
    write_heart(run / "best.safetensors")
    told = medtool(*words, folder=tmp_path)
    assert told.status == 5
    assert "There is no such Python." in told.err
    # What it says to do is what the page says.
    page = PAGES[0].read_text(encoding="utf-8")
    for line in ("python3 -m venv litert-env", 'litert-env/bin/pip install "litert-torch'):
        assert line in told.err and line in page
