"""The command ``medtool``: from words to a verb, from a verb to an exit status.

Typer turns words into values; the verb itself runs after Typer is done, inside the one ``try`` of
the command line. A verb is imported only when it is called.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.main import get_command

from medtool.cli.console import Console
from medtool.cli.table import VERBS, Verb
from medtool.core.errors import (
    ExitStatus,
    Interrupted,
    MedtoolError,
    UnknownNameError,
    UsageError,
)

# Typer's own faults; their common base is public only through this class in the oldest and the
# newest Typer that we allow.
TyperUsageFault: type[Exception] = typer.BadParameter.__mro__[1]

# What a shell expects of a program whose reader went away (128 + SIGPIPE).
READER_GONE = 141

NOT_A_DEVICE = "Research use only; not a medical device."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``medtool`` with these words (by default the process's); gives the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    Console.all_quiet = False
    for stream in (sys.stdout, sys.stderr):
        # A name that the terminal's encoding lacks must not end a run.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    verb: Verb | None = None
    try:
        verb = _verb_of(words)
        status = _run(words or ["--help"], verb)
        sys.stdout.flush()
        return status
    except MedtoolError as error:
        Console().refuse(error)
        return int(error.exit_status)
    except KeyboardInterrupt:
        how = verb.resume if verb else ""
        Console().refuse(Interrupted("Interrupted; what was finished is kept.", how=how))
        return int(ExitStatus.INTERRUPTED)
    except BrokenPipeError:
        _forget_stdout()
        return READER_GONE
    except Exception as error:  # noqa: BLE001 - the last resort: a bug must show as one
        from medtool.cli.bug import report_bug

        return report_bug(error, words)


def _verb_of(words: Sequence[str]) -> Verb | None:
    """The row of the first word that is no option; None for ``medtool --help`` and the like."""
    name = next((word for word in words if not word.startswith("-")), None)
    if name is None:
        return None
    for verb in VERBS:
        if verb.name == name:
            return verb
    from medtool.core.names import nearest_name

    names = [verb.name for verb in VERBS]
    nearest = nearest_name(name, names)
    raise UnknownNameError(
        f"There is no command '{name}'.",
        met=name,
        wanted="" if nearest else "one of: " + ", ".join(names),
        nearest=nearest,
        how="'medtool --help' says what each does.",
    )


def _run(words: list[str], verb: Verb | None) -> int:
    command = get_command(_application(verb))
    try:
        # Gives the bound verb, or a status when there was only help to show.
        parsed: Any = command.main(args=words, prog_name="medtool", standalone_mode=False)
        status = parsed() if callable(parsed) else parsed
    except TyperUsageFault as fault:
        raise _wrong_usage(fault, verb) from None
    return int(status or 0)


def _wrong_usage(fault: Exception, verb: Verb | None) -> UsageError:
    possibilities = getattr(fault, "possibilities", None) or []
    name = f"medtool {verb.name}" if verb else "medtool"
    message = str(getattr(fault, "message", "") or "")
    if hasattr(fault, "format_message") and not possibilities:
        message = fault.format_message()
    return UsageError(
        " ".join(message.split()),
        where=name,
        nearest=", ".join(possibilities),
        how=f"'{name} --help' shows what it takes.",
    )


def _application(called: Verb | None) -> typer.Typer:
    """The Typer application; only the verb that is called is more than its line of help."""
    app = typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(help="From a folder of patients' scans to a table and a report.")(_global_options)
    app.info.epilog = NOT_A_DEVICE
    for verb in VERBS if called is None else (called,):
        if called is None:
            app.command(verb.name, help=verb.summary, rich_help_panel=verb.group)(_listed)
        else:
            app.command(verb.name)(_deferred(verb))
    return app


def _listed() -> None:
    """A verb on the help page, where none is called."""


def _deferred(verb: Verb) -> Callable[..., Any]:
    """The verb's function, made to give back the call instead of making it."""
    function = import_module(f"medtool.cli.{verb.module}").command

    @functools.wraps(function)
    def parsed(*values: Any, **named: Any) -> Callable[[], Any]:
        return functools.partial(function, *values, **named)

    return parsed


def _show_version(asked: bool) -> None:
    if asked:
        from medtool import __version__

        Console().result(f"medtool {__version__}")
        raise typer.Exit


def _global_options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Results, warnings and errors only.")
    ] = False,
) -> None:
    Console.all_quiet = quiet


def _forget_stdout() -> None:
    """Keep the interpreter from complaining, at its end, that nobody reads."""
    with contextlib.suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


if __name__ == "__main__":
    sys.exit(main())
