"""The plugin that docs/plugin.md ends in: built, installed and run, as it stands in the page."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from documented import ROOT, SHOWN_ONLY, shell_blocks

PAGE = ROOT / "docs" / "plugin.md"
FILE = re.compile(r"<!-- file: ([\w./-]+) -->\n```\w+\n(.*?)```", re.DOTALL)
PIP = ("-m", "pip", "--disable-pip-version-check", "--no-input")


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the plugin installed from its own wheel, without network."""
    source = tmp_path_factory.mktemp("medtool-spot")
    files = FILE.findall(PAGE.read_text(encoding="utf-8"))
    assert len(files) == 5
    for name, body in files:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(body, encoding="utf-8")
    wheels, target = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("target")
    alone = ("--no-index", "--no-deps", "--quiet")
    for words in (
        ("wheel", "--no-build-isolation", *alone, "--wheel-dir", wheels, source),
        ("install", *alone, "--target", target, "--find-links", wheels, "medtool-spot"),
    ):
        done = subprocess.run(
            [sys.executable, *PIP, *map(str, words)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    return target


@pytest.fixture
def with_plugin(target: Path, fresh_python: Callable[..., Any], tmp_path: Path) -> Any:
    """Run python in a fresh process that sees the plugin."""

    def run(*words: str) -> Any:
        return fresh_python(*words, folder=tmp_path, environment={"PYTHONPATH": str(target)})

    return run


def test_it_keeps_the_contract(with_plugin: Any) -> None:
    outcome = with_plugin("-c", "from medtool.testing import check_task; check_task('spot')")
    assert outcome.status == 0, outcome.err


@pytest.mark.slow
def test_the_commands_of_the_page_run(with_plugin: Any, tmp_path: Path) -> None:
    commands = [
        command
        for mark, block in shell_blocks(PAGE)
        for command in block
        if mark.startswith(SHOWN_ONLY) and command.words[0] == "medtool"
    ]
    assert len(commands) == 3
    for command in commands:
        outcome = with_plugin("-m", "medtool.cli.app", *command.words[1:])
        assert outcome.status == 0, f"$ {command.text}\n{outcome.out}\n{outcome.err}"
        if command.words[1:] == ["tasks"]:
            assert "spot" in outcome.out and "cannot be loaded" not in outcome.out
        if "presets" in command.words:
            assert "demo" in outcome.out
    assert (tmp_path / "try-spot" / "runs" / "spot" / "demo" / "report.html").is_file()
