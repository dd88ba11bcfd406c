"""Which PET and which CT of a study belong together, and in what state they are.

They belong together where their positions are in one coordinate system (FrameOfReferenceUID) and
their fields of view overlap. Of several pairs that one is taken in which, in this order, the frame
of reference is known to be one, the CT covers most of the PET (in tenths of its volume), the PET
says that it is corrected for attenuation and is not one phase of several, and PET and CT score
most (``choose``). A PET that cannot become SUV is part of no pair, so one without attenuation
correction never is. That the patient lay still between both scans no header shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import NoReturn

from medtool.core.errors import CaseRefused
from medtool.core.fields import covered_shares
from medtool.core.geometry import Triple
from medtool.core.records import Finding
from medtool.dicom.choose import GOOD_THICKNESS_MM, score
from medtool.dicom.series import Series
from medtool.dicom.suv import SuvScale, suv_scale
from medtool.dicom.volume import series_grid

# A CT that covers less of the PET than this along any axis shows another part of the patient.
LEAST_COVERED = 0.2
# Along the axis of the slices anything less is worth a look: lesions beyond it have no CT.
WELL_COVERED = 0.95


@dataclass(frozen=True)
class PetCtPair:
    """A PET and the CT that belongs to it.

    ``scale`` makes SUV of the PET, ``covered`` is the share of its field of view that the CT
    covers along its x, y and z axes. ``findings`` say what was chosen and why, which others were
    not, and how both lie to one another; those of the series themselves are not among them.
    """

    pet: Series
    ct: Series
    scale: SuvScale
    covered: Triple
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class _Candidate:
    pet: Series
    ct: Series
    scale: SuvScale
    covered: Triple
    is_one_frame: bool
    ct_score: float

    @property
    def order(self) -> tuple[float | str, ...]:
        """Smaller is better."""
        return (
            not self.is_one_frame,
            -round(prod(self.covered), 1),
            not self.scale.facts["attenuation_corrected"],
            _is_phase(self.pet),
            -self.pet.score,
            -self.ct_score,
            self.pet.key,
            self.ct.key,
        )


def pair_pet_ct(
    series: Sequence[Series],
    *,
    preferred_kernels: Sequence[str] = (),
    thickness_mm: tuple[float, float] = GOOD_THICKNESS_MM,
) -> PetCtPair:
    """The PET and the CT among the series of one study that belong together.

    ``preferred_kernels`` and ``thickness_mm`` are what the CT's score prefers. Headers only are
    read. Raises CaseRefused: ``no-pet``, ``no-ct``, the code of the best series where none of its
    kind can be read or become SUV, ``frames-of-reference-differ``, ``fields-apart``.
    """
    pets = _usable(series, "PT", "no-pet")
    cts = _usable(series, "CT", "no-ct")
    scales, refused = _scales(pets)
    candidates = []
    in_one_frame = False
    for pet in pets:
        for ct in cts:
            frames = {_frame(pet), _frame(ct)}
            if pet.key not in scales or len(frames - {""}) > 1:
                continue
            in_one_frame = True
            covered = covered_shares(series_grid(pet), series_grid(ct))
            if min(covered) >= LEAST_COVERED:
                points, _ = score(
                    ct.facts, ct.verdict, ct.findings, preferred_kernels, thickness_mm
                )
                one_frame = "" not in frames
                candidates.append(_Candidate(pet, ct, scales[pet.key], covered, one_frame, points))
    if not candidates:
        _refuse_all(pets[0], cts[0], in_one_frame=in_one_frame)
    best = min(candidates, key=lambda candidate: candidate.order)
    others = _not_chosen(best, candidates, pets, cts, refused)
    findings = (*_state(best), *others)
    return PetCtPair(best.pet, best.ct, best.scale, best.covered, findings)


def _usable(series: Sequence[Series], modality: str, missing: str) -> list[Series]:
    """Series of a modality that can be read, best score first; refuses a study without one."""
    right = [one for one in series if one.modality == modality]
    usable = [one for one in right if one.verdict != "refused"]
    if usable:
        return sorted(usable, key=lambda one: (-one.score, -len(one.planes), one.key))
    kind = "PET" if modality == "PT" else modality
    if not right:
        met = ", ".join(sorted({one.modality or "none" for one in series})) or "no series"
        raise CaseRefused(
            missing,
            f"The study holds no {kind}.",
            where=_where(series),
            met=f"modalities {met}" if series else met,
            wanted="a PET and the CT of the same examination",
        )
    largest = max(right, key=lambda one: len(one.planes))
    refusals = [finding for finding in largest.findings if finding.severity == "refusal"]
    raise CaseRefused(
        refusals[0].code if refusals else missing,
        f"No {kind} of the study can be read.",
        where=str(largest.folder),
        met="; ".join(finding.message for finding in refusals),
    )


def _scales(pets: Sequence[Series]) -> tuple[dict[str, SuvScale], dict[str, CaseRefused]]:
    """What makes SUV of each PET, and why of others nothing does; refuses where nothing does."""
    scales: dict[str, SuvScale] = {}
    refused: dict[str, CaseRefused] = {}
    for pet in pets:
        try:
            scales[pet.key] = suv_scale(pet)
        except CaseRefused as refusal:
            refused[pet.key] = refusal
    if not scales:
        raise refused[pets[0].key]
    return scales, refused


def _refuse_all(pet: Series, ct: Series, *, in_one_frame: bool) -> NoReturn:
    where = str(pet.folder)
    if not in_one_frame:
        raise CaseRefused(
            "frames-of-reference-differ",
            "PET and CT have positions in different coordinate systems.",
            where=where,
            met="different FrameOfReferenceUID",
            wanted="a PET and a CT of one examination on one scanner",
            how="register them, and give the pair as NIfTI.",
        )
    covered = covered_shares(series_grid(pet), series_grid(ct))
    raise CaseRefused(
        "fields-apart",
        "PET and CT show different parts of the patient.",
        where=where,
        met=f"a CT that covers {_percent(covered)} of the PET",
        wanted=f"at least {LEAST_COVERED:.0%} along each axis",
    )


def _state(best: _Candidate) -> list[Finding]:
    """What was chosen, and how PET and CT lie to one another."""
    # Series of other names are told apart where they are named as not taken.
    chosen = f"PET '{best.pet.description}' and CT '{best.ct.description}' are taken as a pair"
    findings = [Finding("pair-chosen", chosen)]
    if _is_phase(best.pet):
        text = "the PET is one of several images at the same positions (phases, time frames)"
        findings.append(Finding("pair-phase", text, "warning"))
    if best.is_one_frame:
        text = "PET and CT share a frame of reference; the CT covers"
        text = f"{text} {_percent(best.covered)} of the PET"
        findings.append(Finding("pair-registered", text))
    else:
        text = "no frame of reference is given for one of PET and CT: their positions are taken"
        findings.append(Finding("pair-frame-unknown", f"{text} for those of one", "warning"))
    if best.covered[2] < WELL_COVERED:
        text = f"the CT covers only {best.covered[2]:.0%} of the PET's length"
        findings.append(Finding("pair-partly-covered", text, "warning"))
    return findings


def _not_chosen(
    best: _Candidate,
    candidates: Sequence[_Candidate],
    pets: Sequence[Series],
    cts: Sequence[Series],
    refused: dict[str, CaseRefused],
) -> list[Finding]:
    """Every usable series that is in no pair, or in a worse one, with the reason."""
    findings = []
    for pet in pets:
        if pet.key == best.pet.key:
            continue
        refusal = refused.get(pet.key)
        why = f"cannot become SUV ({refusal.code}: {refusal.met})" if refusal else ""
        own = [c for c in candidates if c.pet.key == pet.key]
        findings.append(_loser("PET", pet, why or _why_worse(best, own)))
    for ct in cts:
        if ct.key != best.ct.key:
            own = [c for c in candidates if c.ct.key == ct.key and c.pet.key == best.pet.key]
            findings.append(_loser("CT", ct, _why_worse(best, own)))
    return findings


def _loser(kind: str, series: Series, why: str) -> Finding:
    return Finding("pair-not-chosen", f"{kind} {_named(series)} is not taken: {why}")


def _why_worse(best: _Candidate, own: Sequence[_Candidate]) -> str:
    """In which respect the best pair that a series has falls behind the chosen one."""
    if not own:
        return "no frame of reference or field of view in common"
    rival = min(own, key=lambda candidate: candidate.order)
    names = (
        "its frame of reference is not known",
        f"the CT covers {_percent(rival.covered)} of the PET, not {_percent(best.covered)}",
        "it does not say that it is corrected for attenuation",
        "it is one of several phases",
        f"a PET score of {rival.pet.score:g}, not {best.pet.score:g}",
        f"a CT score of {rival.ct_score:g}, not {best.ct_score:g}",
    )
    for name, ours, theirs in zip(names, best.order, rival.order, strict=False):
        if ours != theirs:
            return name
    return "it equals the other in all respects, and comes later"


def _is_phase(series: Series) -> bool:
    return any(finding.code == "split-by-phase" for finding in series.findings)


def _frame(series: Series) -> str:
    return str(series.facts.get("frame_of_reference") or "")


def _named(series: Series) -> str:
    return f"'{series.description}' ({series.key})"


def _percent(shares: Triple) -> str:
    return " x ".join(f"{share:.0%}" for share in shares)


def _where(series: Sequence[Series]) -> str:
    return str(series[0].folder) if series else ""
