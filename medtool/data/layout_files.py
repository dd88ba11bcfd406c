"""Files of a data set's folder: names without ending, what nobody asked for, who the patient is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from medtool.core.errors import LabelsError, UsageError
from medtool.core.records import Finding
from medtool.data.dataset_record import ImageReference, SegmentationCase
from medtool.data.matching import shown

# Longest first: "a.nii.gz" has the ending ".nii.gz".
IMAGE_ENDINGS = (
    ".nii.gz", ".seg.nrrd", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".png", ".tiff", ".tif",
    ".jpeg", ".jpg", ".bmp", ".dcm", ".dicom",
)  # fmt: skip
# Images without the third dimension, but for DICOM, which is asked by its header.
PICTURE_ENDINGS = (".png", ".tiff", ".tif", ".jpeg", ".jpg", ".bmp")
TIFF_ENDINGS = (".tiff", ".tif")
# nnU-Net's number of a channel, at the end of the name of its file.
CHANNEL_SUFFIX = re.compile(r"^(?P<case>.+)_(?P<channel>\d{4})$")


def image_ending(path: Path) -> str:
    """The ending of an image's name as it is written, "" where it is no image's."""
    name = path.name.lower()
    ending = next((e for e in IMAGE_ENDINGS if name.endswith(e) and len(name) > len(e)), "")
    return path.name[len(path.name) - len(ending) :] if ending else ""


def image_stem(path: Path) -> str:
    """The name of an image without its ending."""
    return path.name.removesuffix(image_ending(path) or path.suffix)


def spacing_file(path: Path) -> Path | None:
    """The JSON beside a TIFF, named as its case, that says how large voxels are, as for nnU-Net."""
    if path.suffix.lower() not in TIFF_ENDINGS:
        return None
    stem = image_stem(path)
    numbered = CHANNEL_SUFFIX.match(stem)
    names = [stem, *([numbered["case"]] if numbered else [])]
    return next((f for name in names if (f := path.with_name(f"{name}.json")).is_file()), None)


def image_files(folder: Path) -> list[Path]:
    """Images directly in ``folder``, sorted, but for hidden ones; none where it is no folder."""
    if not folder.is_dir():
        return []
    return sorted(
        entry
        for entry in folder.iterdir()
        if entry.is_file() and not entry.name.startswith(".") and image_ending(entry)
    )


def beside(table: Path, text: str) -> Path:
    """The path that ``text`` names relative to the folder of ``table``.

    Tables from Windows write folders with backslashes, also for other systems.
    """
    path = table.parent / text.strip()
    return path if path.exists() else table.parent / text.strip().replace("\\", "/")


def unmatched(files: Iterable[Path], used: Iterable[Path], root: Path) -> tuple[Finding, ...]:
    """A warning that lists ``files`` which no case took."""
    taken = {path.resolve() for path in used}
    left = [file for file in files if file.resolve() not in taken]
    if not left:
        return ()
    names = shown([file.relative_to(root).as_posix() for file in left])
    message = f"{len(left)} files belong to no case: {names}"
    return (Finding("file-unmatched", message, "warning"),)


def without_masks(cases: Sequence[SegmentationCase], where: str) -> tuple[Finding, ...]:
    """A warning that lists ``cases`` without a mask; ``where`` is the place of the images."""
    bare = [case.case_id for case in cases if case.mask is None]
    if not bare:
        return ()
    message = f"{len(bare)} of {len(cases)} cases in {where} have no mask: {shown(bare)}"
    return (Finding("mask-missing", message, "warning"),)


def files_of(cases: Iterable[SegmentationCase]) -> list[Path]:
    """Every file that the cases refer to."""
    references: list[ImageReference] = []
    for case in cases:
        references += [*case.images, *([case.mask] if case.mask else [])]
    return [reference.path for reference in references]


def from_names(
    cases: Sequence[SegmentationCase], pattern: str, what: Literal["patient", "label"]
) -> tuple[list[SegmentationCase], tuple[Finding, ...]]:
    """Cases whose patient or class is what ``read_from_names`` finds in their ids.

    Cases that have a class already keep it. Raises as that does.
    """
    found, findings = read_from_names([case.case_id for case in cases], pattern, what)
    if what == "label":
        return [replace(c, label=c.label or found.get(c.case_id, "")) for c in cases], findings
    return [replace(c, patient_id=found.get(c.case_id) or c.case_id) for c in cases], findings


def read_from_names(
    case_ids: Sequence[str], pattern: str, what: Literal["patient", "label"]
) -> tuple[Mapping[str, str], tuple[Finding, ...]]:
    """What a regular expression finds in the ids of cases, by case, and what is to be said of it.

    The group named ``what``, else the first one, else the whole match is taken. Raises UsageError
    for a pattern that is none, LabelsError where it fits no case.
    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise UsageError(
            "This is no regular expression.",
            where=f"{what} pattern",
            met=pattern,
            wanted=str(error),
        ) from error
    found: Mapping[str, str] = {
        case_id: match[what if what in match.re.groupindex else min(1, match.re.groups)] or ""
        for case_id in case_ids
        if (match := expression.search(case_id))
    }
    if case_ids and not any(found.values()):
        raise LabelsError(
            f"The pattern of the {what} fits no case.",
            met=f"{pattern}; cases such as {shown(case_ids[:3])}",
            wanted=f"a regular expression whose first group is the {what}",
        )
    misfits = [case_id for case_id in case_ids if not found.get(case_id)]
    findings = [
        Finding(f"{what}-by-pattern", f"The {what} is taken from the case's name: {pattern}")
    ]
    if misfits:
        message = f"the pattern of the {what} fits {len(misfits)} cases not: {shown(misfits)}"
        findings.append(Finding(f"{what}-by-pattern", message, "warning"))
    return found, tuple(findings)
