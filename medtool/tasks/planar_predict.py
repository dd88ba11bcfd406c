"""Answers slice by slice: the mask at the input's own size, and its picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from medtool.core.geometry import Grid
from medtool.core.records import Case, Prediction, Prepared
from medtool.data.masks import voxel_ml
from medtool.predict.decide import LabelRule, Placement, decide_planes
from medtool.predict.planes import Planes, resized_planes
from medtool.predict.postprocess import postprocessed
from medtool.predict.sliding_window import require_finite
from medtool.predict.together import mean_planes
from medtool.tasks.planar_examples import as_input, with_channels
from medtool.tasks.planar_learning import logit_cut
from medtool.tasks.planar_reading import read_slices
from medtool.tasks.segmentation_labels import MASK, has_regions, output_ids
from medtool.tasks.segmentation_pictures import draw_overlay
from medtool.tasks.segmentation_predict import kept_chances, postprocessing_steps

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medtool.predict.model import Model
    from medtool.tasks.planar_settings import PlanarDataSection, PlanarSettings


def predict_slices(
    settings: PlanarSettings, model: Model, prepared: Prepared, case: Case
) -> Prediction:
    """The mask (slices, rows, columns) of ids at the input's size. Raises CaseRefused."""
    return _decided(settings, model, [_planes(settings, model, prepared)], prepared, case)


def predict_slices_together(model: Model, prepared: Sequence[Prepared], case: Case) -> Prediction:
    """The mask of the mean of the logits of all members of ``model``."""
    members = [cast("PlanarSettings", member.task.settings) for member in model.members]
    planes = [
        _planes(settings, member, own)
        for settings, member, own in zip(members, model.members, prepared, strict=True)
    ]
    return _decided(members[0], model, planes, prepared[0], case)


def _decided(
    settings: PlanarSettings,
    model: Model,
    several: Sequence[Planes],
    prepared: Prepared,
    case: Case,
) -> Prediction:
    """The mask of the mean of ``several`` at the input's size."""
    data, grid, size = settings.data, prepared.grids.get("image"), _size_of(prepared)
    rule = LabelRule(output_ids(data), regions=has_regions(data), cut=logit_cut(settings))
    depth, rows, columns = size
    crop = (slice(0, depth), slice(0, rows), slice(0, columns))
    place = Placement(size, (0, 1, 2), crop, depth)
    mean = mean_planes(several, [1] * len(several))
    decided = decide_planes(mean, place, rule, probabilities=settings.infer.probabilities)
    mask = postprocessed(decided.mask, postprocessing_steps(settings, model), voxel_ml(grid))
    return Prediction(
        case_id=case.case_id,
        patient_id=case.patient_id,
        scalars={},
        arrays={MASK: mask, **kept_chances(data, decided)},
        grids={} if grid is None else {MASK: grid},
    )


def _planes(settings: PlanarSettings, model: Model, prepared: Prepared) -> Planes:
    """Logits of each slice at the input's size."""
    images = prepared.arrays["image"]
    return resized_planes(_logits(settings, model, images), len(images), _size_of(prepared))


def _size_of(prepared: Prepared) -> tuple[int, int, int]:
    """Slices, rows and columns of the input."""
    rows, columns = prepared.facts["size_px"]
    return int(prepared.facts["slices"]), int(rows), int(columns)


def _logits(
    settings: PlanarSettings, model: Model, images: NDArray[np.float16]
) -> Iterator[NDArray[np.float32]]:
    """Logits (outputs, rows, columns) of each slice, several passing the network at a time."""
    step, channels = settings.infer.batch_slices, settings.model.input_channels
    for start in range(0, len(images), step):
        part = with_channels(images[start : start + step].astype(np.float32))
        batch = as_input(part, channels).to(model.device)
        with model.autocast():
            logits = model.network(batch).float()
        require_finite(logits)
        yield from logits.cpu().numpy()


def draw_slices(
    data: PlanarDataSection, prediction: Prediction, case: Case, folder: Path
) -> list[Path]:
    """One picture with the answer and, where it is known, the reference."""
    found = read_slices(case, data)
    path = folder / "planes.png"
    grey = found.image.astype(np.float32)
    if grey.ndim == 4:
        grey = grey.mean(axis=-1)
    mask = prediction.arrays[MASK].astype(np.uint16)
    truth = None if found.label is None else found.label.astype(np.uint16)
    slices, rows, columns = mask.shape
    grid = found.grid or Grid((columns, rows, slices), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    placed = found.grid is not None
    draw_overlay(grey, mask, truth, grid, path, caption=prediction.case_id, placed=placed)
    return [path]
