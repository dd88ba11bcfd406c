"""What is exported for nnU-Net: its names of tensors, its plans; and back again, the same model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from medtool_segment import Segment
from nnunet_folder import (
    PLAIN,
    RESIDUAL,
    dataset_document,
    nnunet_weights,
    plans_document,
    random_network,
    write_model_folder,
)

from medtool.config.layers import settings_from_document
from medtool.core.checkpoint import read_header, write_checkpoint
from medtool.core.errors import OutputExistsError, UnknownNameError, UsageError
from medtool.core.plan import NetworkPlan
from medtool.nets.state import raw_tensor
from medtool.nets.unet import UNet, build_unet
from medtool.predict.model import load_model
from medtool.verbs.export_model import ExportOptions, ExportResult, export_model
from medtool.verbs.import_model import ImportOptions, import_model


def own_checkpoint(
    path: Path,
    network: UNet,
    *,
    plan: NetworkPlan = PLAIN,
    labels: dict[str, list[int]] | None = None,
    model: dict[str, Any] | None = None,
    infer: dict[str, Any] | None = None,
    augment: dict[str, Any] | None = None,
    **document: Any,
) -> Path:
    """A checkpoint as 'train' leaves it, as far as an export looks."""
    settings = Segment.settings_type.model_validate(
        {
            "data": {
                "channels": ["CT"],
                "label_ids": labels or {"background": [0], "organ": [1], "nodule": [2]},
                "preparation": {
                    "configuration": "3d_fullres",
                    "axes_forward": [2, 0, 1],
                    "spacing_mm": [3.0, 0.8, 0.7],
                    "normalisation": ["ct"],
                    "mask_for_normalisation": [False],
                    "intensities": [
                        {
                            "mean": 40.0,
                            "median": 41.0,
                            "std": 20.0,
                            "low": -100.0,
                            "high": 300.0,
                            "percentile_00_5": -20.0,
                            "percentile_99_5": 110.0,
                        }
                    ],
                },
            },
            "model": {
                "kind": plan.kind,
                "features": plan.features,
                "kernel_sizes": plan.kernel_sizes,
                "strides": plan.strides,
                "encoder_blocks": plan.encoder_blocks,
                "decoder_convolutions": plan.decoder_convolutions,
                "patch_size_vox": [16, 16, 16],
                **(model or {}),
            },
            "train": {"batch_cases": 2, "batch_dice": False},
            "infer": infer or {},
            "augment": augment or {},
        }
    )
    tensors = [raw_tensor(f"model.{name}", t) for name, t in network.state_dict().items()]
    write_checkpoint(
        path, {"task": "segment", "preset": settings.as_dict(), "epoch": 4, **document}, tensors
    )
    return path


def exported(checkpoint: Path, folder: Path, **options: Any) -> ExportResult:
    return export_model(ExportOptions("nnunet", checkpoint, folder, **options))


def weights_in(folder: Path, fold: str = "fold_0") -> dict[str, torch.Tensor]:
    file = folder / fold / "checkpoint_final.pth"
    found: dict[str, torch.Tensor] = torch.load(file, weights_only=True)["network_weights"]  # noqa: TID251
    return found


@pytest.mark.parametrize("plan", [PLAIN, RESIDUAL], ids=lambda plan: plan.kind)
def test_what_was_imported_goes_back_as_it_came(tmp_path: Path, plan: NetworkPlan) -> None:
    dimensions = plan.dimensions
    patch, networks = (16,) * dimensions, [random_network(plan, seed=n) for n in range(2)]
    plans, dataset = plans_document(plan, patch=patch), dataset_document()
    folder = write_model_folder(
        tmp_path / "model",
        {f"fold_{n}": network for n, network in enumerate(networks)},
        plans=plans,
        dataset=dataset,
        trainer="nnUNetTrainer_5epochs",
    )
    checkpoint = import_model(ImportOptions("nnunet", folder, tmp_path / "c.safetensors")).file
    result = exported(checkpoint, tmp_path / "results")
    configuration = "2d" if dimensions == 2 else "3d_fullres"
    name = f"nnUNetTrainer_5epochs__nnUNetPlans__{configuration}"
    assert result.folder == tmp_path / "results" / "Dataset001_Made" / name
    assert json.loads((result.folder / "plans.json").read_text()) == plans
    assert json.loads((result.folder / "dataset.json").read_text()) == dataset
    for number, network in enumerate(networks):
        found, wanted = weights_in(result.folder, f"fold_{number}"), nnunet_weights(network)
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[key], wanted[key]) for key in wanted)
    assert "-tr nnUNetTrainer_5epochs -p nnUNetPlans -c " + configuration in result.command
    assert "-f 0 1 --disable_tta -step_size 0.5 -i" in result.command


def test_a_model_of_our_own_becomes_one_of_theirs_and_comes_back(tmp_path: Path) -> None:
    network = random_network()
    checkpoint = own_checkpoint(tmp_path / "own.safetensors", network)
    result = exported(checkpoint, tmp_path / "results", dataset="Dataset007_Organ")
    assert result.folder.parent.name == "Dataset007_Organ"
    plans = json.loads((result.folder / "plans.json").read_text())
    # By hand, from the keys that nnU-Net reads.
    assert plans["dataset_name"] == "Dataset007_Organ"
    assert (plans["transpose_forward"], plans["transpose_backward"]) == ([2, 0, 1], [1, 2, 0])
    values = plans["foreground_intensity_properties_per_channel"]["0"]
    assert (values["mean"], values["std"], values["percentile_99_5"]) == (40.0, 20.0, 110.0)
    entry = plans["configurations"]["3d_fullres"]
    assert entry["spacing"] == [3.0, 0.8, 0.7]
    assert entry["normalization_schemes"] == ["CTNormalization"]
    assert entry["architecture"]["arch_kwargs"]["n_conv_per_stage"] == [2, 2]
    description = json.loads((result.folder / "dataset.json").read_text())
    assert description["labels"] == {"background": 0, "organ": 1, "nodule": 2}
    assert description["channel_names"] == {"0": "CT"}
    back = import_model(ImportOptions("nnunet", result.folder, tmp_path / "back.safetensors")).file
    again = settings_from_document(Segment, read_header(back).document["preset"])
    before = settings_from_document(Segment, read_header(checkpoint).document["preset"])
    assert again.data == before.data
    assert again.model == before.model
    found = load_model(back, device="cpu").network.state_dict()
    assert all(torch.equal(found[name], t) for name, t in network.state_dict().items())


def test_outputs_come_in_the_order_of_their_ids(tmp_path: Path) -> None:
    network = random_network()
    labels = {"background": [0], "nodule": [2], "organ": [1]}
    checkpoint = own_checkpoint(tmp_path / "own.safetensors", network, labels=labels)
    folder = exported(checkpoint, tmp_path / "results").folder
    found = weights_in(folder)["decoder.seg_layers.0.weight"]
    own = network.state_dict()["decoder.seg_layers.0.weight"]
    assert torch.equal(found, own[[0, 2, 1]])


def test_layers_that_only_training_has_are_filled_in(tmp_path: Path) -> None:
    plan = NetworkPlan(
        kind="plain",
        features=(4, 8, 8),
        kernel_sizes=((3, 3, 3),) * 3,
        strides=((1, 1, 1), (2, 2, 2), (2, 2, 2)),
        encoder_blocks=(1, 1, 1),
        decoder_convolutions=(1, 1),
    )
    network = build_unet(plan, 1, 3, deep_supervision=False)
    checkpoint = own_checkpoint(
        tmp_path / "own.safetensors", network, plan=plan, model={"deep_supervision": False}
    )
    found = weights_in(exported(checkpoint, tmp_path / "results").folder)
    assert not found["decoder.seg_layers.0.weight"].any()
    last = network.state_dict()["decoder.seg_layers.1.weight"]
    assert torch.equal(found["decoder.seg_layers.1.weight"], last)


def test_what_nnunet_cannot_have_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    own_checkpoint(path, random_network(), model={"attention_gates": True})
    with pytest.raises(UsageError, match="attention gates"):
        exported(path, tmp_path / "results")
    own_checkpoint(path, random_network(), labels={"background": [0], "a": [1], "b": [7]})
    with pytest.raises(UsageError, match="labels 0, 1, 7"):
        exported(path, tmp_path / "results")
    own_checkpoint(path, random_network())
    with pytest.raises(UsageError, match="by other names"):
        exported(path, tmp_path / "results", dataset="organ")
    with pytest.raises(UnknownNameError) as program:
        export_model(ExportOptions("nnunets", path, tmp_path / "results"))
    assert program.value.nearest == "nnunet"
    exported(path, tmp_path / "results")
    with pytest.raises(OutputExistsError):
        exported(path, tmp_path / "results")


def test_folds_of_different_plans_are_no_folds_to_nnunet(tmp_path: Path) -> None:
    from medtool.core.ensemble import write_ensemble

    files = {}
    for number, spacing in enumerate((1.0, 1.1)):
        plans = plans_document()
        plans["configurations"]["3d_fullres"]["spacing"][2] = spacing
        folder = write_model_folder(
            tmp_path / f"m{number}", {"fold_0": random_network()}, plans=plans
        )
        file = tmp_path / f"{number}.safetensors"
        files[f"fold_{number}"] = import_model(ImportOptions("nnunet", folder, file)).file
    write_ensemble(tmp_path / "both.safetensors", files)
    with pytest.raises(UsageError, match="planned from different cases"):
        exported(tmp_path / "both.safetensors", tmp_path / "results")


def told(checkpoint: Path, folder: Path) -> tuple[ExportResult, list[str]]:
    heard: list[str] = []

    class Listener:
        def say(self, text: str) -> None: ...

        def warn(self, text: str) -> None:
            heard.append(text)

    options = ExportOptions("nnunet", checkpoint, folder)
    return export_model(options, Listener()), heard  # type: ignore[arg-type]


def test_what_stays_behind_is_said(tmp_path: Path) -> None:
    path = own_checkpoint(
        tmp_path / "own.safetensors",
        random_network(),
        postprocessing={"steps": [{"kind": "largest-component", "labels": [1]}]},
    )
    _, heard = told(path, tmp_path / "results")
    assert len(heard) == 1 and "removes small pieces" in heard[0]


def test_the_command_answers_as_medtool_does_or_it_is_said(tmp_path: Path) -> None:
    """From a fault: step and mirroring were nnU-Net's own, and a coarse model was not spoken of."""
    infer = {"step": 0.7, "mirror": True, "largest_component": "always"}
    path = own_checkpoint(
        tmp_path / "own.safetensors",
        random_network(),
        infer=infer,
        augment={"mirror": True},
        companions=["region"],
    )
    result, heard = told(path, tmp_path / "results")
    assert "-f 0 -step_size 0.7 -i INPUT" in result.command
    assert len(heard) == 2
    assert "removes small pieces" in heard[0] and "coarse model" in heard[1]
    # Which axis that is differs from case to case; nnU-Net's axes are those of the model.
    own_checkpoint(path, random_network(), infer=infer, augment={"mirror": "left-right"})
    _, heard = told(path, tmp_path / "again")
    assert len(heard) == 2 and "left for right" in heard[1]
