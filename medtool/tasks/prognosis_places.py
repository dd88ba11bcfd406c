"""Where examples of a patient are cut: slices, or tiles of patches, and what each stands for."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from medtool.predict.tiles import window_starts

if TYPE_CHECKING:
    import numpy as np


class Place(NamedTuple):
    """One of the tiles that cover an image: its number, and its box (z, y, x)."""

    number: int
    box: tuple[slice, slice, slice]


def tiles(size_vox: Sequence[int], tile_vox: Sequence[int], step: float) -> list[Place]:
    """Tiles that cover an image of ``size_vox`` (z, y, x), as far apart as when it is answered."""
    inside = [min(pair) for pair in zip(tile_vox, size_vox, strict=True)]
    starts = window_starts(size_vox, inside, step)
    places = []
    for number, corner in enumerate(itertools.product(*starts)):
        z, y, x = (
            slice(start, start + length) for start, length in zip(corner, inside, strict=True)
        )
        places.append(Place(number, (z, y, x)))
    return places


def drawn_places(
    with_tumour: Sequence[Place],
    without: Sequence[Place],
    count: int,
    *,
    share: float,
    rng: np.random.Generator | None,
) -> list[tuple[Place, float]]:
    """Up to ``count`` places of both kinds, ``share`` of them with tumour, each with the share of
    the whole image that it stands for; these sum to 1.

    Within a kind they are as far apart as can be, from a drawn start on; without ``rng`` always
    the same.
    """
    every = len(with_tumour) + len(without)
    wanted = min(count, every)
    first = min(round(wanted * share), len(with_tumour)) if with_tumour else 0
    # A kind that is there is seen, or it could stand for nothing.
    if with_tumour and wanted > 1:
        first = max(first, 1)
    if without and wanted > 1:
        first = min(first, wanted - 1)
    second = min(wanted - first, len(without))
    first = min(wanted - second, len(with_tumour))
    chosen = []
    for kind, number in ((with_tumour, first), (without, second)):
        if number:
            stands_for = len(kind) / number
            chosen += [(place, stands_for) for place in _spread(kind, number, rng)]
    total = sum(stands_for for _, stands_for in chosen)
    return [(place, stands_for / total) for place, stands_for in chosen]


def _spread(places: Sequence[Place], count: int, rng: np.random.Generator | None) -> list[Place]:
    start = 0.5 if rng is None else float(rng.random())
    return [places[int((start + number) * len(places) / count)] for number in range(count)]
