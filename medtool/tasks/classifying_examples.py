"""Patches for a segmentation that names a class as well: many of them around the lesion.

A class can be learned only where the patch shows what is classified; how much of it is enough, and
whether the head sees true masks or the network's own, is settled here for each patch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from medtool.core.randomness import generator
from medtool.core.records import Batch, Case, ExampleKey
from medtool.data.cache import read_prepared
from medtool.data.segmentation_preparation import locations_name
from medtool.tasks.classifying_classes import lesion_ids, organ_ids
from medtool.tasks.segmentation_examples import Patch, PatchExamples

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medtool.tasks.classifying_settings import ClassifyingSettings

# The number of the class where it is not known, or cannot be learned from this patch.
NO_CLASS = -1


@dataclass(frozen=True)
class ClassifiedPatch(Patch):
    """A patch with the number of its class, or ``NO_CLASS``.

    ``true_masks``: the head pools by the true masks. ``dropout_key`` is an int64 of no axis.
    """

    number: int
    true_masks: bool


class ClassifiedPatchExamples(PatchExamples):
    """Patches of cases; those that are not trained on lie around the lesion where there is one."""

    _settings: ClassifyingSettings

    def __init__(
        self,
        settings: ClassifyingSettings,
        cases: Sequence[Case],
        prepared: Mapping[str, Path],
        *,
        training: bool,
    ) -> None:
        super().__init__(settings, cases, prepared, training=training)
        self._numbers = [NO_CLASS if c.label is None else int(c.label) for c in cases]
        self._lesion, self._organ = lesion_ids(settings.data), organ_ids(settings.data)
        self._lesions: dict[int, NDArray[np.int32]] = {}

    def __getitem__(self, key: ExampleKey) -> ClassifiedPatch:
        case_id, train = self._case_ids[key.index], self._settings.train
        patch = super().__getitem__(key)
        draw = generator("true-mask", key.seed, key.epoch, case_id, key.copy).random()
        return ClassifiedPatch(
            image=patch.image,
            label=patch.label,
            dropout_key=patch.dropout_key,
            number=self._numbers[key.index] if self._shows_class(key.index, patch) else NO_CLASS,
            true_masks=self._training and bool(draw < train.true_mask_share),
        )

    def _shows_class(self, index: int, patch: Patch) -> bool:
        """Whether enough of the lesion is in the patch; of the organ in cases without a lesion."""
        lesion = self._lesion_of(index)
        ids = self._lesion if len(lesion) else self._organ
        shown = int(torch.isin(patch.label, torch.tensor(ids, dtype=patch.label.dtype)).sum())
        if len(lesion):
            # A small lesion is learned from half of it, else it never would be.
            return shown >= min(self._settings.train.least_lesion_vox, max(1, len(lesion) // 2))
        return shown > 0 or not self._places_of(index)

    def _centre(
        self, index: int, rng: np.random.Generator, shape: Sequence[int], *, foreground: bool
    ) -> tuple[int, ...]:
        """A voxel of the lesion for the share of the patches that the preset wants there."""
        lesion = self._lesion_of(index)
        there = not self._training or rng.random() < self._settings.train.lesion_share
        if there and len(lesion):
            return tuple(int(v) for v in lesion[int(rng.integers(len(lesion)))])
        return super()._centre(index, rng, shape, foreground=foreground)

    def _lesion_of(self, index: int) -> NDArray[np.int32]:
        """Voxels (n, 3) of the lesion of a case."""
        if index not in self._lesions:
            name = locations_name(self._lesion)
            found = read_prepared(self._paths[index], names=(name,)).arrays
            self._lesions[index] = found.get(name, np.zeros((0, 3), dtype=np.int32))
        return self._lesions[index]

    def collate(
        self, samples: Sequence[Patch], cases: Sequence[Case], seed: int, epoch: int
    ) -> Batch:
        """As of patches, with ``class`` (n) and ``true_masks`` (n)."""
        batch = super().collate(samples, cases, seed, epoch)
        own = [sample for sample in samples if isinstance(sample, ClassifiedPatch)]
        tensors: dict[str, Any] = {
            **batch.tensors,
            "class": torch.tensor([sample.number for sample in own]),
            "true_masks": torch.tensor([sample.true_masks for sample in own]),
        }
        return Batch(tensors, batch.cases, seed, epoch, batch.training)
