"""A segmentation with classes as it is exported, and what stands for its network elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from medtool.predict.together import MeanNetwork
from medtool.tasks.segmentation_exported import (
    IMAGE,
    LOGITS,
    AnsweredSegmentation,
    ExportedSegmentation,
    chances_of,
)

if TYPE_CHECKING:
    from medtool.core.records import DeploymentSpec

CLASS_LOGITS, CLASS_CHANCES = "class_logits", "class_probabilities"


def classifying_deployment(segmentation: DeploymentSpec) -> DeploymentSpec:
    """As of the segmentation, with the head of the classes."""
    return replace(
        segmentation,
        outputs=(*segmentation.outputs, CLASS_LOGITS, CLASS_CHANCES),
        inside=(*segmentation.inside, "class head"),
    )


class ExportedClassifying(ExportedSegmentation):
    """As a segmentation; then logits and probabilities (n, classes) of what each image shows."""

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Logits and probabilities of the labels, then of the classes."""
        network: Any = self.network
        every, classes = network.both(self.scale(image))
        chances = chances_of(every[0], regions=self.regions)
        return every[0], chances, classes, torch.softmax(classes, dim=1)


class MeanClassifying(MeanNetwork):
    """Several networks as one: the mean of logits of labels and of probabilities of classes."""

    def both(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Logits of the labels, full resolution alone, and logs of the classes' probabilities."""
        answers: Sequence[Any] = [network.both(images) for network in self.networks]  # type: ignore[operator]
        logits = torch.stack([every[0] for every, _ in answers]).mean(0)
        chances = torch.stack([torch.softmax(classes, dim=1) for _, classes in answers]).mean(0)
        return [logits], chances.log()


class AnsweredClassifying(AnsweredSegmentation):
    """In the place of the network; ``forward`` asks for the labels alone."""

    def both(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Logits of the labels, and of the classes (n, classes)."""
        fed = {IMAGE: self.scale.back(images).cpu().numpy()}
        found = self.engine.run(fed, [LOGITS, CLASS_LOGITS])
        logits, classes = (
            torch.from_numpy(found[name]).to(images.device) for name in (LOGITS, CLASS_LOGITS)
        )
        return [logits], classes
