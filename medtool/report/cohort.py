"""Where the studies came from and where they went: the flow, the table by part, the methods."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from markupsafe import Markup

from medtool.report.flow import FlowStep, flow_svg
from medtool.report.run_view import RunView
from medtool.report.templates import (
    fact_title,
    list_html,
    number_text,
    paragraph_html,
    svg_figure_html,
    table_html,
)

# Order and names of the parts in tables and pictures.
PARTS = {"train": "Training", "selection": "Selection", "test": "Test"}
# Columns of cases.csv that are no facts.
IDENTITY = frozenset(
    "case patient study_uid accession study_date folder part label code message".split()
)
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
        FlowStep(f"Used: {len(used)} studies", (_composition(used),)),
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
            code = "no-label" if row and not row.get("label") else "not recorded"
        found.append((name, code))
    return found


def _part_lines(view: RunView, part: str, rows: Sequence[Mapping[str, str]]) -> tuple[str, ...]:
    lines = [_composition(rows)]
    predicted = view.predictions.get(part, ())
    silent = [row for row in predicted if row.get("status") != "ok"]
    if predicted:
        lines.append(f"answered {len(predicted) - len(silent)}, without an answer {len(silent)}")
    return tuple(lines)


def _composition(rows: Sequence[Mapping[str, str]]) -> str:
    return f"{len({row['patient'] for row in rows})} patients, {_positives(rows)} studies positive"


def _positives(rows: Sequence[Mapping[str, str]]) -> int:
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
    columns = {**by_part, "All": every}
    table = [
        {"fact": "Studies", **{t: str(len(rows)) for t, rows in columns.items()}},
        {
            "fact": "Patients",
            **{t: str(len({row["patient"] for row in rows})) for t, rows in columns.items()},
        },
        {"fact": "Positive studies", **{t: _share(rows) for t, rows in columns.items()}},
    ]
    for fact in [name for name in every[0] if name not in IDENTITY]:
        table.extend(_fact_rows(fact, columns))
    return table_html(
        table,
        {"fact": "", **{title: title for title in columns}},
        caption="Numbers are median (smallest to largest); others are studies (share).",
    )


def _share(rows: Sequence[Mapping[str, str]]) -> str:
    return f"{_positives(rows)} ({_positives(rows) / len(rows):.0%})"


def _fact_rows(
    fact: str, columns: Mapping[str, Sequence[Mapping[str, str]]]
) -> list[dict[str, str]]:
    title = fact_title(fact)
    values = [row.get(fact, "") for row in columns["All"]]
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


def _count(fact: str, value: str, rows: Sequence[Mapping[str, str]]) -> int:
    return sum((row.get(fact, "") or "not known") == value for row in rows)


def _spread(fact: str, rows: Sequence[Mapping[str, str]]) -> str:
    known = [n for row in rows if (n := _number(row.get(fact, ""))) is not None]
    if not known:
        return "\N{EN DASH}"
    return f"{median(known):.4g} ({min(known):.4g} to {max(known):.4g})"


def methods_html(view: RunView) -> Markup:
    """What was trained on what: a paragraph fit for a methods section, and the settings."""
    return paragraph_html(methods_text(view)) + list_html(_stages(view))


def methods_text(view: RunView) -> str:
    """The paragraph; sentences whose facts are not recorded are left out."""
    counts = {p: [c for c in view.cases if c.get("part") == p] for p in PARTS}
    model, train = view.preset.get("model", {}), view.preset.get("train", {})
    metrics = view.preset.get("metrics", {})
    run, sentences = view.run, []
    versions = run.get("versions", {})
    task = run.get("task", "")
    sentences.append(
        f"A {model.get('backbone', 'neural network')} was trained for the task {task} with medtool"
        f" {versions.get('medtool', '')} (preset {run.get('preset') or 'not named'}, seed"
        f" {train.get('seed', 0)}) on {_of(counts['train'])}."
    )
    if counts["selection"]:
        sentences.append(
            f"Another {_of(counts['selection'])} chose the checkpoint and the decision threshold."
        )
    if counts["test"]:
        sentences.append(
            f"The remaining {_of(counts['test'])} only scored; no patient is in two parts."
        )
    if view.history:
        sentences.append(
            f"Training ran for {len(view.history)} epochs with {train.get('optimiser', 'adamw')},"
            f" {train.get('batch_cases', 'several')} studies a step and gradients clipped at norm"
            f" {train.get('gradient_clip', 1.0):g}."
        )
    best = next((row for row in view.checkpoints if row.get("kind") == "best"), None)
    if best is not None:
        sentences.append(
            f"The checkpoint of epoch {best.get('epoch')}, with the best {best.get('metric')} on"
            f" the selection part ({number_text(best.get('value'))}), was used; a study is called"
            f" positive at a probability of {number_text(best.get('threshold'))} or more (rule"
            f" {metrics.get('threshold_rule', 'f1')}, on the selection part)."
        )
    weights = run.get("weights") or {}
    if isinstance(weights, Mapping) and weights.get("source"):
        sentences.append(f"The backbone began with the weights {weights['source']}.")
    sentences.append(
        f"Intervals are {metrics.get('confidence', 0.95):.0%} intervals, by bootstrap of patients"
        f" with {metrics.get('bootstrap_draws', 2000)} draws, or Wilson's for shares where each"
        " patient counts once."
    )
    return " ".join(sentences)


def _of(rows: Sequence[Mapping[str, Any]]) -> str:
    patients = len({row["patient"] for row in rows})
    return f"{len(rows)} studies of {patients} patients ({_positives(rows)} studies positive)"


def _stages(view: RunView) -> list[str]:
    stages = view.preset.get("train", {}).get("stages", ())
    return [
        f"From epoch {stage.get('from_epoch')}: "
        + ", ".join(f"{group} learns at {rate:g}" for group, rate in stage.get("rates", {}).items())
        + "; everything else is frozen."
        for stage in stages
    ]
