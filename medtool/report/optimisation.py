"""The page of an optimised model: what was made, how good it is beside the original, how fast."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from medtool.core.files import replace_text
from medtool.core.records import Section
from medtool.predict.engines.contract import PYTORCH
from medtool.report.page import Badge, page_html
from medtool.report.templates import (
    MISSING,
    heading_html,
    interval_text,
    list_html,
    paragraph_html,
    preformatted_html,
    table_html,
)

REPORT_FILE = "report.html"
# Layers that the page lists by what they cost.
LAYERS_SHOWN = 20
# Of a metric beside the judged ones: less is not told.
SMALLEST_CHANGE = 1e-4
KINDS = {
    "mask": "Dice between both masks",
    "map": "rank correlation over voxels",
    "number": "difference",
    "word": "share alike",
}

Document = Mapping[str, Any]


def write_optimisation_report(folder: Path, document: Document, *, command: str = "") -> Path:
    """Write ``report.html`` of an optimize.json into ``folder``. Raises MachineError."""
    made = (
        ("What was made", _files_html),
        ("How good it is", _accuracy_html),
        ("Whether uncertainty survives", _passes_html),
        ("How alike the answers are", _agreement_html),
        ("How fast it is", _latency_html),
        ("How it was quantised", _quantisation_html),
        ("How it was pruned", _pruning_html),
        ("How to use it", _use_html),
        ("What it is not for", _limits_html),
    )
    sections = [
        Section(title, html, 10 * place)
        for place, (title, make) in enumerate(made)
        if (html := str(make(document)))
    ]
    text = json.dumps(document, indent=2)
    record = preformatted_html(text, "optimize.json")
    if command:
        record = paragraph_html(f"Command, without its places: {command}") + record
    sections.append(Section("Record", str(record), 1000))
    title = f"{document.get('task', 'Model')}: optimised"
    page = page_html(title, sections, badges=_badges(document))
    target = folder / REPORT_FILE
    replace_text(target, page)
    return target


def _badges(document: Document) -> list[Badge]:
    badges = []
    if document.get("synthetic"):
        badges.append(Badge("Synthetic data: not for patients", "warning"))
    if why := (document.get("accuracy") or {}).get("optimistic"):
        badges.append(Badge(str(why), "warning"))
    badges.append(Badge(f"default: {document.get('default', '')}"))
    return badges


def _files_html(document: Document) -> Markup:
    files, rows = document["files"], []
    # The float file holds what the network holds; a checkpoint also what only training needs.
    first = float(next(iter(files.values()))["bytes"])
    for name, entry in files.items():
        mark = " (default)" if name == document.get("default") else ""
        rows.append(
            {
                "file": name + mark,
                "engine": entry["engine"],
                "arithmetic": entry["arithmetic"],
                "mb": entry["bytes"] / 1e6,
                "times": first / entry["bytes"],
            }
        )
    columns = {
        "file": "File",
        "engine": "Engine",
        "arithmetic": "Arithmetic",
        "mb": "MB",
        "times": "Times smaller",
    }
    said = []
    counts = document.get("counts") or {}
    for key, what in (("parameters", "parameters"), ("multiply_adds", "multiply-adds an input")):
        if counts.get(key):
            said.append(f"{int(counts[key]):,} {what}")
    export = document.get("export") or {}
    if export:
        said.append(
            f"on {export['inputs']} inputs of real cases the exported file differs from PyTorch by "
            f"at most {export['largest']:.2g}, where the output spans {export['range']:.3g}"
        )
    text = "; ".join(said)
    told = paragraph_html(text[:1].upper() + text[1:] + ".") if text else Markup("")
    return table_html(rows, columns, digits=2) + told


def _accuracy_html(document: Document) -> Markup:
    accuracy = document.get("accuracy") or {}
    rows, worst = [], []
    for name, found in (accuracy.get("files") or {}).items():
        for fall in found["metrics"]:
            rows.append(
                {
                    "file": name,
                    "metric": fall["metric"],
                    "before": fall["before"],
                    "after": fall["after"],
                    "change": _minus(fall["fall"]),
                    "interval": interval_text(_minus(fall["high"]), _minus(fall["low"]), 4),
                    "tolerance": fall["tolerance"],
                    "n": fall["n"],
                    "verdict": "as good" if fall["proved"] else "within tolerance",
                }
            )
        if case := found.get("worst_case"):
            worst.append(
                {
                    "file": name,
                    "row": case["row"],
                    "before": case["error_before"],
                    "after": case["error_after"],
                    "lost": case["lost"],
                }
            )
    if not rows:
        return Markup("")
    columns = {
        "file": "File",
        "metric": "Metric",
        "before": "Before",
        "after": "After",
        "change": "Change",
        "interval": "Paired interval",
        "tolerance": "May fall by",
        "n": "Cases",
        "verdict": "Verdict",
    }
    why = accuracy.get("optimistic")
    text = (
        f"On the {accuracy['part']}, {accuracy['cases']} cases, the same for both; the interval is "
        "from the paired bootstrap by patient. “As good”: the whole interval is within what the "
        "metric may fall; “within tolerance”: the metric is, the interval reaches further, so more "
        "cases would be needed to prove it."
    )
    if why:
        text += f" These numbers are {why}."
    if unjudged := accuracy.get("not_judged"):
        text += f" Not judged, for it is undefined there: {', '.join(unjudged)}."
    html = paragraph_html(text) + table_html(rows, columns, digits=4)
    if worst:
        heads = {
            "file": "File",
            "row": "Row of cases.csv",
            "before": "Error before",
            "after": "Error after",
            "lost": "Lost",
        }
        html += heading_html("The case that lost most") + table_html(worst, heads, digits=4)
    return html + _other_metrics_html(accuracy["files"])


def _other_metrics_html(files: Document) -> Markup:
    """What the task measures besides, where a file changed it; nothing is decided by it."""
    before: dict[str, float] = {}
    after: dict[str, dict[str, float]] = {}
    for name, found in files.items():
        for one in found.get("other_metrics", ()):
            if None not in (one["before"], one["after"]):
                before[one["metric"]] = one["before"]
                after.setdefault(one["metric"], {})[name] = one["after"]
    if not before:
        return Markup("")
    rows = [
        {"metric": metric, "before": before[metric], **values}
        for metric, values in after.items()
        if any(abs(value - before[metric]) >= SMALLEST_CHANGE for value in values.values())
    ]
    columns = {"metric": "Metric", "before": "Before", **{name: name for name in files}}
    text = (
        f"Told only: nothing depends on them. {len(rows)} of {len(before)} changed by "
        f"{SMALLEST_CHANGE:g} or more."
    )
    head = heading_html("The task's other metrics") + paragraph_html(text)
    return head + (table_html(rows, columns, digits=4) if rows else Markup(""))


def _minus(value: float | None) -> float | None:
    return None if value is None else 0.0 - value


def _agreement_html(document: Document) -> Markup:
    rows = [
        {
            "file": name,
            "what": one["name"],
            "kind": KINDS.get(one["kind"], one["kind"]),
            "mean": one["mean"],
            "worst": one["worst"],
            "row": one["worst_row"],
            "correlation": one.get("correlation"),
            "n": one["n"],
            "lost": one.get("lost", 0),
        }
        for name, found in ((document.get("accuracy") or {}).get("files") or {}).items()
        for one in found["agreement"]
    ]
    if not rows:
        return Markup("")
    columns = {
        "file": "File",
        "what": "Answer",
        "kind": "Measured as",
        "mean": "Mean",
        "worst": "Worst",
        "row": "Row of cases.csv",
        "correlation": "Rank correlation",
        "n": "Cases",
        "lost": "Lost",
    }
    text = (
        "Each answer beside that of the original for the same case, whatever is true. Lost are "
        "cases that had a number before and have none after."
    )
    return paragraph_html(text) + table_html(rows, columns, digits=4)


def _passes_html(document: Document) -> Markup:
    files = (document.get("accuracy") or {}).get("files") or {}
    compared = {name: found["passes"] for name, found in files.items() if found.get("passes")}
    if not compared:
        return Markup("")
    rows = [
        {
            "file": name,
            "cases": one["cases"],
            "mean": one["mean"],
            "largest": one["largest"],
            "correlation": one["correlation"],
        }
        for name, one in compared.items()
    ]
    columns = {
        "file": "File",
        "cases": "Cases",
        "mean": "Mean differs by, where anything is found",
        "largest": "At a voxel",
        "correlation": "Rank correlation of uncertainty",
    }
    passes = next(iter(compared.values()))
    text = (
        "Monte Carlo passes beside those of PyTorch by the same network, with the same keys; each "
        f"number is of the case where it is worst. Over the voxels of a case in which either mean "
        f"finds anything the means may differ by {passes['most_mean']:g}; the rank correlation of "
        f"the maps of uncertainty has to be {passes['least_correlation']:g}."
    )
    if document.get("pruning"):
        text += " The network is the pruned one: it drops other features than the whole one."
    if not any(row["cases"] for row in rows):
        text += " The answers of this model hold no such maps: nothing was compared."
    return paragraph_html(text) + table_html(rows, columns, digits=4)


def _latency_html(document: Document) -> Markup:
    rows = []
    measured = list(document.get("latency") or ())
    timed = [row for row in measured if "median_ms" in row]
    # What others are compared with.
    whole = {row["batch"]: row["median_ms"] for row in timed if row["engine"] == PYTORCH}
    for row in timed:
        low, high = row["quartiles_ms"]
        base = whole.get(row["batch"])
        times = None if base is None else base / row["median_ms"]
        rows.append({**row, "quartiles": f"{low:.2f} to {high:.2f}", "times": times})
    if not measured:
        return Markup("")
    machine = document.get("machine") or {}
    told = ", ".join(str(one) for one in machine.get("instructions", ())) or MISSING
    threads = f"{rows[0]['threads']} threads; " if rows else ""
    text = (
        f"{machine.get('processor', 'This processor')}, {threads}vector instructions: {told}. "
        "Medians of calls of the network alone. Memory is the peak of a process of its own that "
        "answers one call, with its libraries."
    )
    columns = {
        "file": "File",
        "engine": "Engine",
        "batch": "Images a call",
        "runs": "Calls",
        "median_ms": "Median, ms",
        "quartiles": "Quartiles, ms",
        "per_second": "Images/s",
        "times": "Times faster",
        "memory_mb": "Memory, MB",
    }
    html = paragraph_html(text) + table_html(rows, columns, digits=2)
    missing = list(_not_measured(document, measured))
    return html + (heading_html("Not measured") + list_html(missing) if missing else "")


def _not_measured(document: Document, rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    measuring = document.get("measuring") or {}
    for why in measuring.get("left_out", ()):
        yield f"{why}."
    for row in rows:
        where = f"{row['file']}, {row['batch']} images a call"
        if why := row.get("why_not"):
            yield f"{where}: {why}."
        elif why := row.get("why_no_memory"):
            yield f"{where}, memory: {why}."
        elif row["runs"] < measuring.get("calls", 0):
            yield (
                f"{where}: {row['runs']} of {measuring['calls']} calls; more would take longer "
                f"than {measuring.get('seconds') or 0:g} seconds."
            )


def _quantisation_html(document: Document) -> Markup:
    found = document.get("quantisation") or {}
    if not found:
        return Markup("")
    calibration = found["calibration"]
    floats = found["layers_in_float"]
    items = [
        f"Ranges by the method {found['method']}, on {calibration['inputs']} inputs of "
        f"{calibration['cases']} cases ({calibration['patients']} patients): "
        f"{calibration['rule']}.",
        f"Weights: {found['weights']}; activations: {found['activations']}.",
        f"{found['layers'] - len(floats)} of {found['layers']} layers in eight bits; in float: "
        + (", ".join(floats) or "none")
        + ".",
    ]
    if where := found.get("found_on"):
        items.append(f"These are the layers of LiteRT's file in eight bits, found on {where}.")
    if found["reduce_range"]:
        items.append("Weights leave one bit unused, for processors whose sums can overflow.")
    rows = [_trial_row(one) for one in found["tried"]]
    html = list_html(items) + heading_html("What was tried on the selection part")
    html += table_html(
        rows,
        {
            "method": "Ranges",
            "float": "Layers in float",
            "error": "Output error",
            "falls": "Change of the metrics",
            **(
                {"passes": "Rank correlation of uncertainty"}
                if any("passes" in one for one in rows)
                else {}
            ),
        },
        digits=4,
    )
    costs = [dict(one) for one in found["layer_costs"][:LAYERS_SHOWN]]
    if costs:
        html += heading_html("What each layer costs alone") + table_html(
            costs,
            {
                "layer": "Layer",
                "kind": "Kind",
                "parameters": "Parameters",
                "error": "Output error",
            },
            digits=4,
        )
    return html


def _trial_row(trial: Mapping[str, Any]) -> dict[str, Any]:
    falls = ", ".join(f"{one['metric']} {_change_text(one['fall'])}" for one in trial["selection"])
    return {
        "method": trial["method"],
        "float": len(trial["layers_in_float"]),
        "error": trial["output_error"],
        "falls": falls or MISSING,
        **({"passes": trial["passes"]["correlation"]} if "passes" in trial else {}),
    }


def _change_text(fall: float | None) -> str:
    return MISSING if fall is None else f"{0.0 - fall:+.4f}"


def _pruning_html(document: Document) -> Markup:
    found: Mapping[str, Any] = document.get("pruning") or {}
    if not found:
        return Markup("")
    before, after = int(found["parameters_before"]), int(found["parameters"])
    smallest = min(float(entry["bytes"]) for entry in document["files"].values())
    text = f"{before:,} parameters before, {after:,} after ({after / before:.0%})"
    work = [document.get(key) or {} for key in ("counts_before", "counts")]
    if all(one.get("multiply_adds") for one in work):
        whole, narrow = (int(one["multiply_adds"]) for one in work)
        text += (
            f"; {whole:,} multiply-adds an input before, {narrow:,} after ({narrow / whole:.0%})"
        )
    text += (
        f". The smallest file is {4 * before / smallest:.1f} times smaller than those before in "
        "float32."
    )
    channels = found["settings"]["kind"] == "channels"
    if channels:
        text += (
            " After each round the network learned again; values are of the selection part, "
            "optimistic."
        )
    rows = [{**one, "share": f"{one['share']:.0%}"} for one in found["rounds"]]
    columns = {
        "share": "Channels gone" if channels else "Weights that are 0",
        "parameters": "Parameters",
        "epochs": "Epochs",
        "first_value": "After the first epoch",
        "best_value": "At the best epoch",
    }
    html = paragraph_html(text) + table_html(rows, columns, digits=4)
    if note := found.get("note"):
        html += paragraph_html(str(note))
    return html


def _use_html(document: Document) -> Markup:
    return list_html(
        [
            "medtool infer SCANS --checkpoint FOLDER -o OUT answers with the default file; name "
            "another file of the folder in its place to take that.",
            "medtool doctor --checkpoint FOLDER proves that a machine computes the same.",
            "model-card.json says what goes in and what comes out, for use without medtool.",
        ]
    )


def _limits_html(document: Document) -> Markup:
    return list_html(_limits(document))


def _limits(document: Document) -> Iterator[str]:
    yield "For research. It is no medical device."
    yield "Equal on these patients is not equal on others: judge it where it shall be used."
    if "quantisation" in document:
        yield (
            "Eight-bit sums can overflow on processors without instructions for them; "
            "medtool doctor says so of each."
        )
