"""The first page of help, drawn from the table of verbs.

Typer draws the pages of the verbs in the same way; this one is drawn here because it needs neither
Typer nor a verb, and is what people call most often: it comes in a third of the time.
"""

from __future__ import annotations

from rich.console import Console, Group
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from medtool import RESEARCH_NOTICE
from medtool.cli.table import GLOBAL_OPTIONS, VERBS

PURPOSE = "From a folder of patients' scans to a table, masks and a report."
HOW_ON = "'medtool COMMAND --help' shows what a command takes."


def show_help() -> None:
    """Print the page on stdout: purpose, options, verbs by group, where to go on."""
    groups = {"Options": [(option.names, option.summary) for option in GLOBAL_OPTIONS]}
    for verb in VERBS:
        groups.setdefault(verb.group, []).append((verb.name, verb.summary))
    width = max(len(name) for rows in groups.values() for name, _ in rows)
    panels = [_panel(title, rows, width) for title, rows in groups.items()]
    usage = Text.assemble(("Usage: ", "yellow"), ("medtool [OPTIONS] COMMAND [ARGS]...", "bold"))
    Console(highlight=False).print(
        Padding(usage, 1),
        Padding(Text(PURPOSE), (0, 1, 1, 1)),
        Group(*panels),
        Padding(Text(f"{HOW_ON}\n{RESEARCH_NOTICE}"), 1),
        sep="",
        end="",
    )


def _panel(title: str, rows: list[tuple[str, str]], width: int) -> Panel:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold cyan", no_wrap=True, min_width=width)
    table.add_column()
    for name, summary in rows:
        table.add_row(name, Text(summary))
    return Panel(table, title=title, title_align="left", border_style="dim")
