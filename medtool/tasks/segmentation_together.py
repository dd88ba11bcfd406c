"""Segmentation models that answer as one, such as the folds of a run, or of an imported model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from medtool.core.errors import UsageError
from medtool.core.records import Case, Prediction, Prepared
from medtool.predict.together import MeanNetwork
from medtool.tasks.segmentation_labels import output_ids, structures
from medtool.tasks.segmentation_predict import Part, predict_mean
from medtool.tasks.segmentation_settings import SegmentationSettings

if TYPE_CHECKING:
    from medtool.predict.model import Model


def require_alike(several: Sequence[SegmentationSettings]) -> None:
    """Raises UsageError where models have other channels, labels or outputs than the first.

    Grid, patch and network may differ: logits meet on the grid of the image.
    """
    first, *others = [_meaning(settings) for settings in several]
    for number, other in enumerate(others, start=2):
        for what, value in first.items():
            if other[what] != value:
                raise UsageError(
                    f"Models with different {what} cannot answer together.",
                    met=f"{other[what]} (model {number})",
                    wanted=str(value),
                    how="name models of one data set.",
                )


def _meaning(settings: SegmentationSettings) -> dict[str, Any]:
    data = settings.data
    return {
        "channels": ", ".join(data.channels),
        "labels": ", ".join(
            f"{name} {'+'.join(map(str, ids))}" for name, ids in structures(data).items()
        ),
        "ids to write": ", ".join(map(str, output_ids(data))),
    }


def predict_together(model: Model, prepared: Sequence[Prepared], case: Case) -> Prediction:
    """The mask of the mean of the logits of all members of ``model``.

    Members that see the same windows of the same prepared image pass them as one network, which
    takes no more memory than one of them alone.
    """
    groups: dict[str, list[int]] = {}
    for number, member in enumerate(model.members):
        groups.setdefault(_windows_key(member.task.settings.as_dict()), []).append(number)
    parts = []
    for numbers in groups.values():
        first = model.members[numbers[0]]
        networks = [model.members[number].network for number in numbers]
        settings: Any = first.task.settings
        parts.append(Part(settings, MeanNetwork(networks), prepared[numbers[0]], len(numbers)))
    return predict_mean(model, parts, case)


def _windows_key(preset: Mapping[str, Any]) -> str:
    """Equal for models that see the same windows of the same prepared image."""
    return repr((preset["data"], preset["model"]["patch_size_vox"], preset["infer"]))
