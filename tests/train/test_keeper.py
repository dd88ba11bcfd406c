"""Which checkpoints stay: last, best, ends of stages, milestones, never more than ``keep``."""

from pathlib import Path

import pytest

from medtool.core.checkpoint import write_checkpoint
from medtool.core.errors import CheckpointError
from medtool.data.run_folder import RunFolder
from medtool.train.keeper import Keeper, resume_point
from medtool.train.loop import EpochDone
from medtool.train.plan import Plan, Stage

# Two stages of four epochs.
PLAN = Plan(8, 5, 2, (Stage(0, {"head": 1.0}), Stage(4, {"head": 1.0, "trunk": 1.0})))


def done(epoch: int, value: float, *, best: bool, ends_stage: bool = False) -> EpochDone:
    return EpochDone(
        epoch=epoch,
        stage=epoch // 4,
        losses={"loss": 1.0},
        metrics={"auroc": value, "threshold": 0.25},
        rates={},
        seconds=1.0,
        data_wait_share=0.0,
        is_best=best,
        ends_stage=ends_stage,
    )


class Saver:
    """Writes checkpoints that say which epoch they are of."""

    epoch = -1
    step = 0

    def __call__(self, path: Path) -> None:
        best = {"epoch": 2 if self.epoch >= 2 else 0, "value": 0.0, "loss": 0.0}
        document = {
            "epoch": self.epoch,
            "live": {"best": best, "step": self.step},
            "metrics": {"primary": "auroc", "selection": {"auroc": 0.5}},
            "plan": PLAN.as_document(),
        }
        write_checkpoint(path, document, [])


def keeper(folder: Path, **changes: int) -> tuple[Keeper, Saver]:
    saver = Saver()
    given = {"every_epochs": 2, "keep": 3, **changes}
    return Keeper(RunFolder(folder), saver, metric="auroc", **given), saver  # type: ignore[arg-type]


def files(folder: Path) -> list[str]:
    return sorted(f.name for f in (folder / "checkpoints").iterdir())


def run(folder: Path, epochs: int, **changes: int) -> Keeper:
    kept, saver = keeper(folder, **changes)
    for epoch in range(epochs):
        saver.epoch = epoch
        kept.after_epoch(done(epoch, epoch / 16, best=epoch in (0, 2), ends_stage=epoch in (3, 7)))
    return kept


def test_best_last_ends_of_stages_and_milestones(tmp_path: Path) -> None:
    run(tmp_path, 6, keep=9)
    rows = RunFolder(tmp_path).read_checkpoints()
    found = [(row["file"], row["kind"], row["epoch"], row["value"]) for row in rows]
    assert found == [
        ("best.safetensors", "best", 2, 2 / 16),
        ("last.safetensors", "last", 5, 5 / 16),
        ("epoch_0001.safetensors", "milestone", 1, 1 / 16),
        # Epoch 3 ends a stage: it is no milestone besides.
        ("stage_0_epoch_0003.safetensors", "stage-end", 3, 3 / 16),
        ("epoch_0005.safetensors", "milestone", 5, 5 / 16),
    ]
    assert {row["threshold"] for row in rows} == {0.25}
    assert files(tmp_path) == sorted(row["file"] for row in rows)


def test_the_oldest_go_when_there_are_more_than_keep(tmp_path: Path) -> None:
    run(tmp_path, 10, keep=2)
    assert files(tmp_path) == [
        "best.safetensors",
        "epoch_0009.safetensors",
        "last.safetensors",
        "stage_1_epoch_0007.safetensors",
    ]


def test_without_milestones_only_ends_of_stages_are_kept(tmp_path: Path) -> None:
    run(tmp_path, 8, every_epochs=0)
    assert [name for name in files(tmp_path) if "epoch" in name] == [
        "stage_0_epoch_0003.safetensors",
        "stage_1_epoch_0007.safetensors",
    ]


def test_a_resumed_run_drops_the_rows_of_epochs_that_come_again(tmp_path: Path) -> None:
    run(tmp_path, 6, keep=9)
    again, _ = keeper(tmp_path, keep=9)
    again.resume(4)
    assert [(row["kind"], row["epoch"]) for row in again.rows] == [
        ("best", 2),
        ("milestone", 1),
        ("stage-end", 3),
    ]


@pytest.mark.parametrize(
    ("epoch", "name", "kind"),
    [
        (2, "best.safetensors", "best"),
        (1, "epoch_0001.safetensors", "milestone"),
        (3, "stage_0_epoch_0003.safetensors", "stage-end"),
    ],
)
def test_names_that_a_kill_left_behind_are_given_again(
    tmp_path: Path, epoch: int, name: str, kind: str
) -> None:
    kept = run(tmp_path, epoch)
    # The kill came after ``last``, before its other names.
    saver = Saver()
    saver.epoch = epoch
    kept.save = saver
    kept.save_last(epoch, {"auroc": 0.5})
    again, _ = keeper(tmp_path)
    again.resume(epoch + 1)
    (row,) = (row for row in again.rows if row["kind"] == kind)
    assert (row["file"], row["epoch"]) == (name, epoch)
    folder = tmp_path / "checkpoints"
    assert (folder / name).read_bytes() == (folder / "last.safetensors").read_bytes()


def test_what_was_stopped_within_an_epoch_is_no_state_of_the_epoch_before(tmp_path: Path) -> None:
    kept = run(tmp_path, 2)
    (tmp_path / "checkpoints" / "epoch_0001.safetensors").unlink()
    saver = Saver()
    saver.epoch, saver.step = 1, 3
    kept.save = saver
    kept.save_last(1, {"auroc": 0.5})
    again, _ = keeper(tmp_path)
    again.resume(2)
    assert files(tmp_path) == ["best.safetensors", "last.safetensors"]


def test_a_table_that_another_program_held_open_is_set_right_by_the_files(tmp_path: Path) -> None:
    run(tmp_path, 2, keep=9)
    table = RunFolder(tmp_path).checkpoints_file
    old = table.read_bytes()
    whole = run(tmp_path, 6, keep=9).rows
    table.write_bytes(old)
    folder = tmp_path / "checkpoints"
    (folder / "of_a_person.safetensors").write_bytes(b"whatever")
    (folder / "epoch_0004.safetensors").write_bytes(b"damaged")
    again, _ = keeper(tmp_path, keep=2)
    again.resume(6)
    found = [(row["file"], row["kind"], row["epoch"], row["sha256"]) for row in again.rows]
    # The oldest milestone goes, which the old table would have kept for ever.
    assert found == [
        (row["file"], row["kind"], row["epoch"], row["sha256"])
        for row in whole
        if row["file"] != "epoch_0001.safetensors"
    ]
    assert not (folder / "epoch_0001.safetensors").exists()
    assert [row["file"] for row in RunFolder(tmp_path).read_checkpoints()] == [f[0] for f in found]


def test_what_a_kill_left_half_written_goes_when_the_run_goes_on(tmp_path: Path) -> None:
    kept = run(tmp_path, 1)
    for name in (".writing-x1y2z3", ".linking-best.safetensors"):
        (tmp_path / "checkpoints" / name).write_bytes(b"half")
    kept.resume(1)
    assert files(tmp_path) == ["best.safetensors", "last.safetensors"]


def test_a_file_system_without_links_gets_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr("os.link", refuse)
    run(tmp_path, 1)
    folder = tmp_path / "checkpoints"
    best, last = folder / "best.safetensors", folder / "last.safetensors"
    assert best.read_bytes() == last.read_bytes()
    assert not best.samefile(last)


def test_a_run_without_a_checkpoint_cannot_go_on(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="left no checkpoint"):
        resume_point(RunFolder(tmp_path))
    run(tmp_path, 1)
    assert resume_point(RunFolder(tmp_path)).name == "last.safetensors"
