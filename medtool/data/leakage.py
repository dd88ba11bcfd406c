"""The leakage gate: no patient in two parts, no identical pixels under two patients."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from medtool.core.errors import LeakageError, UnknownNameError
from medtool.core.names import nearest_name
from medtool.core.records import Case, Finding, Part

# Patients, or pairs of them, that are shown before the rest is counted.
SHOWN = 8
ALLOW_PREFIX = "patient="


def leakage_gate(
    cases: Sequence[Case],
    parts: Mapping[str, Part],
    slice_hashes: Mapping[str, Sequence[str]],
    *,
    allow: Sequence[str] = (),
) -> list[Finding]:
    """Refuse a split that leaks; gives a warning for each leak that a person allowed by name.

    ``slice_hashes``: case id -> hashes of its slices' pixels (constant slices left out). Identical
    pixels under two patients refuse whatever their parts: one of the two ids is wrong, and with
    other folds the parts are others. ``allow``: ids of patients, with or without ``patient=``.
    Raises LeakageError; UnknownNameError when an allowed patient is not there.
    """
    allowed = _allowed(cases, allow)
    torn = _patients_in_two_parts(cases, parts)
    twins = _patients_with_equal_pixels(cases, slice_hashes)
    bad_torn = {p: where for p, where in torn.items() if p not in allowed}
    # Anew, not picked from ``twins``: of three patients with one image the one that is allowed
    # must not stand for the other two.
    others = [case for case in cases if case.patient_id not in allowed]
    bad_twins = _patients_with_equal_pixels(others, slice_hashes)
    if bad_torn or bad_twins:
        raise _leak(bad_torn, bad_twins)
    findings = [
        Finding(
            "leak-allowed", f"patient {p} is in {_parts_text(where)}: allowed by name", "warning"
        )
        for p, where in torn.items()
    ]
    findings += [
        Finding(
            "leak-allowed",
            f"patients {a} and {b} share {n} identical slices: allowed by name",
            "warning",
        )
        for (a, b), n in twins.items()
    ]
    return findings


def _allowed(cases: Sequence[Case], allow: Sequence[str]) -> set[str]:
    known = {case.patient_id for case in cases}
    allowed = {name.removeprefix(ALLOW_PREFIX) for name in allow}
    for name in sorted(allowed - known):
        raise UnknownNameError(
            f"There is no patient '{name}' to allow a leak for.",
            wanted="a patient id of the cohort",
            nearest=nearest_name(name, known),
        )
    return allowed


def _patients_in_two_parts(
    cases: Sequence[Case], parts: Mapping[str, Part]
) -> dict[str, dict[Part, list[str]]]:
    """Patient -> part -> cases, of patients that are in more than one part."""
    where: dict[str, dict[Part, list[str]]] = defaultdict(lambda: defaultdict(list))
    for case in cases:
        part = parts.get(case.case_id)
        if part is not None:
            where[case.patient_id][part].append(case.case_id)
    return {patient: dict(by) for patient, by in sorted(where.items()) if len(by) > 1}


def _patients_with_equal_pixels(
    cases: Sequence[Case], slice_hashes: Mapping[str, Sequence[str]]
) -> dict[tuple[str, str], int]:
    """Pair of patients -> number of slices that are identical in both."""
    holders: dict[str, set[str]] = defaultdict(set)
    for case in cases:
        for digest in slice_hashes.get(case.case_id, ()):
            holders[digest].add(case.patient_id)
    pairs: dict[tuple[str, str], int] = defaultdict(int)
    for patients in holders.values():
        first, *others = sorted(patients)
        # A star, not all pairs: a slice that a thousand patients share stays readable.
        for other in others:
            pairs[first, other] += 1
    return dict(sorted(pairs.items()))


def _parts_text(where: Mapping[Part, Sequence[str]]) -> str:
    return " and ".join(f"{part} ({', '.join(ids)})" for part, ids in sorted(where.items()))


def _leak(
    torn: Mapping[str, Mapping[Part, Sequence[str]]], twins: Mapping[tuple[str, str], int]
) -> LeakageError:
    lines = [f"{patient}: {_parts_text(where)}" for patient, where in torn.items()]
    lines += [f"{a} and {b}: {n} identical slices" for (a, b), n in twins.items()]
    shown = "; ".join(lines[:SHOWN]) + (f"; and {len(lines) - SHOWN} more" * (len(lines) > SHOWN))
    what = []
    if torn:
        what.append("patients are in more than one part")
    if twins:
        what.append("identical pixels stand under two patients")
    first = next(iter(torn), None) or next(iter(twins))[1]
    return LeakageError(
        f"The split leaks: {' and '.join(what)}.",
        met=shown,
        wanted="every patient, and every scan, on one side only",
        how="correct the ids or the split file, or leave one of the two out; if this is known and "
        f"right: --allow-leak {ALLOW_PREFIX}{first}",
    )
