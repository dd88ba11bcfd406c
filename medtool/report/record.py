"""What is kept and what it is worth: checkpoints, limits, versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from medtool.report.run_view import RunView
from medtool.report.templates import (
    interval_text,
    list_html,
    paragraph_html,
    preformatted_html,
    table_html,
)

HASH_CHARACTERS = 12
# Numbers from here on are seconds or bytes: no exponents, one digit.
LARGE = 1000


def checkpoints_html(view: RunView) -> Markup:
    """The checkpoints that are kept; their values are of the selection part."""
    if not view.checkpoints:
        return paragraph_html(view.in_folds or "No checkpoint is kept.")
    rows = [
        {
            **row,
            "interval": interval_text(row.get("low"), row.get("high")),
            "sha256": str(row.get("sha256") or "")[:HASH_CHARACTERS],
        }
        for row in view.checkpoints
    ]
    columns = {
        "file": "File",
        "kind": "Kind",
        "epoch": "Epoch (from 0)",
        "metric": "Metric",
        "value": "Value",
        "interval": "Interval",
        "threshold": "Threshold",
        "sha256": "SHA-256 begins",
    }
    caption = "Values are of the selection part, which chose the checkpoint: optimistic."
    if any(scores.tables.get("structures") for scores in view.scores.values()):
        # Masks have no threshold, and the epochs of a training are judged on patches.
        columns.pop("threshold")
        caption += " That with an interval is of whole images, the others are of patches."
    return table_html(rows, columns, caption=caption)


def limits_html(view: RunView) -> Markup:
    """What the model is not for, from what it has and has not seen."""
    items = [
        "It is not a medical device, and no decision about a patient may rest on it.",
        "It has seen only studies like those of the cohort table: other scanners, kernels, slice"
        " thicknesses, ages or indications are untested until someone tests them.",
        "A study without an answer (refused or failed) is not a negative study.",
    ]
    if any("auroc" in scores.metrics for scores in view.scores.values()):
        items.append(
            "Its probabilities hold for the share of positives of this cohort; PPV and NPV change"
            " with that share."
        )
    if view.run.get("synthetic"):
        items.insert(
            0,
            "It was trained on synthetic data that a program drew: it must not be applied to"
            " patients, and its numbers say only that the software works.",
        )
    if view.headline_part and view.optimistic(view.headline_part):
        items.append(
            f"Its headline numbers are of the {view.optimistic(view.headline_part)}: they are no"
            " estimate of what new patients would give."
        )
    tests = [case for case in view.cases if case.get("part") == "test"]
    if tests:
        items.append(
            f"It was tested on {len({case['patient'] for case in tests})} patients of the same"
            " cohort it was trained on, not on another hospital's."
        )
    return list_html(items)


def versions_html(view: RunView) -> Markup:
    """Command, versions, machine, seconds, notes, and the whole preset."""
    run = view.run
    rows = [{"what": "Command", "value": _text(run.get("command"))}]
    for title, key in (
        ("Version of", "versions"),
        ("Machine:", "machine"),
        ("Seconds:", "seconds"),
    ):
        rows.extend(_rows(title, run.get(key)))
    for title, key in (
        ("Weights:", "weights"),
        ("Split:", "split"),
        ("Estimate:", "estimate"),
        ("Data:", "data"),
        ("Environment:", "environment"),
        ("Started (UTC)", "started_utc"),
        ("Ended (UTC)", "ended_utc"),
    ):
        if run.get(key):
            rows.extend(_rows(title, run[key]))
    notes = [_text(note) for note in run.get("notes") or ()]
    return (
        table_html([row for row in rows if row["value"]], {"what": "What", "value": "Value"})
        + (list_html(notes) if notes else Markup(""))
        + (preformatted_html(view.preset_text, "The resolved preset") if view.preset_text else "")
    )


def _rows(title: str, value: object) -> list[dict[str, str]]:
    if isinstance(value, Mapping):
        return [
            {"what": f"{title} {str(key).replace('_', ' ')}", "value": _text(inner)}
            for key, inner in value.items()
        ]
    return [{"what": title.rstrip(":"), "value": _text(value)}]


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.1f}" if abs(value) >= LARGE else f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(inner)}" for key, inner in value.items())
    if isinstance(value, (list, tuple)):
        return " ".join(_text(inner) for inner in value)
    return str(value)
