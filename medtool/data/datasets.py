"""Segmentation data sets: the layout is recognised, what was taken is said.

nnU-Net v2 raw data sets, those of the Medical Segmentation Decathlon, our manifest CSV, and folders
of images with masks beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from medtool.core.errors import InputError, LabelsError
from medtool.core.files import nearest_path
from medtool.core.records import Finding
from medtool.data.dataset_record import LabelScheme, SegmentationDataset
from medtool.data.json_file import read_json
from medtool.data.layout_files import from_names
from medtool.data.manifest_layout import (
    TABLE_ENDINGS,
    is_segmentation_manifest,
    is_table,
    read_manifest,
)
from medtool.data.msd_layout import read_msd
from medtool.data.nnunet_layout import read_nnunet
from medtool.data.pairs_layout import has_pairs, read_pairs

DESCRIPTION = "dataset.json"
NNUNET_FOLDERS = "Dataset[0-9][0-9][0-9]_*"
LAYOUTS = (
    f"an nnU-Net or MSD data set ({DESCRIPTION}), a manifest CSV with columns image and mask, or "
    "folders images and masks"
)
WORDS = {"nnunet": "nnU-Net", "msd": "MSD", "manifest": "manifest", "pairs": "image and mask pairs"}


def read_dataset(
    source: Path,
    *,
    labels: LabelScheme | None = None,
    patient_pattern: str = "",
    label_pattern: str = "",
) -> SegmentationDataset:
    """The data set in a folder, or of a ``dataset.json`` or manifest CSV.

    ``labels`` are those of the preset, for layouts that name none. The patterns are regular
    expressions over case ids whose first group is the patient or the class; without one, and
    without a column of the manifest, every case is taken for a patient of its own, which is said.
    Raises InputError (nothing there, no cases), LabelsError (a description or manifest that
    cannot be used), UsageError (a pattern that is none). Reads no image.
    """
    dataset = _recognised(_existing(source), labels)
    cases, findings = list(dataset.cases), [_layout(dataset), *dataset.findings]
    if patient_pattern:
        cases, said = from_names(cases, patient_pattern, "patient")
        findings += said
    elif cases and all(case.patient_id == case.case_id for case in cases):
        text = "Patients are not known: every case is taken for a patient of its own."
        findings.append(Finding("patients-by-case", text, "warning"))
    if label_pattern:
        cases, said = from_names(cases, label_pattern, "label")
        findings += said
    if not cases:
        raise InputError(
            "The data set has no usable case.",
            where=str(dataset.root),
            met="; ".join(f"{r.case_id}: {r.message}" for r in dataset.refused[:3]) or "no images",
            wanted=f"images of {len(dataset.channels)} channels a case",
        )
    return replace(dataset, cases=tuple(cases), findings=tuple(findings))


def is_dataset(source: Path) -> bool:
    """Whether a file or folder is meant as a data set: it has a description, a manifest, masks."""
    if source.is_file():
        return source.name == DESCRIPTION or (
            source.suffix.lower() in TABLE_ENDINGS and _is_manifest(source)
        )
    described = (source / DESCRIPTION).is_file() or any(source.glob(NNUNET_FOLDERS))
    return described or bool(_manifests(source)) or has_pairs(source)


def _existing(source: Path) -> Path:
    if not source.exists():
        raise InputError(
            "There is nothing by this name.",
            where=str(source),
            wanted="a data set",
            nearest=nearest_path(source),
        )
    return source


def _recognised(source: Path, labels: LabelScheme | None) -> SegmentationDataset:
    if source.is_file():
        if source.suffix.lower() in TABLE_ENDINGS:
            return read_manifest(source, labels)
        if source.suffix.lower() == ".json":
            return _described(source)
        raise InputError("This file is no data set.", where=str(source), wanted=LAYOUTS)
    if (source / DESCRIPTION).is_file():
        return _described(source / DESCRIPTION)
    inner = [folder for folder in sorted(source.glob(NNUNET_FOLDERS)) if folder.is_dir()]
    if len(inner) == 1:
        return _recognised(inner[0], labels)
    tables = _manifests(source)
    if len(inner) > 1 or len(tables) > 1:
        found = inner or tables
        raise InputError(
            f"{source.name} holds several data sets.",
            where=str(source),
            met=", ".join(path.name for path in found),
            how="name one of them.",
        )
    if tables:
        return read_manifest(tables[0], labels)
    if has_pairs(source):
        return read_pairs(source, labels)
    raise InputError(
        "No data set is recognised here.",
        where=str(source),
        met=", ".join(sorted(entry.name for entry in source.iterdir())[:8]) or "an empty folder",
        wanted=LAYOUTS,
    )


def _manifests(folder: Path) -> list[Path]:
    """Tables directly in the folder that list images and masks."""
    return [path for path in sorted(folder.iterdir()) if is_table(path) and _is_manifest(path)]


def _is_manifest(path: Path) -> bool:
    try:
        return is_segmentation_manifest(path)
    except LabelsError:
        # Any other table may lie there; only one that is named has to be a manifest.
        return False


def _described(path: Path) -> SegmentationDataset:
    document, findings = read_json(path, kind="description of the data set")
    if not isinstance(document, Mapping):
        raise LabelsError("The description of the data set is no table.", where=str(path))
    dataset = _read_described(path, document)
    synthetic = document.get("synthetic") is True
    return replace(dataset, findings=(*findings, *dataset.findings), synthetic=synthetic)


def _read_described(path: Path, document: Mapping[str, Any]) -> SegmentationDataset:
    if "channel_names" in document or "file_ending" in document:
        return read_nnunet(path, document)
    if "modality" in document or "training" in document:
        return read_msd(path, document)
    raise LabelsError(
        "The description is neither nnU-Net's nor MSD's.",
        where=str(path),
        met="keys " + ", ".join(document),
        wanted="channel_names, labels and file_ending (nnU-Net), or modality, labels and training "
        "(MSD)",
    )


def _layout(dataset: SegmentationDataset) -> Finding:
    masks = sum(case.mask is not None for case in dataset.cases)
    text = (
        f"{dataset.root}: {WORDS[dataset.layout]} data set '{dataset.name}', {len(dataset.cases)} "
        f"cases, {masks} with a mask; channels {', '.join(dataset.channels)}; labels "
        + ", ".join(f"{name} {_ids(ids)}" for name, ids in dataset.labels.ids.items())
    )
    return Finding("dataset-layout", text)


def _ids(ids: tuple[int, ...]) -> str:
    return "+".join(map(str, ids))
