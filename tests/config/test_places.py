"""Paths of a preset: taken out for checkpoints, put back from the preset of the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_task import TinySettings

from medtool.config import write_preset
from medtool.config.places import known_preset, portable_document, without_places
from medtool.config.schema import anchored_values
from medtool.config.section import Section
from medtool.core.checkpoint import RawTensor, read_header, write_checkpoint
from medtool.core.errors import PresetError

WEIGHTS = [RawTensor("model.weight", "F32", (1,), bytes(4))]
# As a model of today keeps none, so did those of yesterday keep them all.
PRIVATE = {"folder": "/data/Mercy", "labels": "/data/Mercy/Smith.csv"}


class Part(Section):
    """One of several."""

    file: Path
    """A path without a default."""


class Model(Section):
    """Paths in every shape that a plugin may give them."""

    one: Path = Path("a")
    """With a default."""
    must: Path
    """Without one."""
    several: list[Path] = []
    """In a list."""
    named: dict[str, Path] = {}
    """In a table."""
    parts: list[Part] = []
    """In tables of a list."""
    parts_by_name: dict[str, Part] = {}
    """In tables of a table."""
    word: str = "x"
    """No path."""


def everything() -> dict[str, Any]:
    return {
        "one": "/s/1",
        "must": "/s/2",
        "several": ["/s/3", "/s/4"],
        "named": {"brain": "/s/5"},
        "parts": [{"file": "/s/6"}, {"file": "/s/7"}],
        "parts_by_name": {"lung": {"file": "/s/8"}},
        "word": "/no/path",
    }


def test_no_path_stays_whatever_its_shape() -> None:
    values = everything()
    kept = without_places(Model, values)
    assert kept == {
        "must": ".",
        "several": [".", "."],
        "named": {},
        "parts": [{"file": "."}, {"file": "."}],
        "parts_by_name": {"lung": {"file": "."}},
        "word": "/no/path",
    }
    assert values == everything()
    assert Model.model_validate(kept).one == Path("a")


def test_paths_of_every_shape_start_from_where_they_are_said() -> None:
    said = {"named": {"brain": "b"}, "parts_by_name": {"lung": {"file": "../c"}}, "several": ["d"]}
    assert anchored_values(Model, said, Path("/x/y")) == {
        "named": {"brain": "/x/y/b"},
        "parts_by_name": {"lung": {"file": "/x/c"}},
        "several": ["/x/y/d"],
    }


def test_members_are_cleaned_as_well_and_other_keys_stay() -> None:
    preset = {"data": {**PRIVATE, "id_column": "id"}}
    one = {"task": "nobody has it", "preset": preset, "epoch": 3}
    found = portable_document({**one, "members": [{"name": "fold_0", "document": one}]})
    clean = {"task": "nobody has it", "preset": {"data": {"id_column": "id"}}, "epoch": 3}
    assert found == {**clean, "members": [{"name": "fold_0", "document": clean}]}


def run_with(folder: Path, preset: dict[str, Any]) -> Path:
    """A checkpoint of this preset in a run whose own preset names the data."""
    run = folder / "runs" / "tiny" / "a"
    (run / "checkpoints").mkdir(parents=True)
    settings = TinySettings.model_validate({"data": {"folder": folder / "Mercy"}})
    write_preset(settings, run / "preset.toml")
    file = run / "checkpoints" / "best.safetensors"
    write_checkpoint(file, {"task": "tiny", "preset": preset}, WEIGHTS)
    return file


def test_a_checkpoint_in_its_run_knows_the_paths_of_the_run(tmp_path: Path) -> None:
    file = run_with(tmp_path, {"data": {"id_column": "id"}, "train": {}})
    known = known_preset(read_header(file), TinySettings)
    assert known["data"] == {"folder": str(tmp_path / "Mercy"), "id_column": "id"}
    # Nothing but paths comes from there: the checkpoint says what was learned.
    assert known["train"] == {}


def test_relative_paths_start_from_the_run(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = run_with(Path(), {"data": {}})
    assert 'folder = "../../../Mercy"' in (file.parent.parent / "preset.toml").read_text()
    known = known_preset(read_header(file), TinySettings)
    assert known["data"] == {"folder": str(tmp_path / "Mercy")}


def test_an_old_checkpoint_keeps_its_own(tmp_path: Path) -> None:
    file = run_with(tmp_path, {"data": dict(PRIVATE)})
    assert known_preset(read_header(file), TinySettings)["data"] == PRIVATE


def test_alone_it_knows_none(tmp_path: Path) -> None:
    file = run_with(tmp_path, {"data": {}})
    alone = tmp_path / "alone.safetensors"
    file.rename(alone)
    assert known_preset(read_header(alone), TinySettings) == {"data": {}}


def test_a_preset_of_a_run_that_was_broken_is_said(tmp_path: Path) -> None:
    file = run_with(tmp_path, {"data": {}})
    (file.parent.parent / "preset.toml").write_text("[data\n")
    with pytest.raises(PresetError) as error:
        known_preset(read_header(file), TinySettings)
    assert "preset.toml:1" in str(error.value) + str(error.value.where)
