"""The pages of help are built alike: whoever knows one finds his way on the others."""

from importlib import import_module
from typing import get_type_hints

import pytest

from medtool.cli.flags import OUTPUT, RUNNING, SETTINGS
from medtool.cli.table import VERBS


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_groups_of_options_come_in_one_order(verb) -> None:
    command = import_module(f"medtool.cli.{verb.module}").command
    hints = get_type_hints(command, include_extras=True)
    panels = [
        given.rich_help_panel
        for hint in hints.values()
        for given in getattr(hint, "__metadata__", ())
        if isinstance(given.rich_help_panel, str)
    ]
    first_seen = list(dict.fromkeys(panels))
    assert first_seen == [name for name in (SETTINGS, OUTPUT, RUNNING) if name in panels]
