"""Segmentation models that answer as one, such as the folds of a run, or of an imported model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor, nn

from medtool.core.errors import UsageError
from medtool.core.records import Case, Prediction, Prepared
from medtool.predict.together import MeanNetwork
from medtool.tasks.segmentation_labels import output_ids, structures
from medtool.tasks.segmentation_predict import Part, predict_mean
from medtool.tasks.segmentation_settings import SegmentationSettings

if TYPE_CHECKING:
    from medtool.nets.scaling import ChannelScale
    from medtool.predict.model import Model
    from medtool.tasks.segmentation import SegmentationTask


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


def networks_of_one_file(members: Sequence[Model]) -> list[nn.Module]:
    """The networks of models that become one file, each for images as the first wants them.

    Where the scale of each was fixed by its own training patients it is made anew from that of the
    first. Raises UsageError where they see other windows, or images on another grid.
    """
    first, *others = members
    key = _grid_key(first.task.settings.as_dict())
    for number, other in enumerate(others, start=2):
        if _grid_key(other.task.settings.as_dict()) != key:
            raise UsageError(
                "Models that see other windows or grids cannot become one file.",
                met=f"model {number}, {other.name}, was planned otherwise than the first",
                wanted="models of one spacing, normalisation, patch and [infer]",
                how="optimise each alone; or train the folds with the plan of one of them.",
            )
    scales = [cast("SegmentationTask", member.task).input_scale() for member in members]
    return [
        RescaledNetwork(member.network, scales[0].onward(scale))
        if scale.changes
        else member.network
        for member, scale in zip(members, scales, strict=True)
    ]


def _grid_key(preset: Mapping[str, Any]) -> str:
    """Equal for models whose prepared images differ in their scale alone."""
    data = dict(preset["data"])
    data["preparation"] = {
        name: value for name, value in data["preparation"].items() if name != "intensities"
    }
    model = preset["model"]
    seen = (model.get("patch_size_vox"), model.get("input_channels"))
    return repr((data, seen, preset["infer"]))


class RescaledNetwork(nn.Module):
    """A network for images that were scaled for another one."""

    def __init__(self, network: nn.Module, scale: ChannelScale) -> None:
        super().__init__()
        self.network = network
        self.scale = scale

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images."""
        logits: Tensor = self.network(self.scale(images))
        return logits

    def both(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Logits of labels and of classes, where the network names classes."""
        network: Any = self.network
        answer: tuple[list[Tensor], Tensor] = network.both(self.scale(images))
        return answer
