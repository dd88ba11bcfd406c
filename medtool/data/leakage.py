"""The leakage gate: no patient in two parts, no study and no pixels under two patients."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medtool.core.errors import LeakageError, UnknownNameError
from medtool.core.names import nearest_name
from medtool.core.records import Case, Finding, Part
from medtool.data.matching import relaxed
from medtool.dicom.series import Series

# Patients, or pairs of them, that are shown before the rest is counted.
SHOWN = 8
ALLOW_PREFIX = "patient="
# DICOM's names of the two kinds of UID that cases have, the one of the larger thing first.
STUDY, SERIES = "StudyInstanceUID", "SeriesInstanceUID"
# One that more patients have was written by whoever anonymised them, and says nothing.
MOST_PATIENTS_OF_A_UID = 3


@dataclass(frozen=True)
class _Leaks:
    """Patients in several parts; pairs of patients with equal UIDs; with identical slices."""

    torn: Mapping[str, Mapping[Part, Sequence[str]]]
    shared: Mapping[tuple[str, str], Sequence[str]]
    twins: Mapping[tuple[str, str], int]

    def lines(self) -> list[str]:
        """One text for each."""
        return [
            *(f"{patient}: {_parts_text(where)}" for patient, where in self.torn.items()),
            *(f"{a} and {b}: {_uids_text(uids)}" for (a, b), uids in self.shared.items()),
            *(f"{a} and {b}: {n} identical slices" for (a, b), n in self.twins.items()),
        ]

    def what(self) -> list[str]:
        """The kinds that are there."""
        kinds = {
            "patients are in more than one part": self.torn,
            "one study or series stands under two patients": self.shared,
            "identical pixels stand under two patients": self.twins,
        }
        return [text for text, there in kinds.items() if there]

    def first(self) -> str:
        """A patient to vouch for; of a pair the second, beside which the first may stay."""
        pairs = [*self.shared, *self.twins]
        return next(iter(self.torn)) if self.torn else pairs[0][1]


def leakage_gate(
    cases: Sequence[Case],
    parts: Mapping[str, Part],
    slice_hashes: Mapping[str, Sequence[str]],
    *,
    allow: Sequence[str] = (),
) -> list[Finding]:
    """Refuse a split that leaks; gives a warning for each leak that a person allowed by name.

    ``slice_hashes``: case id -> hashes of its slices' pixels (constant slices left out). Identical
    pixels, or one study or series by its UID, under two patients refuse whatever their parts: one
    of the two ids is wrong, and with other folds the parts are others. By the UID a study is found
    whose pixels were compressed with losses in one of its copies; one that more than three patients
    have is no study's own, which is a warning. ``allow``: ids of patients, with
    or without ``patient=``. Raises LeakageError; UnknownNameError when an allowed patient is not
    there.
    """
    allowed = _allowed(cases, allow)
    torn = _patients_in_two_parts(cases, parts)
    # Anew, not picked from those of all: of three patients with one image the one that is allowed
    # must not stand for the other two.
    others = [case for case in cases if case.patient_id not in allowed]
    bad = _Leaks(
        {p: where for p, where in torn.items() if p not in allowed},
        _patients_with_equal_uids(others),
        _patients_with_equal_pixels(others, slice_hashes),
    )
    if bad.what():
        raise _leak(bad)
    findings = _uids_of_nobody(cases)
    findings += [
        Finding(
            "leak-allowed", f"patient {p} is in {_parts_text(where)}: allowed by name", "warning"
        )
        for p, where in torn.items()
    ]
    findings += [
        Finding(
            "leak-allowed",
            f"patients {a} and {b} share {_uids_text(uids)}: allowed by name",
            "warning",
        )
        for (a, b), uids in _patients_with_equal_uids(cases).items()
    ]
    findings += [
        Finding(
            "leak-allowed",
            f"patients {a} and {b} share {n} identical slices: allowed by name",
            "warning",
        )
        for (a, b), n in _patients_with_equal_pixels(cases, slice_hashes).items()
    ]
    return findings


def patients_alike(cases: Sequence[Case], parts: Mapping[str, Part]) -> list[Finding]:
    """A warning of patients of different parts whose ids are one without a spreadsheet's habits.

    Archives and exports drop zeros before an id, too: ``0012345`` and ``12345`` may be one patient.
    """
    where: dict[str, dict[str, set[Part]]] = defaultdict(lambda: defaultdict(set))
    for case in cases:
        part = parts.get(case.case_id)
        if part is not None:
            where[relaxed(case.patient_id)][case.patient_id].add(part)
    alike = [
        " and ".join(f"{patient} ({', '.join(sorted(own))})" for patient, own in same.items())
        for same in where.values()
        if len(same) > 1 and len(set[Part]().union(*same.values())) > 1
    ]
    if not alike:
        return []
    text = "Perhaps one patient is in two parts, under ids that differ in leading zeros, '.0' or "
    text += f"letter case alone: {_shown(alike)}. If so, give them one id."
    return [Finding("patients-alike", text, "warning")]


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


def _patients_with_equal_uids(cases: Sequence[Case]) -> dict[tuple[str, str], list[str]]:
    """Pair of patients -> UIDs of studies in both; of series where no study is. "" is none."""
    shared: dict[tuple[str, str], list[str]] = {}
    for kind in (STUDY, SERIES):
        pairs: dict[tuple[str, str], list[str]] = defaultdict(list)
        for uid, patients in sorted(_holders(cases, kind).items()):
            if len(patients) > MOST_PATIENTS_OF_A_UID:
                continue
            first, *others = sorted(patients)
            # A star, as of pixels.
            for other in others:
                pairs[first, other].append(f"{kind} {uid}")
        shared = pairs | shared
    return dict(sorted(shared.items()))


def _uids_of_nobody(cases: Sequence[Case]) -> list[Finding]:
    """A warning of UIDs that tell no studies apart."""
    shared = [
        f"{kind} {uid} of {len(patients)} patients"
        for kind in (STUDY, SERIES)
        for uid, patients in sorted(_holders(cases, kind).items())
        if len(patients) > MOST_PATIENTS_OF_A_UID
    ]
    if not shared:
        return []
    text = "UIDs that are no study's own: whether one study stands under two patients is known by "
    return [Finding("uid-of-nobody", f"{text}pixels alone there: {_shown(shared)}", "warning")]


def _holders(cases: Sequence[Case], kind: str) -> dict[str, set[str]]:
    """UID -> the patients that have it; "" is none."""
    holders: dict[str, set[str]] = defaultdict(set)
    for case in cases:
        for uid in _uids(case, kind) - {""}:
            holders[uid].add(case.patient_id)
    return holders


def _uids(case: Case, kind: str) -> set[str]:
    series = [value for value in case.inputs.values() if isinstance(value, Series)]
    if kind == SERIES:
        return {one.uid for one in series}
    return {case.study_uid, *(one.study_uid for one in series)}


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


def _uids_text(uids: Sequence[str]) -> str:
    return uids[0] + (f" and {len(uids) - 1} more" if len(uids) > 1 else "")


def _shown(lines: Sequence[str]) -> str:
    return "; ".join(lines[:SHOWN]) + (f"; and {len(lines) - SHOWN} more" * (len(lines) > SHOWN))


def _leak(leaks: _Leaks) -> LeakageError:
    return LeakageError(
        f"The split leaks: {' and '.join(leaks.what())}.",
        met=_shown(leaks.lines()),
        wanted="every patient, and every scan, on one side only",
        how="correct the ids or the split file, or leave one of the two out; if this is known and "
        f"right: --allow-leak {ALLOW_PREFIX}{leaks.first()}",
    )
