"""A run that goes on keeps the cases and the settings that it began with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from medtool_heart import Heart
from medtool_heart.demo import write_cohort
from safetensors.numpy import load_file
from tiny_task import TinyTask, write_tiny_cohort
from trained_heart import PATIENTS, SETTINGS

from medtool.core.checkpoint import read_header
from medtool.core.errors import InputError, Interrupted, UsageError
from medtool.core.records import Case, Prepared
from medtool.core.task import Task
from medtool.data.run_folder import RunFolder
from medtool.verbs.options import RunOptions
from medtool.verbs.train import TrainOptions, train

QUICK = ("train.epochs=3", "train.checkpoint_every_epochs=1", "metrics.bootstrap_draws=100")


class CutOff(TinyTask):
    """Is interrupted before anything is learned."""

    def prepare(self, case: Case) -> Prepared:
        raise KeyboardInterrupt


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_tiny_cohort(tmp_path, patients=24)


def options(*settings: str, task: type[Task] = TinyTask, **more: Path | bool) -> TrainOptions:
    run = RunOptions(run="one", device="cpu", workers=0)
    return TrainOptions(task=task, assignments=settings, run=run, **more)  # type: ignore[arg-type]


def spoil(scan: Path) -> None:
    """No scan of the tiny task any more."""
    np.save(scan, np.zeros((3, 8, 8), dtype=np.float32))


def test_a_run_that_goes_on_has_the_cases_that_it_began_with(folder: Path) -> None:
    """From a fault: a case that failed at the begin came in when the run went on, or one fell out.

    The order of the others and who chose the epoch were changed in the middle of a run.
    """
    parts = ["train"] * 14 + ["selection"] * 5 + ["test"] * 5
    rows = [f"P{number:03d},{part}" for number, part in enumerate(parts)]
    (folder / "parts.csv").write_text("\n".join(["patient,part", *rows]))
    scan = folder / "scans" / "P003" / "P003_0.npy"
    good = scan.read_bytes()
    spoil(scan)
    first = train(options(*QUICK, "data.split_file=parts.csv"))
    run = RunFolder(first.run)
    failures = run.read_run()["failures"]
    assert first.failed == {failures[0]["case"]} == {"P003_0"}
    last = run.checkpoints_folder / "last.safetensors"
    whole = load_file(last)
    last.unlink()
    scan.write_bytes(good)
    again = train(options(resume=run.checkpoints_folder / "epoch_0000.safetensors"))
    assert again.failed == first.failed
    assert run.read_run()["failures"] == failures
    resumed = load_file(last)
    assert all(whole[name].tobytes() == resumed[name].tobytes() for name in whole)
    spoil(folder / "scans" / "P004" / "P004_0.npy")
    with pytest.raises(InputError, match="cannot be prepared any more") as error:
        train(options(resume=run.path))
    assert error.value.met == "1: P004_0 (wrong-size)"
    assert run.read_run()["failures"] == failures


def test_before_the_first_checkpoint_a_run_has_its_settings_as_well(folder: Path) -> None:
    """From a fault: it trained with other settings than its preset.toml said."""
    rate = "train.learning_rate"
    with pytest.raises(Interrupted):
        train(options(*QUICK, f"{rate}=0.005", task=CutOff))
    with pytest.raises(UsageError, match="other settings") as error:
        train(options(*QUICK, f"{rate}=0.02", start_or_resume=True))
    assert error.value.wanted == f"{rate} = 0.005, as the run began"
    result = train(options(start_or_resume=True))
    assert read_header(result.checkpoint).document["preset"]["train"]["learning_rate"] == 0.005
    assert "learning_rate = 0.005" in (result.run / "preset.toml").read_text()


def test_what_was_left_to_the_data_is_planned_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_off(self: Heart, case: Case) -> Prepared:
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    write_cohort(tmp_path / "data", 0, PATIENTS)
    asked = options(*SETTINGS, "train.epochs=1", task=Heart, data=tmp_path / "data")
    with monkeypatch.context() as patched, pytest.raises(Interrupted):
        patched.setattr(Heart, "prepare", cut_off)
        train(asked)
    document = RunFolder(train(replace(asked, start_or_resume=True)).run).read_run()
    assert document["planned_keys"]
    assert document["audit"]["plan"]["decisions"]
