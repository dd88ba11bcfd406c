"""A model folder as nnU-Net 2.8.1 leaves it, small: plans, description, a checkpoint a fold.

Keys and the layout of the tensors are those of folders that nnunetv2 itself wrote
(``benchmarks/nnunet_models.py`` runs it): the encoder stands again below ``decoder.encoder``, and
every unit's layers again below ``all_modules``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medtool.core.geometry import Grid
from medtool.core.plan import NetworkPlan
from medtool.data.nifti_writer import write_nifti
from medtool.nets.unet import UNet, build_unet

PLAIN = NetworkPlan(
    kind="plain",
    features=(4, 8),
    kernel_sizes=((3, 3, 3), (3, 3, 3)),
    strides=((1, 1, 1), (2, 2, 2)),
    encoder_blocks=(2, 2),
    decoder_convolutions=(2,),
)
RESIDUAL = NetworkPlan(
    kind="residual",
    features=(4, 8),
    kernel_sizes=((3, 3), (3, 3)),
    strides=((1, 1), (2, 2)),
    encoder_blocks=(1, 2),
    decoder_convolutions=(1,),
)
LABELS: Mapping[str, Any] = {"background": 0, "organ": 1, "nodule": 2}
SCALAR = np.float64(0.75)
UNET_MODULE = "dynamic_network_architectures.architectures.unet."


def plans_document(
    network: NetworkPlan = PLAIN,
    *,
    patch: Sequence[int] = (16, 16, 16),
    channels: int = 1,
    schemes: Sequence[str] = ("ZScoreNormalization",),
) -> dict[str, Any]:
    """``plans.json`` of one configuration, 3d_fullres or 2d."""
    dimensions = network.dimensions
    residual = network.kind == "residual"
    name = "ResidualEncoderUNet" if residual else "PlainConvUNet"
    kwargs = {
        "n_stages": len(network.features),
        "features_per_stage": list(network.features),
        "conv_op": f"torch.nn.modules.conv.Conv{dimensions}d",
        "kernel_sizes": [list(kernel) for kernel in network.kernel_sizes],
        "strides": [list(stride) for stride in network.strides],
        ("n_blocks_per_stage" if residual else "n_conv_per_stage"): list(network.encoder_blocks),
        "n_conv_per_stage_decoder": list(network.decoder_convolutions),
        "conv_bias": True,
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dimensions}d",
        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    resampling = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    configuration = {
        "data_identifier": "nnUNetPlans_made",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": list(patch),
        "median_image_size_in_voxels": [20.0, 18.0, 22.0][-dimensions:],
        "spacing": [1.5, 1.0, 1.0][-dimensions:],
        "normalization_schemes": list(schemes),
        "use_mask_for_norm": [False] * channels,
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": resampling,
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_seg_kwargs": {**resampling, "is_seg": True, "order": 1},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": {**resampling, "order": 1},
        "architecture": {
            "network_class_name": UNET_MODULE + name,
            "arch_kwargs": kwargs,
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
        "batch_dice": False,
    }
    values = dict.fromkeys(("mean", "median", "std", "min", "max"), 1.0)
    return {
        "dataset_name": "Dataset001_Made",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [1.5, 1.0, 1.0],
        "original_median_shape_after_transp": [20, 18, 22],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {"2d" if dimensions == 2 else "3d_fullres": configuration},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            str(channel): {**values, "percentile_00_5": -1.0, "percentile_99_5": 3.0}
            for channel in range(channels)
        },
    }


def dataset_document(
    labels: Mapping[str, Any] = LABELS, channels: Sequence[str] = ("MR",), **more: Any
) -> dict[str, Any]:
    """``dataset.json``; ``more`` are further keys."""
    return {
        "channel_names": {str(n): name for n, name in enumerate(channels)},
        "labels": dict(labels),
        "numTraining": 12,
        "file_ending": ".nii.gz",
        "licence": "made by a test",
        **more,
    }


def random_network(
    network: NetworkPlan = PLAIN, *, channels: int = 1, outputs: int = 3, seed: int = 0
) -> UNet:
    """The network with random weights, biases and norms, so that answers vary in space."""
    torch.manual_seed(seed)
    built = build_unet(network, channels, outputs, deep_supervision=True)
    with torch.no_grad():
        for name, tensor in built.state_dict().items():
            around = 1.0 if name.endswith("norm.weight") else 0.0
            if tensor.ndim == 1:
                tensor.normal_(around, 0.3)
    return built.eval()


def nnunet_weights(network: UNet) -> dict[str, Tensor]:
    """The tensors as nnU-Net's ``state_dict`` lists them: many of them again under other names."""
    listed: dict[str, Tensor] = {}
    for name, tensor in network.state_dict().items():
        for place in (name, f"decoder.{name}") if name.startswith("encoder.") else (name,):
            listed[place] = tensor
            for layer, number in ((".conv.", 0), (".norm.", 1)):
                if layer in place:
                    listed[place.replace(layer, f".all_modules.{number}.")] = tensor
    return listed


def write_model_folder(
    folder: Path,
    networks: Mapping[str, UNet],
    *,
    plans: Mapping[str, Any] | None = None,
    dataset: Mapping[str, Any] | None = None,
    trainer: str = "nnUNetTrainer",
    checkpoint: str = "final",
    more: Mapping[str, Any] | None = None,
) -> Path:
    """Write the folder with a fold for each of ``networks``; ``more`` goes into checkpoints."""
    plans = plans or plans_document()
    dataset = dataset or dataset_document()
    folder.mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(plans), encoding="utf-8")
    (folder / "dataset.json").write_text(json.dumps(dataset), encoding="utf-8")
    fingerprint = {"spacings": [[1.5, 1.0, 1.0], [2.0, 1.0, 0.9]]}
    (folder / "dataset_fingerprint.json").write_text(json.dumps(fingerprint), encoding="utf-8")
    (configuration,) = plans["configurations"]
    dimensions = len(plans["configurations"][configuration]["patch_size"])
    for fold, network in networks.items():
        (folder / fold).mkdir()
        document = {
            "network_weights": nnunet_weights(network),
            "optimizer_state": {"state": {}, "param_groups": []},
            "grad_scaler_state": None,
            "logging": {
                "train_losses": [0.5, SCALAR],
                "val_losses": [SCALAR, 0.25],
                "mean_fg_dice": [SCALAR, SCALAR],
            },
            "_best_ema": SCALAR,
            "current_epoch": 2,
            "init_args": {
                "plans": plans,
                "configuration": configuration,
                "fold": fold.removeprefix("fold_"),
                "dataset_json": dataset,
                "device": torch.device("cpu"),
            },
            "trainer_name": trainer,
            "inference_allowed_mirroring_axes": tuple(range(dimensions)),
            **(more or {}),
        }
        torch.save(document, folder / fold / f"checkpoint_{checkpoint}.pth")
    return folder


def write_nnunet_place(folder: Path) -> None:
    """What somebody with nnU-Net has: results of two folds, and images without masks."""
    place = folder / "nnUNet_results" / "Dataset001_Made" / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    write_model_folder(place, {f"fold_{n}": random_network(seed=n) for n in range(2)})
    (folder / "imagesTs").mkdir()
    draws = np.random.default_rng(4)
    for case in ("a", "b"):
        image = draws.normal(100, 20, (18, 20, 16)).astype(np.float32)
        grid = Grid((16, 20, 18), (1.0, 1.0, 1.5), (0.0, 0.0, 0.0))
        write_nifti(folder / "imagesTs" / f"{case}_0000.nii.gz", image, grid)
