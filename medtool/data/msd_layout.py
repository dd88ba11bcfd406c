"""Data sets of the Medical Segmentation Decathlon: ``dataset.json`` that lists images and labels.

Channels of one case are the fourth dimension of its image (Antonelli et al. 2022). Folders of
nnU-Net v1 have the same document, with one file a channel: ``case_0000``, ``case_0001``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medtool.core.errors import LabelsError
from medtool.core.records import Finding, Part, RefusedStudy
from medtool.data.dataset_record import ImageReference, SegmentationCase, SegmentationDataset
from medtool.data.label_scheme import label_scheme
from medtool.data.layout_files import (
    beside,
    files_of,
    image_ending,
    image_files,
    image_stem,
    unmatched,
    without_masks,
)
from medtool.data.nnunet_layout import channel_names, count_differs, missing_image

_Found = tuple[list[SegmentationCase], list[RefusedStudy]]


def read_msd(table: Path, document: Mapping[str, Any]) -> SegmentationDataset:
    """The data set around its ``dataset.json``. Raises LabelsError."""
    channels = channel_names(document.get("modality"), table)
    labels, findings = label_scheme(document.get("labels"), None, table)
    training, refused = _listed(table, document, "training", len(channels))
    test, refused_test = _listed(table, document, "test", len(channels))
    cases = [*training, *test]
    twice = [name for name, count in Counter(c.case_id for c in cases).items() if count > 1]
    if twice:
        raise LabelsError(
            "The data set lists cases twice.", where=str(table), met=", ".join(twice[:8])
        )
    return SegmentationDataset(
        layout="msd",
        root=table.parent,
        name=str(document.get("name") or table.parent.resolve().name),
        channels=channels,
        labels=labels,
        cases=tuple(sorted(cases, key=lambda case: case.case_id)),
        findings=(
            *findings,
            *count_differs(document.get("numTraining"), len(training) + len(refused), table),
            *without_masks(training, "the training list"),
            *_left_over(table, cases),
        ),
        refused=(*refused, *refused_test),
        file_ending=_one_ending(cases),
    )


def _listed(table: Path, document: Mapping[str, Any], key: str, channels: int) -> _Found:
    """The cases of one of the lists; test cases have no mask, unless the list names one."""
    entries = document.get(key, [])
    if not isinstance(entries, list):
        raise LabelsError(f"'{key}' is no list.", where=str(table))
    cases, refused = [], []
    for number, entry in enumerate(entries, start=1):
        image, mask = _paths(entry)
        if not image:
            raise LabelsError(
                f"Entry {number} of '{key}' names no image.",
                where=str(table),
                wanted='{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}',
            )
        path = beside(table, image)
        references = _channels(path, channels)
        case_id = image_stem(path)
        if not references:
            refused.append(missing_image(case_id, path))
            continue
        file = beside(table, mask) if mask else None
        reference = ImageReference(file) if file is not None and file.is_file() else None
        part: Part | None = "test" if key == "test" and reference is not None else None
        cases.append(SegmentationCase(case_id, case_id, references, reference, part=part))
    return cases, refused


def _paths(entry: Any) -> tuple[str, str]:
    """Image and label of an entry, "" for what it does not name."""
    if isinstance(entry, Mapping):
        return str(entry.get("image") or ""), str(entry.get("label") or "")
    return (entry, "") if isinstance(entry, str) else ("", "")


def _channels(path: Path, channels: int) -> tuple[ImageReference, ...]:
    """A reference a channel: parts of one file, or files with suffixes; () where none are."""
    if path.is_file():
        whole = (ImageReference(path),)
        return whole if channels == 1 else tuple(ImageReference(path, c) for c in range(channels))
    stem, ending = image_stem(path), image_ending(path)
    files = [path.with_name(f"{stem}_{number:04d}{ending}") for number in range(channels)]
    return tuple(map(ImageReference, files)) if all(f.is_file() for f in files) else ()


def _one_ending(cases: Sequence[SegmentationCase]) -> str:
    endings = {image_ending(file) for file in files_of(cases)}
    return endings.pop() if len(endings) == 1 else ""


def _left_over(table: Path, cases: Sequence[SegmentationCase]) -> tuple[Finding, ...]:
    """Files beside those that the lists name."""
    used = files_of(cases)
    folders = sorted({file.parent for file in used})
    files = [file for folder in folders for file in image_files(folder)]
    return unmatched(files, used, table.parent)
