"""The page of an evaluation: the parts of a run's report that stored predictions can fill."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from medtool.core.files import replace_text
from medtool.core.records import Section
from medtool.report.cases import label_errors_html, worst_cases_html
from medtool.report.classes import classes_html
from medtool.report.page import Badge, page_html
from medtool.report.performance import (
    confounders_html,
    headline_html,
    performance_html,
    subgroups_html,
)
from medtool.report.record import limits_html, versions_html
from medtool.report.run_view import RunView
from medtool.report.structures import comparison_html as mask_comparison_html
from medtool.report.structures import structures_html
from medtool.report.survival import survival_html
from medtool.report.templates import interval_text, paragraph_html, table_html
from medtool.report.uncertainty import review_html, uncertainty_html
from medtool.score.compare import Comparison
from medtool.score.paired import MaskComparison

REPORT_FILE = "report.html"
PART = "evaluation"


def write_evaluation_report(
    folder: Path,
    *,
    evaluated: Sequence[Mapping[str, Any]],
    comparison: Comparison | MaskComparison | None,
    command: str = "",
) -> Path:
    """Write ``report.html`` into ``folder``.

    ``evaluated`` has one mapping a model: name, scores, confounders, folders (of predictions),
    cases (rows of facts), metrics (of its preset), synthetic. Raises MachineError where it cannot
    be written.
    """
    sections = []
    names = [str(one["name"]) for one in evaluated]
    if comparison is not None:
        made = (
            mask_comparison_html(names, comparison)
            if isinstance(comparison, MaskComparison)
            else comparison_html(names, comparison)
        )
        sections.append(Section("Comparison", str(made), 5))
    badges: dict[str, Badge] = {}
    for number, one in enumerate(evaluated):
        view = _view(folder, one, command)
        if why := view.optimistic(PART):
            badges[why] = Badge(why, "warning")
        if one.get("synthetic"):
            badges["synthetic"] = Badge("Synthetic data: not for patients", "warning")
        sections.extend(_sections(view, number, names))
    title = "Evaluation of " + " and ".join(Path(name).name or name for name in names)
    page = page_html(title, sections, badges=list(badges.values()), subtitle="; ".join(names))
    target = folder / REPORT_FILE
    replace_text(target, page)
    return target


def _view(folder: Path, one: Mapping[str, Any], command: str) -> RunView:
    return RunView(
        path=folder,
        run={
            "confounders": one["confounders"],
            "synthetic": one.get("synthetic"),
            "command": command,
        },
        preset={"metrics": one["metrics"]},
        cases=tuple(one["cases"]),
        history=(),
        checkpoints=(),
        scores={PART: one["scores"]},
        intake={},
        part_folders={PART: tuple(one["folders"])},
    )


def _sections(view: RunView, number: int, names: Sequence[str]) -> list[Section]:
    start = 10 + 100 * number
    suffix = "" if len(names) == 1 else f" ({'first' if number == 0 else 'second'})"
    made = [
        ("Headline", headline_html),
        ("Performance", performance_html),
        ("Structures", structures_html),
        ("Classes", classes_html),
        ("Survival", survival_html),
        ("Uncertainty", uncertainty_html),
        ("To look at first", review_html),
        ("Worst cases", worst_cases_html),
        ("Suspected label errors", label_errors_html),
        ("Subgroups", subgroups_html),
        ("Confounders", confounders_html),
    ]
    sections = [
        Section(title + suffix, html, start + place)
        for place, (title, make) in enumerate(made)
        if (html := str(make(view)))
    ]
    if number == len(names) - 1:
        sections.append(Section("What it is not for", str(limits_html(view)), 900))
        sections.append(Section("Versions and settings", str(versions_html(view)), 910))
    return sections


def comparison_html(names: Sequence[str], found: Comparison) -> Markup:
    """The two AUROCs, their difference, DeLong's test and the paired bootstrap."""
    rows = [
        {"what": f"AUROC of {names[0]}", "value": found.first},
        {"what": f"AUROC of {names[1]}", "value": found.second},
        {
            "what": "Difference, first minus second (bootstrap by patient, paired)",
            "value": found.difference,
            "interval": interval_text(*found.interval),
            "p": found.p,
        },
    ]
    if found.delong is not None:
        rows.append(
            {
                "what": "Difference by DeLong",
                "value": found.delong.difference,
                "p": found.delong.p,
            }
        )
    said = f"The same {found.n} cases of {found.patients} patients, {found.draws} draws."
    if found.delong is None:
        said += " DeLong's test is left out: it assumes one case a patient."
    level = f"{found.confidence:.0%} interval"
    columns = {"what": "", "value": "Value", "interval": level, "p": "p, two-sided"}
    return table_html(rows, columns) + paragraph_html(said)
