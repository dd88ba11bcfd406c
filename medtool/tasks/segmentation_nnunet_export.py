"""Segmentations of ours as a folder of results from which nnU-Net v2 answers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from medtool.core.errors import UsageError
from medtool.core.files import replace_text
from medtool.core.foreign import ForeignFolder, ForeignModel
from medtool.data.nnunet_documents import dataset_document, plans_document
from medtool.data.nnunet_plans import DATASET_FILE, PLANS_FILE
from medtool.data.picture_volumes import is_of_pictures
from medtool.nets.state import fill
from medtool.nets.unet import build_unet
from medtool.nets.widths import PRUNED
from medtool.tasks.segmentation_labels import output_count, output_ids, scheme_of
from medtool.tasks.segmentation_plan import network_plan, plan_of
from medtool.tasks.segmentation_predict import postprocessing_steps
from medtool.tasks.segmentation_settings import SegmentationSettings
from medtool.tasks.segmentation_sides import mirrors
from medtool.train.nnunet_weights import write_foreign_checkpoint

if TYPE_CHECKING:
    from torch import Tensor

TRAINER, PLANS = "nnUNetTrainer", "medtoolPlans"
DATASET = "Dataset001_Medtool"
DATASET_NAME = re.compile(r"Dataset\d{3}_\w+")
FOLD = re.compile(r"fold_(\d+|all)")
# Parts of our networks that are nnU-Net's; what else a task learned answers other questions.
NNUNET_PARTS = ("encoder.", "decoder.")


def write_nnunet(models: Sequence[ForeignModel], folder: Path, *, dataset: str) -> ForeignFolder:
    """Write ``folder``/DATASET/TRAINER__PLANS__CONFIGURATION with a fold for each model.

    Raises UsageError where nnU-Net could not answer the same.
    """
    written = [_Written(model, dataset) for model in models]
    first = written[0]
    for other in written[1:]:
        if (other.plans, other.dataset) != (first.plans, first.dataset):
            raise UsageError(
                "Folds that were planned from different cases are several models to nnU-Net.",
                met=f"plans of {first.model.name} and {other.model.name} differ",
                wanted="one fold, or folds of one plan",
                how="export the checkpoint of one fold.",
            )
    names = _fold_names(models)
    place = folder / first.plans["dataset_name"] / first.identifier
    for name, one in zip(names, written, strict=True):
        write_foreign_checkpoint(
            place / name / "checkpoint_final.pth",
            one.tensors,
            trainer=one.trainer,
            mirror_axes=one.mirror_axes,
            epochs=int(one.model.document.get("epoch") or 0) + 1,
            arguments={
                "plans": one.plans,
                "configuration": one.configuration,
                "fold": _fold_argument(name),
                "dataset_json": one.dataset,
            },
        )
    for file, document in ((PLANS_FILE, first.plans), (DATASET_FILE, first.dataset)):
        replace_text(place / file, json.dumps(document, indent=1) + "\n")
    notes = dict.fromkeys(note for one in written for note in one.notes())
    return ForeignFolder(place, first.command(folder, names), tuple(notes))


def _fold_names(models: Sequence[ForeignModel]) -> list[str]:
    """nnU-Net's names of folds: those that the models have, else their numbers."""
    names = [model.name for model in models]
    known = len(set(names)) == len(names) and all(FOLD.fullmatch(name) for name in names)
    return names if known else [f"fold_{number}" for number in range(len(models))]


def _fold_argument(name: str) -> int | str:
    fold = name.removeprefix("fold_")
    return int(fold) if fold.isdigit() else fold


class _Written:
    """One model in nnU-Net's words; made from what was imported, where it once came from there."""

    def __init__(self, model: ForeignModel, dataset: str) -> None:
        if not isinstance(model.settings, SegmentationSettings):
            raise TypeError("a segmentation has the settings of one")
        self.model = model
        self.settings = model.settings
        origin: Mapping[str, Any] = model.document.get("imported") or {}
        documents = origin.get("documents") or {}
        self.configuration = str(
            origin.get("configuration") or self.settings.data.preparation.configuration
        )
        self.trainer = str(origin.get("trainer") or TRAINER)
        known = str((documents.get("plans") or {}).get("dataset_name", ""))
        name = _dataset_name(dataset or known or DATASET)
        self.plans = {**(documents.get("plans") or self._plans(name)), "dataset_name": name}
        self.dataset = dict(documents.get("dataset") or self._dataset())
        self.mirror_axes = tuple(
            origin["mirror_axes"] if "mirror_axes" in origin else self._mirrored()
        )
        self.tensors = self._tensors()

    @property
    def identifier(self) -> str:
        """The name of the model's folder."""
        return f"{self.trainer}__{self.plans['plans_name']}__{self.configuration}"

    def _plans(self, dataset: str) -> dict[str, Any]:
        plan, configuration = plan_of(self.settings)
        return plans_document(plan, configuration, name=PLANS, dataset=dataset)

    def _dataset(self) -> dict[str, Any]:
        data = self.settings.data
        known = self.model.document.get("training_range") or {}
        more: dict[str, Any] = {"description": "exported by medtool"}
        if self.model.document.get("synthetic"):
            more["synthetic"] = True
        return dataset_document(
            data.channels,
            scheme_of(data),
            training_cases=int(known.get("cases") or 0),
            more=more,
            pictures=is_of_pictures(data.preparation.spacing_mm),
        )

    def _mirrored(self) -> Iterator[int]:
        # Which axis runs from left to right is a case's own, which nnU-Net's file cannot say.
        if self.settings.augment.enabled and mirrors(self.settings) is True:
            yield from range(len(self.settings.model.patch_size_vox))

    def _tensors(self) -> dict[str, Tensor]:
        """The tensors of nnU-Net's network, outputs in the order of their ids."""
        model, where = self.settings.model, self.model.name
        if model.attention_gates:
            raise _cannot("attention gates", where)
        if self.model.document.get(PRUNED):
            raise _cannot("layers of pruned widths", where)
        network = build_unet(
            network_plan(model),
            len(self.settings.data.channels),
            output_count(self.settings.data),
            deep_supervision=True,
        )
        own = {n: t for n, t in self.model.tensors.items() if n.startswith(NNUNET_PARTS)}
        if not model.deep_supervision:
            # nnU-Net has these layers always; only training uses them.
            state = network.state_dict()
            own = {n: torch.zeros_like(t) for n, t in state.items() if ".seg_layers." in n} | own
        fill(network, own, where=where)
        order = self._order()
        return {
            name: tensor[order] if ".seg_layers." in name else tensor
            for name, tensor in network.state_dict().items()
        }

    def _order(self) -> list[int]:
        """Our outputs by rising id, as nnU-Net has them; regions stay as they are listed."""
        ids = output_ids(self.settings.data)
        if self.settings.data.regions_order:
            return list(range(len(ids)))
        if sorted(ids) != list(range(len(ids))):
            raise _cannot(f"labels {', '.join(map(str, ids))}, not every number", self.model.name)
        return sorted(range(len(ids)), key=lambda output: ids[output])

    def command(self, folder: Path, names: Sequence[str]) -> str:
        """What lets nnU-Net answer."""
        folds = " ".join(name.removeprefix("fold_") for name in names)
        infer = self.settings.infer
        mirrored = "" if infer.mirror else "--disable_tta "
        return (
            f"nnUNet_results={folder} nnUNetv2_predict -d {self.plans['dataset_name']} "
            f"-tr {self.trainer} -p {self.plans['plans_name']} -c {self.configuration} -f {folds} "
            f"{mirrored}-step_size {infer.step:g} -i INPUT -o OUTPUT"
        )

    def notes(self) -> Iterator[str]:
        """What nnU-Net will not do with this model."""
        infer = self.settings.infer
        if postprocessing_steps(self.settings, self.model):
            yield "medtool removes small pieces from this model's masks; nnUNetv2_predict will not."
        if infer.region_checkpoint or self.model.document.get("companions"):
            yield (
                "medtool asks a coarse model first and looks closely only around what it finds; "
                "nnUNetv2_predict looks everywhere."
            )
        if infer.mirror and not self.mirror_axes:
            yield "medtool mirrors this model's inputs left for right; nnUNetv2_predict will not."
        others = {
            name.split(".")[0] for name in self.model.tensors if not name.startswith(NNUNET_PARTS)
        }
        if others:
            yield f"Left out, since nnU-Net has no such part: {', '.join(sorted(others))}."


def _cannot(met: str, where: str) -> UsageError:
    return UsageError(
        "nnU-Net has no network for this model.",
        where=where,
        met=met,
        wanted="a plain or residual U-Net as nnU-Net plans it, labels numbered from 0",
    )


def _dataset_name(name: str) -> str:
    if not DATASET_NAME.fullmatch(name):
        raise UsageError(
            "nnU-Net knows data sets by other names.",
            met=name,
            wanted="Dataset, three digits, an underscore and a word, such as Dataset007_Organ",
        )
    return name
