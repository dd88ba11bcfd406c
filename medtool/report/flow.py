"""The flow of studies from received to used (STARD), as an SVG of our own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap

from markupsafe import Markup

BOX_WIDTH, SIDE_WIDTH, GAP, SIDE_GAP = 300, 330, 34, 60
LINE_HEIGHT, PADDING = 17, 11
# Of a letter of the font, bold ones included, a little more than the mean: longer lines are broken.
LETTER_WIDTH = 6.9
MOST_REASONS = 8


@dataclass(frozen=True)
class FlowStep:
    """A box, what left the flow before the next one, and why (reason, number)."""

    title: str
    lines: tuple[str, ...] = ()
    left: int = 0
    left_title: str = ""
    reasons: tuple[tuple[str, int], ...] = ()


def flow_svg(steps: Sequence[FlowStep], parts: Sequence[FlowStep]) -> Markup:
    """Boxes from top to bottom, exclusions at the right, the parts side by side at the end."""
    pieces: list[Markup] = []
    y = 4
    width = max(BOX_WIDTH + SIDE_GAP + SIDE_WIDTH, len(parts) * (BOX_WIDTH - 60)) + 8
    previous = -1
    for step in steps:
        if previous >= 0:
            pieces.append(_arrow(4 + BOX_WIDTH // 2, previous, 4 + BOX_WIDTH // 2, y))
        height = _height(step.title, step.lines, BOX_WIDTH)
        pieces.append(_box(4, y, BOX_WIDTH, step.title, step.lines, "#f3f7fb"))
        bottom = y + height
        if step.left:
            bottom = _exclusion(pieces, step, bottom)
        previous = y + height
        y = bottom + GAP
    pieces.extend(_parts(parts, previous, y, width))
    each = _part_width(parts, width)
    total = y + max((_height(p.title, p.lines, each) for p in parts), default=-GAP) + 4
    head = Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" width="{w}" height="{h}" viewBox="0 0 {w} {h}" '
        'font-family="Arial, Helvetica, sans-serif" font-size="13" fill="#1d2733">'
    ).format(w=width, h=total)
    return head + Markup("").join(pieces) + Markup("</svg>")


def _exclusion(pieces: list[Markup], step: FlowStep, bottom: int) -> int:
    """The box at the right between two steps; gives where it ends."""
    shown = [f"{reason}: {count}" for reason, count in step.reasons[:MOST_REASONS]]
    if len(step.reasons) > MOST_REASONS:
        shown.append(f"and {len(step.reasons) - MOST_REASONS} other reasons, in the table")
    top = bottom + GAP // 2
    title = f"{step.left_title}: {step.left}"
    x = 4 + BOX_WIDTH + SIDE_GAP
    height = _height(title, shown, SIDE_WIDTH)
    middle = top + height // 2
    pieces.append(_arrow(4 + BOX_WIDTH // 2, middle, x, middle))
    pieces.append(_box(x, top, SIDE_WIDTH, title, shown, "#fdf4ea"))
    return top + height


def _parts(parts: Sequence[FlowStep], previous: int, y: int, width: int) -> list[Markup]:
    if not parts:
        return []
    pieces = []
    each = _part_width(parts, width)
    branch = y - GAP // 2
    start = 4 + BOX_WIDTH // 2
    middles = [4 + number * (each + 16) + each // 2 for number in range(len(parts))]
    pieces.append(_line(start, previous, start, branch))
    pieces.append(_line(min(start, *middles), branch, max(start, *middles), branch))
    for number, part in enumerate(parts):
        pieces.append(_arrow(middles[number], branch, middles[number], y))
        pieces.append(_box(4 + number * (each + 16), y, each, part.title, part.lines, "#eef6f1"))
    return pieces


def _part_width(parts: Sequence[FlowStep], width: int) -> int:
    return (width - 8 - 16 * (len(parts) - 1)) // max(1, len(parts))


def _height(title: str, lines: Sequence[str], width: int) -> int:
    rows = sum(len(_broken(text, width)) for text in (title, *lines))
    return 2 * PADDING + LINE_HEIGHT * rows - 3


def _box(x: int, y: int, width: int, title: str, lines: Sequence[str], fill: str) -> Markup:
    height = _height(title, lines, width)
    bold, plain = Markup(' font-weight="600"'), Markup(' fill="#4a5663"')
    shown = [(text, bold) for text in _broken(title, width)]
    shown += [(text, plain) for line in lines for text in _broken(line, width)]
    rows = [
        Markup('<text x="{}" y="{}"{}>{}</text>').format(
            x + 12, y + PADDING + 11 + number * LINE_HEIGHT, style, text
        )
        for number, (text, style) in enumerate(shown)
    ]
    box = Markup(
        '<rect x="{}" y="{}" width="{}" height="{}" rx="6" fill="{}" stroke="#b9c5d1"/>'
    ).format(x, y, width, height, fill)
    return box + Markup("").join(rows)


def _broken(text: str, width: int) -> list[str]:
    """The lines of a text in a box of this width; what goes on is moved to the right."""
    letters = int((width - 24) / LETTER_WIDTH)
    return wrap(text, letters, subsequent_indent="\N{NO-BREAK SPACE}" * 3) or [""]


def _line(x1: int, y1: int, x2: int, y2: int) -> Markup:
    return Markup('<line x1="{}" y1="{}" x2="{}" y2="{}" stroke="#8a97a5"/>').format(x1, y1, x2, y2)


def _arrow(x1: int, y1: int, x2: int, y2: int) -> Markup:
    """A line with a head; straight down or to the right."""
    down = x1 == x2
    head = (
        f"{x2 - 4},{y2 - 7} {x2 + 4},{y2 - 7} {x2},{y2}"
        if down
        else f"{x2 - 7},{y2 - 4} {x2 - 7},{y2 + 4} {x2},{y2}"
    )
    return _line(x1, y1, x2, y2) + Markup('<polygon points="{}" fill="#8a97a5"/>').format(head)
