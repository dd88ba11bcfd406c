"""Tables of a run that somebody looks at in a spreadsheet while it learns, as on Windows."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from held_open import held_open
from listening import Listening
from tiny_task import TinyTask, write_tiny_cohort

from medtool.core.files import file_sha256
from medtool.core.progress import Advance
from medtool.data.run_folder import RunFolder
from medtool.verbs.options import RunOptions
from medtool.verbs.train import TrainOptions, train

EPOCHS = 6


class Watching(Listening):
    """Calls ``opened`` when the second epoch is over, and ``scoring`` when the scoring begins."""

    def __init__(self, opened: Callable[[], None], scoring: Callable[[], None]) -> None:
        super().__init__()
        self.opened = opened
        self.scoring = scoring

    def say(self, text: str) -> None:
        super().say(text)
        if text.startswith(f"Epoch 2 of {EPOCHS}"):
            self.opened()

    def progress(self, description: str, total: int | None) -> AbstractContextManager[Advance]:
        if description == "Scoring":
            self.scoring()
        return super().progress(description, total)


def trained(folder: Path, said: Watching) -> Path:
    # A milestone every epoch, of which one is kept: the table is soon of files that are gone.
    settings = (
        f"train.epochs={EPOCHS}",
        "train.checkpoint_every_epochs=1",
        "train.keep=1",
        "metrics.bootstrap_draws=100",
    )
    write_tiny_cohort(folder, patients=24)
    options = TrainOptions(
        task=TinyTask,
        assignments=settings,
        run=RunOptions(run="first", device="cpu", workers=0),
        command="medtool train tiny",
    )
    return train(options, said).report


def tables(run: RunFolder) -> list[str]:
    return sorted(file.name for file in run.path.glob("*.csv"))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    monkeypatch.chdir(tmp_path)
    return RunFolder(tmp_path / "runs" / "tiny" / "first")


def test_the_run_ends_and_its_tables_are_whole_under_second_names(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = held_open(monkeypatch)
    said = Watching(lambda: held.update({run.history_file, run.checkpoints_file}), lambda: None)
    report = trained(tmp_path, said)
    assert tables(run) == [
        "cases.csv",
        "checkpoints-2.csv",
        "checkpoints.csv",
        "history-2.csv",
        "history.csv",
    ]
    told = [line for line in said.lines if "is open elsewhere" in line]
    assert sorted(line.rsplit(" ", 1)[1] for line in told) == [
        "checkpoints-2.csv.",
        "history-2.csv.",
    ]
    assert all(line in run.log_file.read_text() for line in told)
    run.second_names.names[run.history_file] = run.path / "history-2.csv"
    run.second_names.names[run.checkpoints_file] = run.path / "checkpoints-2.csv"
    assert [row["epoch"] for row in run.read_history()] == list(range(EPOCHS))
    assert_whole(run)
    # The report is made of the newest rows.
    assert f"stage_0_epoch_{EPOCHS - 1:04d}.safetensors" in report.read_text()


def test_closed_before_the_end_they_have_their_own_names_again(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = held_open(monkeypatch)
    said = Watching(lambda: held.update({run.history_file, run.checkpoints_file}), held.clear)
    trained(tmp_path, said)
    assert tables(run) == ["cases.csv", "checkpoints.csv", "history.csv"]
    assert [row["epoch"] for row in run.read_history()] == list(range(EPOCHS))
    assert_whole(run)


def test_a_checkpoint_that_somebody_took_away_leaves_the_table(
    run: RunFolder, tmp_path: Path
) -> None:
    milestone = run.checkpoints_folder / f"stage_0_epoch_{EPOCHS - 1:04d}.safetensors"
    said = Watching(lambda: None, lambda: milestone.rename(tmp_path / "moved.safetensors"))
    assert trained(tmp_path, said).is_file()
    assert [row["kind"] for row in run.read_checkpoints()] == ["best", "last"]


def assert_whole(run: RunFolder) -> None:
    rows = run.read_checkpoints()
    files = {file.name for file in run.checkpoints_folder.iterdir()}
    assert {row["file"] for row in rows} == files
    for row in rows:
        assert row["sha256"] == file_sha256(run.checkpoints_folder / row["file"])
    (best,) = (row for row in rows if row["kind"] == "best")
    assert best["low"] <= best["value"] <= best["high"]
