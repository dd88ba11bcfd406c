"""Small pieces of HTML that reports are made of, for tasks' sections too.

Every text is escaped; what comes back is ``Markup`` and is not escaped again. Numbers are shown
to three digits and sorted by their full value.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from io import StringIO
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment
from markupsafe import Markup, escape

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MISSING = "\N{EN DASH}"
# Pictures larger than this stay out of a page that is sent by mail.
LARGEST_PICTURE_BYTES = 2_000_000

# Texts up to this length are never broken; texts beyond the other get room.
SHORT_TEXT, WIDE_TEXT = 22, 40
# Endings of names that are units (a house rule), as a reader writes them.
UNITS = {"_mm": "mm", "_ml": "ml", "_hu": "HU", "_s": "s", "_kvp": "kVp", "_degrees": "degrees"}
# Names of facts that a reader knows otherwise.
FACT_TITLES = {
    "time_days": "follow-up (days)",
    "kvp": "kVp",
    "model": "scanner model",
    "tilt_degrees": "gantry tilt (degrees)",
}

# Not the system's language: a report reads the same everywhere.
MONTHS = (
    "January February March April May June July August September October November December"
).split()

_environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)

_TABLE = _environment.from_string(
    """
<div class="scroll"><table class="sortable">
{% if caption %}<caption>{{ caption }}</caption>{% endif %}
<thead><tr>
{% for column in columns %}
<th scope="col"{% if column.number %} class="number"{% endif %}>
<button type="button">{{ column.title }}</button></th>
{% endfor %}
</tr></thead>
<tbody>
{% for row in rows %}
<tr>{% for cell in row %}<td class="{{ cell.kind }}" data-value="{{ cell.value }}">
{{- cell.text }}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
"""
)

_FIGURE = _environment.from_string(
    """
<figure role="img" aria-label="{{ caption }}"{% if drawn %} class="drawn"{% endif %}>{{ picture }}
<figcaption>{{ caption }}</figcaption></figure>
"""
)


def number_text(value: object, digits: int = 3) -> str:
    """A number as a reader wants it: 0.880, 12, 5e-05; an en dash where there is none."""
    if value is None or value == "":
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        if not isfinite(value):
            return MISSING
        if value == 0 or 1e-3 <= abs(value) < 1e4:
            return f"{value:.{digits}f}"
        return f"{value:.{digits}g}"
    return str(value)


def fact_title(name: str) -> str:
    """The name of a fact for a reader: "thickness (mm)" for ``thickness_mm``."""
    if name in FACT_TITLES:
        return FACT_TITLES[name]
    for ending, unit in UNITS.items():
        if name.endswith(ending):
            return f"{name.removesuffix(ending).replace('_', ' ')} ({unit})"
    return name.replace("_", " ")


def interval_text(low: float | None, high: float | None, digits: int = 3) -> str:
    """ "0.629 to 0.970", or an en dash where there is no interval."""
    if low is None or high is None or not (isfinite(low) and isfinite(high)):
        return MISSING
    return f"{low:.{digits}f} to {high:.{digits}f}"


def table_html(
    rows: Iterable[Mapping[str, Any]],
    columns: Mapping[str, str] | Sequence[str],
    *,
    caption: str = "",
    digits: int = 3,
) -> Markup:
    """A sortable table; ``columns`` maps keys of the rows to titles, in order."""
    titles = dict(columns) if isinstance(columns, Mapping) else {name: name for name in columns}
    listed = [dict(row) for row in rows]
    numeric = {key: _is_numeric(row.get(key) for row in listed) for key in titles}
    cells = [
        [_cell(row.get(key), digits, numeric=numeric[key]) for key in titles] for row in listed
    ]
    heads = [{"title": title, "number": numeric[key]} for key, title in titles.items()]
    return Markup(_TABLE.render(caption=caption, columns=heads, rows=cells))


def _is_numeric(values: Iterable[object]) -> bool:
    known = [value for value in values if value is not None and value != ""]
    return bool(known) and all(
        isinstance(value, (int, float)) and not isinstance(value, bool) for value in known
    )


def _cell(value: object, digits: int, *, numeric: bool) -> dict[str, object]:
    text = value if isinstance(value, Markup) else number_text(value, digits)
    finite = isinstance(value, (int, float)) and isfinite(value)
    sort_key = value if finite else "" if isinstance(value, float) or value is None else value
    kind = "number" if numeric else _width_class(str(text))
    return {"text": text, "value": sort_key, "kind": kind}


def _width_class(text: str) -> str:
    if len(text) > WIDE_TEXT:
        return "wide"
    return "short" if len(text) <= SHORT_TEXT else "text"


def figure_html(figure: Figure, caption: str) -> Markup:
    """A matplotlib figure as inline SVG with its caption; the caption says what it shows."""
    return Markup(_FIGURE.render(picture=svg_of(figure, caption), caption=caption))


def svg_of(figure: Figure, name: str) -> Markup:
    """The figure as an ``<svg>`` element; ``name`` keeps ids of several figures apart."""
    import matplotlib

    buffer = StringIO()
    # A figure with a layout keeps its size, so that neighbours align; others are cut to fit.
    crop = None if figure.get_layout_engine() else "tight"
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        # Neither date nor link: the same figure is the same text, and leads nowhere.
        unsaid = {"Date": None, "Creator": None}
        figure.savefig(buffer, format="svg", bbox_inches=crop, metadata=unsaid)
    text = buffer.getvalue()
    return Markup(text[text.index("<svg") :])


def svg_figure_html(svg: Markup, caption: str) -> Markup:
    """An SVG made by our own code, with its caption."""
    return Markup(_FIGURE.render(picture=svg, caption=caption, drawn=True))


def picture_html(file: Path, alternative: str) -> Markup:
    """A PNG or JPEG inside the page; nothing when it is missing, too large or no such picture."""
    try:
        data = file.read_bytes() if file.stat().st_size <= LARGEST_PICTURE_BYTES else b""
    except OSError:
        data = b""
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg" if data.startswith(b"\xff\xd8") else ""
    if not kind:
        return Markup("")
    code = base64.b64encode(data).decode("ascii")
    return Markup('<img src="data:image/{};base64,{}" alt="{}">').format(kind, code, alternative)


def figures_html(figures: Iterable[Markup], *, wide: bool = False) -> Markup:
    """Figures side by side, or one a row."""
    return Markup('<div class="figures{}">{}</div>').format(
        " wide" if wide else "", Markup("").join(figures)
    )


def paragraph_html(text: str) -> Markup:
    """One paragraph."""
    return Markup("<p>{}</p>").format(text)


def warning_html(text: str) -> Markup:
    """One paragraph that a reader must not miss."""
    return Markup('<p class="warning-box">{}</p>').format(text)


def heading_html(text: str) -> Markup:
    """A heading inside a section."""
    return Markup("<h3>{}</h3>").format(text)


def list_html(items: Iterable[str]) -> Markup:
    """A list of sentences."""
    inner = Markup("").join(Markup("<li>{}</li>").format(item) for item in items)
    return Markup('<ul class="plain">{}</ul>').format(inner)


def folded_html(inner: Markup, summary: str) -> Markup:
    """Something that few readers need, folded behind one line."""
    return Markup("<details><summary>{}</summary>{}</details>").format(summary, inner)


def time_text(stamp: str) -> str:
    """A stored time as a person writes it: ``21 March 2024, 14:05 UTC``; others as they are."""
    try:
        moment = datetime.fromisoformat(stamp)
    except ValueError:
        return stamp
    zone = " UTC" if moment.utcoffset() == timedelta(0) else moment.strftime(" %z").rstrip()
    return f"{moment.day} {MONTHS[moment.month - 1]} {moment:%Y, %H:%M}{zone}"


def preformatted_html(text: str, summary: str) -> Markup:
    """A text as it stands in a file, folded behind one line."""
    return Markup("<details><summary>{}</summary><pre>{}</pre></details>").format(
        escape(summary), text
    )
