"""The command line's frame: help, misspelt words, statuses, bugs, Ctrl-C."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest

from medtool.cli import app, parse, table, tasks


def test_help_lists_every_verb(medtool):
    outcome = medtool("--help")
    assert outcome.status == 0
    assert all(verb.name in outcome.out for verb in table.VERBS)
    assert "not a medical device" in outcome.out


def test_without_words_there_is_help(medtool):
    assert medtool() == medtool("--help")


def test_global_options_stand_on_the_page_as_they_are_parsed(medtool):
    page = medtool("--help").out
    parameters = inspect.signature(parse._global_options, eval_str=True).parameters.values()
    for parameter in parameters:
        option = parameter.annotation.__metadata__[0]
        names = ", ".join((option.default, *option.param_decls))
        assert names in [known.names for known in table.GLOBAL_OPTIONS]
        assert names in page


def test_quiet_alone_shows_the_page(medtool):
    assert medtool("-q") == medtool("--help")


def test_a_wrong_option_of_medtool_itself(medtool):
    outcome = medtool("--vrsion")
    assert outcome.status == 2
    assert "nearest: --version" in outcome.err


def test_version(medtool):
    from medtool import __version__

    assert medtool("--version").out == f"medtool {__version__}\n"


def test_a_misspelt_verb_gets_the_nearest_name(medtool):
    outcome = medtool("taks")
    assert outcome.status == 2
    assert "nearest: tasks" in outcome.err
    assert outcome.out == ""


def test_a_wrong_option_is_wrong_usage(medtool):
    outcome = medtool("tasks", "--jsn")
    assert outcome.status == 2
    assert "nearest: --json" in outcome.err


@pytest.mark.parametrize("verb", table.VERBS, ids=lambda verb: verb.name)
def test_every_verb_has_a_help_page(medtool, verb):
    outcome = medtool(verb.name, "--help")
    assert outcome.status == 0
    assert f"medtool {verb.name}" in outcome.out


def test_tasks_as_json(medtool):
    document = json.loads(medtool("tasks", "--json").out)
    assert [task["name"] for task in document["tasks"]] == [
        "brainmet",
        "heart",
        "pancreas",
        "petct",
        "segment",
    ]


def test_a_bug_shows_no_message_but_a_log(medtool, monkeypatch, tmp_path):
    def broken(as_json: bool = False) -> None:
        raise RuntimeError("PatientName DOE^JANE")

    monkeypatch.setattr(tasks, "command", broken)
    outcome = medtool("tasks", folder=tmp_path)
    assert outcome.status == 70
    assert "DOE" not in outcome.err + outcome.out
    assert "RuntimeError" in outcome.err
    [log] = Path(tmp_path, ".medtool", "log").iterdir()
    assert "DOE^JANE" in log.read_text()
    assert ":" not in log.name


def test_ctrl_c_says_how_to_go_on(medtool, monkeypatch):
    def stopped() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tasks, "command", stopped)
    outcome = medtool("tasks")
    assert outcome.status == 130
    assert "how to go on" in outcome.err


def test_ctrl_c_while_a_module_loads_is_no_bug(medtool, monkeypatch, tmp_path):
    """Extension modules turn what is raised while they load into an ImportError."""

    def stopped() -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as stop:
            raise ImportError("initialization failed") from stop

    def behind_another() -> None:
        try:
            stopped()
        except ImportError as error:
            raise RuntimeError("it cannot be had") from error

    for command in (stopped, behind_another):
        monkeypatch.setattr(tasks, "command", command)
        outcome = medtool("tasks", folder=tmp_path)
        assert outcome.status == 130
        assert "Interrupted" in outcome.err
    assert not list(tmp_path.iterdir())


def test_statuses_of_verbs_are_those_of_the_process(medtool, monkeypatch):
    def some_failed() -> int:
        return 1

    monkeypatch.setattr(tasks, "command", some_failed)
    assert medtool("tasks").status == 1


def test_the_process_ends_with_the_status(medtool_process):
    assert medtool_process("no-such-verb").status == 2


def test_a_reader_that_goes_away_is_no_bug(monkeypatch, medtool):
    def unread() -> None:
        raise BrokenPipeError

    monkeypatch.setattr(tasks, "command", unread)
    outcome = medtool("tasks")
    assert outcome.status == app.READER_GONE
    assert outcome.err == ""


@pytest.mark.parametrize("seconds", ["0", "-1", "nan"])
def test_a_case_timeout_is_over_0(medtool, seconds):
    """From a fault: 0 was taken for the preset's ten minutes."""
    words = ("scans", "-c", "model.safetensors", "-o", "out", "--case-timeout", seconds)
    outcome = medtool("infer", *words)
    assert outcome.status == 2
    assert f"{seconds} is not over 0" in outcome.err
