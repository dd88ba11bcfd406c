"""No checkpoint says where the data lay, and all that needs to know it still does."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
from named_in import files_naming
from safetensors.numpy import load_file
from tiny_task import TinyTask, write_tiny_cohort

from medtool.core.checkpoint import read_header, rewrite_checkpoint
from medtool.core.errors import UsageError
from medtool.data.run_folder import RunFolder
from medtool.verbs.inspect_checkpoint import inspect_checkpoint, write_slim
from medtool.verbs.options import RunOptions
from medtool.verbs.train import TrainOptions, train

PRIVATE = "Mercy-Hospital_Smith"
SETTINGS = (
    "train.epochs=2",
    "train.checkpoint_every_epochs=1",
    "metrics.bootstrap_draws=100",
    f"data.folder={PRIVATE}",
    f"data.labels={PRIVATE}/labels.csv",
    f"data.split_file={PRIVATE}/split.csv",
)


def options(*settings: str, **changes: object) -> TrainOptions:
    return TrainOptions(
        task=TinyTask,
        assignments=(*SETTINGS, *settings),
        run=RunOptions(run="a", device="cpu", workers=0),
        command=f"medtool train tiny --data {PRIVATE}",
        **changes,  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with the run ``a``: to be looked at only."""
    folder = tmp_path_factory.mktemp("places")
    data = write_tiny_cohort(folder / PRIVATE, patients=12)
    parts = ["train"] * 6 + ["selection"] * 3 + ["test"] * 3
    rows = [f"P{number:03d},{part}" for number, part in enumerate(parts)]
    (data / "split.csv").write_text("\n".join(["patient,part", *rows, ""]))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train(options())
    return folder


@pytest.fixture
def place(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, as the working folder."""
    folder = Path(shutil.copytree(finished, tmp_path / "copy"))
    run = run_of(folder)
    document = run.read_run()
    document["data"] = {"folder": str(folder / PRIVATE), "labels": ""}
    run.write_run(document)
    monkeypatch.chdir(folder)
    return folder


def run_of(folder: Path) -> RunFolder:
    return RunFolder(folder / "runs" / "tiny" / "a")


def test_no_byte_of_a_checkpoint_names_the_data_or_the_machine(finished: Path) -> None:
    run = run_of(finished)
    checkpoints = run.checkpoints_folder
    assert files_naming(checkpoints, PRIVATE, str(finished), str(Path.home())) == []
    # The run itself stays here, and knows.
    assert PRIVATE in run.preset_file.read_text()
    assert PRIVATE in run.run_file.read_text()
    document = read_header(checkpoints / "best.safetensors").document
    assert not {"folder", "labels", "split_file"} & set(document["preset"]["data"])
    assert document["preset"]["data"]["patient_key"] == "patient-id"


def test_a_run_goes_on_with_the_same_settings_and_no_others(place: Path) -> None:
    run = run_of(place)
    before = load_file(run.checkpoints_folder / "best.safetensors")
    again = train(options(start_or_resume=True))
    after = load_file(again.checkpoint)
    assert all(before[name].tobytes() == after[name].tobytes() for name in before)
    for changed in ("data.labels=others.csv", f"data.split_file={PRIVATE}/labels.csv"):
        with pytest.raises(UsageError, match="other settings") as error:
            train(options(changed, start_or_resume=True))
        assert changed.partition("=")[0] in error.value.wanted
        assert PRIVATE in error.value.wanted


def test_the_same_path_may_be_said_otherwise(place: Path) -> None:
    whole = options(f"data.labels={place / PRIVATE / 'labels.csv'}", start_or_resume=True)
    assert train(whole).scores["test"]["metrics"]


def test_a_run_without_a_word_on_its_settings_goes_on(place: Path) -> None:
    resumed = dataclasses.replace(options(), assignments=(), resume=run_of(place).path)
    assert train(resumed).scores["test"]["metrics"]


def old(run: RunFolder, folder: Path) -> None:
    """The checkpoints as they were written before: with the paths of their preset."""
    for file in run.checkpoints_folder.glob("*.safetensors"):
        preset = read_header(file).document["preset"]
        data = {
            **preset["data"],
            "folder": str(folder / PRIVATE),
            "labels": str(folder / PRIVATE / "labels.csv"),
            "split_file": str(folder / PRIVATE / "split.csv"),
        }
        rewrite_checkpoint(file, file, {"preset": {**preset, "data": data}})


def test_old_checkpoints_go_on_as_before_and_what_is_written_then_is_clean(place: Path) -> None:
    run = run_of(place)
    old(run, place)
    assert files_naming(run.checkpoints_folder, PRIVATE)
    with pytest.raises(UsageError, match="other settings"):
        train(options("data.labels=others.csv", start_or_resume=True))
    first = run.checkpoints_folder / "epoch_0000.safetensors"
    train(dataclasses.replace(options(), resume=first))
    assert files_naming(run.checkpoints_folder, PRIVATE) == [first.name]


def test_a_slim_copy_of_an_old_checkpoint_is_clean(place: Path) -> None:
    run = run_of(place)
    old(run, place)
    write_slim(inspect_checkpoint(run.path), place / "given-away.safetensors")
    assert files_naming(run.checkpoints_folder, PRIVATE)
    assert PRIVATE.encode() not in (place / "given-away.safetensors").read_bytes()
