"""Folders of images with masks beside them, matched by a rule about names that is said.

The folder itself holds them, or each folder in it does: those are the patients.

Two rules: folders ``images`` and ``masks`` (or ``labels``) hold files of one name, the mask's
perhaps with a suffix; or images and masks lie in one folder and the mask has the image's name and
a suffix (``a.png``, ``a_mask.png``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medtool.core.errors import InputError
from medtool.core.records import Finding
from medtool.data.dataset_record import (
    ImageReference,
    LabelScheme,
    SegmentationCase,
    SegmentationDataset,
)
from medtool.data.layout_files import (
    files_of,
    image_files,
    image_stem,
    unmatched,
    without_masks,
)
from medtool.data.manifest_layout import ONE_LABEL

IMAGE_FOLDERS = ("images", "image", "imgs", "dicom", "dicoms")
MASK_FOLDERS = ("masks", "mask", "labels", "segmentations")
# In order: the first that fits any file is taken for all.
MASK_SUFFIXES = ("_mask", "-mask", "_seg", "-seg", "_segmentation", "_label", "_gt", "_msk")


@dataclass(frozen=True)
class _Rule:
    """Where images and masks lie, and what a mask's name adds to the image's."""

    images: tuple[Path, ...]
    masks: tuple[Path, ...]
    suffix: str
    text: str


def has_pairs(folder: Path) -> bool:
    """Whether the folder, or folders in it, hold images with masks beside them."""
    return bool(_rules(folder))


def read_pairs(folder: Path, labels: LabelScheme | None) -> SegmentationDataset:
    """The data set of a folder of pairs, or of one such folder a patient.

    Raises InputError where there is no pair.
    """
    rules = _rules(folder)
    if not rules:
        raise InputError("There are no pairs of image and mask here.", where=str(folder))
    cases = [case for patient, rule in rules.items() for case in _cases(rule, patient)]
    findings = [
        Finding("pairs-rule", text) for text in dict.fromkeys(r.text for r in rules.values())
    ]
    if "" not in rules:
        text = f"Each of the {len(rules)} folders with pairs is taken for a patient."
        findings.append(Finding("patients-by-folder", text))
    if labels is None:
        findings.append(Finding("labels-assumed", "Masks are taken for one structure: yes or no."))
    files = [file for rule in rules.values() for file in (*rule.images, *rule.masks)]
    return SegmentationDataset(
        layout="pairs",
        root=folder,
        name=folder.resolve().name,
        channels=("image",),
        labels=labels or ONE_LABEL,
        cases=tuple(sorted(cases, key=lambda case: case.case_id)),
        findings=(
            *findings,
            *without_masks(cases, folder.name),
            *unmatched(files, files_of(cases), folder),
        ),
    )


def _rules(folder: Path) -> dict[str, _Rule]:
    """Patient -> the rule of its folder; "" for a folder that holds pairs itself."""
    own = _rule(folder)
    if own is not None:
        return {"": own}
    inner = [entry for entry in sorted(folder.iterdir()) if entry.is_dir()]
    found = {entry.name: _rule(entry) for entry in inner if not entry.name.startswith(".")}
    return {name: rule for name, rule in found.items() if rule is not None}


def _cases(rule: _Rule, patient: str) -> list[SegmentationCase]:
    """The cases of one rule; without a ``patient`` each is its own."""
    masks = _by_stem(rule.masks, rule.suffix)
    several = {s for s, n in Counter(map(image_stem, rule.images)).items() if n > 1}
    cases = []
    for image in rule.images:
        # a.png beside a.tif: names with endings tell them apart, and neither has the mask.
        name = image.name if image_stem(image) in several else image_stem(image)
        mask = masks.get(name)
        reference = ImageReference(mask) if mask is not None else None
        case_id = f"{patient}_{name}" if patient else name
        cases.append(
            SegmentationCase(case_id, patient or case_id, (ImageReference(image),), reference)
        )
    return cases


def _rule(folder: Path) -> _Rule | None:
    """The rule that fits the folder, None where it holds no pair."""
    names = {entry.name.casefold(): entry for entry in sorted(folder.iterdir()) if entry.is_dir()}
    images = next((names[name] for name in IMAGE_FOLDERS if name in names), None)
    masks = next((names[name] for name in MASK_FOLDERS if name in names), None)
    if images is not None and masks is not None:
        return _two_folders(images, masks)
    files = image_files(folder)
    suffix = _suffix(files, files)
    if not suffix:
        return None
    mask_files = tuple(file for file in files if image_stem(file).endswith(suffix))
    image_list = tuple(file for file in files if file not in mask_files)
    text = f"The mask of NAME is NAME{suffix}, in one folder."
    return _Rule(image_list, mask_files, suffix, text)


def _two_folders(images: Path, masks: Path) -> _Rule | None:
    image_list, mask_list = image_files(images), image_files(masks)
    if not image_list or not mask_list:
        return None
    stems = set(map(image_stem, image_list))
    same = any(image_stem(mask) in stems for mask in mask_list)
    suffix = "" if same else _suffix(image_list, mask_list)
    text = f"The mask of {images.name}/NAME is {masks.name}/NAME{suffix}."
    return _Rule(tuple(image_list), tuple(mask_list), suffix, text)


def _suffix(images: Sequence[Path], masks: Sequence[Path]) -> str:
    """The suffix under which a mask is found for some image, "" where none is."""
    stems, mask_stems = set(map(image_stem, images)), set(map(image_stem, masks))
    fits = (s for s in MASK_SUFFIXES if any(f"{stem}{s}" in mask_stems for stem in stems))
    return next(fits, "")


def _by_stem(masks: Sequence[Path], suffix: str) -> Mapping[str, Path]:
    """Name of the image -> its mask; names that two masks share have none."""
    stems = Counter(map(image_stem, masks))
    return {
        image_stem(mask).removesuffix(suffix): mask
        for mask in masks
        if stems[image_stem(mask)] == 1
    }
