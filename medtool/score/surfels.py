"""The area of the surface that passes through 2 x 2 x 2 voxels (in 2D: the length of the contour).

A surface runs between voxels. Seen from the point where eight voxels meet, each is inside or
outside: 256 codes. Between an inside and an outside voxel the surface crosses the line that joins
their centres at its middle; inside voxels that touch by a face belong to one piece of it, others
are cut off from each other. Where more than four voxels are inside, the outside ones are looked
at: the surface is the same. Six shapes of pieces are left; each is flat or falls into flat parts,
so its area is a short formula in the spacing. The formulas give the areas of surface-distance 0.1
(Nikolov et al., arXiv 1809.04430).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import product
from math import hypot

import numpy as np

from medtool.score.sample import FloatArray

Corner = tuple[int, ...]


def corners_of(code: int, axes: int) -> list[Corner]:
    """The inside voxels of a code, each as (0 or 1) along each axis.

    The most significant of the 2 ** ``axes`` bits is the voxel at (0, 0, 0), the next (0, 0, 1).
    """
    places = list(product((0, 1), repeat=axes))
    return [place for bit, place in enumerate(reversed(places)) if code >> bit & 1]


@lru_cache(maxsize=256)
def surface_sizes(spacing_mm: tuple[float, ...]) -> FloatArray:
    """Area in mm^2 of every code of 2 x 2 x 2 voxels, (256,); length in mm in 2D, (16,).

    ``spacing_mm`` is in the order of the array's axes, three of them or two.
    """
    axes = len(spacing_mm)
    piece_size = _piece_area if axes == 3 else _piece_length
    full = 2**axes
    sizes = np.zeros(2**full)
    for code in range(len(sizes)):
        corners = corners_of(code, axes)
        if len(corners) * 2 > full:
            corners = corners_of(len(sizes) - 1 - code, axes)
        sizes[code] = sum(piece_size(piece, spacing_mm) for piece in _pieces(corners))
    # Many cases share one table.
    sizes.flags.writeable = False
    return sizes


def _touch(one: Corner, other: Corner) -> bool:
    return sum(a != b for a, b in zip(one, other, strict=True)) == 1


def _pieces(corners: Sequence[Corner]) -> list[list[Corner]]:
    """The corners in groups that hang together by faces of voxels."""
    groups: list[list[Corner]] = []
    for corner in corners:
        joined = [group for group in groups if any(_touch(corner, other) for other in group)]
        groups = [group for group in groups if group not in joined]
        groups.append([corner, *(other for group in joined for other in group)])
    return groups


def _piece_length(piece: Sequence[Corner], spacing_mm: Sequence[float]) -> float:
    """One corner is cut off by a slanting line, two side by side by a straight one."""
    if len(piece) == 1:
        return 0.5 * hypot(*spacing_mm)
    (along,) = _spanned(piece)
    return spacing_mm[along]


def _piece_area(piece: Sequence[Corner], spacing_mm: Sequence[float]) -> float:
    """The area around one to four corners that hang together."""
    x, y, z = spacing_mm
    # The triangle through the middles of the three edges that leave a corner.
    triangle = hypot(y * z, x * z, x * y) / 8.0
    if len(piece) == 1:
        return triangle
    spanned = _spanned(piece)
    if len(piece) == 2:
        return _roof(spanned[0], spacing_mm)
    if len(spanned) == 2:
        face = spacing_mm[spanned[0]] * spacing_mm[spanned[1]]
        # Three corners of a face: half of the face, and a slope of three triangles in one plane.
        return face if len(piece) == 4 else 0.5 * face + 3.0 * triangle
    neighbours = {c: [other for other in piece if _touch(c, other)] for c in piece}
    if max(map(len, neighbours.values())) == 3:
        # A corner and its three neighbours: a hexagon of six triangles in one plane.
        return 6.0 * triangle
    # A winding chain: a triangle at its waist three times the small one, one small one, and half
    # a roof at each end, along the chain's first and last step.
    ends = [(c, near[0]) for c, near in neighbours.items() if len(near) == 1]
    return 4.0 * triangle + sum(0.5 * _roof(_spanned(end)[0], spacing_mm) for end in ends)


def _roof(along: int, spacing_mm: Sequence[float]) -> float:
    """The slanting rectangle over two corners that are neighbours ``along`` an axis."""
    others = [s for axis, s in enumerate(spacing_mm) if axis != along]
    return 0.5 * spacing_mm[along] * hypot(*others)


def _spanned(piece: Sequence[Corner]) -> list[int]:
    """The axes along which the corners differ."""
    return [axis for axis, values in enumerate(zip(*piece, strict=True)) if len(set(values)) == 2]
