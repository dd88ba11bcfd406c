"""preprocess: the cache it fills, what it tells, and previews."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from faulty_task import FaultyTask, write_scans
from tiny_task import TinyTask, write_tiny_cohort

from medtool.core import registry
from medtool.core.errors import OutputExistsError, UsageError
from medtool.core.records import Case
from medtool.verbs import task_data
from medtool.verbs.preprocess import preprocess
from medtool.verbs.task_data import DataOptions


class PreviewTask(TinyTask):
    """The tiny task with previews."""

    name = "preview"

    def preview(self, case: Case, folder: Path) -> Sequence[Path]:
        """One file with the label in it."""
        file = folder / f"{case.case_id}.txt"
        file.write_text(str(case.label))
        return [file]


TASKS = {"tiny": TinyTask, "faulty": FaultyTask, "preview": PreviewTask}


@pytest.fixture(autouse=True)
def _tiny_tasks_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    load = registry.load_task
    monkeypatch.setattr(task_data, "load_task", lambda name: TASKS.get(name) or load(name))


def test_the_command_fills_the_cache_of_the_working_folder(
    tmp_path: Path, medtool: Callable[..., Any]
) -> None:
    write_tiny_cohort(tmp_path, patients=3)
    first = medtool("preprocess", "tiny", "--workers", "0", folder=tmp_path)
    assert (first.status, first.out.split(" studies")[0]) == (0, "4")
    assert len(list((tmp_path / ".medtool" / "cache" / "tiny").glob("*/*.b2"))) == 4
    again = medtool("preprocess", "tiny", "--workers", "0", "--json", folder=tmp_path)
    document = json.loads(again.out)
    assert document["reused"] == ["P000_0", "P000_1", "P001_0", "P002_0"]
    assert document["failures"] == []


def test_failures_are_listed_and_the_status_says_so(
    tmp_path: Path, medtool: Callable[..., Any]
) -> None:
    write_scans(tmp_path, "a", "b_refused", "c_error")
    words = ("preprocess", "faulty", "--data", tmp_path, "--cache", tmp_path / "c", "--workers")
    outcome = medtool(*words, "0")
    assert outcome.status == 1
    assert "b_refused: refused, too-strange: The scan is too strange. (met: a cow)" in outcome.err
    assert "c_error: failed, unforeseen: ZeroDivisionError" in outcome.err
    only_bad = write_scans(tmp_path / "bad", "b_refused")
    result = preprocess(DataOptions("faulty", only_bad), cache=tmp_path / "c", workers=0)
    assert result.status == 3


def test_another_preparation_is_another_cache(tmp_path: Path) -> None:
    write_tiny_cohort(tmp_path, patients=1)
    folders = {
        preprocess(
            DataOptions("tiny", tmp_path, assignments=[f"data.preparation.scale={scale}"]),
            cache=tmp_path / "c",
            workers=0,
        ).cache
        for scale in (1.0, 2.0)
    }
    assert len(folders) == 2


def test_previews_show_one_case_a_class(tmp_path: Path) -> None:
    write_tiny_cohort(tmp_path / "data", patients=4)
    options = DataOptions("preview", tmp_path / "data")
    result = preprocess(options, cache=tmp_path / "c", preview=tmp_path / "p")
    assert [path.read_text() for path in result.pictures] == ["0.0", "1.0"]
    assert result.report is None
    assert not (tmp_path / "c").exists()
    with pytest.raises(OutputExistsError):
        preprocess(options, cache=tmp_path / "c", preview=tmp_path / "p")
    with pytest.raises(UsageError, match="no previews"):
        preprocess(DataOptions("tiny", tmp_path / "data"), preview=tmp_path / "q")
