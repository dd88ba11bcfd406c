"""What a task says of the pixels of many cases, looked at in workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medtool.core.progress import Reporter, Silent
from medtool.core.records import Case, CheckedCase, Finding
from medtool.data.case_checks import compare_cases
from medtool.data.pool import Stop, WorkerPool
from medtool.data.preparation import DEFAULT_CASE_TIMEOUT_S, CaseFailure
from medtool.data.worker import Answer, check_in_worker, check_one

if TYPE_CHECKING:
    from medtool.core.task import Task


@dataclass(frozen=True)
class CheckReport:
    """Findings by case, those of all cases together, and the cases that could not be looked at."""

    findings: dict[str, tuple[Finding, ...]]
    failures: tuple[CaseFailure, ...]
    compared: tuple[Finding, ...] = ()


def check_cases(
    task: Task,
    cases: Sequence[Case],
    *,
    workers: int,
    case_timeout_s: float = DEFAULT_CASE_TIMEOUT_S,
    reporter: Reporter | None = None,
    stop: Stop | None = None,
) -> CheckReport:
    """``task.checked`` for every case; ``workers`` 0 stays in this process. Raises MachineError."""
    reporter = reporter or Silent()
    checked: list[CheckedCase] = []
    failures: list[CaseFailure] = []
    answers: dict[str, Answer] = {}
    with reporter.progress("Checking pixels", len(cases)) as advance:
        if workers == 0:
            for case in cases:
                answers[case.case_id] = check_one(task, case)
                advance(1, case.case_id)
        else:
            pool = WorkerPool(
                task, None, check_in_worker, workers=workers, timeout_s=case_timeout_s
            )
            for case, answer in pool.run(cases, ahead=len(cases), stop=stop):
                answers[case.case_id] = answer
                advance(1, case.case_id)
    for case_id, answer in answers.items():
        if answer.checked is not None:
            checked.append(answer.checked)
        else:
            failures.append(CaseFailure(case_id, answer.status, answer.code, answer.message))
    findings = {one.case_id: one.findings for one in checked}
    return CheckReport(findings, tuple(failures), compare_cases(checked))
