"""Where to look closely: around what a model of low resolution finds, if it finds enough.

The coarse model is a checkpoint of its own, of any data that show the same organ: it prepares the
case for itself and answers on the input's grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from medtool.core.errors import CaseRefused
from medtool.data.placement import Placement, placement_from_facts
from medtool.predict.region import Region, find_region, whole_volume
from medtool.tasks.segmentation_labels import MASK, has_regions, output_count

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from medtool.core.records import Case, Prediction, Prepared
    from medtool.predict.model import Model
    from medtool.tasks.segmentation_settings import SegmentationDataSection, SegmentationSettings

# Under this name the coarse model stands among the companions of a model.
COARSE = "region"
# A logit that is as good as certain.
CERTAIN = 20.0


def coarse_mask(model: Model, case: Case) -> NDArray[np.bool_] | CaseRefused | None:
    """What the coarse model of ``model`` finds, on the input's grid; None where it has none.

    A refusal where it cannot answer: that is no reason to give no answer at all.
    """
    coarse = model.companions.get(COARSE)
    if coarse is None:
        return None
    try:
        found = _answer(coarse, replace(case, references={}))
    except CaseRefused as refusal:
        return refusal
    marked: NDArray[np.bool_] = found.arrays[MASK] > 0
    return marked


def _answer(coarse: Model, case: Case) -> Prediction:
    """The answer of the coarse model, or of all models of its file together."""
    if not coarse.members:
        return coarse.task.predict(coarse, coarse.task.prepare(case), case)
    # Folds of one preparation share what was prepared.
    known: dict[str, Prepared] = {}
    every = []
    for member in coarse.members:
        key = repr(member.task.preparation_key())
        if key not in known:
            known[key] = member.task.prepare(case)
        every.append(known[key])
    return coarse.task.predict_together(coarse, every, case)


def region_of(
    settings: SegmentationSettings,
    prepared: Prepared,
    coarse: NDArray[np.bool_] | CaseRefused,
) -> Region:
    """The box of the prepared volume around ``coarse``, the whole where it says too little."""
    place = placement_from_facts(prepared.facts)
    size = place.prepared_size_vox
    if isinstance(coarse, CaseRefused):
        text = f"The coarse look was not possible ({coarse.code}: {coarse.what.rstrip('.')})"
        return whole_volume(size, f"{text}: the whole volume was looked at closely.")
    patch = settings.model.patch_size_vox
    return find_region(
        _cropped(coarse, place),
        size,
        place.prepared_spacing_mm,
        margin_mm=settings.infer.region_margin_mm,
        least_ml=settings.infer.region_least_ml,
        least_size_vox=(*(1 for _ in range(len(size) - len(patch))), *patch),
    )


def _cropped(mask: NDArray[np.bool_], place: Placement) -> NDArray[np.bool_]:
    """The part of a mask on the input's grid that was prepared, its axes turned alike."""
    turned = place.turn.there(mask)
    return turned[tuple(slice(start, stop) for start, stop in place.box)]


def background_logits(data: SegmentationDataSection) -> Sequence[float]:
    """Logits of what lies outside the region: nothing is there."""
    count = output_count(data)
    if has_regions(data):
        return (-CERTAIN,) * count
    return (CERTAIN, *(-CERTAIN for _ in range(count - 1)))
