"""Left and right: labels that have a side, told by their names, and the axis between the sides."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

from medtool.data.orientation import left_right_axis
from medtool.tasks.segmentation_labels import structures

if TYPE_CHECKING:
    from medtool.core.progress import Reporter
    from medtool.core.records import Prepared
    from medtool.tasks.segmentation_settings import SegmentationSettings

# Words of a side and of the other, in English, German, French, Spanish, Italian, Portuguese, Dutch
# and Latin, as far as their endings differ.
PAIRS = (
    ("left", "right"),
    ("l", "r"),
    ("lt", "rt"),
    ("lh", "rh"),
    ("links", "rechts"),
    ("linke", "rechte"),
    ("linker", "rechter"),
    ("linkes", "rechtes"),
    ("gauche", "droite"),
    ("gauche", "droit"),
    ("izquierda", "derecha"),
    ("izquierdo", "derecho"),
    ("sinistra", "destra"),
    ("sinistro", "destro"),
    ("esquerda", "direita"),
    ("esquerdo", "direito"),
    ("sinister", "dexter"),
    ("sinistra", "dextra"),
    ("sinistrum", "dextrum"),
)
# Pairs that are named before the rest is counted.
PAIRS_SHOWN = 3

# A word of letters, also one that begins with a capital in the middle, or a number.
_WORD = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[^\W\d_]?[^\W\d_A-Z]+|[^\W\d_]+|\d+")


def words_of(name: str) -> tuple[str, ...]:
    """The words of a label's name in lower case, and its numbers: of ``leftKidney_2`` three."""
    return tuple(word.casefold() for word in _WORD.findall(name))


def sided(names: Iterable[str]) -> list[tuple[str, str]]:
    """Names that differ in the word of a side alone, the left one first."""
    known = {words_of(name): name for name in names}
    return [
        (name, known[other])
        for words, name in known.items()
        for place, word in enumerate(words)
        for left, right in PAIRS
        if word == left and (other := (*words[:place], right, *words[place + 1 :])) in known
    ]


def mirrors(settings: SegmentationSettings) -> bool | Literal["left-right"]:
    """How training patches are mirrored: as the preset says, else where no label has a side."""
    asked = settings.augment.mirror
    return not sided(structures(settings.data)) if asked is None else asked


def left_right_axes(prepared: Prepared, dimensions: int) -> tuple[int, ...]:
    """The axis of a patch of ``dimensions`` that runs from left to right in a prepared case.

    A patch of two dimensions is a plane of the last two axes; where planes follow each other from
    left to right none of its axes does.
    """
    across = left_right_axis(prepared.grids["image"], prepared.facts["axes_forward"])
    axis = across - (3 - dimensions)
    return (axis,) if axis >= 0 else ()


def warn_of_sides(settings: SegmentationSettings, reporter: Reporter) -> None:
    """Warn where labels have a side while training mirrors: left would be taught as right."""
    ending, pairs = settings.augment.without_mirrors(), sided(structures(settings.data))
    if not ending or not pairs:
        return
    reporter.warn(
        f"Labels have a side ({_shown(pairs)}), and training mirrors: what is left is learned as "
        f"right as well. Without it: {' '.join(f'--set {one}' for one in ending)}."
    )


def tell_of_mirrors(settings: SegmentationSettings, reporter: Reporter) -> None:
    """Say that nothing is mirrored because labels have a side, where the preset left it open."""
    pairs = sided(structures(settings.data))
    if settings.augment.enabled and settings.augment.mirror is None and pairs:
        reporter.say(f"Labels have a side ({_shown(pairs)}): patches are not mirrored.")


def _shown(pairs: Sequence[tuple[str, str]]) -> str:
    """Some pairs by their names, the rest counted."""
    shown = ", ".join(f"{left} and {right}" for left, right in pairs[:PAIRS_SHOWN])
    more = f" and {len(pairs) - PAIRS_SHOWN} more pairs" if len(pairs) > PAIRS_SHOWN else ""
    return shown + more
