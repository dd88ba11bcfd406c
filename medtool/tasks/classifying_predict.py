"""The class of a case: one look around the lesion that the mask shows.

The masks come first, window by window; averaging the head over windows would ask it about many that
show nothing of what is classified. Where the mask has no lesion, the look is around all labels
together, else in the middle; a case without an answer of the mask is answered all the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from medtool.core.errors import CaseRefused
from medtool.core.records import Case, Prediction, Prepared
from medtool.data.patches import patch_start
from medtool.data.placement import Placement, placement_from_facts
from medtool.tasks.classifying_classes import lesion_ids, organ_ids, probability_column
from medtool.tasks.segmentation_labels import MASK
from medtool.tasks.segmentation_predict import predict_mask

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medtool.nets.classification import ClassifyingUNet
    from medtool.predict.model import Model
    from medtool.tasks.classifying_settings import ClassifyingDataSection, ClassifyingSettings

CLASS = "class"


def predict_classified(
    settings: ClassifyingSettings, model: Model, prepared: Prepared, case: Case
) -> Prediction:
    """The mask on the input's own grid, and the class with its probabilities."""
    answer = predict_mask(settings, model, prepared, case)
    return with_class(answer, [(model, settings, prepared)])


def with_class(
    answer: Prediction, looks: Sequence[tuple[Model, ClassifyingSettings, Prepared]]
) -> Prediction:
    """``answer``, whose mask says where to look, with the mean of the models' probabilities."""
    mask = answer.arrays[MASK]
    found = [_probabilities(settings, model, one, mask) for model, settings, one in looks]
    data = looks[0][1].data
    return replace(answer, scalars=class_scalars(data, np.mean(found, axis=0)))


def _probabilities(
    settings: ClassifyingSettings, model: Model, prepared: Prepared, mask: NDArray[Any]
) -> NDArray[np.float64]:
    """Probability of each class (classes,), by one model."""
    centre = _centre(settings.data, mask, placement_from_facts(prepared.facts))
    patch = _patch(prepared.arrays["image"], centre, settings.model.patch_size_vox)
    network = cast("ClassifyingUNet", model.network)
    with model.autocast():
        _, logits = network.both(torch.from_numpy(patch[None]).to(model.device))
    probabilities: NDArray[np.float64] = torch.softmax(logits[0].double(), dim=0).cpu().numpy()
    if not np.isfinite(probabilities).all():
        raise CaseRefused(
            "not-finite",
            "The network gave no number for a class of this case.",
            wanted="finite logits",
            how="try --precision 32; if it stays, the case or the checkpoint is at fault.",
        )
    return probabilities


def class_scalars(
    data: ClassifyingDataSection, probabilities: NDArray[np.float64]
) -> dict[str, Any]:
    """The columns of the class: its name, and the probability of each (classes,)."""
    chances = {
        probability_column(name): float(value)
        for name, value in zip(data.classes, probabilities, strict=True)
    }
    return {CLASS: data.classes[int(probabilities.argmax())], **chances}


def _centre(
    data: ClassifyingDataSection, mask: NDArray[Any], placement: Placement
) -> tuple[int, ...]:
    """The voxel of the prepared image to look at."""
    for ids in (lesion_ids(data), organ_ids(data)):
        found = middle_of_largest(np.isin(mask, ids))
        if found is not None:
            return _prepared_voxel(found, placement)
    return tuple(size // 2 for size in placement.prepared_size_vox)


def middle_of_largest(marked: NDArray[np.bool_]) -> tuple[int, ...] | None:
    """The voxel of the largest piece of ``marked`` (z, y, x) that is nearest to its centroid."""
    from scipy import ndimage

    boxes = ndimage.find_objects(marked.astype(np.uint8))
    if not boxes:
        return None
    (box,) = boxes
    pieces, _ = ndimage.label(marked[box], np.ones((3,) * marked.ndim))
    largest = int(np.bincount(pieces.ravel())[1:].argmax()) + 1
    voxels = np.argwhere(pieces == largest)
    nearest = voxels[((voxels - voxels.mean(axis=0)) ** 2).sum(axis=1).argmin()]
    return tuple(int(v) + part.start for v, part in zip(nearest, box, strict=True))


def _prepared_voxel(voxel: Sequence[int], placement: Placement) -> tuple[int, ...]:
    """Where a voxel of the input lies in the prepared image."""
    turned = placement.turn.voxel(voxel, placement.input_size_vox)
    found = []
    for place, (start, stop), size in zip(
        turned, placement.box, placement.prepared_size_vox, strict=True
    ):
        inside = (place - start + 0.5) / (stop - start)
        found.append(int(min(max(inside * size, 0), size - 1)))
    return tuple(found)


def _patch(
    image: NDArray[np.float32], centre: Sequence[int], size: Sequence[int]
) -> NDArray[np.float32]:
    """A patch (channels, *size) of ``image`` around ``centre``; 0 beyond it."""
    shape = image.shape[1:]
    # A network of two dimensions sees one plane of the volume.
    wide = (*(1,) * (len(shape) - len(size)), *size)
    start = patch_start(centre, wide, shape)
    patch = np.zeros((len(image), *wide), dtype=np.float32)
    source, target = [], []
    for begin, length, whole in zip(start, wide, shape, strict=True):
        low, high = max(begin, 0), min(begin + length, whole)
        source.append(slice(low, high))
        target.append(slice(low - begin, high - begin))
    patch[(slice(None), *target)] = image[(slice(None), *source)]
    return patch.reshape(len(image), *size)


def read_class(data: ClassifyingDataSection, row: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of the class from a row of predictions.csv; {} without classes."""
    if not data.classes:
        return {}
    names = (probability_column(name) for name in data.classes)
    return {CLASS: str(row[CLASS]), **{name: float(row[name]) for name in names}}
