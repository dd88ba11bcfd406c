"""Raw data sets of nnU-Net v2: ``dataset.json`` with ``imagesTr``, ``labelsTr`` and ``imagesTs``.

Read as nnU-Net does (its documentation of the data set format): images are named
``CASE_0000.ending`` with the number of the channel, masks ``CASE.ending``; an explicit table
``dataset`` comes before the names of files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medtool.core.errors import LabelsError
from medtool.core.names import nearest_name
from medtool.core.records import Finding, Part, RefusedStudy
from medtool.data.channels import told_apart
from medtool.data.dataset_record import ImageReference, SegmentationCase, SegmentationDataset
from medtool.data.label_scheme import label_scheme
from medtool.data.layout_files import (
    CHANNEL_SUFFIX,
    PICTURE_ENDINGS,
    beside,
    files_of,
    image_files,
    unmatched,
    without_masks,
)

TRAINING_IMAGES, TRAINING_MASKS = "imagesTr", "labelsTr"
TEST_IMAGES, TEST_MASKS = "imagesTs", "labelsTs"
# Red, green and blue.
COLOURS = 3
REQUIRED_KEYS = ("channel_names", "labels", "file_ending")


@dataclass(frozen=True)
class _Layout:
    """What ``dataset.json`` says of the names of files."""

    table: Path
    channels: tuple[str, ...]
    ending: str


def read_nnunet(table: Path, document: Mapping[str, Any]) -> SegmentationDataset:
    """The data set around its ``dataset.json``. Raises LabelsError."""
    missing = [key for key in REQUIRED_KEYS if key not in document]
    if missing:
        raise LabelsError(
            f"The description of the data set lacks '{missing[0]}'.",
            where=str(table),
            met="keys " + ", ".join(document),
            wanted=", ".join(REQUIRED_KEYS),
            nearest=nearest_name(missing[0], document),
        )
    channels = channel_names(document["channel_names"], table)
    labels, findings = label_scheme(document["labels"], document.get("regions_class_order"), table)
    layout = _Layout(table, channels, str(document["file_ending"]))
    if "dataset" in document:
        training, refused = _listed(layout, document["dataset"])
    else:
        training, refused = _named(layout, TRAINING_IMAGES, TRAINING_MASKS, part=None)
    test, refused_test = _named(layout, TEST_IMAGES, TEST_MASKS, part="test")
    training, test, more = _test_apart(training, test)
    return SegmentationDataset(
        layout="nnunet",
        root=table.parent,
        name=str(document.get("name") or table.parent.resolve().name),
        channels=channels,
        labels=labels,
        cases=tuple(sorted([*training, *test], key=lambda case: case.case_id)),
        findings=(
            *findings,
            *more,
            *count_differs(document.get("numTraining"), len(training) + len(refused), table),
            *without_masks(training, TRAINING_IMAGES),
            *_left_over(layout, [*training, *test], [*refused, *refused_test]),
        ),
        refused=(*refused, *refused_test),
        file_ending=layout.ending,
    )


def channel_names(table: Any, path: Path) -> tuple[str, ...]:
    """Names of channels, each once, in order of their numbers. Raises LabelsError."""
    if not isinstance(table, Mapping) or sorted(map(str, table)) != sorted(
        map(str, range(len(table)))
    ):
        table = {}
    if not table:
        raise LabelsError(
            "The channels of the data set cannot be used.",
            where=str(path),
            wanted='names by number from 0, such as {"0": "CT"}',
        )
    named = {int(number): str(name) for number, name in table.items()}
    return told_apart([named[number] for number in range(len(named))])


def count_differs(declared: Any, found: int, path: Path) -> tuple[Finding, ...]:
    """A warning where ``numTraining`` is not the number of cases that are there."""
    if not isinstance(declared, int) or declared == found:
        return ()
    message = f"{path.name} declares {declared} training cases, {found} are there"
    return (Finding("count-differs", message, "warning"),)


def _named(
    layout: _Layout, images: str, masks: str, *, part: Part | None
) -> tuple[list[SegmentationCase], list[RefusedStudy]]:
    """Cases of the files in one folder of images."""
    folder = layout.table.parent / images
    by_case: dict[str, dict[int, Path]] = {}
    for file in image_files(folder):
        if not file.name.endswith(layout.ending):
            continue
        if match := CHANNEL_SUFFIX.match(file.name.removesuffix(layout.ending)):
            by_case.setdefault(match["case"], {})[int(match["channel"])] = file
    cases, refused = [], []
    for case_id, files in by_case.items():
        references = _channel_references(files, layout)
        if not references:
            refused.append(_channels_refused(case_id, len(files), sorted(files), layout))
            continue
        mask = layout.table.parent / masks / f"{case_id}{layout.ending}"
        has_mask = mask.is_file()
        cases.append(
            SegmentationCase(
                case_id,
                case_id,
                references,
                ImageReference(mask) if has_mask else None,
                part=part if has_mask else None,
            )
        )
    return cases, refused


def _channel_references(files: Mapping[int, Path], layout: _Layout) -> tuple[ImageReference, ...]:
    """A reference a channel; () where the files are not those of the channels.

    Colour pictures hold their channels in the one file 0000, as in nnU-Net.
    """
    count = len(layout.channels)
    if sorted(files) == list(range(count)):
        return tuple(ImageReference(files[number]) for number in range(count))
    if sorted(files) == [0] and count == COLOURS and layout.ending.lower() in PICTURE_ENDINGS:
        return tuple(ImageReference(files[0], number) for number in range(count))
    return ()


def _channels_refused(
    case_id: str, count: int, numbers: list[int], layout: _Layout
) -> RefusedStudy:
    have = ", ".join(f"{number:04d}" for number in numbers) or f"{count} images"
    message = (
        f"the channels are {have}; the data set declares {len(layout.channels)}: "
        + ", ".join(layout.channels)
    )
    return RefusedStudy(case_id, case_id, "", "channels-differ", message)


def _listed(layout: _Layout, entries: Any) -> tuple[list[SegmentationCase], list[RefusedStudy]]:
    """Cases of an explicit table: case -> {images: [...], label: ...}."""
    if not isinstance(entries, Mapping):
        raise LabelsError(
            "The table 'dataset' of the data set cannot be used.",
            where=str(layout.table),
            wanted='{"case": {"images": ["..."], "label": "..."}}',
        )
    cases, refused = [], []
    for case_id, entry in entries.items():
        images = entry.get("images") if isinstance(entry, Mapping) else None
        if not isinstance(images, list):
            raise LabelsError(
                f"The entry '{case_id}' of 'dataset' has no list of images.",
                where=str(layout.table),
                wanted='{"images": ["..."], "label": "..."}',
            )
        paths = [beside(layout.table, str(text)) for text in images]
        references = _channel_references(dict(enumerate(paths)), layout)
        absent = [path for path in paths if not path.exists()]
        if absent:
            refused.append(missing_image(case_id, absent[0]))
        elif not references:
            refused.append(_channels_refused(case_id, len(paths), [], layout))
        else:
            mask = beside(layout.table, str(entry["label"])) if entry.get("label") else None
            cases.append(
                SegmentationCase(
                    case_id,
                    case_id,
                    references,
                    ImageReference(mask) if mask is not None and mask.is_file() else None,
                )
            )
    return cases, refused


def missing_image(case_id: str, path: Path) -> RefusedStudy:
    """The row of a case whose image is named and not there."""
    message = f"there is no {path}"
    return RefusedStudy(case_id, case_id, "", "image-missing", message)


def _test_apart(
    training: list[SegmentationCase], test: list[SegmentationCase]
) -> tuple[list[SegmentationCase], list[SegmentationCase], list[Finding]]:
    """Test cases without those whose name a training case has."""
    known = {case.case_id for case in training}
    twice = sorted(case.case_id for case in test if case.case_id in known)
    if not twice:
        return training, test, []
    message = f"{TEST_IMAGES} holds names of {TRAINING_IMAGES}, left out: {', '.join(twice[:8])}"
    finding = Finding("case-twice", message, "warning")
    return training, [case for case in test if case.case_id not in known], [finding]


def _left_over(
    layout: _Layout, cases: list[SegmentationCase], refused: list[RefusedStudy]
) -> tuple[Finding, ...]:
    """Images and masks that belong to no case; files of refused cases are theirs."""
    root = layout.table.parent
    folders = (TRAINING_IMAGES, TRAINING_MASKS, TEST_IMAGES, TEST_MASKS)
    files = [file for folder in folders for file in image_files(root / folder)]
    names = tuple(case.case_id for case in refused)
    mine = [
        file
        for file in files
        for stem in [file.name.removesuffix(layout.ending)]
        if stem in names or ((match := CHANNEL_SUFFIX.match(stem)) and match["case"] in names)
    ]
    return unmatched(files, [*files_of(cases), *mine], root)
