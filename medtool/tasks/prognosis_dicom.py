"""DICOM studies of PET and CT: which series are a pair, and which object holds the mask.

Both series of a study are paired by ``medtool.dicom.pet_ct``. A mask is the SEG or RTSTRUCT object
that was drawn on one of them, or, by its frame of reference, on images of the same examination
that are not there: then reading it refuses the case.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from medtool.core.errors import CaseRefused
from medtool.core.records import Case, Cohort, Finding, RefusedStudy, Source
from medtool.data.dicom_masks import MaskObject, find_masks
from medtool.dicom.pet_ct import pair_pet_ct
from medtool.dicom.series import Series
from medtool.tasks.prognosis_data_settings import PrognosisDataSection
from medtool.tasks.prognosis_labels import CHANNELS, CT, PET, settled_labels, structure_ids
from medtool.tasks.segmentation_dicom import OTHER_OBJECT
from medtool.tasks.segmentation_find import SYNTHETIC
from medtool.tasks.segmentation_labels import MASK
from medtool.tasks.studies import (
    Study,
    after_persons_word,
    find_dicom_studies,
    said_in_vain,
    series_facts,
)

MODALITIES = {PET: "PT", CT: "CT"}
# What structures are called here does not matter: which of them are labels does.
ANY_STRUCTURE = "structure"


def find_dicom_pairs(source: Source, data: PrognosisDataSection) -> Cohort:
    """Every DICOM study under ``source`` with a PET and a CT, and its mask where one is known.

    Objects with masks are no longer among the files that were skipped.
    """
    cohort = find_dicom_studies(
        source,
        patient_key=data.patient_key,
        modalities=tuple(MODALITIES.values()),
        make=paired_case,
    )
    skipped = cohort.intake["skipped"]
    files = [Path(str(row["file"])) for row in skipped if row["code"] == OTHER_OBJECT]
    objects, broken = find_masks(sorted(files))
    findings = [Finding(one.code, f"{one.file.name} is {one.why}.", "warning") for one in broken]
    known = settled_labels(data, None, ANY_STRUCTURE)
    present = frozenset(str(row["uid"]) for row in cohort.intake["series"])
    masked = [_with_mask(case, objects, present, known) for case in cohort.cases]
    taken = {case.references[MASK] for case in masked if MASK in case.references}
    intake = {
        **cohort.intake,
        "skipped": [row for row in skipped if str(row["file"]) not in taken],
    }
    return replace(
        cohort, cases=tuple(masked), intake=intake, findings=(*cohort.findings, *findings)
    )


# --- pairs --------------------------------------------------------------------------------
def paired_case(study: Study, source: Source) -> Case | RefusedStudy:
    """The study as a case of its PET and its CT, or why it is none."""
    refused = partial(RefusedStudy, study.case_id, study.patient_id, study.study_uid)
    pool: list[Series] = []
    said = said_in_vain(study.series, tuple(MODALITIES.values()), source)
    for modality in MODALITIES.values():
        own = [series for series in study.series if series.modality == modality]
        usable, words = after_persons_word(own, source)
        if not usable and words:
            text = f"Every usable {modality} series was left out by a person."
            return refused("left-out-by-person", text)
        said += words
        # Series that cannot be read say why, where there is no other of their kind.
        pool += usable or own
    try:
        pair = pair_pet_ct(pool or study.series)
    except CaseRefused as refusal:
        parts = (refusal.what, refusal.met, refusal.how)
        return refused(refusal.code, " ".join(part for part in parts if part))
    return Case(
        case_id=study.case_id,
        patient_id=study.patient_id,
        study_uid=study.study_uid,
        inputs={PET: pair.pet, CT: pair.ct},
        accession=pair.pet.accession,
        study_date=pair.pet.study_date,
        folder=study.folder,
        facts={
            **series_facts(pair.pet),
            **pair.scale.facts,
            SYNTHETIC: any(bool(one.facts.get(SYNTHETIC)) for one in (pair.pet, pair.ct)),
        },
        findings=(
            *study.findings,
            *said,
            *pair.findings,
            *pair.pet.findings,
            *pair.ct.findings,
        ),
    )


# --- masks --------------------------------------------------------------------------------
def _with_mask(
    case: Case,
    objects: Sequence[MaskObject],
    present: frozenset[str],
    data: PrognosisDataSection,
) -> Case:
    """The case with the object that holds its mask, and what is to be said of the choice."""
    own = [one for one in objects if _is_of(one, case, present)]
    fitting = [one for one in own if structure_ids(one, data)]
    findings = list(case.findings)
    if own and not fitting:
        names = sorted({name for one in own for name in one.names})
        text = f"{', '.join(one.path.name for one in own)} holds {', '.join(names)}: "
        text += "none of them is chosen as a label, so that the case has no mask; "
        text += "name them in the preset (data.structures)"
        findings.append(Finding("structures-unchosen", text, "warning"))
    if not fitting:
        return replace(case, findings=tuple(findings))
    answer = case.inputs[data.preparation.answer_grid]
    fitting.sort(key=lambda one: (answer.uid not in one.series_uids, str(one.path)))
    first, *others = fitting
    if others:
        text = f"{case.case_id} has several masks: {first.path.name} is taken, not "
        text += ", ".join(one.path.name for one in others)
        findings.append(Finding("masks-several", text, "warning"))
    references = {**case.references, MASK: str(first.path)}
    return replace(case, references=references, findings=tuple(findings))


def _is_of(found: MaskObject, case: Case, present: frozenset[str]) -> bool:
    """Whether an object was drawn on the case's PET or CT, or on lost images beside them."""
    pair = [case.inputs[name] for name in CHANNELS]
    if found.series_uids & {series.uid for series in pair}:
        return True
    frames = {str(series.facts.get("frame_of_reference") or "") for series in pair} - {""}
    return bool(found.frames_of_reference & frames) and not found.series_uids & present
