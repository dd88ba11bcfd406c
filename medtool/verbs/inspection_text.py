"""An inspection as lines for a person."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from medtool.core.records import SELECTION_OPTIMISTIC
from medtool.verbs.inspect_checkpoint import Inspection
from medtool.verbs.stage_text import rates_text

HISTORY_SHOWN = 5
DIFFERENCES_SHOWN = 60
VALUES_SHOWN = 6
MEGABYTE = 1e6


def inspection_lines(inspection: Inspection, *, all_layers: bool = False) -> Iterator[str]:
    """What a person wants to know of a checkpoint, most important first."""
    header = inspection.header
    document = header.document
    yield f"Checkpoint  {inspection.found}"
    if inspection.optimised is None:
        slim = ", slim: it can answer, not learn on" if header.is_slim else ""
        yield f"  size      {header.size_bytes / MEGABYTE:.1f} MB{slim}"
    yield f"  task      {document.get('task')}, preset {document.get('preset_name') or 'not named'}"
    yield from _position_lines(document)
    yield f"  written   {document.get('created_by')} ({_pairs(document.get('versions'))})"
    yield from _optimised_lines(inspection)
    if document.get("synthetic"):
        yield "  WARNING   trained on synthetic data: not for patients"
    if inspection.other is not None:
        # Who names a second one asks for what differs; all of one is shown when it is named alone.
        yield from _hash_lines(inspection)
        yield from _difference_lines(inspection)
        return
    yield from _accuracy_lines(inspection)
    yield from _metric_lines(document, of_original=inspection.optimised is not None)
    yield from _stage_lines(document)
    yield from _layer_lines(document, all_layers=all_layers)
    yield from _data_lines(document)
    yield from _history_lines(document.get("history") or [])
    yield from _hash_lines(inspection)
    yield from _milestone_lines(inspection)


def _optimised_lines(inspection: Inspection) -> Iterator[str]:
    """Of an optimised model its files, the one that answers by default first."""
    made = inspection.optimised
    if made is None:
        return
    source, files = made.get("source") or {}, made["files"]
    yield f"  made of   {source.get('file')} (model {str(source.get('hash'))[:12]})"
    for name in sorted(files, key=lambda one: one != made["default"]):
        entry = files[name]
        default = ", the default" if name == made["default"] else ""
        yield (
            f"  file      {name}: {entry['arithmetic']}, for {entry['engine']},"
            f" {entry.get('bytes', 0) / MEGABYTE:.1f} MB{default}"
        )


def _position_lines(document: Mapping[str, Any]) -> Iterator[str]:
    members = [str(member["name"]) for member in document.get("members", ())]
    if members:
        yield f"  members   {len(members)} models that answer together: {', '.join(members)}"
    else:
        yield f"  position  {_position(document)}"


def _position(document: Mapping[str, Any]) -> str:
    epoch = document.get("epoch")
    step = "" if document.get("step") is None else f", step {document['step']}"
    if not isinstance(epoch, int) or epoch >= 0:
        return f"after epoch {epoch} (from 0){step}"
    # What was pruned has learned since, in epochs that belong to no run.
    return "in no epoch of a run" if document.get("pruning") else f"within the first epoch{step}"


def _accuracy_lines(inspection: Inspection) -> Iterator[str]:
    """How good each file of an optimised model is beside the original."""
    accuracy = (inspection.optimised or {}).get("accuracy") or {}
    if not accuracy:
        return
    # It needs numpy, and a checkpoint is to be shown in no time.
    from medtool.score.falls import change_text

    yield ""
    yield f"Accuracy beside the original ({accuracy['part']}, {accuracy['cases']} cases)"
    if why := accuracy.get("optimistic"):
        yield f"  ({why})"
    for name, found in accuracy["files"].items():
        for fall in found["metrics"]:
            change = change_text(fall["fall"])
            numbers = f"{fall['before']:.4f} before, {fall['after']:.4f} after ({change})"
            yield f"  {name:20} {fall['metric']:10} {numbers}"
    if unjudged := accuracy.get("not_judged"):
        yield f"  not judged, for it is undefined there: {', '.join(unjudged)}"


def _metric_lines(document: Mapping[str, Any], *, of_original: bool) -> Iterator[str]:
    metrics = document.get("metrics") or {}
    threshold = document.get("threshold")
    # Tasks that choose one choose it anew after every epoch, and by their rule in the end.
    chosen = "threshold" in (metrics.get("selection") or {})
    unruled = "of its epoch, not of a whole run" if chosen else "none was chosen"
    rule = document.get("threshold_rule", unruled)
    yield ""
    # A pruned network has none of its own but those beside the original.
    measured = metrics.get("scores") or metrics.get("selection")
    whose = "Metrics of the original" if of_original and measured else "Metrics"
    yield f"{whose} (primary: {metrics.get('primary')})"
    if threshold is not None:
        yield f"  threshold {threshold:.4f} ({rule})"
    scores = metrics.get("scores") or {}
    for part, found in scores.items():
        note = f" ({found['optimistic']})" if found.get("optimistic") else ""
        yield f"  {part}{note}"
        for name, score in found["metrics"].items():
            yield f"    {name:30} {_interval(score)}"
    if not scores:
        for name, value in (metrics.get("selection") or {}).items():
            shown = "undefined" if value is None else f"{value:.4f}"
            yield f"  {name:30} {shown} ({SELECTION_OPTIMISTIC})"


def _interval(score: Mapping[str, Any]) -> str:
    if score.get("value") is None:
        return "undefined"
    text = f"{score['value']:.3f}"
    if score.get("low") is not None and score.get("high") is not None:
        text += f" ({score['low']:.3f} to {score['high']:.3f})"
    return f"{text}, n = {score.get('n')}"


def _stage_lines(document: Mapping[str, Any]) -> Iterator[str]:
    groups = document.get("groups") or {}
    yield ""
    yield "Stages (what learns, at what rate)"
    for number, stage in enumerate(document.get("stages") or []):
        yield (
            f"  {number + 1}: from epoch {stage['from_epoch']}: {rates_text(stage['rates'])}"
            f" ({stage['parameters']:,} parameters)"
        )
    total = sum(group["parameters"] for group in groups.values())
    each = ", ".join(f"{name} {group['parameters']:,}" for name, group in groups.items())
    yield f"  parameters {total:,}: {each}"


def _layer_lines(document: Mapping[str, Any], *, all_layers: bool) -> Iterator[str]:
    layers: Sequence[Mapping[str, Any]] = document.get("layers") or []
    yield ""
    yield f"Layers ({len(layers)} with tensors{'' if all_layers else '; --layers shows each'})"
    if not all_layers:
        return
    stages = document.get("stages") or []
    for layer in layers:
        shapes = ", ".join(
            f"{name} {'x'.join(str(n) for n in shape) or 'scalar'}"
            for name, shape in layer["shapes"].items()
            if name in ("weight", "bias") or layer["parameters"] == 0
        )
        learns = [str(n + 1) for n, stage in enumerate(stages) if layer["group"] in stage["rates"]]
        when = f"learns in stage {', '.join(learns)}" if learns else "frozen"
        yield (
            f"  {layer['name']:40} {layer['type']:16} {layer['parameters']:>10,}  "
            f"{layer['group']}: {when}; {shapes}"
        )


def _data_lines(document: Mapping[str, Any]) -> Iterator[str]:
    fingerprint = document.get("fingerprint") or {}
    yield ""
    yield f"Data (fingerprint {str(fingerprint.get('sha256', ''))[:16]})"
    for part, counts in (fingerprint.get("parts") or {}).items():
        labels = ", ".join(
            f"label {_label(label)}: {n}" for label, n in sorted(counts["labels"].items())
        )
        yield f"  {part:10} {counts['cases']} cases of {counts['patients']} patients ({labels})"
    patients = document.get("patients") or {}
    yield f"  {len(patients.get('hashes', ()))} patients are known by salted hashes"
    for name, value in (document.get("training_range") or {}).items():
        if name not in ("quantiles", "cases"):
            yield f"  {name:16} {_range(value)}"
    weights = document.get("weights") or {}
    yield ""
    if weights.get("source"):
        yield f"Weights began with {weights['source']} {weights.get('revision', '')}".rstrip()
        yield f"  licence   {weights.get('licence') or 'not stated'}"
        yield f"  tensors   {weights.get('loaded')} of {weights.get('total')}"
        yield f"  sha256    {weights.get('tensors_sha256')}"
    else:
        yield "Weights began with random numbers"


def _label(text: str) -> str:
    """A class as in the table of labels: 1, not 1.0."""
    return text.removesuffix(".0")


def _range(value: Any) -> str:
    """Quantiles as their ends and middle, counts as pairs."""
    if isinstance(value, Mapping):
        return ", ".join(f"{k} ({n})" for k, n in list(value.items())[:VALUES_SHOWN])
    if value and isinstance(value[0], list | tuple):
        return "; ".join(_range(row) for row in value)
    return f"{value[0]:g} to {value[-1]:g}, median {value[len(value) // 2]:g}"


def _history_lines(history: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield ""
    shown = "; the last" if len(history) > HISTORY_SHOWN else ""
    yield f"History ({len(history)} epochs{shown}; {SELECTION_OPTIMISTIC})"
    for row in history[-HISTORY_SHOWN:]:
        numbers = ", ".join(
            f"{name.removeprefix('selection_')} {value:.3f}"
            for name, value in row.items()
            if isinstance(value, float) and name.startswith("selection_")
        )
        loss = f"{row['loss']:.3f}" if isinstance(row.get("loss"), float) else "undefined"
        yield f"  epoch {row['epoch']}, stage {row['stage'] + 1}: loss {loss}; selection {numbers}"


def _hash_lines(inspection: Inspection) -> Iterator[str]:
    yield ""
    yield f"SHA-256 of the model's tensors {inspection.header.document['hashes']['model']}"
    if inspection.damaged is None:
        return
    if inspection.damaged:
        yield f"DAMAGED: {len(inspection.damaged)} tensors are not those that were written:"
        yield from (f"  {name}" for name in inspection.damaged)
    else:
        yield f"Verified: all {len(inspection.header.tensors)} tensors are as they were written."


def _milestone_lines(inspection: Inspection) -> Iterator[str]:
    if not inspection.milestones:
        return
    yield ""
    yield f"Checkpoints in this folder (values: {SELECTION_OPTIMISTIC})"
    for milestone in inspection.milestones:
        value = "" if milestone.value is None else f"{milestone.metric} {milestone.value:.3f}"
        yield (
            f"  {milestone.file.name:32} {milestone.kind:10} epoch {milestone.epoch:<4} {value:16}"
            f" {milestone.size_bytes / MEGABYTE:.1f} MB"
        )


def _difference_lines(inspection: Inspection) -> Iterator[str]:
    yield ""
    if not inspection.differences:
        yield f"No difference to {inspection.other}."
        return
    yield f"Differences to {inspection.other} ({len(inspection.differences)})"
    for difference in inspection.differences[:DIFFERENCES_SHOWN]:
        yield f"  {difference.what}: {difference.first} | {difference.second}"
    if len(inspection.differences) > DIFFERENCES_SHOWN:
        yield f"  and {len(inspection.differences) - DIFFERENCES_SHOWN} more; --json lists all"


def _pairs(values: Mapping[str, Any] | None) -> str:
    return ", ".join(f"{name} {value}" for name, value in (values or {}).items())
