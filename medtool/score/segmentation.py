"""One case: every metric of every structure of a prediction against its reference.

A structure is a label or a region, which is several labels taken as one. Metrics are computed on
the grid that both masks share; masks of different shapes are refused, never resampled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite, nan, prod, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medtool.core.errors import UsageError
from medtool.score.lesions import LesionRule, lesions
from medtool.score.overlap import Mask, overlap
from medtool.score.surface import edge_pair, joint_box, surfel_pair

LabelArray = NDArray[np.integer[Any]]
Row = dict[str, Any]

# Tolerance of the surface Dice where none is given for a structure: about a voxel of routine CT.
DEFAULT_TOLERANCE_MM = 2.0
MM3_PER_ML = 1000.0
# How names end whose values are no pure numbers.
LENGTHS = ("_mm", "_mm2", "_ml")

# What two masks have in common, as a share.
OVERLAPS = ("dice", "iou", "nsd", "lesion_f1")
DISTANCES = (
    "hd_mm",
    "hd95_mm",
    "assd_mm",
    "prediction_to_reference_mm",
    "reference_to_prediction_mm",
)


@dataclass(frozen=True)
class SegmentationOptions:
    """What is computed, and the definitions that are a choice.

    ``tolerance_mm`` gives structures a tolerance of their own. Voxels whose reference is
    ``ignore_label`` count nowhere. Lesions are counted in the structures named in ``lesions``.
    ``where_present``: overlaps are undefined where the reference has none of a structure, also
    when the prediction invents some, which its volume then says.
    """

    surfaces: bool = True
    tolerance_mm: Mapping[str, float] = field(default_factory=dict)
    default_tolerance_mm: float = DEFAULT_TOLERANCE_MM
    ignore_label: int | None = None
    lesions: tuple[str, ...] = ()
    lesion_rule: LesionRule = LesionRule()
    where_present: bool = False


def score_structures(
    prediction: LabelArray,
    reference: LabelArray,
    spacing_mm: Sequence[float] | None,
    structures: Mapping[str, tuple[int, ...]],
    options: SegmentationOptions | None = None,
) -> list[Row]:
    """One row a structure, in the order of ``structures`` (name -> label ids).

    ``prediction`` and ``reference`` hold label ids on one grid of two or three axes,
    ``spacing_mm`` is in the order of these axes ([z, y, x]); None where it is not known: what has
    a length in it is then undefined. Undefined values are NaN. In 2D areas in mm^2 stand in place
    of volumes. A volume of one slice has volumes, and the surfaces of 2D: contours. Raises
    UsageError where shapes or spacing do not fit.
    """
    chosen = options or SegmentationOptions()
    is_known = spacing_mm is not None
    spacing_mm = spacing_mm or (1.0,) * prediction.ndim
    _check(prediction, reference, spacing_mm)
    used = None if chosen.ignore_label is None else reference != chosen.ignore_label
    rows = []
    for name, ids in structures.items():
        masks = [_mask(labels, ids, used) for labels in (prediction, reference)]
        voxels = prediction.size if used is None else int(np.count_nonzero(used))
        row = _row(name, masks[0], masks[1], voxels, spacing_mm, chosen)
        rows.append(row if is_known else _without_lengths(row))
    return rows


def _without_lengths(row: Row) -> Row:
    """The row with everything undefined that a spacing has a say in."""
    kept = {"tolerance_mm"}
    return {
        name: nan if name == "nsd" or (name.endswith(LENGTHS) and name not in kept) else value
        for name, value in row.items()
    }


def _check(prediction: LabelArray, reference: LabelArray, spacing_mm: Sequence[float]) -> None:
    if prediction.shape != reference.shape:
        raise UsageError(
            "Prediction and reference differ in shape.",
            met=f"{_size(prediction)} and {_size(reference)} voxels",
            wanted="two masks on one grid",
            how="write the prediction on the grid of its image; nothing is resampled for scoring.",
        )
    if prediction.ndim not in (2, 3) or len(spacing_mm) != prediction.ndim:
        raise UsageError(
            "Masks are scored in two or three dimensions.",
            met=f"{prediction.ndim} axes, a spacing of {len(spacing_mm)}",
            wanted="2 or 3 axes, and as many spacings",
        )
    if not all(isfinite(step) and step > 0 for step in spacing_mm):
        raise UsageError(
            "A spacing is no length.",
            met=", ".join(f"{step:g}" for step in spacing_mm) + " mm",
            wanted="more than 0 mm along each axis",
        )


def _size(labels: LabelArray) -> str:
    return " x ".join(map(str, labels.shape))


def _mask(labels: LabelArray, ids: Sequence[int], used: Mask | None) -> Mask:
    mask = labels == ids[0] if len(ids) == 1 else np.isin(labels, list(ids))
    return mask if used is None else mask & used


def _row(
    name: str,
    prediction: Mask,
    reference: Mask,
    voxels: int,
    spacing_mm: Sequence[float],
    options: SegmentationOptions,
) -> Row:
    box = joint_box(prediction, reference)
    across = _across(prediction.shape)
    extent_mm = _without(
        across, [n * step for n, step in zip(prediction.shape, spacing_mm, strict=True)]
    )
    prediction, reference = prediction[box], reference[box]
    counts = overlap(prediction, reference, voxels)
    unit, voxel = _unit(spacing_mm)
    row: Row = {
        "structure": name,
        "tp": counts.tp,
        "fp": counts.fp,
        "fn": counts.fn,
        "tn": counts.tn,
        **counts.metrics(),
        f"prediction_{unit}": counts.prediction_vox * voxel,
        f"reference_{unit}": counts.reference_vox * voxel,
        "image_diagonal_mm": sqrt(sum(length_mm**2 for length_mm in extent_mm)),
    }
    if options.surfaces:
        tolerance_mm = options.tolerance_mm.get(name, options.default_tolerance_mm)
        row |= _surface_metrics(
            _in_plane(prediction, across),
            _in_plane(reference, across),
            _without(across, spacing_mm),
            tolerance_mm,
        )
    if name in options.lesions:
        row |= _lesion_metrics(prediction, reference, spacing_mm, options.lesion_rule)
    if options.where_present and not counts.reference_vox:
        row |= {metric: nan for metric in OVERLAPS if metric in row}
    return row


def _across(shape: Sequence[int]) -> int | None:
    """The axis across the only slice of a volume, along which a mask has no surface; else None.

    The faces of a slice lie as near to each other as its thickness, whatever is drawn on it: as
    surface they would make every distance small and every share large.
    """
    single = [axis for axis, length in enumerate(shape) if length == 1]
    return single[0] if len(shape) == 3 and single else None


def _in_plane(mask: Mask, across: int | None) -> Mask:
    # A mask that is empty has lost its only slice.
    return mask if across is None else np.asarray(mask.any(axis=across))


def _without(across: int | None, values: Sequence[float]) -> tuple[float, ...]:
    return tuple(value for axis, value in enumerate(values) if axis != across)


def _unit(spacing_mm: Sequence[float]) -> tuple[str, float]:
    """Unit of what a voxel measures, and how much of it one is."""
    return (
        ("mm2", prod(spacing_mm)) if len(spacing_mm) == 2 else ("ml", prod(spacing_mm) / MM3_PER_ML)
    )


def _surface_metrics(
    prediction: Mask, reference: Mask, spacing_mm: Sequence[float], tolerance_mm: float
) -> Row:
    """Distances are NaN unless both masks hold something; the surface Dice only needs one."""
    found = {
        "nsd": nan,
        "tolerance_mm": tolerance_mm,
        "surface_axes": len(spacing_mm),
        **dict.fromkeys(DISTANCES, nan),
    }
    if prediction.any() != reference.any():
        return found | {"nsd": 0.0}
    if not reference.any():
        return found
    surfels = surfel_pair(prediction, reference, spacing_mm)
    return found | {
        "nsd": surfels.surface_dice(tolerance_mm),
        "hd_mm": surfels.hausdorff_mm(),
        "hd95_mm": surfels.hausdorff_mm(95),
        "assd_mm": edge_pair(prediction, reference, spacing_mm).symmetric_mean_mm(),
        "prediction_to_reference_mm": surfels.prediction.mean_mm,
        "reference_to_prediction_mm": surfels.reference.mean_mm,
    }


def _lesion_metrics(
    prediction: Mask, reference: Mask, spacing_mm: Sequence[float], rule: LesionRule
) -> Row:
    counts = lesions(prediction, reference, rule)
    unit, voxel = _unit(spacing_mm)
    return {
        "lesion_tp": counts.found,
        "lesion_fp": counts.invented,
        "lesion_fn": counts.missed,
        "lesion_f1": counts.f1,
        f"false_positive_{unit}": counts.false_positive_vox * voxel,
        f"false_negative_{unit}": counts.false_negative_vox * voxel,
    }
