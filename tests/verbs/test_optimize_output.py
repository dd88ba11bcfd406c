"""Where ``optimize`` writes: what --force may remove, what stays, what a dead process left."""

from __future__ import annotations

import contextlib
import errno
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from listening import Listening
from optimised import optimised, write_heart

from medtool.core.errors import MachineError, OutputExistsError, UsageError
from medtool.core.progress import Silent
from medtool.data.locks import try_lock
from medtool.verbs import optimize as verb
from medtool.verbs.optimize import optimize
from medtool.verbs.optimize_options import OptimizeOptions, OptimizeResult
from medtool.verbs.optimize_output import known_names, room_for, sweep_rooms

ROOM = ".writing-optimize-dead"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``model.safetensors``, and ``small``: its optimised model, with a pruned checkpoint."""
    folder = tmp_path_factory.mktemp("output")
    optimised(write_heart(folder / "model.safetensors"), folder / "small")
    shutil.copy(folder / "model.safetensors", folder / "small" / "pruned.safetensors")
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    return Path(shutil.copytree(made, tmp_path, dirs_exist_ok=True))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is made is one file that says it is new."""

    def written(
        options: OptimizeOptions, task: object, file: object, stage: Path, *others: object
    ) -> OptimizeResult:
        write_model(stage, "new")
        return OptimizeResult(options.output, {}, options.output / "report.html")

    monkeypatch.setattr(verb, "_made", written)


def write_model(folder: Path, text: str) -> Path:
    """A folder that says of itself to be an optimised model."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {"model.onnx": {"engine": "onnxruntime"}, "model.theirs": {"engine": "theirs"}}
    document = {"format": 1, "default": "model.onnx", "files": files}
    (folder / "optimize.json").write_text(json.dumps(document), encoding="utf-8")
    (folder / "cases.csv").write_text(f"case\n{text}\n", encoding="utf-8")
    for name in files:
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def write_answers(folder: Path) -> Path:
    (folder / "answers" / "masks").mkdir(parents=True)
    (folder / "answers" / "masks" / "a.nii").write_text("a", encoding="utf-8")
    (folder / "notes.txt").write_text("ours", encoding="utf-8")
    return folder


def told(folder: Path) -> dict[str, str]:
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {file.relative_to(folder).as_posix(): file.read_text("utf-8") for file in files}


ANSWERS = {"answers/masks/a.nii": "a", "notes.txt": "ours"}


def model_of(folder: Path, text: str) -> dict[str, str]:
    return told(write_model(folder, text))


# --- what is replaced -----------------------------------------------------------------------------
def test_force_keeps_what_it_did_not_write(place: Path, quick: None) -> None:
    """From a fault: the whole folder went, with the answers that lay in it."""
    write_answers(place / "small")
    said = Listening()
    options = OptimizeOptions(place / "model.safetensors", place / "small")
    with pytest.raises(OutputExistsError):
        optimize(options, said)
    optimize(OptimizeOptions(place / "model.safetensors", place / "small", force=True), said)
    assert told(place / "small") == {**model_of(place / "wanted", "new"), **ANSWERS}
    assert [line for line in said.lines if "answers, notes.txt" in line]
    assert not list(place.glob(".writing-*"))


def test_files_that_only_the_old_model_lists_go_with_it(place: Path, quick: None) -> None:
    write_model(place / "other", "old")
    said = Listening()
    optimize(OptimizeOptions(place / "model.safetensors", place / "other", force=True), said)
    assert told(place / "other") == model_of(place / "wanted", "new")
    assert not [line for line in said.lines if "Kept" in line]


def test_everything_that_is_written_is_known_by_name(place: Path) -> None:
    names = {entry.name for entry in (place / "small").iterdir()}
    assert names <= known_names()
    assert {"model.onnx.data", "model.int8.bin", "model.int8.onnx.data"} <= known_names()


@pytest.mark.parametrize("force", [True, False])
def test_the_checkpoint_is_not_written_over(place: Path, quick: None, *, force: bool) -> None:
    """From a fault: a pruned checkpoint that was optimised into its own folder was gone."""
    before = (place / "small" / "pruned.safetensors").read_bytes()
    options = OptimizeOptions(
        place / "small" / "pruned.safetensors", place / "small", data=place, force=force
    )
    with pytest.raises(UsageError, match="no place for the optimised model") as refused:
        optimize(options)
    assert "CHECKPOINT lies in it" in refused.value.met
    assert (place / "small" / "pruned.safetensors").read_bytes() == before


@pytest.mark.parametrize("option", ["data", "calibration"])
@pytest.mark.parametrize("output", ["small", "small/scans"])
def test_data_are_not_written_over(place: Path, quick: None, option: str, output: str) -> None:
    (place / "small" / "scans").mkdir()
    (place / "link").symlink_to(place / "small" / "scans")
    for folder in (place / "small" / "scans", place / "link"):
        options = OptimizeOptions(
            place / "model.safetensors",
            place / output,
            force=True,
            **{option: folder},  # type: ignore[arg-type]
        )
        with pytest.raises(UsageError, match="no place") as refused:
            optimize(options)
        assert f"--{option}" in refused.value.met
        assert refused.value.where == str(place / output)


def test_a_run_is_not_written_over(place: Path, quick: None) -> None:
    (place / "run").mkdir()
    for output in (place / "run", place):
        with pytest.raises(UsageError, match="no place"):
            optimize(OptimizeOptions(place / "run", output, force=True))


def test_a_folder_within_the_data_will_do(place: Path, quick: None) -> None:
    """``--data . -o small`` is what one types in the folder of a study."""
    optimize(OptimizeOptions(place / "model.safetensors", place / "fast", data=place))
    assert (place / "fast" / "model.onnx").read_text("utf-8") == "new"


def test_the_folder_that_the_command_runs_in_is_not_replaced(place: Path, quick: None) -> None:
    for folder in (place / "small", place / "small" / "inner"):
        folder.mkdir(exist_ok=True)
        with contextlib.chdir(folder), pytest.raises(UsageError, match="no place") as refused:
            optimize(OptimizeOptions(place / "model.safetensors", place / "small", force=True))
        assert refused.value.met == "the command runs in it"


def test_of_a_link_its_folder_is_replaced(place: Path, quick: None) -> None:
    (place / "link").symlink_to(place / "small")
    optimize(OptimizeOptions(place / "model.safetensors", place / "link", force=True))
    assert (place / "link").is_symlink()
    assert told(place / "small") == model_of(place / "wanted", "new")


# --- the room -------------------------------------------------------------------------------------
def test_a_model_comes_back_where_the_new_one_cannot_take_its_place(tmp_path: Path) -> None:
    write_answers(write_model(tmp_path / "small", "old"))
    with (
        pytest.raises(MachineError, match="cannot be written"),
        room_for(tmp_path / "small", Silent()) as room,
    ):
        room.stage.rmdir()
        room.finish(Silent())
    assert [path.name for path in tmp_path.iterdir()] == ["small"]
    assert told(tmp_path / "small") == {**model_of(tmp_path / "wanted", "old"), **ANSWERS}


def test_a_place_that_was_taken_meanwhile_keeps_what_is_there(tmp_path: Path) -> None:
    said = Listening()
    with room_for(tmp_path / "small", said) as room:
        write_model(room.stage, "new")
        # Not by this verb: it has no optimize.json.
        (tmp_path / "small").mkdir()
        (tmp_path / "small" / "cases.csv").write_text("theirs", encoding="utf-8")
        room.finish(said)
    assert told(tmp_path / "small") == model_of(tmp_path / "wanted", "new")
    (kept,) = tmp_path.glob(".writing-*/old/cases.csv")
    assert kept.read_text(encoding="utf-8") == "theirs"
    assert [line for line in said.lines if str(kept.parent) in line]
    sweep_rooms(tmp_path / "small", said)
    assert kept.is_file()
    kept.unlink()
    sweep_rooms(tmp_path / "small", said)
    assert not list(tmp_path.glob(".writing-*"))


# --- after a kill ---------------------------------------------------------------------------------
@pytest.fixture
def dead(tmp_path: Path) -> Path:
    """A room for ``small`` as a process that was killed leaves it."""
    room = tmp_path / ROOM
    room.mkdir()
    (room / ".in-use").touch()
    (room / "output").write_text("small", encoding="utf-8")
    write_model(room / "new", "new")
    return room


def test_a_room_that_nobody_works_in_is_removed(dead: Path, tmp_path: Path) -> None:
    """From a fault: it stayed for good, and its table names patients."""
    said = Listening()
    sweep_rooms(tmp_path / "whatever", said)
    assert not any(tmp_path.iterdir())
    assert [line for line in said.lines if ROOM in line]


def test_one_that_somebody_works_in_stays(dead: Path, tmp_path: Path) -> None:
    held = try_lock(dead / ".in-use")
    assert held is not None
    sweep_rooms(tmp_path / "small", Silent())
    assert (dead / "new" / "cases.csv").is_file()
    held.close()
    # Another process is just making this one.
    (dead / ".in-use").unlink()
    sweep_rooms(tmp_path / "small", Silent())
    assert (dead / "new" / "cases.csv").is_file()


def test_where_there_are_no_locks_nothing_is_swept(
    dead: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a fault: the room of another node at work was taken for one of a dead process."""

    def without(*words: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", without)
    sweep_rooms(tmp_path / "out", Silent())
    assert dead.is_dir()


def test_other_folders_that_are_being_written_are_nobodys_to_sweep(tmp_path: Path) -> None:
    (tmp_path / ".writing-else").mkdir()
    (tmp_path / ".writing-else" / ".in-use").touch()
    sweep_rooms(tmp_path / "small", Silent())
    assert (tmp_path / ".writing-else").is_dir()


def test_a_model_that_was_being_replaced_comes_back(dead: Path, tmp_path: Path) -> None:
    """From a fault: a kill between two renames left it in a hidden folder."""
    write_answers(write_model(dead / "old", "old"))
    said = Listening()
    sweep_rooms(tmp_path / "other", said)
    assert [path.name for path in tmp_path.iterdir()] == ["small"]
    assert told(tmp_path / "small") == {**model_of(tmp_path / "wanted", "old"), **ANSWERS}
    assert [line for line in said.lines if "came back" in line and "small" in line]


def test_it_is_there_before_anything_is_refused(
    dead: Path, tmp_path: Path, place: Path, quick: None
) -> None:
    (dead / "output").write_text("other", encoding="utf-8")
    write_model(dead / "old", "old")
    with pytest.raises(OutputExistsError):
        optimize(OptimizeOptions(place / "model.safetensors", tmp_path / "other"))
    assert told(tmp_path / "other") == model_of(tmp_path / "wanted", "old")


def half_gone(old: Path) -> Iterator[None]:
    """The states that a kill can leave behind, after the new model took the place."""
    yield
    (old / "notes.txt").rename(old.parent.parent / "small" / "notes.txt")
    yield
    (old / "answers").rename(old.parent.parent / "small" / "answers")
    yield
    (old / "model.onnx").unlink()
    yield
    for file in old.iterdir():
        file.unlink()
    yield


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5])
def test_one_that_was_replaced_goes_and_what_lay_beside_it_moves(
    dead: Path, tmp_path: Path, steps: int
) -> None:
    write_answers(write_model(dead / "old", "old"))
    (dead / "new").rename(tmp_path / "small")
    states = half_gone(dead / "old")
    for _ in range(steps):
        next(states)
    sweep_rooms(tmp_path / "small", Silent())
    assert [path.name for path in tmp_path.iterdir()] == ["small"]
    assert told(tmp_path / "small") == {**model_of(tmp_path / "wanted", "new"), **ANSWERS}


@pytest.mark.parametrize("name", ["", "..", "a/b", None])
def test_a_room_for_nothing_moves_nothing(dead: Path, tmp_path: Path, name: str | None) -> None:
    write_model(dead / "old", "old")
    (dead / "output").unlink()
    if name is not None:
        (dead / "output").write_text(name, encoding="utf-8")
    sweep_rooms(tmp_path / "small", Silent())
    assert [path.name for path in tmp_path.iterdir()] == [ROOM]
    assert (dead / "old" / "model.onnx").is_file()


def test_one_that_was_killed_before_it_had_a_name_is_removed(tmp_path: Path) -> None:
    (tmp_path / ROOM).mkdir()
    (tmp_path / ROOM / ".in-use").touch()
    sweep_rooms(tmp_path / "small", Silent())
    assert not any(tmp_path.iterdir())
