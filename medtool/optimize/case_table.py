"""cases.csv: each case before and after, by name.

It is the only file of an optimised folder that names patients. Nothing needs it: the others refer
to its rows by number, so that the folder can be passed on without it.
"""

from __future__ import annotations

from typing import Any

from medtool.optimize.accuracy import Accuracy
from medtool.predict.answers import Answers

CASES_FILE = "cases.csv"


def case_rows(
    file: str, before: Answers, after: Answers, found: Accuracy, *, first_row: int
) -> list[dict[str, Any]]:
    """The rows of one model file, numbered from ``first_row`` on, in the order of the cases.

    Columns are the error of each case, every number and word of its answers before and after, and
    how alike its masks and maps are.
    """
    rows = []
    for number, case in enumerate(before.cases, first_row):
        name = case.case_id
        error_before, error_after = found.errors.get(name, (None, None))
        row: dict[str, Any] = {
            "row": number,
            "file": file,
            "case": name,
            "patient": case.patient_id,
            "error_before": error_before,
            "error_after": error_after,
        }
        for one in found.agreement:
            if one.kind in ("mask", "map"):
                row[f"{one.name}_alike"] = one.by_case.get(name)
            else:
                row[f"{one.name}_before"] = before.rows[name].get(one.name)
                row[f"{one.name}_after"] = after.rows.get(name, {}).get(one.name)
        rows.append({**row, "why": found.silent.get(name)})
    return rows
