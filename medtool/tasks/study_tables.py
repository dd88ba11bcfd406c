"""Studies that come as NIfTI files, or listed in a manifest CSV.

A manifest has a row a case: ``case`` and ``image`` (a NIfTI file or a DICOM folder, relative to
the manifest), and, where they are known, ``patient`` (else the case) and ``label``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

from medtool.core.errors import CaseRefused, LabelsError
from medtool.core.geometry import Grid
from medtool.core.names import counted, nearest_name, safe_file_stem
from medtool.core.records import Case, Finding, RefusedStudy
from medtool.data.dataset_record import ImageReference
from medtool.data.foreign_table import read_foreign_table
from medtool.data.layout_files import beside, image_ending, image_stem
from medtool.data.volumes import read_volume_header
from medtool.dicom.find import find_files

NIFTI_SUFFIXES = (".nii", ".nii.gz")
# Enough of a hash to tell the files of one folder apart.
PATH_MARK_BYTES = 4
REQUIRED_COLUMNS = ("case", "image")
LABEL_CLASSES: Mapping[str, float] = {"0": 0.0, "1": 1.0}


@dataclass(frozen=True)
class ManifestRow:
    """One case of a manifest; ``line`` counts from 1, the header's."""

    case_id: str
    patient_id: str
    image: Path
    label: float | None
    covariates: Mapping[str, str]
    # Whether a manifest names it; else it was found below a folder.
    listed: bool = True
    # The first folder below the root, "" for a file that lies directly in the root.
    folder: str = ""


@dataclass(frozen=True)
class VolumeStudies:
    """Cases that are files of their own, and their rows of the intake document."""

    cases: tuple[Case, ...]
    refused: tuple[RefusedStudy, ...]
    rows: tuple[Mapping[str, Any], ...]
    files: frozenset[Path]


def is_manifest(path: Path) -> bool:
    """Whether ``path`` is a table of cases."""
    return path.is_file() and path.suffix.lower() in (".csv", ".tsv")


def is_nifti(path: Path) -> bool:
    """Whether ``path`` is named as a NIfTI file."""
    return path.name.lower().endswith(NIFTI_SUFFIXES)


def read_manifest(path: Path, classes: Mapping[str, float]) -> list[ManifestRow]:
    """The rows of a manifest, of any usual separator and encoding.

    Raises LabelsError with every fault of the file.
    """
    table = read_foreign_table(path, kind="manifest", unwrap=True)
    columns = [name.lower() for name in table.columns]
    missing = [name for name in REQUIRED_COLUMNS if name not in columns]
    if missing:
        raise LabelsError(
            f"The manifest has no column '{missing[0]}'.",
            where=str(path),
            met="columns " + ", ".join(columns),
            wanted=", ".join(REQUIRED_COLUMNS) + "; patient and label where known",
            nearest=nearest_name(missing[0], columns),
        )
    rows, faults = [], []
    for row in table.rows:
        cells = {name.lower(): cell for name, cell in row.cells.items()}
        try:
            rows.append(_manifest_row(path, cells, classes or LABEL_CLASSES))
        except ValueError as error:
            faults.append(f"line {row.line}: {error}")
    twice = [name for name, count in Counter(row.case_id for row in rows).items() if count > 1]
    faults += [f"case '{name}' is there twice" for name in twice]
    if faults:
        raise LabelsError(
            "The manifest cannot be used.", where=str(path), met="; ".join(faults[:10])
        )
    return rows


def _manifest_row(
    path: Path, cells: Mapping[str, str], classes: Mapping[str, float]
) -> ManifestRow:
    """One row; raises ValueError saying what is wrong with it."""
    given = {name: value.strip() for name, value in cells.items() if name}
    if not given["case"] or not given["image"]:
        raise ValueError("case and image must both be there")
    image = beside(path, given["image"]).resolve()
    if not image.exists():
        raise ValueError(f"there is no '{given['image']}'")
    if not image.is_dir() and not is_nifti(image):
        raise ValueError(f"'{given['image']}' is neither a folder nor a NIfTI file")
    text = given.get("label", "").lower()
    if text and text not in classes:
        raise ValueError(f"label '{text}' is none of {', '.join(classes)}")
    known = {"case", "patient", "image", "label"}
    return ManifestRow(
        case_id=given["case"],
        patient_id=given.get("patient") or given["case"],
        image=image,
        label=classes[text] if text else None,
        covariates={name: value for name, value in given.items() if name not in known},
        folder=image.parent.name,
    )


def nifti_studies(
    roots: Sequence[Path],
    manifest: Sequence[ManifestRow],
    *,
    channel: str,
    patient_key: Literal["patient-id", "folder", "case"],
    endings: Collection[str] = NIFTI_SUFFIXES,
) -> VolumeStudies:
    """NIfTI files below ``roots`` and in the manifest; a file is a case named after itself.

    ``endings`` are those of the files that are looked for below ``roots``, where other volumes
    are wanted too. They have no PatientID: the folder that a file lies in below the root stands
    for the patient, directly below the root the file's own name.
    """
    rows = [row for row in manifest if is_nifti(row.image)]
    rows += [row for root in roots for row in _named_files(root, patient_key, endings)]
    cases: list[Case] = []
    refused: list[RefusedStudy] = []
    table: list[dict[str, Any]] = []
    for row in rows:
        grid, code, why = _place(row.image)
        table.append(_table_row(row, grid, code, why))
        if grid is None:
            refused.append(RefusedStudy(row.case_id, row.patient_id, "", code, why))
            continue
        cases.append(_volume_case(row, grid, channel))
    return VolumeStudies(
        tuple(cases), tuple(refused), tuple(table), frozenset(row.image for row in rows)
    )


def _named_files(root: Path, patient_key: str, endings: Collection[str]) -> Iterator[ManifestRow]:
    """Files of volumes below ``root`` as rows: each case with an id of its own."""
    files = [file for file in find_files([root])[0] if image_ending(file).lower() in endings]
    base = root.parent if root.is_file() else root
    stems = Counter(image_stem(file) for file in files)
    wanted = []
    for file in files:
        folders, stem = file.relative_to(base).parts[:-1], image_stem(file)
        wanted.append(stem if stems[stem] == 1 else "_".join([*folders, stem]))
    several = Counter(safe_file_stem(name).lower() for name in wanted)
    for file, name in zip(files, wanted, strict=True):
        inside = file.relative_to(base)
        case_id = safe_file_stem(name)
        if several[case_id.lower()] > 1:
            # x.nii beside x.nii.gz, or names that differ in what no file name may hold.
            mark = blake2b(inside.as_posix().encode(), digest_size=PATH_MARK_BYTES).hexdigest()
            case_id = f"{case_id}_{mark}"
        folder = inside.parts[0] if len(inside.parts) > 1 else ""
        patient = folder if folder and patient_key != "case" else case_id
        yield ManifestRow(case_id, patient, file, None, {}, listed=False, folder=folder)


def nameless_patients(cases: Sequence[Case], patient_key: str) -> list[Finding]:
    """What stands for the patients of ``cases`` that files of volumes gave: said once."""
    own = [case for case in cases if "patient-id-missing" in {f.code for f in case.findings}]
    if not own:
        return []
    in_folders = [case for case in own if case.folder and patient_key != "case"]
    said = []
    if in_folders:
        folders = len({case.folder for case in in_folders})
        said.append(
            f"the folder stands for the patient ({len(in_folders)} in {counted(folders, 'folder')})"
        )
    if len(in_folders) < len(own):
        others = counted(len(own) - len(in_folders), "file")
        said.append(f"each of {others} is taken for a patient of its own")
    files = [Path(value) for case in own for value in case.inputs.values()]
    owner = "NIfTI has" if all(map(is_nifti, files)) else "Files of volumes have"
    text = f"{owner} no PatientID: {'; '.join(said)}. A manifest CSV can name the patients."
    return [Finding("patients-by-place", text, "warning")]


def _kind(path: Path) -> str:
    """What a file of a volume is called."""
    return "NIfTI" if is_nifti(path) else "The file"


def _place(path: Path) -> tuple[Grid | None, str, str]:
    """The grid of a volume from its header; or None, with the code and why."""
    if not is_nifti(path):
        return _place_by_header(path)
    grid, why = read_grid(path)
    if grid is None:
        # SimpleITK says of axes that lean no more than that it cannot read the file.
        leaning = _place_by_header(path)
        if leaning[1] == "skewed-axes":
            return leaning
    return grid, "unreadable-nifti", why


def _place_by_header(path: Path) -> tuple[Grid | None, str, str]:
    """As ``_place``, by what we read of the header ourselves."""
    try:
        return read_volume_header(ImageReference(path)).grid, "", ""
    except CaseRefused as refusal:
        return None, refusal.code, f"{refusal.what} {refusal.met}".strip()


def read_grid(path: Path) -> tuple[Grid | None, str]:
    """The grid of a volume from its header, or why it has none."""
    import SimpleITK as sitk

    # SimpleITK has no annotations.
    reader: Any = sitk.ImageFileReader()  # type: ignore[no-untyped-call]
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return None, "The file cannot be read as NIfTI."
    if reader.GetDimension() != 3 or reader.GetNumberOfComponents() != 1:
        return None, f"The image has {reader.GetDimension()} dimensions; a scan has 3."
    x, y, z = reader.GetSize()
    return (
        Grid(
            (x, y, z),
            tuple(reader.GetSpacing()),
            tuple(reader.GetOrigin()),
            tuple(reader.GetDirection()),
        ),
        "",
    )


def _volume_case(row: ManifestRow, grid: Grid, channel: str) -> Case:
    kind = _kind(row.image)
    units = f"{kind} does not say its units; values are taken as they are."
    findings = [Finding("nifti-units", units, "warning")]
    if not row.listed:
        text = f"{kind} has no PatientID; '{row.patient_id}' (by its name) stands for the patient."
        findings.append(Finding("patient-id-missing", text, "warning"))
    return Case(
        case_id=row.case_id,
        patient_id=row.patient_id,
        study_uid="",
        inputs={channel: row.image},
        folder=row.folder,
        label=row.label,
        covariates=row.covariates,
        facts={
            "slices": grid.size[2],
            "slice_spacing_mm": grid.spacing_mm[2],
            "pixel_spacing_mm": grid.spacing_mm[0],
        },
        findings=tuple(findings),
    )


def _table_row(row: ManifestRow, grid: Grid | None, code: str, why: str) -> dict[str, Any]:
    """A row of the intake document, the case in place of the series."""
    nowhere = {"size": None, "spacing_mm": None, "origin_mm": None, "direction": None}
    return {
        "uid": "",
        "key": row.case_id,
        "case": row.case_id,
        "patient": row.patient_id,
        "study": "",
        "folder": str(row.image.parent),
        "modality": "",
        "description": row.image.name,
        "files": 1,
        "verdict": "accepted" if grid else "refused",
        "codes": [] if grid else [code],
        "reasons": [] if grid else [why],
        "repairs": [],
        "warnings": [],
        "notes": [],
        "score": 0.0,
        "score_reasons": [],
        "chosen": grid is not None,
        **(grid.as_dict() if grid else nowhere),
        "findings": [],
    }
