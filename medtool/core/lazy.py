"""A row of things that are made when they are asked for, and not kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar, overload

Seed = TypeVar("Seed")
Made = TypeVar("Made")


class Lazily(Sequence[Made], Generic[Seed, Made]):
    """``make(seed)`` for each of ``seeds``, anew at each look: many masks need no memory."""

    def __init__(self, make: Callable[[Seed], Made], seeds: Sequence[Seed]) -> None:
        self._make = make
        self._seeds = seeds

    def __len__(self) -> int:
        return len(self._seeds)

    def __iter__(self) -> Iterator[Made]:
        return map(self._make, self._seeds)

    @overload
    def __getitem__(self, index: int) -> Made: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Made]: ...

    def __getitem__(self, index: int | slice) -> Made | Sequence[Made]:
        """One of them, or a part of the row that is as lazy."""
        if isinstance(index, slice):
            return Lazily(self._make, self._seeds[index])
        return self._make(self._seeds[index])
