"""Plans of nnU-Net v2 as ours: what a model that it trained wants, and what it cannot have here.

``plans.json`` and ``dataset.json`` are read as nnU-Net 2.8.1 does (plans_handler.py,
label_handling.py), plans of its first versions too, which name no architecture. Everything that
decides an answer is compared with what is built here; what differs is refused by name, all of it at
once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from medtool.core.errors import CheckpointError
from medtool.core.names import nearest_name
from medtool.core.plan import (
    ChannelIntensities,
    Configuration,
    NetworkPlan,
    Normalisation,
    Orientation,
    Plan,
)
from medtool.data.dataset_record import LabelScheme
from medtool.data.json_file import read_json
from medtool.data.label_scheme import label_scheme
from medtool.data.nnunet_layout import channel_names
from medtool.data.picture_volumes import PICTURE_SLICE_MM

PLANS_FILE, DATASET_FILE = "plans.json", "dataset.json"
FINGERPRINT_FILE = "dataset_fingerprint.json"

NORMALISATIONS: Mapping[str, Normalisation] = {
    "CTNormalization": "ct",
    "ZScoreNormalization": "z-score",
    "NoNormalization": "none",
    "RescaleTo01Normalization": "rescale-0-1",
    "RGBTo01Normalization": "rgb-0-1",
}
# The class of the network by our kind, and what its encoder's counts are called.
NETWORKS: Mapping[Literal["plain", "residual"], tuple[str, str]] = {
    "plain": ("dynamic_network_architectures.architectures.unet.PlainConvUNet", "n_conv_per_stage"),
    "residual": (
        "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet",
        "n_blocks_per_stage",
    ),
}
PLANNERS: Mapping[str, str] = {
    "ExperimentPlanner": "default",
    "nnUNetPlannerResEncM": "residual-m",
    "nnUNetPlannerResEncL": "residual-l",
    "nnUNetPlannerResEncXL": "residual-xl",
}
CHANNEL_KEYS = ("channel_names", "modality")
INTENSITY_KEYS = (
    "foreground_intensity_properties_per_channel",
    "foreground_intensity_properties_by_modality",
)
USUAL_READER, PICTURE_READER = "SimpleITKIO", "NaturalImage2DIO"
# Readers, and which way the axes of their arrays run.
READERS: Mapping[str, Orientation] = {
    USUAL_READER: "stored",
    "NibabelIO": "stored",
    "NibabelIOWithReorient": "ras",
    PICTURE_READER: "stored",
    "Tiff3DIO": "stored",
}
RESAMPLER = "resample_data_or_seg_to_shape"
PREPROCESSOR = "DefaultPreprocessor"
LABEL_MANAGER = "LabelManager"
# What is built here around each convolution; None also where a plan says nothing.
STYLE: Mapping[str, Any] = {
    "conv_bias": True,
    "norm_op_kwargs": {"eps": 1e-5, "affine": True},
    "dropout_op": None,
    "dropout_op_kwargs": None,
    "nonlin": "torch.nn.LeakyReLU",
    "nonlin_kwargs": {"inplace": True},
}
LAYER = "torch.nn.modules.{package}.{name}{dimensions}d"


@dataclass(frozen=True)
class ForeignDataset:
    """What ``dataset.json`` beside a model says of its images and labels."""

    name: str
    channels: tuple[str, ...]
    labels: LabelScheme
    file_ending: str
    training_cases: int
    licence: str
    synthetic: bool


@dataclass(frozen=True)
class ForeignPlans:
    """``plans.json`` of a model's folder, not yet looked into."""

    path: Path
    document: Mapping[str, Any]

    @property
    def name(self) -> str:
        """What nnU-Net calls the plans."""
        return str(self.document.get("plans_name", ""))


def read_plans(folder: Path) -> ForeignPlans:
    """The plans of a model's folder. Raises CheckpointError, LabelsError."""
    path = folder / PLANS_FILE
    document, _ = read_json(path, kind="plan of nnU-Net")
    if not isinstance(document, Mapping) or not isinstance(document.get("configurations"), Mapping):
        raise CheckpointError(
            "This is no plan of nnU-Net v2.", where=str(path), wanted="a table 'configurations'"
        )
    return ForeignPlans(path, document)


def read_foreign_dataset(folder: Path) -> tuple[ForeignDataset, Mapping[str, Any]]:
    """Channels and labels beside a model, and the whole document. Raises LabelsError."""
    path = folder / DATASET_FILE
    document, _ = read_json(path, kind="description of the data set")
    channels = next((document[key] for key in CHANNEL_KEYS if key in document), None)
    labels, _ = label_scheme(document.get("labels"), document.get("regions_class_order"), path)
    # Outputs are counted by id; regions as they are listed.
    by_id = labels.ids if labels.regions_order else dict(sorted(labels.ids.items(), key=_id))
    return (
        ForeignDataset(
            name=str(document.get("name") or ""),
            channels=channel_names(channels, path),
            labels=LabelScheme(by_id, labels.regions_order, labels.ignore_id),
            file_ending=str(document.get("file_ending", "")),
            training_cases=int(document.get("numTraining") or 0),
            licence=str(document.get("licence") or document.get("license") or ""),
            synthetic=document.get("synthetic") is True,
        ),
        document,
    )


def _id(entry: tuple[str, tuple[int, ...]]) -> int:
    return entry[1][0]


def foreign_plan(plans: ForeignPlans, name: str, channel_count: int) -> tuple[Plan, Configuration]:
    """Plan and configuration ``name`` as ours.

    Raises CheckpointError for a cascade, a name that the plans lack, and where anything that
    decides an answer is other than here: all of it is listed.
    """
    entry = _configuration(plans, name)
    try:
        faults = [*_plan_faults(plans.document), *_configuration_faults(entry, channel_count)]
        if not faults:
            return _as_ours(plans.document, name, entry, channel_count)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise CheckpointError(
            "The plans of nnU-Net cannot be understood.",
            where=f"{plans.path}, configuration {name}",
            met=f"{type(error).__name__}: {error}",
        ) from error
    raise CheckpointError(
        "This nnU-Net model wants what medtool does not do.",
        where=f"{plans.path}, configuration {name}",
        met="; ".join(faults),
        wanted="nnU-Net's own preprocessing and its plain or residual U-Net",
        how="use nnU-Net for this model.",
    )


def _as_ours(
    document: Mapping[str, Any], name: str, entry: Mapping[str, Any], channel_count: int
) -> tuple[Plan, Configuration]:
    network = _network(entry["architecture"])
    spacing = [float(value) for value in entry["spacing"]]
    slices_mm = list(document.get("original_median_spacing_after_transp") or [1.0])
    reader = str(document.get("image_reader_writer", USUAL_READER))
    if len(spacing) == 2:
        # Slices stay where they are: their step is only to be read.
        step_mm = PICTURE_SLICE_MM if reader == PICTURE_READER else float(slices_mm[0])
        spacing = [step_mm, *spacing]
    configuration = Configuration(
        name=name,
        spacing_mm=tuple(spacing),
        median_size_vox=(),
        patch_size_vox=tuple(map(int, entry["patch_size"])),
        batch_size=int(entry["batch_size"]),
        normalisation=tuple(NORMALISATIONS[scheme] for scheme in entry["normalization_schemes"]),
        mask_for_normalisation=tuple(map(bool, entry["use_mask_for_norm"])),
        batch_dice=bool(entry.get("batch_dice", True)),
        network=network,
    )
    first, second, third = map(int, document["transpose_forward"])
    plan = Plan(
        planner=PLANNERS.get(str(document.get("experiment_planner_used")), "default"),
        axes_forward=(first, second, third),
        original_median_spacing_mm=tuple(map(float, slices_mm)),
        original_median_size_vox=(),
        intensities=_intensities(document, channel_count),
        configurations={name: configuration},
        orientation=READERS[reader],
    )
    return plan, configuration


def _configuration(plans: ForeignPlans, name: str) -> dict[str, Any]:
    """The configuration with what it inherits, its architecture in today's form."""
    known: Mapping[str, Any] = plans.document["configurations"]
    chain = [name]
    entry: dict[str, Any] = {}
    while chain[-1]:
        if chain[-1] not in known or chain[-1] in chain[:-1]:
            raise CheckpointError(
                "The plans lack the configuration that the model was trained in.",
                where=str(plans.path),
                met=chain[-1],
                wanted="one of: " + ", ".join(known),
                nearest=nearest_name(chain[-1], known),
            )
        entry = {**known[chain[-1]], **entry}
        chain.append(str(known[chain[-1]].get("inherits_from", "")))
    if entry.get("previous_stage"):
        raise CheckpointError(
            "This is the second network of a cascade, which medtool does not take over.",
            where=str(plans.path),
            met=f"{name}, which wants the masks of {entry['previous_stage']}",
            wanted="2d, 3d_fullres or 3d_lowres",
            how="import the model of another configuration.",
        )
    if "architecture" not in entry and "UNet_class_name" in entry:
        entry["architecture"] = _old_architecture(entry)
    return entry


def _old_architecture(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The architecture of plans written before nnU-Net 2.4, in today's form."""
    kind = entry["UNet_class_name"]
    blocks = list(entry["n_conv_per_stage_encoder"])
    dimensions = len(entry["patch_size"])
    known = {path.rsplit(".", 1)[1]: (path, counts) for path, counts in NETWORKS.values()}
    path, counts = known.get(kind, (kind, "n_conv_per_stage"))
    most, first = int(entry["unet_max_num_features"]), int(entry["UNet_base_num_features"])
    return {
        "network_class_name": path,
        "arch_kwargs": {
            "n_stages": len(blocks),
            "features_per_stage": [min(first * 2**stage, most) for stage in range(len(blocks))],
            "conv_op": LAYER.format(package="conv", name="Conv", dimensions=dimensions),
            "kernel_sizes": entry["conv_kernel_sizes"],
            "strides": entry["pool_op_kernel_sizes"],
            counts: blocks,
            "n_conv_per_stage_decoder": entry["n_conv_per_stage_decoder"],
            "norm_op": LAYER.format(
                package="instancenorm", name="InstanceNorm", dimensions=dimensions
            ),
            **STYLE,
        },
    }


def _plan_faults(document: Mapping[str, Any]) -> Iterator[str]:
    reader = document.get("image_reader_writer", USUAL_READER)
    if reader not in READERS:
        yield f"images read by {reader}, not by one of {', '.join(READERS)}"
    manager = document.get("label_manager", LABEL_MANAGER)
    if manager != LABEL_MANAGER:
        yield f"labels decided by {manager}, not {LABEL_MANAGER}"


def _configuration_faults(entry: Mapping[str, Any], channel_count: int) -> Iterator[str]:
    if entry.get("preprocessor_name", PREPROCESSOR) != PREPROCESSOR:
        yield f"prepared by {entry['preprocessor_name']}, not {PREPROCESSOR}"
    for what, order in (("data", 3), ("probabilities", 1)):
        yield from _resampling_faults(entry, what, order)
    for scheme in entry.get("normalization_schemes", ()):
        if scheme not in NORMALISATIONS:
            yield f"normalised by {scheme}, not one of {', '.join(NORMALISATIONS)}"
    if len(entry.get("normalization_schemes", ())) != channel_count:
        yield f"{len(entry.get('normalization_schemes', ()))} channels, not {channel_count}"
    architecture = entry.get("architecture")
    if architecture is None:
        yield "no architecture"
    else:
        yield from _architecture_faults(architecture)


def _resampling_faults(entry: Mapping[str, Any], what: str, order: int) -> Iterator[str]:
    function = entry.get(f"resampling_fn_{what}", RESAMPLER)
    if function != RESAMPLER:
        yield f"{what} resampled by {function}, not {RESAMPLER}"
        return
    wanted = {"is_seg": False, "order": order, "order_z": 0, "force_separate_z": None}
    given = {**wanted, **(entry.get(f"resampling_fn_{what}_kwargs") or {})}
    for name, value in given.items():
        if name not in wanted or value != wanted[name]:
            yield f"{what} resampled with {name} {value}, not {wanted.get(name)}"


def _architecture_faults(architecture: Mapping[str, Any]) -> Iterator[str]:
    kind = _kind(architecture)
    if kind is None:
        known = ", ".join(path.rsplit(".", 1)[1] for path, _ in NETWORKS.values())
        yield f"network {architecture.get('network_class_name')}, not one of {known}"
        return
    given: Mapping[str, Any] = architecture["arch_kwargs"]
    dimensions = len(given["strides"][0])
    norm = LAYER.format(package="instancenorm", name="InstanceNorm", dimensions=dimensions)
    for name, value in {**STYLE, "norm_op": norm}.items():
        if not _same(given.get(name), value):
            yield f"{name} {given.get(name)}, not {value}"
    for name in ("block", "bottleneck_channels", "stem_channels", "squeeze_excitation"):
        if given.get(name) not in (None, False):
            yield f"{name} {given[name]}, not the usual"


def _same(value: Any, wanted: Any) -> bool:
    """Whether a value of a plan is the one that is built here; nothing and an empty table agree."""
    if isinstance(wanted, Mapping):
        return isinstance(value, Mapping) and {**wanted, **value} == dict(wanted)
    return (value or None) == (wanted or None)


def _kind(architecture: Mapping[str, Any]) -> Literal["plain", "residual"] | None:
    """Ours of the network's class; the module that defines it moved between versions."""
    name = str(architecture.get("network_class_name", "")).rsplit(".", 1)[-1]
    return next((k for k, (path, _) in NETWORKS.items() if path.rsplit(".", 1)[1] == name), None)


def _network(architecture: Mapping[str, Any]) -> NetworkPlan:
    kind = _kind(architecture)
    if kind is None:
        raise ValueError("faults of the architecture come first")
    given: Mapping[str, Any] = architecture["arch_kwargs"]
    strides = tuple(tuple(map(int, stride)) for stride in given["strides"])
    stages = len(strides)
    return NetworkPlan(
        kind=kind,
        features=tuple(map(int, given["features_per_stage"])),
        kernel_sizes=tuple(tuple(map(int, kernel)) for kernel in given["kernel_sizes"]),
        strides=strides,
        encoder_blocks=_each(given[NETWORKS[kind][1]], stages),
        decoder_convolutions=_each(given["n_conv_per_stage_decoder"], stages - 1),
    )


def _each(value: int | Sequence[int], count: int) -> tuple[int, ...]:
    """One number a stage, also where a plan gives one for all."""
    return (int(value),) * count if isinstance(value, int) else tuple(map(int, value))


def _intensities(document: Mapping[str, Any], channel_count: int) -> tuple[ChannelIntensities, ...]:
    known = (document[key] for key in INTENSITY_KEYS if document.get(key))
    table: Mapping[str, Any] = next(known, {})
    found = []
    for channel in range(channel_count):
        values = table.get(str(channel))
        if values is None:
            return ()
        found.append(
            ChannelIntensities(
                mean=float(values["mean"]),
                median=float(values.get("median", values["mean"])),
                std=float(values["std"]),
                low=float(values.get("min", values["percentile_00_5"])),
                high=float(values.get("max", values["percentile_99_5"])),
                percentile_00_5=float(values["percentile_00_5"]),
                percentile_99_5=float(values["percentile_99_5"]),
            )
        )
    return tuple(found)
