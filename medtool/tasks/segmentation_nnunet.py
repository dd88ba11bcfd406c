"""Models that nnU-Net v2 trained, as segmentations of ours: settings, tensors, where from."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from medtool.core.errors import CheckpointError, InputError, LabelsError
from medtool.core.files import file_sha256, nearest_path
from medtool.core.foreign import ForeignModel
from medtool.core.names import nearest_name
from medtool.core.plan import Configuration, Plan
from medtool.data.json_file import read_json
from medtool.data.nnunet_plans import (
    FINGERPRINT_FILE,
    PLANS_FILE,
    ForeignDataset,
    foreign_plan,
    read_foreign_dataset,
    read_plans,
)
from medtool.tasks.segmentation_settings import SegmentationSettings
from medtool.train.document import RANGE_QUANTILES
from medtool.train.nnunet_weights import ForeignCheckpoint, read_foreign_checkpoint
from medtool.train.weights import tensors_sha256

FOLD_PREFIX, ALL_FOLD = "fold_", "fold_all"
# Trainers of nnU-Net 2.8.1 that change nothing an answer depends on: what their names are made of.
TRAINER = re.compile(
    r"nnUNetTrainer(_?("
    r"NoMirroring|onlyMirror01|noDummy2DDA|NoDA|DA5|DA5ord0|DA5Segord0|DASegOrd0|"
    r"probabilisticOversampling(_\d+)?|NoDeepSupervision|warmup|CosAnneal|Adan|Vanilla|Adam|"
    r"(Adan|Adam)\den\d|Dice|CE|DiceCE|TopK?k?10|DiceTopK10|Loss|LS01|noSmooth|"
    r"Benchmark_5epochs(_noDataLoading)?|\d+ep(och)?s?))*"
)
# Keys of dataset.json that come along; under any other there may be names of cases.
KEPT_KEYS = frozenset(
    {
        *("name", "description", "reference", "release", "licence", "license", "synthetic"),
        *("channel_names", "modality", "tensorImageSize", "labels", "regions_class_order"),
        *("numTraining", "numTest", "file_ending", "overwrite_image_reader_writer"),
    }
)
# nnU-Net's own training, for what the preset says of it.
RECIPE: Mapping[str, Any] = {
    "optimiser": "sgd",
    "learning_rate": 1e-2,
    "momentum": 0.99,
    "weight_decay": 3e-5,
    "schedule": "poly",
}


def nnunet_models(
    settings_type: type[SegmentationSettings],
    folder: Path,
    *,
    checkpoint: str,
    folds: Sequence[str],
) -> Iterator[ForeignModel]:
    """The folds of the model folder that nnU-Net wrote, one after another.

    Raises InputError where there is no such folder, CheckpointError and LabelsError where
    something in it does not fit, or holds code.
    """
    plans = read_plans(_model_folder(folder))
    dataset, description = read_foreign_dataset(folder)
    for name, file in _fold_files(folder, checkpoint, folds).items():
        found = read_foreign_checkpoint(file)
        plan, configuration = foreign_plan(plans, found.configuration, len(dataset.channels))
        settings = settings_type.model_validate(_preset(plan, configuration, dataset, found))
        origin = {
            "program": "nnU-Net",
            "trainer": found.trainer,
            "plans": plans.name,
            "configuration": found.configuration,
            "dataset": dataset.name or str(plans.document.get("dataset_name", "")),
            "fold": name.removeprefix(FOLD_PREFIX),
            "file": f"{file.parent.name}/{file.name}",
            "sha256": file_sha256(file),
            "mirror_axes": list(found.mirror_axes),
            "documents": {
                "plans": dict(plans.document),
                "dataset": {k: v for k, v in description.items() if k in KEPT_KEYS},
            },
        }
        yield ForeignModel(
            name=name,
            settings=settings,
            tensors=found.tensors,
            document=_document(found, dataset, origin, _range(folder, plan, dataset)),
            notes=tuple(_notes(found, configuration)),
        )


# --- the folder ---------------------------------------------------------------------------
def _model_folder(folder: Path) -> Path:
    if (folder / PLANS_FILE).is_file():
        return folder
    if not folder.is_dir():
        raise InputError(
            "There is no such model folder.", where=str(folder), nearest=nearest_path(folder)
        )
    inner = sorted(path.parent.name for path in folder.glob(f"*/{PLANS_FILE}"))
    raise InputError(
        "This is no model folder of nnU-Net.",
        where=str(folder),
        met=", ".join(inner) if inner else f"no {PLANS_FILE}",
        wanted=f"the folder TRAINER__PLANS__CONFIGURATION, with {PLANS_FILE} and {FOLD_PREFIX}0",
        how=f"name {folder / inner[0]}" if inner else "",
    )


def _fold_files(folder: Path, checkpoint: str, folds: Sequence[str]) -> dict[str, Path]:
    """The checkpoint of each wanted fold; of all, but that of all cases where there are others."""
    known = sorted(path.name for path in folder.glob(f"{FOLD_PREFIX}*") if path.is_dir())
    file_name = f"checkpoint_{checkpoint}.pth"
    wanted = [FOLD_PREFIX + fold.removeprefix(FOLD_PREFIX) for fold in folds]
    if not wanted:
        there = [fold for fold in known if (folder / fold / file_name).is_file()]
        wanted = [fold for fold in there if fold != ALL_FOLD] or there
    if not wanted:
        others = sorted(path.relative_to(folder).as_posix() for path in folder.glob("*/*.pth"))
        raise InputError(
            "There is no trained fold in this model folder.",
            where=str(folder),
            met=", ".join(others) or "no checkpoint",
            wanted=f"{FOLD_PREFIX}0/{file_name}",
            how="--checkpoint best takes the best ones." if "best" in " ".join(others) else "",
        )
    for fold in wanted:
        if not (folder / fold / file_name).is_file():
            raise InputError(
                "The model folder lacks a fold that was asked for.",
                where=str(folder),
                met=f"{fold}/{file_name}",
                wanted="one of: " + ", ".join(known),
                nearest=nearest_name(fold, known),
            )
    return {fold: folder / fold / file_name for fold in dict.fromkeys(wanted)}


# --- what the checkpoint will say ---------------------------------------------------------
def _preset(
    plan: Plan, configuration: Configuration, dataset: ForeignDataset, found: ForeignCheckpoint
) -> dict[str, Any]:
    """The preset of the model: its plan, its labels, nnU-Net's recipe."""
    network, labels = configuration.network, dataset.labels
    needs_values = "ct" in configuration.normalisation
    if needs_values and not plan.intensities:
        raise CheckpointError(
            "The plans lack the intensities by which CT is normalised.",
            where=PLANS_FILE,
            wanted="foreground_intensity_properties_per_channel of every channel",
        )
    return {
        "data": {
            "channels": list(dataset.channels),
            "label_ids": {name: list(ids) for name, ids in labels.ids.items()},
            "regions_order": list(labels.regions_order),
            "ignore_id": labels.ignore_id,
            "preparation": {
                "configuration": _base_name(configuration),
                "orientation": plan.orientation,
                "axes_forward": list(plan.axes_forward),
                "spacing_mm": list(configuration.spacing_mm),
                "normalisation": list(configuration.normalisation),
                "mask_for_normalisation": list(configuration.mask_for_normalisation),
                "intensities": [asdict(one) for one in plan.intensities if needs_values],
            },
        },
        "model": {
            "planner": plan.planner,
            "patch_size_vox": list(configuration.patch_size_vox),
            **{name: _lists(value) for name, value in vars(network).items()},
        },
        "augment": {"mirror": _mirrors_all(found, configuration)},
        "train": {
            **RECIPE,
            "epochs": max(1, found.epochs),
            "batch_cases": configuration.batch_size,
            "batch_dice": configuration.batch_dice,
        },
    }


def _mirrors_all(found: ForeignCheckpoint, configuration: Configuration) -> bool:
    """Whether answers may be mirrored along every axis, which is all that ours can be."""
    return set(found.mirror_axes) == set(range(configuration.network.dimensions))


def _base_name(configuration: Configuration) -> str:
    """2d, 3d_fullres or 3d_lowres, also of configurations that people named themselves."""
    known = ("3d_lowres", "3d_fullres") if configuration.network.dimensions == 3 else ("2d",)
    return next((name for name in known if configuration.name.startswith(name)), known[-1])


def _lists(value: Any) -> Any:
    return [_lists(entry) for entry in value] if isinstance(value, tuple) else value


def _document(
    found: ForeignCheckpoint,
    dataset: ForeignDataset,
    origin: Mapping[str, Any],
    known_range: Mapping[str, Any],
) -> dict[str, Any]:
    words = ("dataset", "configuration", "trainer", "plans", "file")
    count = len(found.tensors)
    dice = {} if found.pseudo_dice is None else {"dice": found.pseudo_dice}
    return {
        "epoch": found.epochs - 1,
        "step": None,
        "history": list(found.history),
        "metrics": {"primary": "dice", "selection": dice},
        "training_range": dict(known_range),
        "weights": {
            "source": "nnU-Net: " + ", ".join(str(origin[word]) for word in words if origin[word]),
            "licence": dataset.licence,
            "loaded": count,
            "total": count,
            "tensors_sha256": tensors_sha256(found.tensors),
        },
        "synthetic": dataset.synthetic,
        "selection": "nnU-Net's Dice on patches of its validation: optimistic",
        "imported": dict(origin),
    }


def _range(folder: Path, plan: Plan, dataset: ForeignDataset) -> dict[str, Any]:
    """Spacings of the training cases, where nnU-Net's fingerprint lies beside the model."""
    table: dict[str, Any] = {"cases": dataset.training_cases, "quantiles": list(RANGE_QUANTILES)}
    path = folder / FINGERPRINT_FILE
    if path.is_file():
        document, _ = read_json(path, kind="fingerprint of nnU-Net")
        try:
            spacings = np.asarray(document["spacings"], dtype=np.float64)
            turned = spacings[:, list(plan.axes_forward)]
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise LabelsError(
                "The fingerprint of nnU-Net cannot be understood.",
                where=str(path),
                wanted="a list 'spacings' of three numbers a case",
            ) from error
        table["cases"] = len(turned)
        table["spacing_mm"] = np.quantile(turned, RANGE_QUANTILES, axis=0).T.tolist()
    return table


def _notes(found: ForeignCheckpoint, configuration: Configuration) -> Iterator[str]:
    if not TRAINER.fullmatch(found.trainer):
        yield (
            f"The trainer {found.trainer or 'without a name'} is not nnU-Net's own. Its tensors "
            "are those of the plan; whether it changed what lies between them cannot be seen."
        )
    if found.mirror_axes and not _mirrors_all(found, configuration):
        mirrored = ", ".join(map(str, found.mirror_axes))
        yield (
            f"nnU-Net mirrors this model along the axes {mirrored} only; medtool mirrors along all "
            "or none: this model answers without it."
        )
    if not found.mirror_axes:
        yield "It was trained without mirroring: answer without it, as is the default."
