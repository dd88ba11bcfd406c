"""Nested tables as one, by dotted key."""

from medtool.core.nested import flat_values


def test_lists_stay_and_empty_tables_vanish():
    table = {"a": 1, "b": {"c": [1, {"d": 2}], "e": {"f": None}}, "g": {}}
    assert flat_values(table) == {"a": 1, "b.c": [1, {"d": 2}], "b.e.f": None}
