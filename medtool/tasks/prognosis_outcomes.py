"""Outcomes from tables: which columns they are, in which unit, and what makes no outcome.

The unit of a time stands in the name of its column (``time_days``, ``os_months``) or in the preset;
it is asked for where it does not, and never guessed. Times count from the scan.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from medtool.core.errors import LabelsError
from medtool.core.names import nearest_name
from medtool.core.records import Case, Finding, Outcome
from medtool.data.foreign_table import NO_VALUE
from medtool.data.labels import normal_value
from medtool.tasks.segmentation_labels import MASK

if TYPE_CHECKING:
    from medtool.core.progress import Reporter
    from medtool.data.foreign_table import ForeignRow, ForeignTable
    from medtool.tasks.prognosis_data_settings import PrognosisDataSection, TimeUnit

# Mean lengths in the Gregorian calendar.
DAYS_IN: Mapping[str, float] = {"days": 1.0, "weeks": 7.0, "months": 30.4375, "years": 365.25}
UNIT_WORDS: Mapping[str, TimeUnit] = {
    **dict.fromkeys(("d", "day", "days"), "days"),
    **dict.fromkeys(("w", "wk", "week", "weeks"), "weeks"),
    **dict.fromkeys(("mo", "mon", "month", "months"), "months"),
    **dict.fromkeys(("y", "yr", "yrs", "year", "years"), "years"),
}
# What columns are called, without their unit, in lower case and without anything but letters.
TIME_NAMES = frozenset(
    "time survival survivaltime followup followuptime timetoevent duration os pfs rfs dfs efs dss "
    "lrfs dmfs ttp ttr overallsurvival progressionfreesurvival relapsefreesurvival "
    "diseasefreesurvival eventfreesurvival ostime pfstime rfstime dfstime efstime".split()
)
EVENT_NAMES = frozenset(
    "event eventobserved eventindicator death dead died deceased relapse recurrence progression "
    "osevent pfsevent rfsevent dfsevent efsevent".split()
)
# Faults of one table that are shown before the rest is counted.
FAULTS_SHOWN = 10
# Nobody is followed for longer: such a number is in another unit, or a date.
LONGEST_DAYS = 120 * 365.25


@dataclass(frozen=True)
class OutcomeColumns:
    """Names of columns as the table writes them, and the unit of the time."""

    time: str
    unit: TimeUnit
    event: str

    @property
    def names(self) -> frozenset[str]:
        """All of them that say what became of a patient: never covariates."""
        return frozenset((self.time.casefold(), self.event.casefold()))


def outcome_columns(
    columns: Sequence[str], data: PrognosisDataSection, where: str
) -> OutcomeColumns | None:
    """The columns of time and event; None where the table has neither.

    Raises LabelsError: one without the other, several that could be it, a unit that is not known
    or is contradicted by the preset.
    """
    times = [name for name in columns if _time_name(name)]
    events = [name for name in columns if _letters(name) in EVENT_NAMES]
    time = _chosen(columns, times, data.time_column, "time_column", where)
    event = _chosen(columns, events, data.event_column, "event_column", where)
    if not time and not event:
        return None
    if not time or not event:
        lacking = "time" if not time else "event"
        raise LabelsError(
            f"The table has no column of the {lacking}.",
            where=where,
            met="columns " + ", ".join(columns),
            wanted="a time with its unit in its name (time_days), and an event of 0 and 1",
            how=f"name it: --set data.{lacking}_column=NAME.",
        )
    return OutcomeColumns(time, _unit(time, data, where), event)


def _chosen(
    columns: Sequence[str], found: Sequence[str], asked: str | None, key: str, where: str
) -> str:
    """The column that the preset names, else the only one that is recognised, else ""."""
    if asked:
        return _named(columns, asked, key, where)
    if len(found) > 1:
        units = {_time_name(name) for name in found} - {"", "?"}
        raise LabelsError(
            "Several columns could be the " + ("time." if key == "time_column" else "event."),
            where=where,
            met=", ".join(found) + (" (in different units)" if len(units) > 1 else ""),
            wanted="one",
            how=f"name it: --set data.{key}=NAME.",
        )
    return found[0] if found else ""


def _named(columns: Sequence[str], asked: str, key: str, where: str) -> str:
    for name in columns:
        if name.casefold() == asked.casefold():
            return name
    raise LabelsError(
        f"The table has no column '{asked}'.",
        where=f"{where}, data.{key}",
        met="columns " + ", ".join(columns),
        nearest=nearest_name(asked, columns),
    )


def _letters(name: str) -> str:
    return re.sub(r"[^a-z]", "", name.casefold())


def _unit_in(name: str) -> str:
    """The unit that a name ends in, in brackets or after a separator; "" for none."""
    match = re.search(r"(?:[ _\-.]|[(\[])\s*([a-z]+)\s*[)\]]?\s*$", name.casefold())
    return UNIT_WORDS.get(match[1], "") if match else ""


def _time_name(name: str) -> str:
    """Of a column of times its unit, "?" where it names none; "" for another column."""
    unit = _unit_in(name)
    bare = name
    if unit:
        bare = re.sub(r"[a-zA-Z]+\s*[)\]]?\s*$", "", name)
    stem = _letters(bare).removesuffix("in")
    return (unit or "?") if stem in TIME_NAMES else ""


def _unit(column: str, data: PrognosisDataSection, where: str) -> TimeUnit:
    """Raises LabelsError where neither the name nor the preset has one, or both differ."""
    own, asked = _unit_in(column), data.time_unit
    if own and asked and own != asked:
        raise LabelsError(
            "The unit of the time is said twice, and differently.",
            where=f"{where}, column '{column}'",
            met=f"{own} in its name, data.time_unit {asked}",
            wanted="one unit",
        )
    if not own and not asked:
        raise LabelsError(
            "The unit of the time is not known.",
            where=f"{where}, column '{column}'",
            wanted=", ".join(DAYS_IN),
            how="call the column by it (time_days), or say it: --set data.time_unit=days.",
        )
    return asked or UNIT_WORDS[own]


# --- rows ---------------------------------------------------------------------------------
def read_outcomes(
    table: ForeignTable, columns: OutcomeColumns, id_column: str
) -> tuple[dict[str, Outcome | None], tuple[Finding, ...]]:
    """Outcome by id, None where the row has none, and what is to be said of the table.

    Raises LabelsError with the line of every fault: a time that is no number over 0, an event
    other than 0 and 1, one of both alone, one id with two outcomes.
    """
    found: dict[str, list[tuple[int, Outcome | None]]] = defaultdict(list)
    faults = []
    for row in table.rows:
        try:
            outcome = _outcome(row, columns, decimal_comma=table.delimiter == ";")
        except ValueError as error:
            faults.append(f"line {row.line}: {error}")
        else:
            if row.cells[id_column]:
                found[row.cells[id_column]].append((row.line, outcome))
    for identifier, rows in found.items():
        if len({outcome for _, outcome in rows} - {None}) > 1:
            lines = " and ".join(str(line) for line, _ in rows)
            faults.append(f"lines {lines}: '{identifier}' has outcomes that contradict each other")
    if faults:
        _refuse(faults, f"{table.path}, columns '{columns.time}' and '{columns.event}'")
    outcomes = {
        identifier: next((one for _, one in rows if one is not None), None)
        for identifier, rows in found.items()
    }
    doubled = [identifier for identifier, rows in found.items() if len(rows) > 1]
    return outcomes, tuple(_said(table.path, columns, outcomes, doubled))


def _outcome(row: ForeignRow, columns: OutcomeColumns, *, decimal_comma: bool) -> Outcome | None:
    """Raises ValueError that says what is wrong."""
    time, event = row.cells[columns.time].strip(), row.cells[columns.event].strip()
    if time.casefold() in NO_VALUE and event.casefold() in NO_VALUE:
        return None
    if time.casefold() in NO_VALUE or event.casefold() in NO_VALUE:
        lacking = "time" if time.casefold() in NO_VALUE else "event"
        raise ValueError(f"the {lacking} is missing")
    if normal_value(event) not in ("0", "1"):
        raise ValueError(f"event '{event}' is neither 0 nor 1")
    number = re.sub(r"^(\d+),(\d+)$", r"\1.\2", time) if decimal_comma else time
    try:
        days = float(number) * DAYS_IN[columns.unit]
    except ValueError as error:
        unit = re.fullmatch(r"[\d.,]+\s*([a-zA-Z]+)", time)
        if unit and unit[1].casefold() in UNIT_WORDS:
            text = f"time '{time}' has a unit of its own; the column is in {columns.unit}"
            raise ValueError(text) from error
        raise ValueError(f"time '{time}' is no number") from error
    if not (math.isfinite(days) and days > 0):
        raise ValueError(f"time '{time}' is not over 0")
    if days > LONGEST_DAYS:
        raise ValueError(f"time '{time}' is no follow-up of a patient in {columns.unit}")
    return Outcome(days, normal_value(event) == "1")


def _refuse(faults: Sequence[str], where: str) -> NoReturn:
    more = f"; and {len(faults) - FAULTS_SHOWN} more" if len(faults) > FAULTS_SHOWN else ""
    raise LabelsError(
        "The outcomes cannot be used.",
        where=where,
        met="; ".join(faults[:FAULTS_SHOWN]) + more,
        wanted="a time over 0 and an event of 0 or 1, or both empty, for each patient",
    )


def _said(
    path: Path,
    columns: OutcomeColumns,
    outcomes: Mapping[str, Outcome | None],
    doubled: Sequence[str],
) -> Iterable[Finding]:
    known = [outcome for outcome in outcomes.values() if outcome is not None]
    events = sum(outcome.event for outcome in known)
    text = f"{path.name}: '{columns.time}' is the time, in {columns.unit}, '{columns.event}' the "
    text += f"event; {len(known)} outcomes, {events} events"
    yield Finding("outcome-columns", text)
    if len(known) < len(outcomes):
        text = f"{path.name}: {len(outcomes) - len(known)} rows have no outcome"
        yield Finding("outcome-empty", text, "warning")
    if known and not events:
        text = f"{path.name}: no event was seen: nothing of survival can be learned or scored"
        yield Finding("outcomes-censored", text, "warning")
    if doubled:
        text = f"{path.name}: {len(doubled)} ids stand there more than once, with one outcome: "
        yield Finding("outcome-duplicate", text + ", ".join(doubled[:FAULTS_SHOWN]), "warning")


def with_strata(cases: Sequence[Case], data: PrognosisDataSection) -> list[Case]:
    """Cases whose outcomes name the group that the preset's column puts them in.

    Raises LabelsError where cases have outcomes and none has that column.
    """
    asked = (data.stratum_column or "").casefold()
    known = [case for case in cases if case.outcome is not None]
    if not asked or not known:
        return list(cases)
    names = {name.casefold() for case in known for name in case.covariates}
    if asked not in names:
        raise LabelsError(
            f"No table has a column '{data.stratum_column}'.",
            where="data.stratum_column",
            met="columns " + (", ".join(sorted(names)) or "none"),
            nearest=nearest_name(asked, names),
        )
    return [
        case
        if case.outcome is None
        else replace(case, outcome=replace(case.outcome, stratum=_cell(case, asked)))
        for case in cases
    ]


def _cell(case: Case, asked: str) -> str:
    return next((v.strip() for n, v in case.covariates.items() if n.casefold() == asked), "")


def require_references(cases: Sequence[Case], objectives: str, reporter: Reporter) -> None:
    """Say, or refuse, what the cases that may be learned from have no reference for.

    ``objectives`` are both, segmentation or survival. Raises LabelsError where what is asked for
    can teach nothing: survival without any event, outlines without any mask, both without either.
    """
    outcomes = [case.outcome for case in cases if case.outcome is not None]
    events = any(outcome.event for outcome in outcomes)
    masks = any(MASK in case.references for case in cases)
    can = {"survival": events, "segmentation": masks, "both": events or masks}
    counted = f"{len(cases)} cases, {sum(MASK in case.references for case in cases)} with a mask, "
    counted += f"{len(outcomes)} with an outcome, {sum(o.event for o in outcomes)} events"
    if not can[objectives]:
        raise LabelsError(
            "There is nothing to learn from.",
            met=counted,
            wanted={
                "survival": "outcomes, with an event among them",
                "segmentation": "masks",
                "both": "masks, or outcomes with an event among them",
            }[objectives],
            how="add outcomes by --labels or in the manifest; train.objectives says what is "
            "learned.",
        )
    if objectives == "both" and not events:
        what = "no event was seen" if outcomes else "no case has an outcome"
        reporter.warn(f"Outlines alone are learned: {what} ({counted}).")
    if objectives == "both" and not masks:
        reporter.warn(f"Survival alone is learned: no case has a mask ({counted}).")
