"""Where what is printed: results to stdout, the rest to stderr; bars on a terminal only."""

from __future__ import annotations

import json
import os
import sys

import pytest

from medtool.cli.console import Console, span, table
from medtool.core.errors import UsageError

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are of POSIX")


def test_results_go_to_stdout_and_everything_else_to_stderr(capsys):
    console = Console()
    console.result("a result")
    console.say("a note")
    console.warn("a warning")
    console.refuse(UsageError("No.", how="so"))
    out, err = capsys.readouterr()
    assert out == "a result\n"
    assert err == "a note\nwarning: a warning\nmedtool: No.\n  how to go on: so\n"


def test_quiet_keeps_results_warnings_and_refusals(capsys):
    console = Console(quiet=True)
    console.result("a result")
    console.say("a note")
    console.warn("a warning")
    with console.progress("reading", 2) as advance:
        advance()
    out, err = capsys.readouterr()
    assert (out, err) == ("a result\n", "warning: a warning\n")


def test_the_global_quiet_reaches_every_verb(medtool, monkeypatch):
    from medtool.cli import tasks

    monkeypatch.setattr(tasks, "command", lambda: Console().say("a note"))
    assert medtool("tasks").err == "a note\n"
    assert medtool("--quiet", "tasks").err == ""
    assert medtool("tasks").err == "a note\n"


def test_json_has_no_nan(capsys):
    Console().json({"auroc": float("nan"), "low": [float("inf"), 0.5], "n": 3, "path": None})
    document = json.loads(capsys.readouterr().out)
    assert document == {"auroc": None, "low": [None, 0.5], "n": 3, "path": None}


def test_without_a_terminal_progress_is_one_line_at_the_end(capsys):
    with Console().progress("reading", 3) as advance:
        for _ in range(3):
            advance()
        assert capsys.readouterr().err == ""
    err = capsys.readouterr().err
    assert err.startswith("reading: 3 of 3 in ")
    assert err.count("\n") == 1
    assert "\x1b" not in err


def test_a_long_step_speaks_now_and_then(capsys, monkeypatch):
    clock = iter([0.0, 10.0, 70.0, 70.0, 70.0, 71.0, 90.0])
    monkeypatch.setattr("medtool.cli.console.time.monotonic", lambda: next(clock))
    with Console().progress("reading", None) as advance:
        advance(5)
        advance(6)
        advance(7)
    assert capsys.readouterr().err == "reading: 11 in 1 min 10 s\nreading: 18 in 1 min 30 s\n"


ON_A_TERMINAL = """
import os, pty, sys, time
reading, writing = os.pipe()
pid, terminal = pty.fork()
if pid == 0:
    os.dup2(writing, 1)
    from medtool.cli.console import Console
    console = Console()
{body}
    sys.stdout.flush()
    os._exit(0)
os.close(writing)
seen = b""
while True:
    try:
        part = os.read(terminal, 4096)
    except OSError:
        break
    if not part:
        break
    seen += part
os.waitpid(pid, 0)
sys.stderr.buffer.write(seen)
sys.stdout.buffer.write(os.read(reading, 4096))
"""


def on_a_terminal(fresh_python, body: str):
    """Run ``body`` where stderr is a terminal and stdout a pipe."""
    indented = "\n".join("    " + line for line in body.strip().splitlines())
    code = ON_A_TERMINAL.format(body=indented)
    outcome = fresh_python("-c", code, environment={"NO_COLOR": None, "TERM": "xterm"})
    assert outcome.status == 0, outcome.err
    return outcome


@POSIX
def test_a_terminal_shows_a_live_bar_with_rate_and_time_left(fresh_python):
    outcome = on_a_terminal(
        fresh_python,
        """
with console.progress("reading", 4) as advance:
    for number in range(4):
        advance(note=f"case {number}")
        time.sleep(0.15)
    console.say("a note")
    console.result("a result")
""",
    )
    assert outcome.out == "a result\n"
    assert "a result" not in outcome.err
    for shown in ("reading", "4/4", "case 3", "/s", "a note"):
        assert shown in outcome.err


@POSIX
def test_work_inside_work_shows_two_bars(fresh_python):
    outcome = on_a_terminal(
        fresh_python,
        """
with console.progress("epochs", 2) as outer:
    with console.progress("steps", 3) as inner:
        inner(3)
    outer(2)
with console.progress("scoring", 1) as advance:
    advance()
""",
    )
    for shown in ("epochs", "2/2", "steps", "3/3", "scoring", "1/1"):
        assert shown in outcome.err


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (8.12, "8.1 s"),
        (60, "1 min 00 s"),
        (3599, "59 min 59 s"),
        (18421, "5 h 07 min"),
    ],
)
def test_span(seconds, text):
    assert span(seconds) == text


def test_table():
    assert table([("a", "bbb", "c"), ("aa", "b", "")]) == "a   bbb  c\naa  b"
    assert table([]) == ""


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may do it all")
def test_a_folder_that_may_not_be_written(medtool, monkeypatch, tmp_path):
    from medtool.cli import tasks

    tmp_path.chmod(0o500)
    monkeypatch.setattr(tasks, "command", lambda: (tmp_path / "x").write_text(""))
    outcome = medtool("tasks")
    assert outcome.status == 5


@POSIX
def test_a_full_disk_is_said_as_such(medtool, monkeypatch):
    from medtool.cli import tasks

    def fill() -> None:
        with open("/dev/full", "w") as disk:  # noqa: PTH123 - the device, not a path of ours
            disk.write("x")

    monkeypatch.setattr(tasks, "command", fill)
    outcome = medtool("tasks")
    assert outcome.status == 5
    assert "The disk is full." in outcome.err


def test_too_little_memory_is_said_as_such(medtool, monkeypatch):
    from medtool.cli import tasks

    def swallow() -> None:
        raise MemoryError

    monkeypatch.setattr(tasks, "command", swallow)
    outcome = medtool("tasks")
    assert outcome.status == 5
    assert "--workers" in outcome.err


def test_strangers_names_cannot_command_the_terminal(capsys):
    console = Console()
    console.result("\x1b[31mred\tü 头\u202e")
    console.say("\x07")
    console.warn("\x1b]0;title\x07")
    console.refuse(UsageError("No \x9b.", met="\x1b[2J"))
    out, err = capsys.readouterr()
    assert out == "\\x1b[31mred\tü 头\\u202e\n"
    assert err == ("\\x07\nwarning: \\x1b]0;title\\x07\nmedtool: No \\x9b.\n  met: \\x1b[2J\n")


def test_a_cell_stays_on_its_line():
    assert table([("a\nb", "c"), ("d", "e\r\nf")]) == "a b  c\nd    e f"
