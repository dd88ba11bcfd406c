"""Answers to many cases: what cannot be written is a case without one."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path

import pytest
from medtool_segment.demo import write_dataset
from untrained_segment import write_model

from medtool.core.errors import MachineError
from medtool.core.progress import Silent
from medtool.core.records import Source
from medtool.data.cache import Cache
from medtool.data.cohort import build_cohort
from medtool.predict.answers import Answers, answers_of
from medtool.predict.model import Model, load_model

SPACING = "[2.0, 2.0, 2.0]"
WHY = "Something that is no file stands where one is to be written."


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Model]:
    """Three cases and a model with random weights."""
    folder = tmp_path_factory.mktemp("answers")
    write_dataset(folder / "data", seed=4, cases=3)
    write_model(folder / "model.safetensors", SPACING)
    return folder, load_model(folder / "model.safetensors", device="cpu")


def answered(place: tuple[Path, Model], model: Model, name: str) -> Answers:
    folder, _ = place
    cases = build_cohort(model.task, Source((folder / "data",)), reporter=Silent()).cases
    cache = Cache(folder / "cache", model.task)
    return answers_of(model, cases, cache, folder / name, lambda *_: None)


def test_a_case_that_cannot_be_written_has_no_answer(place: tuple[Path, Model]) -> None:
    folder, model = place
    whole = answered(place, model, "whole")
    assert (len(whole.cases), whole.failed, whole.note) == (3, {}, "")
    first = whole.cases[0].case_id
    (folder / "hindered" / str(whole.rows[first]["mask"]) / "a folder").mkdir(parents=True)
    found = answered(place, model, "hindered")
    assert found.failed == {first: WHY}
    assert [case.case_id for case in found.cases] == [c.case_id for c in whole.cases[1:]]
    assert found.note == (
        f"Without an answer and not in the numbers: 1 of 3 cases ({first}: {WHY})."
    )


def test_a_full_disk_is_no_matter_of_one_case(
    place: tuple[Path, Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    _, model = place
    monkeypatch.setattr(type(model.task), "write", full)
    with pytest.raises(MachineError, match="The disk is full"):
        answered(place, model, "full")


def test_of_many_the_first_are_named(place: tuple[Path, Model]) -> None:
    whole = answered(place, place[1], "many")
    note = replace(whole, failed={f"c{n}": "why" for n in range(7)}).note
    assert "7 of 10 cases (c0: why; c1: why; c2: why; c3: why; c4: why; ...)." in note
