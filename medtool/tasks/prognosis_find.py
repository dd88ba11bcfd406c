"""From what the user pointed at to PET/CT studies with masks and outcomes.

A folder with a manifest is read as it says. In any other folder NIfTI files are paired by their
names (``prognosis_pairs``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from medtool.core.errors import CaseRefused, InputError, LabelsError
from medtool.core.fields import covered_shares
from medtool.core.files import nearest_path
from medtool.core.records import Case, Cohort, Finding, RefusedStudy, Source
from medtool.data.dataset_record import ImageReference, SegmentationCase
from medtool.data.foreign_table import read_foreign_table
from medtool.data.layout_files import image_ending
from medtool.data.manifest_layout import CHANNEL_PREFIX, is_table, read_manifest
from medtool.data.nifti import is_synthetic
from medtool.data.volumes import NIFTI_ENDINGS, read_volume_header
from medtool.dicom.pet_ct import LEAST_COVERED, WELL_COVERED
from medtool.tasks.prognosis_data_settings import PrognosisDataSection
from medtool.tasks.prognosis_labels import CHANNELS, CT, PET, TRUE_RISK
from medtool.tasks.prognosis_outcomes import OutcomeColumns, outcome_columns, read_outcomes
from medtool.tasks.segmentation_find import SYNTHETIC, Found, file_row
from medtool.tasks.segmentation_labels import MASK, scheme_of

# What the channel of a manifest, or of a data set's description, is called.
CHANNEL_NAMES: Mapping[str, str] = {
    **dict.fromkeys(("pet", "pt", "suv", "suvbw"), PET),
    **dict.fromkeys(("ct", "ctres"), CT),
}
# Code of a study that lacks a channel.
LACKING = {PET: "no-pet", CT: "no-ct"}
# Beside the manifest of a synthetic cohort: columns case and true_log_hazard.
TRUE_RISK_FILE, TRUE_RISK_COLUMN = "true_risk.csv", "true_log_hazard"


def find_pet_ct(source: Source, data: PrognosisDataSection) -> Cohort:
    """Every PET/CT study under ``source``, with its mask and outcome where they are known.

    Raises InputError for a path that does not exist, LabelsError for a table that is wrong.
    """
    found = Found()
    for path in source.paths:
        if not path.exists():
            raise InputError(
                "There is nothing by this name.",
                where=str(path),
                wanted="PET/CT studies",
                nearest=nearest_path(path),
            )
        table = _manifest(path)
        if table is not None:
            _take_manifest(found, table, data)
    cases = sorted(found.cases, key=lambda case: case.case_id)
    intake = {"series": found.series, "skipped": found.skipped}
    return Cohort(tuple(cases), intake, tuple(found.findings), tuple(found.refused))


# --- manifest -----------------------------------------------------------------------------
def _manifest(path: Path) -> Path | None:
    """The table that ``path`` is, or the one in the folder, that lists PET and CT."""
    if path.is_file():
        return path if is_table(path) else None
    tables = [one for one in sorted(path.iterdir()) if is_table(one) and _lists_pet_ct(one)]
    if len(tables) > 1:
        raise InputError(
            f"{path.name} holds several manifests.",
            where=str(path),
            met=", ".join(table.name for table in tables),
            how="name one of them.",
        )
    return tables[0] if tables else None


def _lists_pet_ct(table: Path) -> bool:
    try:
        columns = read_foreign_table(table, kind="manifest").columns
    except LabelsError:
        # Any other table may lie there; only one that is named has to be a manifest.
        return False
    return {_channel(column) for column in columns} >= set(CHANNELS)


def _channel(column: str) -> str:
    name = column.casefold()
    return (
        CHANNEL_NAMES.get(name.removeprefix(CHANNEL_PREFIX), "")
        if (name.startswith(CHANNEL_PREFIX))
        else ""
    )


def _take_manifest(found: Found, path: Path, data: PrognosisDataSection) -> None:
    lacking = {name: LACKING[channel] for name in _columns(path) if (channel := _channel(name))}
    labels = scheme_of(data) if data.label_ids else None
    dataset = read_manifest(path, labels, lacking=lacking)
    names = [CHANNEL_NAMES.get(name.casefold(), "") for name in dataset.channels]
    if sorted(names) != sorted(CHANNELS):
        raise LabelsError(
            "The manifest does not name a PET and a CT.",
            where=str(path),
            met="columns " + ", ".join(CHANNEL_PREFIX + name for name in dataset.channels),
            wanted="image_pet (or image_suv) and image_ct, and no further image",
        )
    table = read_foreign_table(path, kind="manifest")
    columns = outcome_columns(table.columns, data, str(path))
    cases = [_file_case(one, names) for one in dataset.cases]
    said: tuple[Finding, ...] = ()
    if columns is not None:
        id_column = next(name for name in table.columns if name.casefold() == "case")
        outcomes, said = read_outcomes(table, columns, id_column)
        cases = [
            replace(_without(case, columns), outcome=outcomes.get(case.case_id)) for case in cases
        ]
    cases = _with_true_risk(cases, path.parent)
    found.findings += [f for f in dataset.findings if f.code != "labels-assumed"]
    found.findings += said
    found.refused += dataset.refused
    for case in cases:
        _take(found, case)


def _columns(path: Path) -> list[str]:
    return [name.casefold() for name in read_foreign_table(path, kind="manifest").columns]


def _without(case: Case, columns: OutcomeColumns) -> Case:
    """The case without its outcome among the covariates, from which models may learn."""
    kept = {n: v for n, v in case.covariates.items() if n.casefold() not in columns.names}
    return replace(case, covariates=kept)


def _with_true_risk(cases: Sequence[Case], folder: Path) -> list[Case]:
    """Cases with the true hazard of synthetic patients beside their manifest, where it is."""
    file = folder / TRUE_RISK_FILE
    if not file.is_file():
        return list(cases)
    rows = read_foreign_table(file, kind="table of true hazards").rows
    risk = {row.cells["case"]: row.cells[TRUE_RISK_COLUMN] for row in rows}
    return [
        replace(case, references={**case.references, TRUE_RISK: risk[case.case_id]})
        if case.case_id in risk
        else case
        for case in cases
    ]


# --- files --------------------------------------------------------------------------------
def _file_case(case: SegmentationCase, names: Sequence[str]) -> Case:
    """A case of files; ``names`` are the channels of its images."""
    by_name = dict(zip(names, case.images, strict=True))
    return Case(
        case_id=case.case_id,
        patient_id=case.patient_id,
        study_uid="",
        inputs={name: by_name[name] for name in CHANNELS},
        folder=by_name[PET].path.parent.name,
        references={} if case.mask is None else {MASK: str(case.mask)},
        covariates=case.covariates,
        facts={SYNTHETIC: any(_is_synthetic(image) for image in case.images)},
    )


def _is_synthetic(image: ImageReference) -> bool:
    return image_ending(image.path).lower() in NIFTI_ENDINGS and is_synthetic(image.path)


def _take(found: Found, case: Case) -> None:
    """Add a case of files that show one patient, or the reason why it is none."""
    try:
        said, facts = _state(case)
    except CaseRefused as refusal:
        text = " ".join(part for part in (refusal.what, refusal.met) if part)
        found.refused.append(RefusedStudy(case.case_id, case.patient_id, "", refusal.code, text))
        return
    case = replace(case, findings=(*case.findings, *said), facts={**case.facts, **facts})
    found.cases.append(case)
    found.series.append(file_row(case))


def _state(case: Case) -> tuple[list[Finding], dict[str, float]]:
    """How PET and CT of files lie to one another, and facts of both; raises CaseRefused."""
    grids = {name: read_volume_header(case.inputs[name]).grid for name in CHANNELS}
    covered = covered_shares(grids[PET], grids[CT])
    share = " x ".join(f"{part:.0%}" for part in covered)
    if min(covered) < LEAST_COVERED:
        raise CaseRefused(
            "fields-apart",
            "PET and CT show different parts of the patient.",
            where=case.case_id,
            met=f"a CT that covers {share} of the PET",
            wanted=f"at least {LEAST_COVERED:.0%} along each axis",
        )
    text = f"files name no frame of reference; by their positions the CT covers {share} of the PET"
    findings = [Finding("pair-frame-unknown", text, "warning")]
    if covered[2] < WELL_COVERED:
        text = f"the CT covers only {covered[2]:.0%} of the PET's length"
        findings.append(Finding("pair-partly-covered", text, "warning"))
    facts = {
        "slices": grids[PET].size[2],
        "slice_spacing_mm": grids[PET].spacing_mm[2],
        "pixel_spacing_mm": grids[PET].spacing_mm[0],
    }
    return findings, facts
