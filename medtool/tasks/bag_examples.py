"""Bags as training and evaluation examples, read from the cache slice by slice.

An example is a study: its normalised slices with the keys that decide what dropout drops. Every
random choice (which slices, how each is changed) derives from (seed, epoch, case, copy, slice),
so neither order nor number of workers matters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from medtool.core.errors import UsageError
from medtool.core.randomness import generator, key64
from medtool.core.records import Batch, Case, ExampleKey
from medtool.data.cache import read_prepared
from medtool.nets.dropout import slice_keys
from medtool.nets.losses import positive_weight

if TYPE_CHECKING:
    from medtool.tasks.bag import BagTask
    from medtool.tasks.bag_settings import BagTrainSection


@dataclass(frozen=True)
class BagSample:
    """One study: ``inputs`` (n, channels, rows, columns) and, of each slice, its place.

    ``inputs`` are features instead where those of frozen parts were computed before; ``slices``
    are rows of ``arrays["slices"]`` in the cache.
    """

    inputs: Tensor
    slices: tuple[int, ...]
    label: float
    weight: float
    copy: int = 0
    first_step: int = 0


class CaseWeights:
    """What each case counts in the loss: every patient once, positives by the class weight."""

    def __init__(self, cases: Sequence[Case], train: BagTrainSection) -> None:
        studies = Counter(case.patient_id for case in cases)
        # The mean over all cases stays 1, so that rates mean the same whoever has two studies.
        per_patient = len(cases) / max(1, len(studies))
        labels = torch.tensor([case_label(case) for case in cases])
        positive = {"none": 1.0, "balanced": positive_weight(labels)}
        chosen = train.class_weight
        self.positive = positive[chosen] if isinstance(chosen, str) else chosen
        self._patient = {name: per_patient / count for name, count in studies.items()}

    def of(self, case: Case) -> float:
        """The weight of one of the cases."""
        weight = self._patient[case.patient_id]
        return weight * self.positive if case_label(case) > 0.5 else weight


def case_label(case: Case) -> float:
    """0 or 1, or not a number where none is known."""
    # Cases without a label can be shown to the network; nothing is learned from them.
    return float("nan") if case.label is None else float(case.label)


class BagExamples(Dataset[BagSample]):
    """Samples indexed by ExampleKey; see ``Task.examples``."""

    def __init__(
        self,
        task: BagTask,
        cases: Sequence[Case],
        prepared: Mapping[str, Path],
        *,
        training: bool,
    ) -> None:
        missing = [case.case_id for case in cases if case.case_id not in prepared]
        unlabelled = [case.case_id for case in cases if case.label is None]
        if missing or (training and unlabelled):
            raise UsageError(
                "Some cases cannot be examples.",
                met=f"not prepared: {missing[:5]}, without a label: {unlabelled[:5]}",
                wanted="prepared cases, for training with a label",
            )
        self.task = task
        # Workers get a copy: the planes of a series are heavy and not needed any more.
        self.cases = tuple(replace(case, inputs={}, findings=()) for case in cases)
        self.paths = tuple(prepared[case.case_id] for case in cases)
        self.training = training
        self.weights = CaseWeights(self.cases, task.settings.train)
        # Asked for at every step; a header is read once.
        self._counts: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, key: ExampleKey) -> BagSample:
        case = self.cases[key.index]
        slices = self.chosen_slices(key)
        return BagSample(
            inputs=self.images(key, slices),
            slices=tuple(slices),
            label=case_label(case),
            weight=self.weights.of(case),
            copy=key.copy,
        )

    def slice_count(self, index: int) -> int:
        """Number of slices of a case that the network can be shown."""
        if index not in self._counts:
            self._counts[index] = used_slices(self.paths[index])
        return self._counts[index]

    def chosen_slices(self, key: ExampleKey) -> list[int]:
        """The rows of the cache that this example shows: all, or a draw in training."""
        case, count = self.cases[key.index], self.slice_count(key.index)
        most = self.task.settings.train.max_slices
        if not self.training or most == 0 or count <= most:
            return list(range(count))
        rng = generator("slices", key.seed, key.epoch, case.case_id, key.copy)
        return sorted(int(row) for row in rng.choice(count, size=most, replace=False))

    def images(self, key: ExampleKey, slices: Sequence[int]) -> Tensor:
        """Those slices (n, channels, rows, columns), augmented in training, then normalised."""
        case, path = self.cases[key.index], self.paths[key.index]
        # A whole array is read at once, and checked against its checksum.
        whole = list(slices) == list(range(self.slice_count(key.index)))
        images, masks = read_slices(path, None if whole else slices)
        if self.training and self.task.settings.augment.enabled:
            drawn = [self.parameters(key, case, row) for row in slices]
            changed = [
                self.task.apply_augmentation(image, None if masks is None else masks[i], drawn[i])
                for i, image in enumerate(images)
            ]
            images = np.stack(changed)
        return torch.from_numpy(np.ascontiguousarray(self.task.normalise(images, masks)))

    def parameters(self, key: ExampleKey, case: Case, row: int) -> Mapping[str, float]:
        """How slice ``row`` of ``case`` is changed in this example; from the key alone."""
        rng = generator("augment", key.seed, key.epoch, case.case_id, key.copy, row)
        return self.task.draw_augmentation(rng, case.label)

    def collate(
        self, samples: Sequence[BagSample], cases: Sequence[Case], seed: int, epoch: int
    ) -> Batch:
        """Bags one after the other; see ``collate_bags``."""
        return collate_bags(samples, cases, seed, epoch, training=self.training)


def collate_bags(
    samples: Sequence[BagSample], cases: Sequence[Case], seed: int, epoch: int, *, training: bool
) -> Batch:
    """Tensors: ``inputs`` (n, ...), ``keys`` (n), and for each bag ``sizes``, ``bag_keys``,
    ``labels``, ``weights``, ``first_step`` (of the backbone, 0 for images).
    """
    pairs = list(zip(samples, cases, strict=True))
    keys = [
        slice_keys(seed, epoch, case.case_id, list(sample.slices), sample.copy)
        for sample, case in pairs
    ]
    bag_keys = [key64("bag", seed, epoch, case.case_id, sample.copy) for sample, case in pairs]
    tensors = {
        "inputs": torch.cat([sample.inputs for sample in samples]),
        "keys": torch.cat(keys),
        "bag_keys": torch.tensor(bag_keys, dtype=torch.int64),
        "sizes": torch.tensor([len(sample.inputs) for sample in samples]),
        "labels": torch.tensor([sample.label for sample in samples], dtype=torch.float32),
        "weights": torch.tensor([sample.weight for sample in samples], dtype=torch.float32),
        "first_step": torch.tensor(samples[0].first_step),
    }
    return Batch(tensors, tuple(cases), seed=seed, epoch=epoch, training=training)


def used_slices(path: Path) -> int:
    """Number of slices that the cached study at ``path`` shows the network."""
    elements = read_prepared(path, names=()).elements
    return sum(bool(element["used"]) for element in elements)


def read_slices(
    path: Path, slices: Sequence[int] | None = None
) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """Images (n, rows, columns) of a cached study and their masks, where the task keeps any."""
    arrays = read_prepared(path, index=slices).arrays
    return arrays["slices"], arrays.get("mask")
