"""The command ``medtool``: from words to a verb, from a verb to an exit status.

Words become a call in ``medtool.cli.parse``; the call is made here, inside the one ``try`` of the
command line. A verb is imported only when it is called.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence

from medtool.cli.console import Console
from medtool.cli.table import HELP, QUIET, VERBS, Verb
from medtool.cli.words import remember
from medtool.core.errors import (
    EndedElsewhere,
    ExitStatus,
    Interrupted,
    MedtoolError,
    UnknownNameError,
)
from medtool.core.processes import quiet_libraries

# What a shell expects of a program whose reader went away (128 + SIGPIPE).
READER_GONE = 141

# Words that, alone or with nothing beside them, show the first page of help.
ASK_FOR_HELP = frozenset(f"{HELP.names}, {QUIET.names}".split(", "))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``medtool`` with these words (by default the process's); gives the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    remember(words)
    Console.all_quiet = False
    for stream in (sys.stdout, sys.stderr):
        # A name that the terminal's encoding lacks must not end a run.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    if arguments is None:
        quiet_libraries()
    verb: Verb | None = None
    try:
        verb = _verb_of(words)
        status = _run(words, verb)
        sys.stdout.flush()
        return status
    except EndedElsewhere as error:
        return int(error.exit_status)
    except MedtoolError as error:
        Console().refuse(error)
        return int(error.exit_status)
    except KeyboardInterrupt:
        return _interrupted(verb)
    except BrokenPipeError:
        _forget_stdout()
        return READER_GONE
    except Exception as error:  # noqa: BLE001 - the last resort: a bug must show as one
        from medtool.cli.bug import machine_trouble, report_bug, was_interrupted

        if was_interrupted(error):
            return _interrupted(verb)
        if (trouble := machine_trouble(error)) is None:
            return report_bug(error, words)
        Console().refuse(trouble)
        return int(trouble.exit_status)


def _interrupted(verb: Verb | None) -> int:
    left = verb.interrupted if verb else "what was finished is kept."
    Console().refuse(Interrupted(f"Interrupted; {left}", how=verb.resume if verb else ""))
    return int(ExitStatus.INTERRUPTED)


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
    if verb is None and set(words) <= ASK_FOR_HELP:
        from medtool.cli.help_page import show_help

        show_help()
        return int(ExitStatus.DONE)
    from medtool.cli.parse import UsageFault, parse, wrong_usage

    call = parse(words, verb)
    try:
        # An unforeseen word is also met by verbs, after Typer has accepted the others.
        status = call() if callable(call) else call
    except UsageFault as fault:
        raise wrong_usage(fault, verb) from None
    return int(status or 0)


def _forget_stdout() -> None:
    """Keep the interpreter from complaining, at its end, that nobody reads."""
    with contextlib.suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


if __name__ == "__main__":
    sys.exit(main())
