"""Answers of a segmentation: the mask on the input's grid, its file, its volumes, its pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medtool import __version__
from medtool.core.deployed import hashes_of, one_hash
from medtool.core.names import case_file_stem
from medtool.core.records import Case, Prediction, Prepared, Truth
from medtool.data.dataset_record import BACKGROUND, ImageReference
from medtool.data.images import read_picture
from medtool.data.masks import label_volumes_ml, voxel_ml, write_mask, write_mask_picture
from medtool.data.nifti_writer import write_nifti
from medtool.data.picture_volumes import measured
from medtool.data.placement import placement_from_facts
from medtool.data.volumes import read_mask
from medtool.dicom.series import Series
from medtool.predict.choose_postprocessing import Validated, choose_postprocessing
from medtool.predict.decide import Decided, LabelRule, decide_planes, image_planes, way_back
from medtool.predict.postprocess import Step, postprocessed, step_from_dict
from medtool.predict.region import Region, cut_out, put_back
from medtool.predict.sliding_window import Windows, sliding_window
from medtool.predict.together import mean_planes
from medtool.tasks.segmentation_labels import (
    BACKGROUND_ID,
    MASK,
    has_regions,
    output_ids,
    structures,
    volume_column,
)
from medtool.tasks.segmentation_pictures import draw_overlay
from medtool.tasks.segmentation_reading import read_case
from medtool.tasks.segmentation_region import background_logits, coarse_mask, region_of
from medtool.tasks.segmentation_settings import LEFT_RIGHT
from medtool.tasks.segmentation_sides import left_right_axes

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from medtool.core.foreign import ForeignModel
    from medtool.core.geometry import Grid
    from medtool.predict.model import Model
    from medtool.predict.sliding_window import Slab
    from medtool.tasks.segmentation_settings import (
        SegmentationDataSection,
        SegmentationSettings,
    )

MASKS_FOLDER, SEG_FOLDER = "masks", "dicom-seg"
# Under this name probabilities stand in predictions, rows and folders.
PROBABILITIES = "probabilities"
# Of a picture: the only structure of a mask.
SHOWN = 255


def predict_mask(
    settings: SegmentationSettings, model: Model, prepared: Prepared, case: Case
) -> Prediction:
    """The mask (z, y, x) of ids on the input's own grid. Raises CaseRefused."""
    return predict_mean(model, [Part(settings, model.network, prepared)], case)


@dataclass(frozen=True)
class Part:
    """A network that answers, how, what it sees, and for how many models it speaks."""

    settings: SegmentationSettings
    network: nn.Module
    prepared: Prepared
    models: int = 1


def predict_mean(model: Model, parts: Sequence[Part], case: Case) -> Prediction:
    """The mask of the mean of the logits of ``parts``; the first says what labels mean."""
    settings, grid = parts[0].settings, measured(parts[0].prepared.grids["image"])
    rule = LabelRule(output_ids(settings.data), regions=has_regions(settings.data))
    ways = [way_back(placement_from_facts(part.prepared.facts)) for part in parts]
    regions = _regions(model, parts, case)
    planes = [
        image_planes(_slabs(part, model, region), way)
        for part, way, region in zip(parts, ways, regions, strict=True)
    ]
    mean = mean_planes(planes, [part.models for part in parts]) if len(parts) > 1 else planes[0]
    decided = decide_planes(mean, ways[0], rule, probabilities=settings.infer.probabilities)
    mask = postprocessed(decided.mask, postprocessing_steps(settings, model), voxel_ml(grid))
    return Prediction(
        case_id=case.case_id,
        patient_id=case.patient_id,
        scalars={},
        arrays={MASK: mask, **kept_chances(settings.data, decided)},
        grids={} if grid is None else {MASK: grid},
        findings=() if regions[0] is None else regions[0].findings,
    )


def _regions(model: Model, parts: Sequence[Part], case: Case) -> list[Region | None]:
    """Of each part where to look closely; None is everywhere."""
    coarse = coarse_mask(model, case)
    if coarse is None:
        return [None] * len(parts)
    return [region_of(part.settings, part.prepared, coarse) for part in parts]


def _mirrored(part: Part, dimensions: int) -> tuple[int, ...]:
    """Along which axes of a window inputs are mirrored: none that training has not mirrored."""
    if not part.settings.infer.mirror:
        return ()
    if part.settings.augment.mirror == LEFT_RIGHT:
        return left_right_axes(part.prepared, dimensions)
    return tuple(range(dimensions))


def _slabs(part: Part, model: Model, region: Region | None) -> Iterator[Slab]:
    """Logits of the prepared image, as the settings say how windows move."""
    infer, patch = part.settings.infer, tuple(part.settings.model.patch_size_vox)
    windows = Windows(
        patch,
        step=infer.step,
        batch=infer.batch_windows,
        mirror_axes=_mirrored(part, len(patch)),
    )
    volume = part.prepared.arrays["image"]
    slabs = sliding_window(
        part.network,
        volume if region is None else cut_out(volume, region),
        windows,
        device=model.device,
        arithmetic=model.autocast,
    )
    if region is None:
        return slabs
    return put_back(slabs, region, volume.shape[1:], background_logits(part.settings.data))


def kept_chances(data: SegmentationDataSection, decided: Decided) -> dict[str, NDArray[np.float32]]:
    """Probabilities (structures, z, y, x), without the background, where they were asked for."""
    chances = decided.probabilities
    if chances is None:
        return {}
    return {PROBABILITIES: chances if has_regions(data) else chances[1:]}


def postprocessing_steps(
    settings: SegmentationSettings, model: Model | ForeignModel
) -> tuple[Step, ...]:
    """What is removed from masks: as the preset says, or as the selection part decided."""
    asked = settings.infer.largest_component
    steps = (model.document.get("postprocessing") or {}).get("steps", ())
    decided = tuple(step_from_dict(step) for step in steps)
    if asked == "auto":
        return decided
    small = tuple(step for step in decided if step.kind == "least-volume")
    if asked == "never":
        return small
    under, known = _becomes(settings), structures(settings.data)
    largest = (
        Step("largest-component", ids, becomes=under.get(name, BACKGROUND_ID))
        for name, ids in known.items()
    )
    return (*largest, *small)


def _becomes(settings: SegmentationSettings) -> dict[str, int]:
    """By label, the id that its removed pieces get."""
    known = structures(settings.data)
    written = output_ids(settings.data)[0 if has_regions(settings.data) else 1 :]
    ids = {BACKGROUND: BACKGROUND_ID, **dict(zip(known, written, strict=True))}
    return {name: ids[other] for name, other in settings.infer.removed_becomes.items()}


def decide_postprocessing(
    settings: SegmentationSettings, predictions: Sequence[Prediction], truths: Sequence[Truth]
) -> dict[str, Any]:
    """What is to be removed from masks, where that helped on these cases; {} for nothing."""
    infer = settings.infer
    largest = infer.largest_component == "auto"
    if not (largest or infer.least_volumes_ml) or not predictions:
        return {}

    def case(number: int) -> Validated:
        predicted, truth = predictions[number], truths[number]
        return Validated(
            predicted.arrays[MASK], truth.arrays[MASK], voxel_ml(predicted.grids.get(MASK))
        )

    cases = [partial(case, number) for number in range(len(predictions))]
    chosen = choose_postprocessing(
        cases,
        structures(settings.data),
        largest=largest,
        least_volumes_ml=infer.least_volumes_ml,
        becomes=_becomes(settings),
        ignore_label=settings.data.ignore_id,
    )
    if not chosen.steps:
        return {}
    return {
        "postprocessing": {
            "steps": [step.as_dict() for step in chosen.steps],
            "tried": [
                {
                    "step": trial.step.as_dict(),
                    "accepted": trial.accepted,
                    "before": trial.before,
                    "after": trial.after,
                }
                for trial in chosen.trials
            ],
        }
    }


def write_prediction(
    data: SegmentationDataSection, prediction: Prediction, case: Case, folder: Path
) -> dict[str, Any]:
    """The mask below ``folder``, and the row of the case.

    It is a NIfTI file; a picture whose file does not say how large pixels are gets a PNG (where
    there is one structure, it is 255), and no volumes.
    """
    mask, grid, known = prediction.arrays[MASK], prediction.grids.get(MASK), structures(data)
    ending = ".png" if grid is None else ".nii.gz"
    name = f"{MASKS_FOLDER}/{case_file_stem(prediction.case_id)}{ending}"
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if grid is None:
        write_mask_picture(path, _as_shown(mask, data))
        volumes: Mapping[str, float | None] = dict.fromkeys(("", *known))
    else:
        write_mask(path, mask, grid)
        every = {number for ids in known.values() for number in ids}
        volumes = label_volumes_ml(mask, grid, {**known, "": every})
    row: dict[str, Any] = {"mask": name, "volume_ml": volumes[""]}
    if PROBABILITIES in prediction.arrays:
        row[PROBABILITIES] = None if grid is None else f"{PROBABILITIES}/{path.name}"
    if grid is not None and PROBABILITIES in prediction.arrays:
        write_nifti(folder / row[PROBABILITIES], prediction.arrays[PROBABILITIES], grid)
    return row | {volume_column(label): volumes[label] for label in known}


def _only_id(data: SegmentationDataSection) -> int | None:
    """The id of the only structure; None where there are several."""
    ids = {number for numbers in structures(data).values() for number in numbers}
    return ids.pop() if len(ids) == 1 else None


def _as_shown(mask: NDArray[Any], data: SegmentationDataSection) -> NDArray[Any]:
    """The mask as a picture shows it: one structure in white."""
    only = _only_id(data)
    return mask if only is None else np.where(mask == only, SHOWN, 0)


def read_prediction(
    data: SegmentationDataSection, row: Mapping[str, Any], folder: Path
) -> Prediction:
    """The prediction of a row, with its mask. Raises CaseRefused where the file is damaged."""
    reference = ImageReference(folder / str(row["mask"]))
    grids: dict[str, Grid] = {}
    if reference.path.suffix == ".png":
        array, only = read_picture(reference).array[None], _only_id(data)
        array = array if only is None else np.where(array == SHOWN, only, 0)
    else:
        mask = read_mask(reference)
        array, grids = mask.array, {MASK: mask.grid}
    return Prediction(
        case_id=str(row["case"]),
        patient_id=str(row["patient"]),
        scalars={},
        arrays={MASK: array},
        grids=grids,
    )


def draw_prediction(
    data: SegmentationDataSection, prediction: Prediction, case: Case, folder: Path
) -> list[Path]:
    """One picture of the first channel with the answer and, where it is known, the reference."""
    found = read_case(case, data)
    path = folder / "planes.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = prediction.arrays[MASK].astype(np.uint16)
    truth = None if found.label is None else found.label.clip(min=0).astype(np.uint16)
    placed = measured(found.grid) is not None
    draw_overlay(
        found.image[0], mask, truth, found.grid, path, caption=prediction.case_id, placed=placed
    )
    return [path]


def write_dicom_seg(
    settings: SegmentationSettings,
    prediction: Prediction,
    case: Case,
    folder: Path,
    model: Model,
) -> list[Path]:
    """The mask as a DICOM SEG on the source slices; nothing where the case is no DICOM series."""
    from medtool.dicom.segmentation import Maker, write_segmentation
    from medtool.tasks.segmentation_codes import dicom_segments

    series = next((one for one in case.inputs.values() if isinstance(one, Series)), None)
    if series is None:
        return []
    path = folder / SEG_FOLDER / f"{case_file_stem(prediction.case_id)}.dcm"
    path.parent.mkdir(parents=True, exist_ok=True)
    maker = Maker(
        model=f"medtool {model.task.name}",
        version=__version__,
        fingerprint=one_hash(hashes_of(model.path)),
    )
    mask = prediction.arrays[MASK].astype(np.uint16)
    write_segmentation(mask, series, dicom_segments(settings), path, maker=maker)
    return [path]
