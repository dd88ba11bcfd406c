"""Where the studies came from and where they went: the flow, and the table by part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from markupsafe import Markup

from medtool.data.matching import CLASS_FACT
from medtool.report.flow import FlowStep, flow_svg
from medtool.report.run_view import RunView
from medtool.report.templates import (
    fact_title,
    folded_html,
    paragraph_html,
    svg_figure_html,
    table_html,
)

# Order and names of the parts in tables and pictures.
PARTS = {"train": "Training", "selection": "Selection", "test": "Test"}
# Columns of cases.csv that are no facts.
IDENTITY = frozenset(
    "case patient study_uid accession study_date folder part label code message synthetic".split()
)
# The columns of outcomes.
EVENT, FOLLOW_UP = "event", "time_days"
# What a reader of a cohort asks for, in this order; other facts are folded away below the table.
READ_FIRST = (
    f"{CLASS_FACT} {FOLLOW_UP} sex age manufacturer model kernel contrast kvp"
    " slices thickness_mm slice_spacing_mm pixel_spacing_mm tilt_degrees"
).split()
# Numbers of headers and of geometry carry noise of arithmetic beyond these digits.
DECIMALS = 2
# A fact with more different values than this is no row of the cohort table.
MOST_VALUES = 8


def flow_html(view: RunView) -> Markup:
    """The flow as a picture, and every reason with its studies as a table."""
    series = list(view.intake.get("series", ()))
    used = [case for case in view.cases if case.get("part") in PARTS]
    names = {case["case"] for case in used}
    received = {str(row.get("case", "")) for row in series} | {c["case"] for c in view.cases}
    received.discard("")
    codes = _refusals(view, names)
    usable = received - set(codes)
    left = _left_after_intake(view, usable, names)
    reasons = Counter(code for found in codes.values() for code in found)
    later = Counter(code for _, code in left)
    steps = [
        FlowStep(
            f"Received: {len(received)} studies",
            (f"{len(series)} series, {len(view.intake.get('skipped', ()))} other files",),
            len(codes),
            "Studies refused at intake",
            tuple(reasons.most_common()),
        ),
        FlowStep(
            f"Usable scans: {len(usable)} studies",
            (),
            len(left),
            "Not used",
            tuple(later.most_common()),
        ),
        FlowStep(f"Used: {len(used)} studies", (composition(used),)),
    ]
    parts = [
        FlowStep(f"{title}: {len(rows)} studies", _part_lines(view, part, rows))
        for part, title in PARTS.items()
        if (rows := [case for case in used if case["part"] == part])
    ]
    picture = svg_figure_html(
        flow_svg(steps, parts), "Flow of studies from received to used; reasons are codes."
    )
    listed = [
        *({"case": case, "step": "intake", "code": ", ".join(c)} for case, c in codes.items()),
        *({"case": case, "step": "preparation", "code": code} for case, code in left),
    ]
    if not listed:
        return picture + paragraph_html("No study was left out.")
    table = table_html(
        listed,
        {"case": "Study", "step": "Left out at", "code": "Reason codes"},
        caption="Every study that was left out.",
    )
    return picture + table


def _refusals(view: RunView, used: set[str]) -> dict[str, list[str]]:
    """Studies whose every series was refused, with the codes of their series."""
    by_case: dict[str, list[Mapping[str, Any]]] = {}
    for row in view.intake.get("series", ()):
        by_case.setdefault(str(row.get("case", "")), []).append(row)
    by_case.pop("", None)
    return {
        case: list(dict.fromkeys(str(code) for row in rows for code in row.get("codes", ())))
        or ["not recorded"]
        for case, rows in sorted(by_case.items())
        if case not in used and all(row.get("verdict") == "refused" for row in rows)
    }


def _left_after_intake(view: RunView, usable: set[str], used: set[str]) -> list[tuple[str, str]]:
    """(study, code) of the studies that had a usable scan and were not used."""
    failed = {str(row.get("case", "")): row for row in view.run.get("failures", ())}
    rows = {case["case"]: case for case in view.cases}
    found = []
    for name in sorted(usable - used):
        row = rows.get(name, {})
        code = str(failed.get(name, {}).get("code", "") or row.get("code", ""))
        if not code:
            code = "no-reference" if row and not row.get("part") else "not recorded"
        found.append((name, code))
    return found


def _part_lines(view: RunView, part: str, rows: Sequence[Mapping[str, str]]) -> tuple[str, ...]:
    lines = [composition(rows)]
    predicted = view.predictions.get(part, ())
    silent = [row for row in predicted if row.get("status") != "ok"]
    if predicted:
        lines.append(f"answered {len(predicted) - len(silent)}, without an answer {len(silent)}")
    return tuple(lines)


def composition(rows: Sequence[Mapping[str, str]]) -> str:
    """How many patients, and positive studies, or those of each class, where labels are known."""
    patients = f"{len({row['patient'] for row in rows})} patients"
    classes = ", ".join(class_counts(rows))
    if has_labels(rows):
        return f"{patients}, {positives(rows)} studies positive"
    if _with_outcome(rows):
        patients += f", {_events(rows)} studies with the event"
    return f"{patients}, {classes}" if classes else patients


def has_labels(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether studies are called positive or negative: masks and classes of a name are not."""
    return any(row.get("label") not in (None, "") and not row.get(CLASS_FACT) for row in rows)


def class_counts(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """How many studies each class has, in words; none where classes have no names."""
    counted = Counter(str(row[CLASS_FACT]) for row in rows if row.get(CLASS_FACT))
    return [f"{count} {name}" for name, count in sorted(counted.items())]


def positives(rows: Sequence[Mapping[str, str]]) -> int:
    """How many studies are labelled positive."""
    return sum(_number(row.get("label", "")) == 1.0 for row in rows)


def _number(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None


def cohort_html(view: RunView) -> Markup:
    """One column a part: studies, patients, positives, and every fact with few values."""
    by_part = {
        title: [case for case in view.cases if case.get("part") == part]
        for part, title in PARTS.items()
    }
    by_part = {title: rows for title, rows in by_part.items() if rows}
    if not by_part:
        return paragraph_html("No case was given a part.")
    every = [row for rows in by_part.values() for row in rows]
    columns = {**by_part, "All": every} if len(by_part) > 1 else {"All": every}
    table = [
        {"fact": "Studies", **{t: str(len(rows)) for t, rows in columns.items()}},
        {
            "fact": "Patients",
            **{t: str(len({row["patient"] for row in rows})) for t, rows in columns.items()},
        },
    ]
    if has_labels(every):
        shares = {title: _share(rows) for title, rows in columns.items()}
        table.append({"fact": "Positive studies", **shares})
    if _with_outcome(every):
        events = {title: _event_share(rows) for title, rows in columns.items()}
        table.append({"fact": "With the event, of those with an outcome", **events})
    first = [name for name in READ_FIRST if name in every[0]]
    told = {*IDENTITY, *READ_FIRST, EVENT}
    others = [name for name in every[0] if name not in told]
    titles = {"fact": "", **{title: title for title in columns}}
    table.extend(row for fact in first for row in _fact_rows(fact, columns))
    folded = [row for fact in others for row in _fact_rows(fact, columns)]
    shown = table_html(
        table,
        titles,
        caption="Numbers are median (smallest to largest); others are studies (share).",
    )
    return shown + (folded_html(table_html(folded, titles), "Other facts") if folded else "")


def _with_outcome(rows: Sequence[Mapping[str, Any]]) -> int:
    """How many studies have one."""
    return sum(row.get(EVENT) not in (None, "") for row in rows)


def _events(rows: Sequence[Mapping[str, Any]]) -> int:
    return sum(_number(str(row.get(EVENT) or "")) == 1.0 for row in rows)


def _event_share(rows: Sequence[Mapping[str, Any]]) -> str:
    known = _with_outcome(rows)
    return f"{_events(rows)} of {known} ({_events(rows) / known:.0%})" if known else "0 of 0"


def _share(rows: Sequence[Mapping[str, str]]) -> str:
    return f"{positives(rows)} ({positives(rows) / len(rows):.0%})"


def _fact_rows(
    fact: str, columns: Mapping[str, Sequence[Mapping[str, str]]]
) -> list[dict[str, str]]:
    title = fact_title(fact)
    columns = {t: [{fact: _rounded(row.get(fact))} for row in rows] for t, rows in columns.items()}
    values = [row[fact] for row in columns["All"]]
    numbers = [_number(value) for value in values if value]
    if numbers and None not in numbers and len(set(numbers)) > 2:
        return [{"fact": title, **{t: _spread(fact, rows) for t, rows in columns.items()}}]
    distinct = Counter(value or "not known" for value in values)
    if not 1 <= len(distinct) <= MOST_VALUES or set(distinct) == {"not known"}:
        return []
    return [
        {
            "fact": f"{title}: {value}",
            **{
                t: f"{(n := _count(fact, value, rows))} ({n / len(rows):.0%})"
                for t, rows in columns.items()
            },
        }
        for value, _ in distinct.most_common()
    ]


def _rounded(value: str | None) -> str:
    """Quantities to a few decimals; words, and ids with leading zeros, as they are."""
    number = _number(value)
    if number is None or value is None or "." not in value:
        return value or ""
    return f"{round(number, DECIMALS):.6g}"


def _count(fact: str, value: str, rows: Sequence[Mapping[str, str]]) -> int:
    return sum((row.get(fact, "") or "not known") == value for row in rows)


def _spread(fact: str, rows: Sequence[Mapping[str, str]]) -> str:
    known = [n for row in rows if (n := _number(row.get(fact, ""))) is not None]
    if not known:
        return "\N{EN DASH}"
    return f"{median(known):.4g} ({min(known):.4g} to {max(known):.4g})"
