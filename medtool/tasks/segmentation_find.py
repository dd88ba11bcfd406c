"""From what the user pointed at to cases: data sets with masks, or scans that wait for an answer.

A folder with a description (``medtool.data.datasets``) is a data set. In any other folder every
DICOM study is a case, with its mask where an object beside it holds one, and every file of a volume
(NIfTI, NRRD, MetaImage), for models of pictures every picture; with several channels the files of a
case end in ``_0000``, ``_0001`` and so on, as in nnU-Net's ``imagesTs``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

from medtool.core.errors import InputError
from medtool.core.files import nearest_path
from medtool.core.names import safe_file_stem
from medtool.core.records import Case, Cohort, Finding, RefusedStudy, Source
from medtool.data.dataset_record import (
    BACKGROUND,
    ImageReference,
    SegmentationCase,
    SegmentationDataset,
)
from medtool.data.datasets import is_dataset, read_dataset
from medtool.data.layout_files import (
    CHANNEL_SUFFIX,
    PICTURE_ENDINGS,
    image_ending,
    image_stem,
    spacing_file,
)
from medtool.data.nifti import is_synthetic
from medtool.data.picture_volumes import is_deep, is_of_pictures
from medtool.data.volumes import VOLUME_ENDINGS
from medtool.dicom.find import find_files
from medtool.tasks.segmentation_dicom import MaskedStudies, with_masks
from medtool.tasks.segmentation_labels import MASK, scheme_of
from medtool.tasks.segmentation_settings import SegmentationDataSection
from medtool.tasks.studies import find_studies
from medtool.tasks.study_tables import PATH_MARK_BYTES

# Which series can be a channel of this name; of other names, all that show anatomy.
MODALITIES: Mapping[str, tuple[str, ...]] = {"ct": ("CT",), "pet": ("PT",), "suv": ("PT",)}
ANY_MODALITY = ("MR", "CT", "PT")
# Files that hold an image each; a segmentation of 3D Slicer is none.
SCAN_ENDINGS = frozenset(VOLUME_ENDINGS) - {".seg.nrrd"}
COLOURS = 3
# nnU-Net's number of the only channel.
ONLY_CHANNEL = "_0000"
# A data set's description says so where nobody was scanned; a lone file in its NIfTI header.
SYNTHETIC = "synthetic"


@dataclass
class Found:
    """What was found so far; ``series`` and ``skipped`` are rows of ``check --json``."""

    cases: list[Case] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    refused: list[RefusedStudy] = field(default_factory=list)
    series: list[Mapping[str, Any]] = field(default_factory=list)
    skipped: list[Mapping[str, Any]] = field(default_factory=list)
    datasets: list[SegmentationDataset] = field(default_factory=list)
    # What DICOM studies with masks say of themselves, as tables ``dataset``.
    described: list[Mapping[str, Any]] = field(default_factory=list)


TakeScans = Callable[[Found, Path, Source, SegmentationDataSection], None]


def find_images(
    source: Source, data: SegmentationDataSection, *, take_scans: TakeScans | None = None
) -> Cohort:
    """Every case under ``source``. The intake has a table ``dataset`` where one is described.

    ``take_scans`` adds what lies in a folder that is no data set; by default ``take_images``.

    Raises InputError for a path that does not exist, LabelsError for a description that is wrong.
    """
    found = Found()
    for path in source.paths:
        if not path.exists():
            raise InputError(
                "There is nothing by this name.",
                where=str(path),
                wanted="a data set, or scans",
                nearest=nearest_path(path),
            )
        if is_dataset(path):
            _take_dataset(found, path, data)
        else:
            (take_scans or take_images)(found, path, source, data)
    cases = sorted(found.cases, key=lambda case: case.case_id)
    intake: dict[str, Any] = {"series": found.series, "skipped": found.skipped}
    if found.datasets:
        intake["dataset"] = _description(found.datasets[0])
    elif found.described:
        intake["dataset"] = found.described[0]
    return Cohort(tuple(cases), intake, tuple(found.findings), tuple(found.refused))


def _description(dataset: SegmentationDataset) -> dict[str, Any]:
    """The data set as plain values, from which the labels of the run are taken."""
    return {
        "layout": dataset.layout,
        "name": dataset.name,
        "channels": list(dataset.channels),
        "labels": {name: list(ids) for name, ids in dataset.labels.ids.items()},
        "regions_order": list(dataset.labels.regions_order),
        "ignore_id": dataset.labels.ignore_id,
    }


# --- data sets ----------------------------------------------------------------------------
def _take_dataset(found: Found, path: Path, data: SegmentationDataSection) -> None:
    dataset = read_dataset(
        path,
        labels=scheme_of(data) if data.label_ids else None,
        patient_pattern=data.patient_pattern,
    )
    channels, said = _channels_of(dataset, data.channels or _first_channels(found))
    found.datasets.append(dataset)
    found.findings += (*dataset.findings, *said)
    found.refused += dataset.refused
    for case in dataset.cases:
        found.cases.append(replace(_case_of(case, dataset, channels), findings=said))
        found.series.append(file_row(found.cases[-1]))


def _first_channels(found: Found) -> Sequence[str]:
    """Channels of the data set that came first: of those of several the labels are its too."""
    return found.datasets[0].channels if found.datasets else ()


def _channels_of(
    dataset: SegmentationDataset, wanted: Sequence[str]
) -> tuple[Sequence[str], tuple[Finding, ...]]:
    """What the images of a data set are called, and what is said of it.

    Other names of as many channels are taken by their order, as nnU-Net counts channels; not where
    a name that both know stands at another place.
    """
    own = dataset.channels
    moved = any(a != b and (a in own or b in wanted) for a, b in zip(wanted, own, strict=False))
    if tuple(wanted) == own or len(wanted) != len(own) or moved:
        return own, ()
    text = f"the channels {', '.join(own)} of the data set are taken for {', '.join(wanted)}, in "
    text += "this order"
    return wanted, (Finding("channels-by-order", text, "warning"),)


def _case_of(case: SegmentationCase, dataset: SegmentationDataset, channels: Sequence[str]) -> Case:
    images = zip(channels, case.images, strict=True)
    mask = {} if case.mask is None else {MASK: str(case.mask)}
    covariates = {**case.covariates, **({"class": case.label} if case.label else {})}
    return Case(
        case_id=case.case_id,
        patient_id=case.patient_id,
        study_uid="",
        inputs=dict(images),
        folder=case.images[0].path.parent.name,
        references=mask,
        covariates=covariates,
        facts={SYNTHETIC: dataset.synthetic, **({"part": case.part} if case.part else {})},
    )


def file_row(case: Case) -> dict[str, Any]:
    """The row of ``check --json`` of a case that is files, in the shape of a series."""
    files = [str(value) for value in case.inputs.values()]
    return {
        "uid": "",
        "key": files[0],
        "case": case.case_id,
        "patient": case.patient_id,
        "folder": str(Path(files[0]).parent),
        "description": ", ".join(Path(name).name for name in files),
        "files": len(files),
        "verdict": "accepted",
        "codes": [],
        "reasons": [],
        "repairs": [],
        "warnings": [],
        "score": 0.0,
        "chosen": True,
        "size": [],
        "spacing_mm": [],
        "origin_mm": [],
        "direction": [],
        "findings": [],
    }


# --- scans without masks ------------------------------------------------------------------
def take_images(found: Found, path: Path, source: Source, data: SegmentationDataSection) -> None:
    """DICOM studies, volumes and, where the model is one of pictures, pictures below ``path``."""
    pictures = is_of_pictures(data.preparation.spacing_mm)
    if len(data.channels) > 1:
        _take_channels(found, path, data.channels, colour=pictures)
    else:
        take_studies(found, path, source, data)
        _take_pictures(found, path, data, pictures=pictures)


def take_studies(found: Found, path: Path, source: Source, data: SegmentationDataSection) -> None:
    """DICOM studies and files of volumes below ``path``, each a case."""
    channels = data.channels or ["image"]
    if len(channels) > 1:
        _take_channels(found, path, channels)
        return
    (channel,) = channels
    studies = find_studies(
        replace(source, paths=(path,)),
        patient_key=data.patient_key,
        modalities=MODALITIES.get(channel.lower(), ANY_MODALITY),
        channel=channel,
        endings=SCAN_ENDINGS,
    )
    renamed = {case.case_id: _without_number(case, channel) for case in studies.cases}
    skipped = studies.intake["skipped"]
    masked = with_masks(list(renamed.values()), skipped, channel, named=bool(data.channels))
    found.cases += masked.cases
    found.findings += (*studies.findings, *masked.findings)
    found.refused += studies.refused
    found.skipped += [row for row in skipped if str(row["file"]) not in masked.taken]
    if masked.labels:
        found.described.append(_described(path, masked))
    found.series += [
        {**row, "case": renamed[row["case"]].case_id} if row["case"] in renamed else row
        for row in studies.intake["series"]
    ]


def _described(path: Path, masked: MaskedStudies) -> dict[str, Any]:
    """The table ``dataset`` of DICOM studies with masks: structures are numbered by their names."""
    labels = {BACKGROUND: [0], **{name: [number] for name, number in masked.labels.items()}}
    return {
        "layout": "dicom",
        "name": path.name,
        "channels": [masked.channel],
        "labels": labels,
        "regions_order": [],
        "ignore_id": None,
    }


def _without_number(case: Case, channel: str) -> Case:
    """The case of a lone file, named without nnU-Net's number of its only channel.

    Any other number tells patients apart, and a name that a table gave is a person's.
    """
    image = case.inputs[channel]
    if not isinstance(image, Path):
        return case
    named = image_stem(image)
    numbered = _is_only(named) and case.case_id.endswith(safe_file_stem(named))
    name = case.case_id.removesuffix(ONLY_CHANNEL) if numbered else case.case_id
    patient = name if case.patient_id == case.case_id else case.patient_id
    facts = {**case.facts, SYNTHETIC: is_synthetic(image)}
    return replace(case, case_id=name, patient_id=patient, facts=facts)


def _take_pictures(
    found: Found, path: Path, data: SegmentationDataSection, *, pictures: bool
) -> None:
    """Pictures among what was skipped, as cases, where the model knows such; deep TIFFs always."""
    (channel,) = data.channels or ["image"]
    skipped = [Path(str(row["file"])) for row in found.skipped]
    taken = [file for file in skipped if _is_picture_case(file, pictures=pictures)]
    found.skipped = [row for row in found.skipped if Path(str(row["file"])) not in taken]
    names = Counter([*(case.case_id for case in found.cases), *map(_case_name, taken)])
    base = path.parent if path.is_file() else path
    for file in taken:
        name = _case_name(file)
        if names[name] > 1:
            inside = file.relative_to(base).as_posix()
            name += "_" + blake2b(inside.encode(), digest_size=PATH_MARK_BYTES).hexdigest()
        facts, inputs = {SYNTHETIC: False}, {channel: file}
        found.cases.append(Case(name, name, "", inputs, folder=file.parent.name, facts=facts))
        found.series.append(file_row(found.cases[-1]))


def _is_picture(file: Path) -> bool:
    return image_ending(file).lower() in PICTURE_ENDINGS


def _is_picture_case(file: Path, *, pictures: bool) -> bool:
    """Whether a picture is to be answered: any other may lie beside scans for any reason."""
    if not _is_picture(file) or pictures:
        return _is_picture(file)
    named = CHANNEL_SUFFIX.match(image_stem(file)) or spacing_file(file)
    return bool(named) and is_deep(file)


def _case_name(file: Path) -> str:
    """The name of a file without nnU-Net's number of a channel."""
    stem = image_stem(file)
    return safe_file_stem(stem.removesuffix(ONLY_CHANNEL) if _is_only(stem) else stem)


def _is_only(stem: str) -> bool:
    """Whether a name ends in the number of the first channel, which is that of a lone one."""
    return len(stem) > len(ONLY_CHANNEL) and stem.endswith(ONLY_CHANNEL)


def _take_channels(
    found: Found, path: Path, channels: Sequence[str], *, colour: bool = False
) -> None:
    """A case for each set of files below ``path`` that differ in the number of the channel.

    With ``colour`` a picture may hold three channels.
    """
    files, skipped = find_files([path])
    found.skipped += [{"file": str(s.file), "code": s.code, "why": s.why} for s in skipped]
    colour = colour and len(channels) == COLOURS
    grouped: dict[tuple[Path, str], dict[int, Path]] = {}
    for file in files:
        numbered = CHANNEL_SUFFIX.match(image_stem(file)) if image_ending(file) else None
        if numbered is not None:
            images = grouped.setdefault((file.parent, numbered["case"]), {})
            _take_channel(found, images, int(numbered["channel"]), file)
        elif colour and _is_picture(file):
            images = grouped.setdefault((file.parent, image_stem(file)), {})
            _take_channel(found, images, 0, file)
        else:
            text = "no image with the number of a channel (_0000, _0001, ...)"
            found.skipped.append({"file": str(file), "code": "file-unmatched", "why": text})
    for (folder, name), images in sorted(grouped.items()):
        inputs: dict[str, Any] = {}
        if colour and list(images) == [0] and _is_picture(images[0]):
            # Red, green and blue.
            inputs = {c: ImageReference(images[0], number) for number, c in enumerate(channels)}
        elif sorted(images) == list(range(len(channels))):
            inputs = dict(zip(channels, (images[n] for n in sorted(images)), strict=True))
        if inputs:
            facts = {SYNTHETIC: is_synthetic(images[0])}
            found.cases.append(Case(name, name, "", inputs, folder=folder.name, facts=facts))
            found.series.append(file_row(found.cases[-1]))
        else:
            found.refused.append(_other_channels(name, images, channels))


def _take_channel(found: Found, images: dict[int, Path], number: int, file: Path) -> None:
    """A second file for one channel of one case is named, and left out."""
    first = images.setdefault(number, file)
    if first != file:
        text = f"{first.name} is this channel of the same case already"
        found.skipped.append({"file": str(file), "code": "file-unmatched", "why": text})


def _other_channels(name: str, images: Mapping[int, Path], channels: Sequence[str]) -> RefusedStudy:
    met = ", ".join(map(str, sorted(images)))
    wanted = ", ".join(f"{number} ({channel})" for number, channel in enumerate(channels))
    text = f"{name} has the channels {met}; the model wants {wanted}."
    return RefusedStudy(name, name, "", "channels-differ", text)
