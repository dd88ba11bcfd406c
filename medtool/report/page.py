"""The page: sections in order, style and script inside, nothing fetched from anywhere.

A content security policy in the page allows pictures inside it, its own style, and one script, by
hash: text of a file that would become markup by a fault of ours could still run nothing.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment
from markupsafe import Markup

from medtool import RESEARCH_NOTICE, __version__
from medtool.core.files import replace_text
from medtool.core.names import safe_file_stem
from medtool.core.records import Section
from medtool.data.run_folder import RunFolder
from medtool.report.baselines import baselines_html
from medtool.report.cases import label_errors_html, worst_cases_html
from medtool.report.classes import classes_html
from medtool.report.cohort import cohort_html, flow_html
from medtool.report.methods import methods_html
from medtool.report.performance import (
    confounders_html,
    headline_html,
    performance_html,
    subgroups_html,
    training_html,
)
from medtool.report.record import checkpoints_html, limits_html, versions_html
from medtool.report.run_view import RunView, view_run
from medtool.report.structures import plan_html, structures_html
from medtool.report.survival import survival_html
from medtool.report.templates import time_text
from medtool.report.uncertainty import review_html, uncertainty_html

ASSETS = Path(__file__).parent / "assets"

# Sections of every run's report: order (tasks' own default to 100), title, what makes it.
RUN_SECTIONS: tuple[tuple[int, str, Callable[[RunView], Markup]], ...] = (
    (10, "Headline", headline_html),
    (20, "Flow of studies", flow_html),
    (30, "Cohort", cohort_html),
    (40, "Methods", methods_html),
    (45, "Plan", plan_html),
    (50, "Learning curves", training_html),
    (60, "Performance", performance_html),
    (65, "Structures", structures_html),
    (67, "Classes", classes_html),
    (68, "Survival", survival_html),
    (68, "Beside simpler models", baselines_html),
    (69, "Uncertainty", uncertainty_html),
    (69, "To look at first", review_html),
    (70, "Worst cases", worst_cases_html),
    (80, "Suspected label errors", label_errors_html),
    (90, "Subgroups", subgroups_html),
    (95, "Confounders", confounders_html),
    (110, "Checkpoints", checkpoints_html),
    (120, "What it is not for", limits_html),
    (130, "Versions and settings", versions_html),
)


@dataclass(frozen=True)
class Badge:
    """A few words beside the title; ``kind`` "warning" stands out."""

    text: str
    kind: str = ""


def write_report(run: RunFolder, sections: Sequence[Section] = (), *, title: str = "") -> Path:
    """Write the report of a run folder into it; ``sections`` are the task's own.

    Raises InputError where a file of the run cannot be read, MachineError where the report cannot
    be written.
    """
    view = view_run(run)
    made = [Section(name, str(make(view)), order) for order, name, make in RUN_SECTIONS]
    heading = title or f"{view.run.get('task', 'Run')}: {run.path.name}"
    subtitle = _when(view)
    # A section that has nothing to say of this run is left out.
    made = [section for section in made if section.html]
    page = page_html(heading, [*made, *sections], badges=_badges(view), subtitle=subtitle)
    replace_text(run.report_file, page)
    return run.report_file


def _when(view: RunView) -> str:
    """When the run began and ended, as far as it is recorded."""
    times = (("Started", "started_utc"), ("Ended", "ended_utc"))
    said = [f"{word} {time_text(str(view.run[key]))}" for word, key in times if view.run.get(key)]
    return ". ".join(said)


def _badges(view: RunView) -> list[Badge]:
    badges = []
    if view.run.get("synthetic"):
        badges.append(Badge("Synthetic data: not for patients", "warning"))
    if view.headline_part and (why := view.optimistic(view.headline_part)):
        badges.append(Badge(why, "warning"))
    if preset := view.run.get("preset"):
        badges.append(Badge(f"preset {preset}"))
    return badges


def page_html(
    title: str, sections: Sequence[Section], *, badges: Sequence[Badge] = (), subtitle: str = ""
) -> str:
    """A whole page; the ``html`` of a section must come from ``medtool.report.templates``."""
    script = _asset("script.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    ordered = sorted(sections, key=lambda section: section.order)
    template = Environment(autoescape=True, trim_blocks=True).from_string(_asset("page.html"))
    return template.render(
        title=title,
        subtitle=subtitle,
        badges=badges,
        notice=RESEARCH_NOTICE,
        version=__version__,
        style=Markup(_asset("style.css")),
        script=Markup(script),
        script_hash=f"sha256-{digest}",
        sections=[_entry(section, number) for number, section in enumerate(ordered)],
    )


def _entry(section: Section, number: int) -> Mapping[str, object]:
    anchor = f"s{number}-{safe_file_stem(section.title).lower()}"
    return {"title": section.title, "anchor": anchor, "html": Markup(section.html)}


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")
