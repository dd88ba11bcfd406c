"""Every registered task keeps the contract; a task that does not is told what it breaks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_task import TinyTask

from medtool.core.records import Case, Prepared
from medtool.core.registry import task_names
from medtool.testing import TASK_CHECKS, BrokenContract, Workbench, check_task


@pytest.fixture(scope="module", params=task_names())
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    """A registered task with its demo."""
    return Workbench(request.param, tmp_path_factory.mktemp(request.param))


@pytest.mark.parametrize("check", TASK_CHECKS, ids=lambda check: check.__name__)
def test_a_registered_task_keeps_the_contract(bench: Workbench, check) -> None:
    check(bench)


def test_check_task_says_nothing_of_a_sound_task(tmp_path: Path) -> None:
    check_task(TinyTask, folder=tmp_path)


def test_a_temporary_folder_is_taken_and_removed() -> None:
    check_task(TinyTask)


class Restless(TinyTask):
    """Prepares a case differently each time, and asks for a column that it does not give."""

    columns = {**TinyTask.columns, "mood": ("text", "", "how the model feels")}
    _count: Iterator[int] = iter(range(1000))

    def prepare(self, case: Case) -> Prepared:
        prepared = super().prepare(case)
        slices = prepared.arrays["slices"] + next(self._count)
        return Prepared(case.case_id, {"slices": slices}, facts=prepared.facts)


def test_all_broken_promises_are_listed(tmp_path: Path) -> None:
    with pytest.raises(BrokenContract) as caught:
        check_task(Restless, folder=tmp_path)
    text = str(caught.value)
    assert "check_preparation: Preparing a case twice gives two results." in text
    assert "check_answers: The row has other columns than declared." in text
    assert "breaks 2 promise(s)" in text
