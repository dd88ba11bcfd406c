"""Names of channels: data sets may give one name twice, and images are told apart by name."""

from __future__ import annotations

import re
from collections.abc import Sequence

_NUMBERED = re.compile(r"(.+) ([2-9]|[1-9][0-9]+)")


def told_apart(names: Sequence[str]) -> tuple[str, ...]:
    """The names, each once: one that comes again carries a number, as in MR, MR 2."""
    found: list[str] = []
    for name in names:
        number, own = 1, name
        while own in found or (number > 1 and own in names):
            number += 1
            own = f"{name} {number}"
        found.append(own)
    return tuple(found)


def plain_names(names: Sequence[str]) -> tuple[str, ...]:
    """The names without the numbers that ``told_apart`` gave them."""
    matches = [_NUMBERED.fullmatch(name) for name in names]
    return tuple(
        match[1] if match and match[1] in names else name
        for name, match in zip(names, matches, strict=True)
    )
