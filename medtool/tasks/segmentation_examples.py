"""Patches as training and validation examples, read from the cache without the whole volume.

Every random choice (where a patch lies, how it is changed) derives from (seed, epoch, case, copy),
so neither order nor number of workers matters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from medtool.core.randomness import generator
from medtool.core.records import Batch, Case, ExampleKey
from medtool.data.cache import read_prepared
from medtool.data.patches import patch_start, read_patch
from medtool.data.segmentation_preparation import OUTSIDE, locations_name
from medtool.nets.augment.recipe import Recipe, apply_changes, draw_changes, nnunet_recipe
from medtool.nets.augment.spatial import source_size_vox
from medtool.nets.dropout import slice_keys
from medtool.tasks.segmentation_labels import structures
from medtool.tasks.segmentation_settings import LEFT_RIGHT
from medtool.tasks.segmentation_sides import left_right_axes, mirrors

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medtool.tasks.segmentation_settings import SegmentationSettings


@dataclass(frozen=True)
class Patch:
    """One patch: ``image`` (channels, ...) and ``label`` (...), of the planned patch size.

    ``dropout_key`` (int64) decides what dropout drops.
    """

    image: Tensor
    label: Tensor
    dropout_key: Tensor


class PatchExamples(Dataset[Patch]):
    """Patches of cases; in training anywhere and changed, else one fixed patch a case."""

    def __init__(
        self,
        settings: SegmentationSettings,
        cases: Sequence[Case],
        prepared: Mapping[str, Path],
        *,
        training: bool,
    ) -> None:
        self._settings = settings
        self._case_ids = [case.case_id for case in cases]
        self._paths = [prepared[case.case_id] for case in cases]
        self._training = training
        self._size = tuple(settings.model.patch_size_vox)
        self._recipe = nnunet_recipe(
            self._size,
            channels=len(settings.data.channels),
            mirror_axes=None if mirrors(settings) else (),
            masked=tuple(settings.data.preparation.mask_for_normalisation),
        )
        # Where voxels to draw patches around lie: small, asked for at every patch.
        self._places: dict[int, list[NDArray[np.int32]]] = {}
        self._place_names = [locations_name(ids) for ids in structures(settings.data).values()]

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, key: ExampleKey) -> Patch:
        image, label = self._image_and_label(key)
        case_id = self._case_ids[key.index]
        return Patch(image, label, slice_keys(key.seed, key.epoch, case_id, [0], key.copy)[0])

    def _image_and_label(self, key: ExampleKey) -> tuple[Tensor, Tensor]:
        case_id, settings = self._case_ids[key.index], self._settings
        if not self._training:
            rng = generator("validation-patch", key.seed, case_id)
            return self._patch(key.index, rng, self._size, foreground=True)
        rng = generator("patch", key.seed, key.epoch, case_id, key.copy)
        foreground = bool(rng.random() < settings.train.foreground_share)
        if not settings.augment.enabled:
            return self._patch(key.index, rng, self._size, foreground=foreground)
        recipe = self._recipe_of(key.index)
        changes = draw_changes(rng, recipe)
        source = source_size_vox(self._size, changes.matrix)
        wide = self._patch(key.index, rng, source, foreground=foreground)
        return apply_changes(*wide, changes, recipe)

    def _recipe_of(self, index: int) -> Recipe:
        """The recipe for a case: which axis of its array runs from left to right is its own."""
        if self._settings.augment.mirror != LEFT_RIGHT:
            return self._recipe
        prepared = read_prepared(self._paths[index], names=())
        return replace(self._recipe, mirror_axes=left_right_axes(prepared, len(self._size)))

    def _patch(
        self, index: int, rng: np.random.Generator, size: Sequence[int], *, foreground: bool
    ) -> tuple[Tensor, Tensor]:
        """Image and label of a patch of ``size`` around a drawn voxel.

        What lies outside is 0, and ``OUTSIDE`` in the label.
        """
        path = self._paths[index]
        shape = tuple(read_prepared(path, names=()).facts["prepared_size_vox"])
        centre = self._centre(index, rng, shape, foreground=foreground)
        # A network of two dimensions sees one plane of the volume.
        planes = (1,) * (len(shape) - len(size))
        final, wide = (*planes, *self._size), (*planes, *size)
        inner = patch_start(centre, final, shape)
        # The larger patch that is turned lies around the one that is left.
        start = [s - (n - m) // 2 for s, n, m in zip(inner, wide, final, strict=True)]
        image = read_patch(path, "image", start, wide, shape, channels=True, fill=0.0)
        label = read_patch(path, "label", start, wide, shape, channels=False, fill=OUTSIDE)
        return (
            torch.from_numpy(image.reshape(image.shape[0], *size)),
            torch.from_numpy(label.reshape(size)),
        )

    def _centre(
        self, index: int, rng: np.random.Generator, shape: Sequence[int], *, foreground: bool
    ) -> tuple[int, ...]:
        """A voxel of a label that is drawn first, where there is one; else any voxel."""
        known = self._places_of(index) if foreground else ()
        if known:
            voxels = known[int(rng.integers(len(known)))]
            return tuple(int(v) for v in voxels[int(rng.integers(len(voxels)))])
        return tuple(int(rng.integers(length)) for length in shape)

    def _places_of(self, index: int) -> Sequence[NDArray[np.int32]]:
        """Voxels (n, 3) of each label that the case has."""
        if index not in self._places:
            found = read_prepared(self._paths[index], names=self._place_names).arrays
            self._places[index] = [voxels for voxels in found.values() if len(voxels)]
        return self._places[index]

    def collate(
        self, samples: Sequence[Patch], cases: Sequence[Case], seed: int, epoch: int
    ) -> Batch:
        """Patches of several cases as one batch: images (n, channels, ...), labels (n, ...), and
        the keys (n) of the dropout.
        """
        tensors: dict[str, Any] = {
            "image": torch.stack([sample.image for sample in samples]),
            "label": torch.stack([sample.label.long() for sample in samples]),
            "keys": torch.stack([sample.dropout_key for sample in samples]),
        }
        return Batch(tensors, tuple(cases), seed, epoch, self._training)
