"""What is read from the environment, and the one variable that is written."""

from __future__ import annotations

import pytest

from medtool.core import environment


def test_recorded_are_torchs_and_slurms_and_no_persons(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("SLURM_JOB_USER", "somebody")
    monkeypatch.setenv("MEDTOOL_ANYTHING", "1")
    recorded = environment.recorded_environment()
    assert recorded["SLURM_JOB_ID"] == "17"
    assert recorded["WORLD_SIZE"] == "2"
    assert not {"SLURM_JOB_USER", "MEDTOOL_ANYTHING"} & set(recorded)


@pytest.mark.parametrize(("value", "forbidden"), [("1", True), ("", False), (None, False)])
def test_no_color(monkeypatch, value, forbidden):
    if value is None:
        monkeypatch.delenv("NO_COLOR")
    else:
        monkeypatch.setenv("NO_COLOR", value)
    assert environment.colour_forbidden() is forbidden


def test_no_setting_of_ours_is_a_variable():
    assert not [name for name in environment.RECORDED_VARIABLES if "MEDTOOL" in name]
