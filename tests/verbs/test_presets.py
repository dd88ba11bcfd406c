"""medtool presets and medtool tasks, as a user sees them."""

from __future__ import annotations

import json
import tomllib

import pytest

from medtool.core.registry import TaskEntry
from medtool.verbs import tasks


def test_the_list(medtool, tmp_path):
    outcome = medtool("presets", "brainmet", folder=tmp_path)
    assert outcome.status == 0
    names = [line.split()[1] for line in outcome.out.splitlines()]
    assert {"default", "curriculum", "balanced", "laptop", "demo"} <= set(names)


def test_a_local_preset_that_is_no_toml_is_listed_with_its_fault(medtool, tmp_path):
    broken = tmp_path / "presets" / "brainmet" / "broken.toml"
    broken.parent.mkdir(parents=True)
    broken.write_text("[train\n")
    document = json.loads(medtool("presets", "--json", folder=tmp_path).out)
    [line] = [line for line in document["presets"] if line["name"] == "broken"]
    assert "broken.toml:1" in line["problem"]


def test_a_preset_with_the_origin_of_each_value(medtool, tmp_path):
    outcome = medtool("presets", "brainmet", "curriculum", "--set", "train.seed=5", folder=tmp_path)
    assert outcome.status == 0
    lines = outcome.out.splitlines()
    assert "seed = 5  # command line" in lines
    assert any(
        "presets/brainmet/curriculum.toml:" in line and line.endswith(" (shipped)")
        for line in lines
    )
    assert tomllib.loads(outcome.out)["train"]["seed"] == 5


def test_a_preset_as_json(medtool, tmp_path):
    document = json.loads(medtool("presets", "brainmet", "default", "--json", folder=tmp_path).out)
    assert document["preset"] == "default"
    assert document["origins"]["train.seed"]


def test_json_schema_for_editors(medtool, tmp_path):
    schema = json.loads(medtool("presets", "brainmet", "--schema", folder=tmp_path).out)
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert "train" in schema["properties"]
    section = schema["properties"]["train"]["$ref"].rpartition("/")[2]
    epochs = schema["$defs"][section]["properties"]["epochs"]
    assert epochs["minimum"] == 1
    assert epochs["description"]


@pytest.mark.parametrize("words", [("brainmet",), (), ("brainmet", "--schema")])
def test_a_setting_needs_a_preset_that_it_changes(medtool, tmp_path, words):
    """From a fault: it was never looked at, with status 0."""
    outcome = medtool("presets", *words, "--set", "train.epohcs=3", folder=tmp_path)
    assert outcome.status == 2
    assert "medtool presets TASK NAME --set KEY=VALUE" in outcome.err


def test_a_schema_needs_a_task(medtool):
    outcome = medtool("presets", "--schema")
    assert outcome.status == 2
    assert "name a task" in outcome.err


def test_a_plugin_that_cannot_be_loaded_is_listed_and_stops_nothing(monkeypatch):
    entries = [
        TaskEntry("brainmet", "medtool_brainmet:Brainmet", "medtool"),
        TaskEntry("gone", "no_such_package:Task", "stranger"),
    ]
    monkeypatch.setattr(tasks, "task_entries", lambda: entries)
    listed = {line.name: line for line in tasks.list_tasks()}
    assert listed["gone"].problem
    assert listed["gone"].distribution == "stranger"
    assert not listed["brainmet"].problem
