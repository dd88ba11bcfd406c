"""What a preset of a segmentation leaves open, settled by the data that may have a say.

The fingerprint of each case is measured once and kept in the cache; the plan follows from all of
them (``medtool.data.planning``). What the preset fixes always wins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from medtool.config.sections import Section
from medtool.core.errors import UsageError
from medtool.core.names import nearest_name
from medtool.core.plan import Configuration, Plan
from medtool.core.progress import Reporter, Silent
from medtool.core.records import Case
from medtool.data.fingerprint import (
    pooled,
)
from medtool.data.picture_volumes import is_of_pictures
from medtool.data.planning import make_plan
from medtool.tasks.segmentation_labels import BACKGROUND_ID
from medtool.tasks.segmentation_measuring import fingerprints
from medtool.tasks.segmentation_settings import IntensitiesSection
from medtool.tasks.segmentation_sides import mirrors, tell_of_mirrors

if TYPE_CHECKING:
    from medtool.tasks.segmentation import SegmentationTask
    from medtool.tasks.segmentation_settings import (
        SegmentationDataSection,
        SegmentationSettings,
    )

Part = TypeVar("Part", bound=Section)
Data = TypeVar("Data", bound="SegmentationDataSection")

# nnU-Net's second network, which sees the answer of the first.
CASCADE = "3d_cascade_fullres"
# Of what is planned, the facts that a preset may fix.
PREPARED_KEYS = ("axes_forward", "spacing_mm", "normalisation", "mask_for_normalisation")
NETWORK_KEYS = ("features", "kernel_sizes", "strides", "encoder_blocks", "decoder_convolutions")


def planned_settings(
    task: SegmentationTask,
    cases: Sequence[Case],
    *,
    intake: Mapping[str, Any],
    folder: Path,
    workers: int | None = None,
    reporter: Reporter | None = None,
) -> tuple[SegmentationSettings, Plan | None]:
    """The settings of ``task`` with nothing left open, and the plan; the same and none where
    nothing was.

    Raises UsageError where the preset fixes only a part of what belongs together, or names a
    configuration that the data do not need; InputError where no case can be read.
    """
    settings = task.settings
    if is_planned(settings):
        return _with_mirrors(settings, reporter or Silent()), None
    data = with_labels(settings.data, intake.get("dataset"))
    plan = _plan(task, data, cases, folder, workers, reporter or Silent())
    configuration = _chosen(plan, settings.data.preparation.configuration)
    planned = _filled(settings, data, plan, configuration)
    _tell(planned, reporter or Silent())
    return _with_mirrors(planned, reporter or Silent()), plan


def _with_mirrors(settings: SegmentationSettings, reporter: Reporter) -> SegmentationSettings:
    """The settings that say whether patches are mirrored, which the names of labels decide."""
    tell_of_mirrors(settings, reporter)
    if settings.augment.mirror is not None:
        return settings
    return update(settings, augment=update(settings.augment, mirror=mirrors(settings)))


def is_planned(settings: SegmentationSettings) -> bool:
    """Whether labels, grid, network and batch are all settled."""
    data, model = settings.data, settings.model
    return bool(
        data.channels
        and data.label_ids
        and data.preparation.spacing_mm
        and data.preparation.normalisation
        and model.features
        and model.patch_size_vox
        and settings.train.batch_cases
        and settings.train.batch_dice is not None
    )


def with_labels(data: Data, dataset: Mapping[str, Any] | None) -> Data:
    """Channels and labels of the data set where the preset names none; an ignored id and an order
    of regions that the preset gives stay.

    Raises UsageError where the two disagree, or neither says.
    """
    if dataset is None:
        if data.channels and data.label_ids:
            return data
        raise UsageError(
            "What the labels mean is not known.",
            wanted="a data set with a description (dataset.json), or data.channels and "
            "data.label_ids in the preset",
        )
    channels = list(dataset["channels"])
    if data.channels and len(data.channels) != len(channels):
        raise UsageError(
            "The preset and the data set have different channels.",
            met=", ".join(channels),
            wanted=", ".join(data.channels),
        )
    labels = {} if data.label_ids else _labels_of(data, dataset)
    return update(data, channels=data.channels or channels, **labels)


def _labels_of(data: SegmentationDataSection, dataset: Mapping[str, Any]) -> dict[str, Any]:
    """The labels of the data set, with the ignored id and the order of regions that the preset
    fixes. Raises UsageError where these do not fit.
    """
    every = {name: list(ids) for name, ids in dataset["labels"].items()}
    declared, ignored = dataset["ignore_id"], data.ignore_id
    if ignored is None or ignored == declared:
        ignored, labels = declared, every
    else:
        _require_ignorable(ignored, declared, every)
        # The data set has a name for what nobody labelled: it is no label.
        labels = {name: ids for name, ids in every.items() if ids != [ignored]}
    regions = [name for name, ids in labels.items() if ids != [BACKGROUND_ID]]
    known = [name for name, ids in every.items() if ids != [BACKGROUND_ID]]
    written = dict(zip(known, dataset["regions_order"], strict=False))
    order = data.regions_order or [written[name] for name in regions if name in written]
    if order and len(order) != len(regions):
        raise UsageError(
            "The order of regions does not fit the labels of the data set.",
            where="data.regions_order",
            met=f"{len(order)} ids",
            wanted=f"{len(regions)}, one for each of " + ", ".join(regions),
        )
    return {"label_ids": labels, "regions_order": order, "ignore_id": ignored}


def _require_ignorable(
    ignored: int, declared: int | None, labels: Mapping[str, Sequence[int]]
) -> None:
    """Raises UsageError where the data set cannot do without the id that a preset ignores."""
    met = ""
    if declared is not None:
        met = f"{ignored}, and the data set ignores {declared}"
    elif ignored == BACKGROUND_ID:
        met = f"{ignored}, the background"
    elif shared := [name for name, ids in labels.items() if ignored in ids and len(ids) > 1]:
        met = f"{ignored}, a part of " + ", ".join(shared)
    elif all(list(ids) in ([BACKGROUND_ID], [ignored]) for ids in labels.values()):
        met = f"{ignored}, the only label"
    if met:
        raise UsageError(
            "The preset ignores an id that the data set needs.",
            where="data.ignore_id",
            met=met,
            how="name the labels in the preset as well: data.label_ids.",
        )


# --- from the data to the plan --------------------------------------------------------------
def _plan(
    task: SegmentationTask,
    data: SegmentationDataSection,
    cases: Sequence[Case],
    folder: Path,
    workers: int | None,
    reporter: Reporter,
) -> Plan:
    model = task.settings.model
    fingerprint = pooled(
        fingerprints(task, data, cases, folder, workers=workers, reporter=reporter)
    )
    ignored = 0 if data.ignore_id is None else 1
    return make_plan(
        fingerprint,
        channels=data.channels,
        label_count=len(data.label_ids) + ignored,
        planner=model.planner,
        memory_gb=model.memory_gb,
        budget=_budget(model.budget),
    )


def _budget(asked: Literal["auto", "cpu", "gpu"]) -> Literal["cpu", "gpu"]:
    if asked != "auto":
        return asked
    from medtool.nets.device import choose_device

    return "cpu" if choose_device("auto").type == "cpu" else "gpu"


# --- from the plan to settings ------------------------------------------------------------
def _chosen(plan: Plan, name: str) -> Configuration:
    """The configuration of this name; ``auto`` is the full resolution, in 2D where all is flat."""
    known = {key: one for key, one in plan.configurations.items() if key != CASCADE}
    if name == CASCADE:
        raise UsageError(
            "The cascade is planned and not trained.",
            where="data.preparation.configuration",
            met=name,
            wanted="one of: " + ", ".join(known),
            how="a low resolution that says where to look comes close: train 3d_lowres and "
            "3d_fullres, and name the first by 'medtool infer --region'.",
        )
    if name == "auto":
        return known.get("3d_fullres") or known["2d"]
    if name not in known:
        raise UsageError(
            "The data set does not need this configuration.",
            where="data.preparation.configuration",
            met=name,
            wanted="one of: " + ", ".join(known),
            nearest=nearest_name(name, known),
            how="a low resolution is planned only where patches see too little of an image.",
        )
    return known[name]


def _filled(
    settings: SegmentationSettings,
    data: SegmentationDataSection,
    plan: Plan,
    configuration: Configuration,
) -> SegmentationSettings:
    planned: dict[str, list[Any]] = {
        "axes_forward": list(plan.axes_forward),
        "spacing_mm": list(configuration.spacing_mm),
        "normalisation": list(configuration.normalisation),
        "mask_for_normalisation": list(configuration.mask_for_normalisation),
    }
    needs_values = "ct" in (data.preparation.normalisation or planned["normalisation"])
    values = [IntensitiesSection(**asdict(one)) for one in plan.intensities if needs_values]
    preparation = update(
        data.preparation,
        configuration=configuration.name,
        **{key: getattr(data.preparation, key) or planned[key] for key in PREPARED_KEYS},
        intensities=data.preparation.intensities or values,
    )
    train = update(
        settings.train,
        batch_cases=settings.train.batch_cases or configuration.batch_size,
        batch_dice=configuration.batch_dice
        if settings.train.batch_dice is None
        else settings.train.batch_dice,
    )
    return update(
        settings,
        data=update(data, preparation=preparation),
        model=_planned_model(settings, configuration),
        train=train,
    )


def _planned_model(settings: SegmentationSettings, configuration: Configuration) -> Section:
    """The network that the preset gives whole, else the planned one; the patch may be its own."""
    model, network = settings.model, configuration.network
    given = [key for key in NETWORK_KEYS if getattr(model, key)]
    if given and (len(given) < len(NETWORK_KEYS) or model.kind == "planned"):
        missing = [key for key in NETWORK_KEYS if key not in given]
        raise UsageError(
            "The preset gives only a part of the network.",
            where="[model]",
            met=", ".join(given),
            wanted=", ".join([*missing, *(["kind"] if model.kind == "planned" else [])]) + " too",
            how="give all of them, or none: then the network is planned.",
        )
    planned = {key: _lists(getattr(network, key)) for key in NETWORK_KEYS}
    shape: dict[str, Any] = {} if given else {"kind": network.kind, **planned}
    patch = model.patch_size_vox or list(configuration.patch_size_vox)
    return update(model, **shape, patch_size_vox=patch)


def _lists(value: Any) -> Any:
    return [_lists(entry) for entry in value] if isinstance(value, tuple) else value


def update(section: Part, **values: Any) -> Part:
    """The section with other values, checked as those of a file are."""
    return type(section).model_validate({**dict(section), **values})


def _tell(settings: SegmentationSettings, reporter: Reporter) -> None:
    model, preparation = settings.model, settings.data.preparation
    patch = " x ".join(map(str, model.patch_size_vox))
    spacing = " x ".join(f"{value:.3g}" for value in preparation.spacing_mm)
    pictures = is_of_pictures(preparation.spacing_mm)
    size = "pixels of pictures" if pictures else f"voxels of {spacing} mm"
    reporter.say(
        f"Planned {preparation.configuration}: patches of {patch} {size}, "
        f"{settings.train.batch_cases} a step, {model.kind} U-Net of {len(model.features)} stages "
        f"from {model.features[0]} features."
    )
