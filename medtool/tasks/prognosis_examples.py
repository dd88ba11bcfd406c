"""A few slices, or patches, of a patient as one example, read from the cache.

The survival head sees the mean over them. They are drawn in two strata, with tumour and without, so
that small tumours are seen at all, and weigh by how many of the image each stands for: so the mean
is that of the whole image, but for chance, as when a case is answered. Every random choice derives
from (seed, epoch, case, copy), so neither order nor number of workers matters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from medtool.core.randomness import generator, key64
from medtool.core.records import Batch, Case, ExampleKey, Prepared
from medtool.data.cache import read_prepared
from medtool.nets.augment.pet_ct import (
    PetCtChanges,
    PetCtRecipe,
    apply_pet_ct_changes,
    draw_pet_ct_changes,
)
from medtool.nets.dropout import slice_keys
from medtool.tasks.prognosis_covariates import covariate_values
from medtool.tasks.prognosis_places import Place, drawn_places, tiles
from medtool.tasks.segmentation_labels import MASK

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medtool.core.geometry import Grid
    from medtool.tasks.prognosis_settings import PrognosisModelSection, PrognosisSettings

# Slices or patches of a case that each epoch's validation looks at: always the same ones.
VALIDATED_PLACES = 16
# Stands for the patient where slices and patches have their numbers.
HEAD = -1
MM3_PER_ML = 1000.0


@dataclass(frozen=True)
class Study:
    """A part of one case: ``images`` (n, channels, ...), ``labels`` (n, ...) where a mask is
    known, and ``shares`` (n), of sum 1, that each counts in the mean of the patient.

    ``numbers`` tell the parts of a case apart, ``patient`` the patients of the training.
    """

    images: Tensor
    labels: Tensor | None
    shares: Tensor
    numbers: tuple[int, ...]
    field_ml: float
    patient: int
    copy: int


class StudyExamples(Dataset[Study]):
    """In training drawn places of a case, changed at random; else fixed ones, as they are."""

    def __init__(
        self,
        settings: PrognosisSettings,
        cases: Sequence[Case],
        prepared: Mapping[str, Path],
        *,
        training: bool,
    ) -> None:
        self._settings = settings
        self._case_ids = [case.case_id for case in cases]
        self._has_mask = [MASK in case.references for case in cases]
        self._paths = [prepared[case.case_id] for case in cases]
        self._training = training
        self._recipe = recipe(settings)
        numbers = {name: n for n, name in enumerate(sorted({c.patient_id for c in cases}))}
        self._patients = [numbers[case.patient_id] for case in cases]
        # Where tumour is: small, asked for at every example.
        self._places: dict[int, tuple[list[Place], list[Place]]] = {}

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, key: ExampleKey) -> Study:
        case_id, index = self._case_ids[key.index], key.index
        train = self._settings.train
        read = read_prepared(self._paths[index], names=self._names(index))
        with_tumour, without = self._known_places(index, read)
        rng = generator("places", key.seed, key.epoch, case_id, key.copy)
        drawn = drawn_places(
            with_tumour,
            without,
            train.slices_per_case if self._training else VALIDATED_PLACES,
            share=train.foreground_share,
            rng=rng if self._training else None,
        )
        changes = PetCtChanges()
        if self._training and self._settings.augment.enabled:
            rng = generator("changes", key.seed, key.epoch, case_id, key.copy)
            changes = draw_pet_ct_changes(rng, self._recipe)
        images, labels = self._cut(read, [place for place, _ in drawn])
        images, labels = apply_pet_ct_changes(images, labels, changes)
        images[:, : images.shape[1] // 2] /= self._settings.model.suv_scale
        shares = torch.tensor([share for _, share in drawn], dtype=torch.float32)
        return Study(
            images=images,
            labels=labels,
            shares=shares,
            numbers=tuple(place.number for place, _ in drawn),
            field_ml=field_ml(read),
            patient=self._patients[index],
            copy=key.copy,
        )

    def _names(self, index: int) -> list[str]:
        return ["image", "label"] if self._has_mask[index] else ["image"]

    def _known_places(self, index: int, read: Prepared) -> tuple[list[Place], list[Place]]:
        if index not in self._places:
            patch = self._settings.model.patch_size_vox
            size = read.arrays["image"].shape[1:]
            every = tiles(size, patch or (1, *size[1:]), 0.5 if patch else 1.0)
            label = read.arrays.get("label")
            found = [place for place in every if label is not None and label[place.box].any()]
            numbers = {place.number for place in found}
            self._places[index] = found, [p for p in every if p.number not in numbers]
        return self._places[index]

    def _cut(self, read: Prepared, places: Sequence[Place]) -> tuple[Tensor, Tensor | None]:
        image, model = read.arrays["image"], self._settings.model
        images = torch.from_numpy(np.stack([cut_image(image, p, model) for p in places]))
        if "label" not in read.arrays:
            return images, None
        cut = [cut_label(read.arrays["label"], p, model) for p in places]
        return images, torch.from_numpy(np.stack(cut)).long()

    def collate(
        self, samples: Sequence[Study], cases: Sequence[Case], seed: int, epoch: int
    ) -> Batch:
        """Parts of several cases one after the other.

        Tensors by part: ``image`` (n, channels, ...), ``label`` (n, ...; 0 where no mask is
        known), ``shares`` (n), ``keys`` (n) of dropout. By case: ``sizes`` (how many parts),
        ``masked`` (whether a mask is known), ``patients``, ``patient_keys`` of the head's dropout,
        ``field_ml``, ``covariates`` (cases, inputs), and of outcomes ``times`` in days, ``events``,
        ``strata`` and whether they are ``known``.
        """
        keys = [
            slice_keys(seed, epoch, case.case_id, [*sample.numbers, HEAD], sample.copy)
            for sample, case in zip(samples, cases, strict=True)
        ]
        labels = [
            sample.labels
            if sample.labels is not None
            else torch.zeros(_label_shape(sample.images), dtype=torch.int64)
            for sample in samples
        ]
        tensors: dict[str, Any] = {
            "image": torch.cat([sample.images for sample in samples]),
            "label": torch.cat(labels),
            "shares": torch.cat([sample.shares for sample in samples]),
            "keys": torch.cat([own[:-1] for own in keys]),
            "patient_keys": torch.stack([own[-1] for own in keys]),
            "sizes": torch.tensor([len(sample.images) for sample in samples]),
            "masked": torch.tensor([sample.labels is not None for sample in samples]),
            "patients": torch.tensor([sample.patient for sample in samples]),
            "field_ml": torch.tensor([sample.field_ml for sample in samples]),
            "covariates": covariate_rows(self._settings.model, cases),
            **outcome_tensors(cases),
        }
        return Batch(tensors, tuple(cases), seed, epoch, self._training)


def recipe(settings: PrognosisSettings) -> PetCtRecipe:
    """What may happen to the images of a step, in the terms of the augmentation."""
    augment, preparation = settings.augment, settings.data.preparation
    axes = {"slices": -3, "rows": -2, "columns": -1}
    chosen = [axes[name] for name in augment.flips]
    if not settings.model.patch_size_vox:
        chosen = [axis for axis in chosen if axis != axes["slices"]]
    return PetCtRecipe(
        flip_axes=tuple(chosen),
        flip_probability=augment.flip_probability,
        rotation_probability=augment.rotation_probability,
        rotation_degrees=augment.rotation_degrees,
        suv_change=augment.suv_change,
        suv_noise=augment.suv_noise,
        suv_maximum=preparation.suv_maximum,
        ct_gamma=augment.ct_gamma,
        ct_noise=augment.ct_noise,
    )


def cut_image(
    image: NDArray[np.float16], place: Place, model: PrognosisModelSection
) -> NDArray[np.float32]:
    """What the network sees of a prepared image (2, z, y, x) at one place, float32.

    A slice (channels, y, x) with its neighbours, those beyond the ends being the last ones; or a
    patch (2, z, y, x).
    """
    if model.patch_size_vox:
        return padded(image[(slice(None), *place.box)].astype(np.float32), model.patch_size_vox)
    around = range(-model.neighbour_slices, model.neighbour_slices + 1)
    planes = [min(max(place.number + step, 0), image.shape[1] - 1) for step in around]
    seen = image[:, planes].astype(np.float32)
    return seen.reshape(-1, *image.shape[2:])


def cut_label(
    label: NDArray[np.uint8], place: Place, model: PrognosisModelSection
) -> NDArray[np.uint8]:
    """The labels at one place: (y, x) of a slice, (z, y, x) of a patch."""
    if model.patch_size_vox:
        return padded(label[place.box], model.patch_size_vox)
    plane: NDArray[np.uint8] = label[place.number]
    return plane


def padded(part: NDArray[Any], size: Sequence[int]) -> NDArray[Any]:
    """A part (..., z, y, x) in the middle of ``size``, with 0 around it where it is smaller."""
    missing = [wanted - have for wanted, have in zip(size, part.shape[-3:], strict=True)]
    margins = [(gap // 2, gap - gap // 2) for gap in missing]
    return np.pad(part, [(0, 0)] * (part.ndim - 3) + margins)


def field_ml(read: Prepared) -> float:
    """The volume of the whole prepared image."""
    grid: Grid = read.grids["prepared"]
    return prod(grid.size) * prod(grid.spacing_mm) / MM3_PER_ML


def covariate_rows(model: PrognosisModelSection, cases: Sequence[Case]) -> Tensor:
    """(cases, inputs) covariates as the network takes them."""
    rows = [covariate_values(model.known_covariates, case.covariates) for case in cases]
    return torch.tensor(rows, dtype=torch.float32).reshape(len(cases), -1)


class _Known(NamedTuple):
    """An outcome as numbers."""

    time_days: float
    event: float
    stratum: int
    known: bool


def outcome_tensors(cases: Sequence[Case]) -> dict[str, Tensor]:
    """``times`` (days), ``events``, ``strata`` and ``known`` (cases)."""
    rows = [
        _Known(0.0, 0.0, 0, known=False)
        if case.outcome is None
        else _Known(
            case.outcome.time_days,
            float(case.outcome.event),
            key64("stratum", case.outcome.stratum) if case.outcome.stratum else 0,
            known=True,
        )
        for case in cases
    ]
    times, events, strata, known = zip(*rows, strict=True)
    return {
        "times": torch.tensor(times, dtype=torch.float32),
        "events": torch.tensor(events, dtype=torch.float32),
        "strata": torch.tensor(strata, dtype=torch.int64),
        "known": torch.tensor(known),
    }


def _label_shape(images: Tensor) -> tuple[int, ...]:
    return (len(images), *images.shape[2:])
