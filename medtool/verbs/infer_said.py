"""What ``infer`` says on the screen of single studies; the table says more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from medtool.core.progress import Reporter

# With more studies than this a person reads the table, not the screen.
ANSWERS_SAID = 20
# Of a task's columns the first ones carry the answer.
COLUMNS_SAID = 3


def say_study(
    row: Mapping[str, Any], columns: Sequence[str], reporter: Reporter, *, many: bool
) -> None:
    """One study: why it gave no answer or, among few, its answer and what warns of it.

    With pseudonyms the row holds codes and no message.
    """
    why = ": ".join(filter(None, (str(row["code"]), str(row["message"]))))
    if row["status"] != "ok":
        reporter.warn(f"{row['case']}: {row['status']}, {why}")
        return
    if many:
        return
    values = [f"{name} {_text(row[name])}" for name in columns[:COLUMNS_SAID] if name in row]
    reporter.say(f"{row['case']}: {', '.join(values)}")
    if why:
        reporter.warn(f"{row['case']}: {why}")


def say_warnings(rows: Sequence[Mapping[str, Any]], reporter: Reporter) -> None:
    """How many of many answers carry which codes."""
    coded = [row for row in rows if row["status"] == "ok" and row["code"]]
    if not coded:
        return
    counts = Counter(code for row in coded for code in str(row["code"]).split(";"))
    listed = ", ".join(f"{code} {count}" for code, count in counts.most_common())
    reporter.warn(f"{len(coded)} answers carry warnings, in the table's column 'code': {listed}.")


def _text(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
