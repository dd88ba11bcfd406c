"""A case that cannot be written or drawn when a training is scored: named, and the run goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from listening import Listening
from medtool_heart import Heart
from trained_heart import train_heart

from medtool.core.errors import InputError
from medtool.data.predictions import read_predictions
from medtool.data.run_folder import RunFolder
from medtool.verbs.options import RunOptions
from medtool.verbs.train import TrainOptions, TrainResult, train

WHY = "Something that is no file stands where one is to be written."


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(train_heart(tmp_path, "train.epochs=1"))


def stand_in_the_way(file: Path) -> None:
    """A folder with something in it where a file is to be written: no writer gets past it."""
    file.unlink(missing_ok=True)
    file.mkdir(parents=True)
    (file / "something").write_text("of somebody else")


def scored_again(run: RunFolder, said: Listening | None = None) -> TrainResult:
    folder = run.path.parents[2]
    return train(
        TrainOptions(
            task=Heart,
            resume=run.path,
            folder=folder,
            run=RunOptions(workers=0, cache=folder / "cache", device="cpu"),
        ),
        said,
    )


def test_it_is_a_failed_case_and_the_numbers_say_on_how_many_they_stand(run: RunFolder) -> None:
    folder = run.predictions_folder / "test"
    rows = read_predictions(folder)
    before = run.read_scores()["test"]
    assert before["metrics"]["dice"]["n"] == len(rows) > 2
    # All are drawn: there are fewer than the preset asks for.
    unwritten, undrawn = rows[0], rows[1]
    stand_in_the_way(folder / unwritten["mask"])
    stand_in_the_way(folder / "overlays" / undrawn["case"] / "planes.png")
    said = Listening()
    result = scored_again(run, said)
    assert result.failures == 2
    after = {row["case"]: row for row in read_predictions(folder)}
    assert len(after) == len(rows)
    assert [after[unwritten["case"]][name] for name in ("status", "code", "message", "mask")] == [
        "failed",
        "writing",
        WHY,
        "",
    ]
    assert sum(row["status"] == "ok" for row in after.values()) == len(rows) - 1
    scores = run.read_scores()["test"]
    # The case that could not be drawn has been answered, and counts.
    assert scores["metrics"]["dice"]["n"] == len(rows) - 1
    assert f"1 of {len(rows)} cases ({unwritten['case']}: {WHY})" in " ".join(scores["notes"])
    lines = (
        f"{unwritten['case']}: no answer: {WHY}",
        f"{undrawn['case']}: scored, but not drawn: IsADirectoryError: Is a directory",
    )
    for line in lines:
        assert line in said.lines
        assert line in run.log_file.read_text()
        assert line in json.loads(run.run_file.read_text())["notes"]
    assert WHY in result.report.read_text()


def test_where_nothing_can_be_written_the_run_ends_with_the_reason(run: RunFolder) -> None:
    folder = run.predictions_folder / "selection"
    for row in read_predictions(folder):
        stand_in_the_way(folder / row["mask"])
    with pytest.raises(InputError, match="No case of the part selection") as error:
        scored_again(run)
    assert WHY in error.value.met
    assert all(row["status"] == "failed" for row in read_predictions(folder))
