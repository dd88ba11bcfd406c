"""Tasks come through entry points; a broken one and a name taken twice are said as such."""

from __future__ import annotations

from pathlib import Path

import pytest

from medtool.core.errors import MachineError, UnknownNameError, UsageError
from medtool.core.registry import load_task, task_entries, task_names


def distribution(site: Path, name: str, entry: str, *, source: str = "") -> None:
    """A distribution as pip installs it: its metadata, and a module of the same name."""
    info = site / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[medtool.tasks]\n{entry}\n")
    (site / f"{name}.py").write_text(source)


@pytest.fixture
def site(tmp_path, monkeypatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_a_strangers_task_looks_like_ours(site):
    distribution(site, "stranger_one", "eyes = stranger_one:Eyes", source="class Eyes: pass\n")
    assert {"brainmet", "eyes"} <= set(task_names())
    assert load_task("eyes").__name__ == "Eyes"
    [entry] = [entry for entry in task_entries() if entry.name == "eyes"]
    assert entry.distribution == "stranger_one"


def test_a_name_taken_twice_names_both_distributions(site):
    for name in ("stranger_two", "stranger_three"):
        distribution(site, name, f"ears = {name}:Ears", source="class Ears: pass\n")
    with pytest.raises(UsageError) as caught:
        load_task("ears")
    assert "stranger_two" in str(caught.value)
    assert "stranger_three" in str(caught.value)


def test_one_that_fails_to_import_stops_nothing_else(site, medtool):
    distribution(site, "stranger_four", "nose = stranger_four:Nose", source="import no_such_pkg\n")
    with pytest.raises(MachineError) as caught:
        load_task("nose")
    assert "no_such_pkg" in str(caught.value)
    outcome = medtool("tasks")
    assert outcome.status == 0
    nose = next(line for line in outcome.out.splitlines() if line.startswith("nose"))
    assert "no_such_pkg" in nose
    assert any(line.startswith("brainmet") for line in outcome.out.splitlines())


def test_a_misspelt_task():
    with pytest.raises(UnknownNameError) as caught:
        load_task("brainmt")
    assert caught.value.nearest == "brainmet"
