"""Where a prepared image lies in the image that was read.

Preparation turns the axes, crops and resamples; ``predict.decide`` undoes it in the opposite order.
Sizes, spacings and the box are in the order of the turned axes, ``input_size_vox`` alone is in that
of the image that was read (z, y, x).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from medtool.data.orientation import Turn


@dataclass(frozen=True)
class Placement:
    """``axes_forward[k]`` is the input's axis that became k; ``box`` is (start, stop) an axis.

    Axes of ``flipped`` were reversed as well; none where nothing says so.
    """

    axes_forward: tuple[int, ...]
    input_size_vox: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    box: tuple[tuple[int, int], ...]
    prepared_spacing_mm: tuple[float, ...]
    prepared_size_vox: tuple[int, ...]
    flipped: tuple[bool, ...] = (False, False, False)

    @property
    def turn(self) -> Turn:
        """How the axes of the input were turned."""
        return Turn(self.axes_forward, self.flipped)

    @property
    def cropped_size_vox(self) -> tuple[int, ...]:
        """Size of the box."""
        return tuple(stop - start for start, stop in self.box)

    def as_facts(self) -> dict[str, Any]:
        """Plain values for the facts of a prepared case; ``placement_from_facts`` reads them."""
        return asdict(self)


def placement_from_facts(facts: Mapping[str, Any]) -> Placement:
    """The placement whose ``as_facts`` this was, also after a way through JSON."""
    return Placement(
        axes_forward=tuple(facts["axes_forward"]),
        input_size_vox=tuple(facts["input_size_vox"]),
        spacing_mm=tuple(facts["spacing_mm"]),
        box=tuple((start, stop) for start, stop in facts["box"]),
        prepared_spacing_mm=tuple(facts["prepared_spacing_mm"]),
        prepared_size_vox=tuple(facts["prepared_size_vox"]),
        flipped=tuple(facts["flipped"]),
    )
