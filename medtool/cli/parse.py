"""From words to a call: the only file that builds a Typer application.

Typer turns words into values and draws the help pages of verbs; it does not run the verb. What
comes out is the verb's function with its values bound, for ``medtool.cli.app`` to call.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.main import get_command

from medtool.cli.console import Console
from medtool.cli.table import QUIET, VERSION, Verb
from medtool.core.errors import UsageError

# Typer's own faults. Their common base is public only through this class in the oldest and in the
# newest Typer that we allow.
UsageFault: type[Exception] = typer.BadParameter.__mro__[1]


def parse(words: Sequence[str], verb: Verb | None) -> Callable[[], Any] | int:
    """The bound call of ``verb``, or a status when a help page or the version was printed.

    ``verb`` None stands for words that are options only. Raises UsageError.
    """
    try:
        parsed: Callable[[], Any] | int | None = get_command(_application(verb)).main(
            args=list(words), prog_name="medtool", standalone_mode=False
        )
    except UsageFault as fault:
        raise wrong_usage(fault, verb) from None
    return parsed or 0


def wrong_usage(fault: Exception, verb: Verb | None) -> UsageError:
    """Typer's fault as one of ours, with the nearest option where there is one."""
    possibilities = getattr(fault, "possibilities", None) or []
    name = f"medtool {verb.name}" if verb else "medtool"
    message = str(getattr(fault, "message", ""))
    if not possibilities and hasattr(fault, "format_message"):
        message = str(fault.format_message())
    return UsageError(
        " ".join(message.split()),
        where=name,
        nearest=", ".join(possibilities),
        how=f"'{name} --help' shows what it takes.",
    )


def _application(called: Verb | None) -> typer.Typer:
    app = typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["--help", "-h"]},
    )
    app.callback(invoke_without_command=called is None)(_global_options)
    if called is not None:
        app.command(called.name)(_deferred(called))
    return app


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
        typer.Option("--version", callback=_show_version, is_eager=True, help=VERSION.summary),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help=QUIET.summary)] = False,
) -> None:
    Console.all_quiet = quiet
