"""Where it fails: the worst cases with their pictures, and labels worth a second look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from medtool.report.run_view import PART_TITLES, RunView
from medtool.report.templates import (
    fact_title,
    number_text,
    paragraph_html,
    picture_html,
    table_html,
)
from medtool.score.examples import best_and_median, worst_cases
from medtool.score.label_errors import suspected_label_errors

DEFAULT_WORST_CASES = 12
PICTURES_OF_A_CASE = 4
SLICES_OF_A_CASE = 3
CONTOURS_SAID = (
    "Contours: green is the reference; red, blue, yellow and violet are the labels of the answer,"
    " in their order."
)
OUTCOMES = {
    "TP": "rightly called positive",
    "TN": "rightly called negative",
    "FP": "called positive, labelled negative",
    "FN": "called negative, labelled positive",
}
# Parts whose predictions had no say in the model: only they can question a label.
HELD_OUT = ("test", "out-of-fold", "evaluation")


def worst_cases_html(view: RunView) -> Markup:
    """Cases with the largest error first; pictures where the predictions hold some."""
    part = view.headline_part
    rows = view.scores[part].per_case if part else ()
    if not rows:
        return paragraph_html("No scored case is recorded.")
    count = int(view.preset.get("report", {}).get("worst_cases", DEFAULT_WORST_CASES))
    worst = worst_cases(rows, count)
    if "outcome" not in rows[0]:
        return _masks(view, part, rows, worst)
    wrong = sum(row["outcome"] in ("FP", "FN") for row in rows)
    intro = paragraph_html(
        f"{wrong} of {len(rows)} cases of the {PART_TITLES.get(part, part)} are called wrongly."
        f" Below, the {len(worst)} cases whose probability is farthest from the label."
    )
    return intro + Markup("").join(_case(view, part, row) for row in worst)


def _masks(
    view: RunView, part: str, rows: Sequence[Mapping[str, Any]], worst: Sequence[Mapping[str, Any]]
) -> Markup:
    """Cases with contours: the best and the median one beside the worst, so that none misleads."""
    examples = best_and_median(rows) if worst else {}
    places = {str(row["case"]): name for name, row in examples.items()}
    listed = {str(row["case"]) for row in worst}
    others = [row for row in examples.values() if str(row["case"]) not in listed]
    said = f"The {len(worst)} of {len(rows)} cases that went most wrong, worst first"
    said += "; the best and the median one are marked. " if examples else ". "
    return paragraph_html(said + CONTOURS_SAID) + Markup("").join(
        _case(view, part, row, places.get(str(row["case"]), "")) for row in (*worst, *others)
    )


def _case(view: RunView, part: str, row: Mapping[str, Any], place: str = "") -> Markup:
    """One case with its pictures; ``place`` says where it stands among all, where that is told."""
    case = str(row["case"])
    pictures = view.pictures(part, case)[:PICTURES_OF_A_CASE]
    shown = Markup("").join(picture_html(file, f"{case}, {file.stem}") for file in pictures)
    kind = "pictures" if "outcome" in row else "pictures planes"
    gallery = Markup('<div class="{}">{}</div>').format(kind, shown) if shown else Markup("")
    facts = [
        *_answer(row),
        f"patient {row['patient']}",
        *_described(view, case),
    ]
    return Markup('<div class="case"><h3>{}</h3><p>{}</p>{}{}</div>').format(
        f"{case} ({place})" if place else case,
        "; ".join(fact for fact in facts if fact),
        gallery,
        _slices(view, part, case),
    )


def _answer(row: Mapping[str, Any]) -> list[str]:
    """What was answered and what is true; ``said`` are a task's own words for it."""
    if "outcome" not in row:
        return [str(words) for words in row.get("said", ())]
    return [
        f"label {'positive' if row['label'] else 'negative'}",
        f"probability {number_text(row['probability'])}",
        OUTCOMES.get(str(row["outcome"]), ""),
    ]


def _described(view: RunView, case: str) -> list[str]:
    row = next((row for row in view.cases if row["case"] == case), {})
    names = view.preset.get("metrics", {}).get("subgroups", ())
    return [f"{fact_title(name)} {row[name]}" for name in names if row.get(name)]


def _slices(view: RunView, part: str, case: str) -> Markup:
    """The slices that the answer rests on, by logit, highest first."""
    rows = [row for row in view.elements(part, case) if row.get("logit")]
    top = sorted(rows, key=lambda row: -_number(row["logit"]))[:SLICES_OF_A_CASE]
    if not top:
        return Markup("")
    names = [_slice_name(row) for row in top]
    return Markup("<p>Highest slices, counted from 0: {}.</p>").format("; ".join(names))


def _slice_name(row: Mapping[str, str]) -> str:
    """The same words as on the pictures: index from 0, the scanner's number, position."""
    instance, position = row.get("instance_number", ""), row.get("position_mm", "")
    number = f" (instance {instance})" if instance else ""
    at = f" at {_number(position):.1f} mm" if position else ""
    return f"slice {row.get('slice_index', '?')}{number}{at}, logit {_number(row['logit']):.2f}"


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("-inf")


def label_errors_html(view: RunView) -> Markup:
    """Held-out cases whose label the model contradicts with confidence."""
    part = next((part for part in HELD_OUT if part in view.scores), "")
    if not part:
        return paragraph_html(
            "No held-out predictions: a model cannot question labels that it was chosen by."
        )
    scored = view.scores[part].per_case
    if not scored or "probability" not in scored[0]:
        return Markup("")
    suspected = suspected_label_errors(scored)
    if not suspected:
        return paragraph_html("No label is contradicted with confidence.")
    rows = [
        {
            "case": row["case"],
            "patient": row["patient"],
            "label": "positive" if row["label"] else "negative",
            "probability": row["probability"],
            "bar": row["bar"],
        }
        for row in suspected
    ]
    return paragraph_html(
        "Worth a second look, not proof: in these held-out cases the other class is at least as"
        " probable as it is, in the mean, in cases that carry its label."
    ) + table_html(
        rows,
        {
            "case": "Study",
            "patient": "Patient",
            "label": "Label",
            "probability": "Probability of positive",
            "bar": "Mean probability of the other class in its own cases",
        },
    )
