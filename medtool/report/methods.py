"""What was trained on what, in a paragraph fit for the methods section of a paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from markupsafe import Markup

from medtool.core.records import SELECTION_OPTIMISTIC
from medtool.report.cohort import PARTS, class_counts, has_labels, positives
from medtool.report.run_view import RunView
from medtool.report.templates import list_html, number_text, paragraph_html

Rows = Sequence[Mapping[str, Any]]


def methods_html(view: RunView) -> Markup:
    """The paragraph, and what each stage of the training changed."""
    stages = _stages(view)
    return paragraph_html(methods_text(view)) + (list_html(stages) if stages else Markup(""))


def methods_text(view: RunView) -> str:
    """The paragraph; sentences whose facts are not recorded are left out."""
    sentences = [
        *(_folds(view) if view.run.get("folds") else _parts(view)),
        *_training(view),
        *_choice(view),
        _weights(view),
        _intervals(view),
    ]
    return " ".join(filter(None, sentences))


def _model(view: RunView) -> str:
    run, train = view.run, view.preset.get("train", {})
    preset = f"preset {run['preset']}" if run.get("preset") else "default settings"
    return (
        f"{_architecture(view.preset.get('model', {}))} for the task"
        f" {run.get('task', '')} (medtool {run.get('versions', {}).get('medtool', '')}, {preset},"
        f" seed {train.get('seed', 0)})"
    )


def _architecture(model: Mapping[str, Any]) -> str:
    if "backbone" in model:
        return str(model["backbone"])
    if features := model.get("features"):
        return f"{model.get('kind', '')} U-Net of {len(features)} stages".strip()
    if levels := model.get("levels"):
        return f"U-Net of {levels} levels"
    return "neural network"


def _parts(view: RunView) -> list[str]:
    rows = {part: [c for c in view.cases if c.get("part") == part] for part in PARTS}
    said = [f"We trained a {_model(view)} on {_of(rows['train'])}."]
    if rows["selection"]:
        said.append(f"Another {_of(rows['selection'])} chose the checkpoint{_and_threshold(view)}.")
    if rows["test"]:
        said.append(f"The remaining {_of(rows['test'])} only scored.")
    else:
        said.append("No part was held out to score only: the numbers are optimistic.")
    return [*said, _overlap(rows)]


def _overlap(rows: Mapping[str, Rows]) -> str:
    """What the cases themselves show; a gate that was overridden must not be glossed over."""
    patients = [{row["patient"] for row in part} for part in rows.values()]
    shared = set().union(*(one & other for one, other in combinations(patients, 2)))
    if shared:
        return f"{len(shared)} patients are in more than one part: the numbers are optimistic."
    return "No patient is in two parts."


def _folds(view: RunView) -> list[str]:
    answered = [case for case in view.cases if case.get("part") == "test"]
    return [
        f"We trained {len(view.run['folds'])} models, one for each fold, each a {_model(view)}.",
        f"Each of {_of(answered)} was answered by the one model that had seen none of that"
        " patient's studies; within each fold an inner part of the training patients chose the"
        f" checkpoint{_and_threshold(view)}.",
    ]


def _and_threshold(view: RunView) -> str:
    return " and the decision threshold" if has_labels(view.cases) else ""


def _of(rows: Rows) -> str:
    patients = len({row["patient"] for row in rows})
    labels = [f"{positives(rows)} studies positive"] if has_labels(rows) else class_counts(rows)
    said = f" ({', '.join(labels)})" if labels else ""
    return f"{len(rows)} studies of {patients} patients{said}"


def _training(view: RunView) -> list[str]:
    if not view.history:
        return []
    train = view.preset.get("train", {})
    clip = float(train.get("gradient_clip", 0.0))
    text = (
        f"Training ran for {len(view.history)} epochs with {train.get('optimiser', 'adamw')} and"
        f" {train.get('batch_cases', 'several')} studies a step"
    )
    return [text + (f", gradients clipped at norm {clip:g}." if clip else "."), _objectives(view)]


def _objectives(view: RunView) -> str:
    """What was minimised where outlines and risks are learned together."""
    train = view.preset.get("train", {})
    if train.get("objectives") != "both":
        return ""
    text = (
        f"Outlines ({train.get('loss')}) and risks (Cox's partial likelihood, ties by"
        f" {str(train.get('ties', '')).capitalize()}) were learned together"
    )
    if train.get("weighting") == "learned":
        return text + ", with learned weights."
    weights = (train.get(f"{name}_weight") for name in ("segmentation", "survival"))
    return text + f", weighted {' and '.join(str(weight) for weight in weights)}."


def _choice(view: RunView) -> list[str]:
    best = next((row for row in view.checkpoints if row.get("kind") == "best"), None)
    if best is None:
        return []
    said = (
        f"We used the checkpoint of epoch {best.get('epoch')} (counted from 0), which had the best"
        f" {best.get('metric')} on the selection part ({number_text(best.get('value'))}:"
        f" {SELECTION_OPTIMISTIC})"
    )
    if best.get("threshold") is None or not has_labels(view.cases):
        return [said + "."]
    rule = view.preset.get("metrics", {}).get("threshold_rule", "f1")
    return [
        f"{said}; a study is called positive at a probability of"
        f" {number_text(best['threshold'])} or more (rule {rule}, on the selection part)."
    ]


def _weights(view: RunView) -> str:
    weights = view.run.get("weights") or {}
    source = weights.get("source") if isinstance(weights, Mapping) else ""
    if source:
        return f"The backbone began with the weights {source}."
    return "All weights began at random."


def _intervals(view: RunView) -> str:
    metrics = view.preset.get("metrics", {})
    return (
        f"Intervals are {metrics.get('confidence', 0.95):.0%} intervals, by bootstrap of patients"
        f" with {metrics.get('bootstrap_draws', 2000)} draws, or Wilson's for shares where each"
        " patient counts once."
    )


def _stages(view: RunView) -> list[str]:
    """What each stage changed as it was trained: ``--minutes`` may have squeezed the preset's."""
    asked = view.preset.get("train", {}).get("stages", ())
    if not asked or view.preset.get("model", {}).get("from_scratch"):
        # Everything learned from the first epoch on.
        return []
    stages = (view.run.get("plan") or {}).get("stages", asked)
    return [
        f"From epoch {stage.get('from_epoch')} (counted from 0): "
        + ", ".join(f"{group} learns at {rate:g}" for group, rate in stage.get("rates", {}).items())
        + "; everything else is frozen."
        for stage in stages
    ]
