"""Where presets are looked for, and which one wins."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import medtool
from medtool.config.find import find_preset, presets_of, shipped_folder
from medtool.core.errors import UnknownNameError


@pytest.fixture
def stranger(tmp_path, monkeypatch) -> str:
    """An importable package with presets of the task "brainmet", imported by nobody."""
    package = tmp_path / "site" / "stranger_plugin"
    presets = package / "presets" / "brainmet"
    presets.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('looking for presets imports me')\n")
    (presets / "default.toml").write_text("")
    (presets / "theirs.toml").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return "stranger_plugin.task"


def test_working_folder_then_plugin_then_shipped(tmp_path, stranger):
    mine = tmp_path / "work" / "presets" / "brainmet"
    mine.mkdir(parents=True)
    (mine / "default.toml").write_text("")
    folder = tmp_path / "work"
    places = {p.name: p.place for p in presets_of("brainmet", stranger, folder)}
    assert places["default"] == "working folder"
    assert places["theirs"] == "plugin"
    assert places["curriculum"] == "shipped"
    assert find_preset("brainmet", stranger, "default", folder).file == mine / "default.toml"
    (mine / "default.toml").unlink()
    assert find_preset("brainmet", stranger, "default", folder).place == "plugin"
    assert "stranger_plugin" not in sys.modules


def test_shipped_presets_are_found_from_another_folder(medtool_process, tmp_path):
    outcome = medtool_process("presets", folder=tmp_path)
    assert outcome.status == 0
    assert "curriculum" in outcome.out


def test_shipped_folder_is_inside_the_package_where_it_is_installed(tmp_path, monkeypatch):
    file = tmp_path / "site" / "medtool" / "config" / "find.py"
    monkeypatch.setattr("medtool.config.find.__file__", str(file))
    (tmp_path / "site" / "medtool" / "presets").mkdir(parents=True)
    assert shipped_folder() == tmp_path / "site" / "medtool" / "presets"


def test_shipped_folder_is_beside_the_package_in_a_checkout():
    root = Path(medtool.__file__).parent.parent
    assert shipped_folder() in (root / "presets", root / "medtool" / "presets")


def test_a_single_module_has_no_presets(tmp_path, monkeypatch):
    (tmp_path / "lonely_plugin.py").write_text("")
    (tmp_path / "presets" / "x").mkdir(parents=True)
    (tmp_path / "presets" / "x" / "a.toml").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert presets_of("x", "lonely_plugin", tmp_path / "empty") == []


def test_a_misspelt_name(tmp_path):
    with pytest.raises(UnknownNameError) as caught:
        find_preset("brainmet", "medtool_brainmet", "curriculun", tmp_path)
    assert caught.value.nearest == "curriculum"
