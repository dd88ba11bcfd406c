"""Folders in which one process works at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from medtool.core.errors import OutputExistsError
from medtool.data.locks import alone


def test_one_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "one"
    with alone(folder):
        (folder / "file").touch()
        with pytest.raises(OutputExistsError, match="Another process is writing here"):
            with alone(folder):
                pass
    with alone(folder):
        pass
    assert [path.name for path in folder.iterdir()] == ["file"]


def test_what_was_refused_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), alone(tmp_path / "a" / "b"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_the_mark_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / ".in-use").touch()
    with alone(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []
