"""A plan of ours as nnU-Net v2 writes it: ``plans.json`` and ``dataset.json`` of a model's folder.

The keys are those that nnU-Net 2.8.1 reads when it answers (plans_handler.py,
predict_from_raw_data.py); ``medtool.data.nnunet_plans`` reads them back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from medtool.core.plan import Configuration, NetworkPlan, Plan
from medtool.data.channels import plain_names
from medtool.data.dataset_record import BACKGROUND, IGNORE, LabelScheme
from medtool.data.nnunet_plans import (
    LABEL_MANAGER,
    LAYER,
    NETWORKS,
    NORMALISATIONS,
    PICTURE_READER,
    PLANNERS,
    PREPROCESSOR,
    READERS,
    RESAMPLER,
    STYLE,
)
from medtool.data.picture_volumes import is_of_pictures

ENDING, PICTURE_ENDING = ".nii.gz", ".png"
# Order of the splines by which nnU-Net resamples each kind of array.
ORDERS = {"data": 3, "seg": 1, "probabilities": 1}
# What stands for intensities where no channel is normalised by them.
NO_INTENSITIES = {
    **dict.fromkeys(("mean", "median", "min", "max", "percentile_00_5", "percentile_99_5"), 0.0),
    "std": 1.0,
}


def plans_document(
    plan: Plan, configuration: Configuration, *, name: str, dataset: str
) -> dict[str, Any]:
    """``plans.json`` with this one configuration."""
    channels = len(configuration.normalisation)
    backward = [plan.axes_forward.index(axis) for axis in range(3)]
    return {
        "dataset_name": dataset,
        "plans_name": name,
        "original_median_spacing_after_transp": list(configuration.spacing_mm),
        "original_median_shape_after_transp": list(configuration.median_size_vox),
        "image_reader_writer": _reader(plan, configuration),
        "transpose_forward": list(plan.axes_forward),
        "transpose_backward": backward,
        "configurations": {configuration.name: _configuration_document(configuration)},
        "experiment_planner_used": next(
            kind for kind, planner in PLANNERS.items() if planner == plan.planner
        ),
        "label_manager": LABEL_MANAGER,
        "foreground_intensity_properties_per_channel": {
            str(channel): _intensities(plan, channel) for channel in range(channels)
        },
    }


def _reader(plan: Plan, configuration: Configuration) -> str:
    """What reads the model's images in nnU-Net."""
    if is_of_pictures(configuration.spacing_mm):
        return PICTURE_READER
    return next(
        reader for reader, orientation in READERS.items() if orientation == plan.orientation
    )


def _intensities(plan: Plan, channel: int) -> dict[str, float]:
    if not plan.intensities:
        return dict(NO_INTENSITIES)
    values = dict(vars(plan.intensities[channel]))
    return {**values, "min": values.pop("low"), "max": values.pop("high")}


def _configuration_document(configuration: Configuration) -> dict[str, Any]:
    dimensions = configuration.network.dimensions
    schemes = {ours: theirs for theirs, ours in NORMALISATIONS.items()}
    resampling: dict[str, Any] = {}
    for what, order in ORDERS.items():
        resampling[f"resampling_fn_{what}"] = RESAMPLER
        resampling[f"resampling_fn_{what}_kwargs"] = {
            "is_seg": what == "seg",
            "order": order,
            "order_z": 0,
            "force_separate_z": None,
        }
    return {
        "data_identifier": f"medtool_{configuration.name}",
        "preprocessor_name": PREPROCESSOR,
        "batch_size": configuration.batch_size,
        "patch_size": list(configuration.patch_size_vox),
        "median_image_size_in_voxels": list(configuration.median_size_vox)[-dimensions:],
        "spacing": list(configuration.spacing_mm)[-dimensions:],
        "normalization_schemes": [schemes[kind] for kind in configuration.normalisation],
        "use_mask_for_norm": list(configuration.mask_for_normalisation),
        **resampling,
        "architecture": _architecture_document(configuration.network),
        "batch_dice": configuration.batch_dice,
    }


def _architecture_document(network: NetworkPlan) -> dict[str, Any]:
    path, counts = NETWORKS[network.kind]
    dimensions = network.dimensions
    norm = LAYER.format(package="instancenorm", name="InstanceNorm", dimensions=dimensions)
    return {
        "network_class_name": path,
        "arch_kwargs": {
            "n_stages": len(network.features),
            "features_per_stage": list(network.features),
            "conv_op": LAYER.format(package="conv", name="Conv", dimensions=dimensions),
            "kernel_sizes": [list(kernel) for kernel in network.kernel_sizes],
            "strides": [list(stride) for stride in network.strides],
            counts: list(network.encoder_blocks),
            "n_conv_per_stage_decoder": list(network.decoder_convolutions),
            "norm_op": norm,
            **STYLE,
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def dataset_document(
    channels: Sequence[str],
    labels: LabelScheme,
    *,
    training_cases: int,
    more: Mapping[str, Any],
    pictures: bool = False,
) -> dict[str, Any]:
    """``dataset.json``; ``more`` are further keys, such as a licence.

    One id a label and lists for regions, the background first, as nnU-Net wants them.
    """
    names: dict[str, int | list[int]] = {BACKGROUND: 0}
    for name, ids in labels.ids.items():
        if name != BACKGROUND:
            names[name] = list(ids) if labels.regions_order else ids[0]
    if labels.ignore_id is not None:
        names[IGNORE] = labels.ignore_id
    order = {"regions_class_order": list(labels.regions_order)} if labels.regions_order else {}
    return {
        "channel_names": {str(number): name for number, name in enumerate(plain_names(channels))},
        "labels": names,
        **order,
        "numTraining": training_cases,
        "file_ending": PICTURE_ENDING if pictures else ENDING,
        **more,
    }
