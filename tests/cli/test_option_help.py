"""What an option's help says is what the help page shows: brackets are no markup there."""

from __future__ import annotations

from importlib import import_module
from typing import get_type_hints

import pytest
from rich.text import Text

from medtool.cli.table import VERBS


def helps(module: str) -> dict[str, str]:
    """Help of every option and argument of a verb, by the name of its parameter."""
    command = import_module(f"medtool.cli.{module}").command
    found = {}
    for name, hint in get_type_hints(command, include_extras=True).items():
        for said in getattr(hint, "__metadata__", ()):
            if getattr(said, "help", None):
                found[name] = said.help
    return found


@pytest.mark.parametrize("module", [verb.module for verb in VERBS])
def test_no_word_of_the_help_is_taken_for_markup(module: str) -> None:
    found = helps(module)
    assert found
    for name, text in found.items():
        assert Text.from_markup(text).plain == text, name
