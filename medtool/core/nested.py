"""Tables inside tables, as one table of dotted keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def flat_values(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by dotted key; lists are values."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            flat |= flat_values(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
