"""Slices as training and validation examples, read from the cache one by one.

Every random choice (which slice of a volume, how it is changed) derives from (seed, epoch, case,
copy), so neither order nor number of workers matters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from medtool.core.randomness import generator
from medtool.core.records import Batch, Case, ExampleKey
from medtool.data.cache import read_prepared
from medtool.nets.augment.planar import (
    PlanarChanges,
    PlanarRecipe,
    apply_planar_changes,
    draw_fourfold_changes,
    draw_planar_changes,
)
from medtool.nets.dropout import slice_keys

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medtool.tasks.planar_settings import PlanarSettings

# Slices of a volume that each epoch's validation looks at, evenly over it.
VALIDATED_SLICES = 16


@dataclass(frozen=True)
class Slices:
    """Slices of one case: ``images`` (n, channels, rows, columns), ``labels`` (n, rows, columns).

    ``numbers`` are their places in the volume, ``copy`` the example's.
    """

    images: Tensor
    labels: Tensor
    numbers: tuple[int, ...]
    copy: int


class SliceExamples(Dataset[Slices]):
    """In training one slice of a case, changed at random; else fixed ones, as they are."""

    def __init__(
        self,
        settings: PlanarSettings,
        cases: Sequence[Case],
        prepared: Mapping[str, Path],
        *,
        training: bool,
    ) -> None:
        self._settings = settings
        self._case_ids = [case.case_id for case in cases]
        self._paths = [prepared[case.case_id] for case in cases]
        self._training = training
        augment = settings.augment
        self._recipe = PlanarRecipe(
            augment.flip_rows_probability,
            augment.flip_columns_probability,
            augment.rotation_probability,
            augment.rotation_degrees,
        )
        # The number of slices, and which have a label: small, asked for at every example.
        self._known: dict[int, tuple[int, Sequence[int]]] = {}

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, key: ExampleKey) -> Slices:
        if not self._training:
            count, _ = self._facts(key.index)
            even = np.linspace(0, count - 1, min(count, VALIDATED_SLICES)).round().astype(int)
            return self._slices(key, [int(number) for number in even], PlanarChanges())
        number = self._drawn_slice(key)
        return self._slices(key, [number], self._drawn_changes(key))

    def _drawn_slice(self, key: ExampleKey) -> int:
        """Any slice, or one of those with a label; of the fourfold copies the same one."""
        count, labelled = self._facts(key.index)
        copy = 0 if self._settings.augment.kind == "fourfold" else key.copy
        rng = generator("slice", key.seed, key.epoch, self._case_ids[key.index], copy)
        wanted = rng.random() < self._settings.train.foreground_share
        if wanted and labelled:
            return int(labelled[int(rng.integers(len(labelled)))])
        return int(rng.integers(count))

    def _drawn_changes(self, key: ExampleKey) -> PlanarChanges:
        kind = self._settings.augment.kind
        rng = generator("slice-changes", key.seed, key.epoch, self._case_ids[key.index], key.copy)
        if kind == "fourfold":
            return draw_fourfold_changes(rng, self._recipe, key.copy)
        return draw_planar_changes(rng, self._recipe) if kind == "random" else PlanarChanges()

    def _slices(self, key: ExampleKey, numbers: list[int], changes: PlanarChanges) -> Slices:
        arrays = read_prepared(self._paths[key.index], index=numbers).arrays
        images = with_channels(arrays["image"].astype(np.float32))
        labels = arrays["label"]
        if changes != PlanarChanges():
            rows, columns = self._settings.data.preparation.size_px
            pairs = [
                apply_planar_changes(image, label, changes, (rows, columns))
                for image, label in zip(images, labels, strict=True)
            ]
            images, labels = (np.stack(part) for part in zip(*pairs, strict=True))
        channels = self._settings.model.input_channels
        return Slices(
            as_input(images, channels), torch.from_numpy(labels), tuple(numbers), key.copy
        )

    def _facts(self, index: int) -> tuple[int, Sequence[int]]:
        if index not in self._known:
            facts = read_prepared(self._paths[index], names=()).facts
            self._known[index] = int(facts["slices"]), tuple(facts["labelled_slices"])
        return self._known[index]

    def collate(
        self, samples: Sequence[Slices], cases: Sequence[Case], seed: int, epoch: int
    ) -> Batch:
        """Slices of several cases one after the other.

        Tensors: ``image`` (n, channels, rows, columns), ``label`` (n, rows, columns), ``keys`` (n)
        of the dropout, and ``sizes`` (cases): how many slices each has.
        """
        keys = [
            slice_keys(seed, epoch, case.case_id, list(sample.numbers), sample.copy)
            for sample, case in zip(samples, cases, strict=True)
        ]
        tensors: dict[str, Any] = {
            "image": torch.cat([sample.images for sample in samples]),
            "label": torch.cat([sample.labels for sample in samples]).long(),
            "keys": torch.cat(keys),
            "sizes": torch.tensor([len(sample.images) for sample in samples]),
        }
        return Batch(tensors, tuple(cases), seed, epoch, self._training)


def with_channels(images: NDArray[Any]) -> NDArray[Any]:
    """Slices as (n, rows, columns, channels), grey ones with one channel."""
    return images if images.ndim == 4 else images[..., None]


def as_input(images: NDArray[np.float32], channels: int) -> Tensor:
    """Slices (n, rows, columns, 1 or channels) as the network's input; grey ones are repeated."""
    moved = torch.from_numpy(np.ascontiguousarray(np.moveaxis(images, -1, 1)))
    return moved if moved.shape[1] == channels else moved.repeat(1, channels, 1, 1)
