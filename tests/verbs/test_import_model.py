"""Models of nnU-Net become checkpoints: the same answers, by hand; what does not fit is refused."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from medtool_segment.demo import draw_case, write_dataset
from nnunet_folder import (
    PLAIN,
    RESIDUAL,
    dataset_document,
    plans_document,
    random_network,
    write_model_folder,
)
from numpy.typing import NDArray

from medtool.core.checkpoint import read_header, verify_tensors
from medtool.core.errors import (
    CheckpointError,
    InputError,
    MedtoolError,
    OutputExistsError,
    UnknownNameError,
    UsageError,
)
from medtool.core.geometry import Grid
from medtool.data.nifti_writer import write_nifti
from medtool.nets.unet import UNet
from medtool.predict.model import load_model
from medtool.verbs.doctor import prove
from medtool.verbs.evaluate import EvaluateOptions, evaluate
from medtool.verbs.import_model import ImportOptions, import_model
from medtool.verbs.infer import InferOptions, infer
from medtool.verbs.inspect_checkpoint import inspect_checkpoint
from medtool.verbs.inspection_text import inspection_lines
from medtool.verbs.options import RunOptions

REGIONS = {"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}


def images(folder: Path, count: int, size: tuple[int, int, int]) -> list[NDArray[np.float32]]:
    """Channels of one case with the spacing of the plans, written as nnU-Net names them."""
    folder.mkdir()
    z, y, x = size
    grid = Grid((x, y, z), (1.0, 1.0, 1.5), (0.0, 0.0, 0.0))
    draws = np.random.default_rng(8)
    channels = [draws.normal(100, 20, size).astype(np.float32) for _ in range(count)]
    for number, channel in enumerate(channels):
        write_nifti(folder / f"a_{number:04d}.nii.gz", channel, grid)
    return channels


def imported(folder: Path, tmp_path: Path, **options: Any) -> Path:
    return import_model(ImportOptions("nnunet", folder, tmp_path / "c.safetensors", **options)).file


def mask_of(checkpoint: Path, source: Path, output: Path) -> NDArray[Any]:
    result = infer(
        InferOptions((source,), checkpoint, output, run=RunOptions(workers=0, device="cpu"))
    )
    assert result.ok == 1, result.rows
    found: NDArray[Any] = sitk.GetArrayFromImage(
        sitk.ReadImage(str(output / str(result.rows[0]["mask"])))
    )
    return found


def logits_of(networks: Sequence[UNet], channels: Sequence[NDArray[Any]]) -> torch.Tensor:
    """The mean logits (outputs, z, y, x) of one window; slices go alone through 2D networks."""
    scaled = np.stack([(c - c.mean()) / c.std() for c in channels]).astype(np.float32)
    batch = torch.from_numpy(scaled)[None]
    with torch.inference_mode():
        if networks[0].encoder.strides[0] == (1, 1):
            slices = batch[0].transpose(0, 1)
            return torch.stack([n(slices).transpose(0, 1) for n in networks]).mean(0)
        return torch.stack([n(batch)[0] for n in networks]).mean(0)


@pytest.mark.parametrize("folds", [1, 2])
def test_one_fold_and_several_answer_as_their_networks_do(tmp_path: Path, folds: int) -> None:
    networks = {f"fold_{n}": random_network(seed=n) for n in range(folds)}
    checkpoint = imported(write_model_folder(tmp_path / "model", networks), tmp_path)
    channels = images(tmp_path / "imagesTs", 1, (16, 16, 16))
    wanted = logits_of(list(networks.values()), channels).argmax(0).numpy()
    found = mask_of(checkpoint, tmp_path / "imagesTs", tmp_path / "out")
    assert len(np.unique(wanted)) == 3
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("forward", [[0, 1, 2], [2, 0, 1]])
def test_images_are_turned_first_where_the_models_reader_did_so(
    tmp_path: Path, forward: list[int]
) -> None:
    """The reader of TotalSegmentator's models: arrays run to the Superior, Anterior and Right."""
    plans = plans_document(patch=(16, 16, 16))
    plans |= {"image_reader_writer": "NibabelIOWithReorient", "transpose_forward": forward}
    plans["configurations"]["3d_fullres"]["spacing"] = [[1.5, 1.0, 1.0][axis] for axis in forward]
    network = random_network()
    checkpoint = imported(
        write_model_folder(tmp_path / "model", {"fold_0": network}, plans=plans), tmp_path
    )
    (tmp_path / "imagesTs").mkdir()
    values = np.random.default_rng(8).normal(100, 20, (16, 16, 16)).astype(np.float32)
    # Of the file: x runs to the Anterior, y to the Left, z to the Inferior (columns, in LPS).
    directions = (0.0, 1.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
    grid = Grid((16, 16, 16), (1.0, 1.0, 1.5), (5.0, 6.0, 7.0), directions)
    write_nifti(tmp_path / "imagesTs" / "a_0000.nii.gz", values, grid)
    # By nibabel: z from below, then what runs to the Anterior, then to the Right.
    image = nibabel.load(tmp_path / "imagesTs" / "a_0000.nii.gz")
    turned = np.asarray(nibabel.as_closest_canonical(image).dataobj).transpose(2, 1, 0)
    np.testing.assert_array_equal(turned, values[::-1, ::-1].transpose(0, 2, 1))
    logits = logits_of([network], [turned.transpose(forward)])
    wanted = logits.argmax(0).numpy().transpose(np.argsort(forward))
    assert len(np.unique(wanted)) == 3
    found = mask_of(checkpoint, tmp_path / "imagesTs", tmp_path / "out")
    np.testing.assert_array_equal(found, wanted.transpose(0, 2, 1)[::-1, ::-1])


def test_regions_channels_and_slices_of_a_residual_network(tmp_path: Path) -> None:
    network = random_network(RESIDUAL, channels=2, outputs=2)
    folder = write_model_folder(
        tmp_path / "model",
        {"fold_all": network},
        plans=plans_document(
            RESIDUAL, patch=(16, 16), channels=2, schemes=("ZScoreNormalization",) * 2
        ),
        dataset=dataset_document(REGIONS, ("T1", "T2"), regions_class_order=[1, 2]),
    )
    checkpoint = imported(folder, tmp_path)
    data = read_header(checkpoint).document["preset"]["data"]
    assert (data["regions_order"], data["ignore_id"]) == ([1, 2], 3)
    channels = images(tmp_path / "imagesTs", 2, (3, 16, 16))
    logits = logits_of([network], channels).numpy()
    wanted = np.where(logits[1] > 0, 2, np.where(logits[0] > 0, 1, 0))
    assert len(np.unique(wanted)) == 3
    found = mask_of(checkpoint, tmp_path / "imagesTs", tmp_path / "out")
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("median_mm", [[999.0, 1.0, 1.0], None])
def test_a_model_of_pictures_answers_pictures(
    tmp_path: Path, median_mm: list[float] | None
) -> None:
    """The reader was accepted once, and then no picture could be given to the model."""
    network = random_network(RESIDUAL)
    plans = plans_document(RESIDUAL, patch=(16, 16))
    plans["image_reader_writer"] = "NaturalImage2DIO"
    plans["original_median_spacing_after_transp"] = median_mm
    dataset = {**dataset_document(), "file_ending": ".png"}
    folder = write_model_folder(
        tmp_path / "model", {"fold_0": network}, plans=plans, dataset=dataset
    )
    checkpoint = imported(folder, tmp_path)
    values = np.random.default_rng(4).integers(0, 255, (1, 16, 16), dtype=np.uint8)
    (tmp_path / "imagesTs").mkdir()
    cv2.imwrite(str(tmp_path / "imagesTs" / "a_0000.png"), values[0])
    run = RunOptions(workers=0, device="cpu")
    result = infer(InferOptions((tmp_path / "imagesTs",), checkpoint, tmp_path / "out", run=run))
    assert result.ok == 1, result.rows
    mask = tmp_path / "out" / str(result.rows[0]["mask"])
    wanted = logits_of([network], [values.astype(np.float32)]).argmax(0).numpy()
    assert len(np.unique(wanted)) == 3
    np.testing.assert_array_equal(cv2.imread(str(mask), cv2.IMREAD_UNCHANGED), wanted[0])


def test_outputs_follow_the_ids_of_labels_not_their_order(tmp_path: Path) -> None:
    network = random_network()
    turned = {"nodule": 2, "organ": 1, "background": 0}
    folder = write_model_folder(
        tmp_path / "model", {"fold_0": network}, dataset=dataset_document(turned)
    )
    channels = images(tmp_path / "imagesTs", 1, (16, 16, 16))
    found = mask_of(imported(folder, tmp_path), tmp_path / "imagesTs", tmp_path / "out")
    np.testing.assert_array_equal(found, logits_of([network], channels).argmax(0).numpy())


def test_plans_of_old_versions_mean_the_same(tmp_path: Path) -> None:
    """Before nnU-Net 2.4 plans named no architecture (plans_handler.py of 2.8.1 converts them)."""
    plans = plans_document()
    new = write_model_folder(tmp_path / "new", {"fold_0": random_network()}, plans=plans)
    entry = plans["configurations"]["3d_fullres"]
    entry.pop("architecture")
    entry |= {
        "UNet_class_name": "PlainConvUNet",
        "UNet_base_num_features": 4,
        "unet_max_num_features": 320,
        "n_conv_per_stage_encoder": [2, 2],
        "n_conv_per_stage_decoder": [2],
        "num_pool_per_axis": [1, 1, 1],
        "pool_op_kernel_sizes": [list(stride) for stride in PLAIN.strides],
        "conv_kernel_sizes": [list(kernel) for kernel in PLAIN.kernel_sizes],
    }
    old = write_model_folder(tmp_path / "old", {"fold_0": random_network()}, plans=plans)
    presets = []
    for folder in (new, old):
        checkpoint = imported(folder, tmp_path, force=True)
        presets.append(read_header(checkpoint).document["preset"])
    assert presets[0] == presets[1]


def test_the_checkpoint_says_where_it_is_from_and_is_whole(tmp_path: Path) -> None:
    networks = {f"fold_{n}": random_network(seed=n) for n in range(2)}
    folder = write_model_folder(
        tmp_path / "model",
        networks,
        trainer="nnUNetTrainerNoMirroring",
        dataset=dataset_document(dataset={"Jane Doe": {}}, validation=[{"image": "Jane Doe"}]),
        more={"inference_allowed_mirroring_axes": None},
    )
    header = read_header(imported(folder, tmp_path))
    assert verify_tensors(header) == []
    assert [proof.passed for proof in prove(header.path, "cpu")] == [True, True]
    first = header.document["members"][0]["document"]
    assert first["imported"]["trainer"] == "nnUNetTrainerNoMirroring"
    assert first["preset"]["augment"]["mirror"] is False
    assert first["metrics"]["selection"] == {"dice": 0.75}
    assert [row["loss"] for row in first["history"]] == [0.5, 0.75]
    # The fingerprint's z, y, x; the smallest and the largest of the training.
    spacing = header.document["training_range"]["spacing_mm"]
    assert [(axis[0], axis[-1]) for axis in spacing] == [(1.5, 2.0), (1.0, 1.0), (0.9, 1.0)]
    # Names of cases stay where they are, also (from a fault) in lists that nnU-Net does not know.
    assert "Jane" not in json.dumps(header.document)
    assert str(tmp_path).encode() not in header.path.read_bytes()
    text = "\n".join(inspection_lines(inspect_checkpoint(header.path)))
    assert "2 models that answer together: fold_0, fold_1" in text
    assert "nnUNetTrainerNoMirroring" in text


def test_an_imported_model_is_evaluated_like_any_other(tmp_path: Path) -> None:
    networks = {f"fold_{n}": random_network(seed=n) for n in range(2)}
    folder = write_model_folder(
        tmp_path / "model", networks, dataset=dataset_document(synthetic=True)
    )
    write_dataset(tmp_path / "data", seed=1, cases=2)
    checkpoint = imported(folder, tmp_path)
    found = evaluate(
        EvaluateOptions(
            subjects=(),
            checkpoints=(checkpoint,),
            data=tmp_path / "data",
            output=tmp_path / "evaluation",
            run=RunOptions(workers=0, device="cpu"),
        )
    )
    dices = []
    for number in range(2):
        _, truth, _ = draw_case(1, number)
        (file,) = (tmp_path / "evaluation").rglob(f"masks/demo_{number:03d}.nii.gz")
        mask = sitk.GetArrayFromImage(sitk.ReadImage(str(file)))
        both = np.count_nonzero((mask == 1) & (truth == 1))
        dices.append(2 * both / (np.count_nonzero(mask == 1) + np.count_nonzero(truth == 1)))
    value = found.evaluated[0].scores.metrics["dice.organ"].value
    assert value == pytest.approx(np.mean(dices))


def test_the_best_checkpoints_and_single_folds_are_there_for_the_asking(tmp_path: Path) -> None:
    networks = {f"fold_{n}": random_network(seed=n) for n in range(2)}
    folder = write_model_folder(tmp_path / "model", networks, checkpoint="best")
    with pytest.raises(InputError, match="no trained fold") as refusal:
        imported(folder, tmp_path)
    assert "--checkpoint best" in refusal.value.how
    checkpoint = imported(folder, tmp_path, checkpoint="best", folds=("1",))
    model = load_model(checkpoint, device="cpu")
    assert not model.members
    for name, tensor in networks["fold_1"].state_dict().items():
        assert torch.equal(model.network.state_dict()[name], tensor)
    with pytest.raises(InputError, match="lacks a fold"):
        imported(folder, tmp_path, checkpoint="best", folds=("3",), force=True)
    with pytest.raises(OutputExistsError):
        imported(folder, tmp_path, checkpoint="best")


class Attack:
    """What a pickle can do to whoever opens it."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return (os.mkdir, ("attacked",))


def test_code_in_a_checkpoint_is_named_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = write_model_folder(
        tmp_path / "model", {"fold_0": random_network()}, more={"logging": Attack()}
    )
    with pytest.raises(CheckpointError, match=r"mkdir.*nothing was run") as refusal:
        imported(folder, tmp_path)
    assert refusal.value.where.endswith("checkpoint_final.pth")
    assert not (tmp_path / "attacked").exists()
    assert not (tmp_path / "c.safetensors").exists()
    # Opened as torch once did by itself, it would have run.
    torch.load(folder / "fold_0" / "checkpoint_final.pth", weights_only=False)  # noqa: TID251
    assert (tmp_path / "attacked").exists()


def _changed(change: Callable[[dict[str, Any], dict[str, Any]], object]) -> dict[str, Any]:
    """Plans after ``change`` of (plans, their configuration)."""
    plans = plans_document()
    change(plans, plans["configurations"]["3d_fullres"])
    return plans


def _kwargs(entry: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = entry["architecture"]["arch_kwargs"]
    return found


BATCH_NORM = "torch.nn.modules.batchnorm.BatchNorm3d"
DIFFERENT_PLANS = {
    "previous_stage": (lambda _, e: e.update(previous_stage="3d_lowres"), "cascade"),
    "norm": (lambda _, e: _kwargs(e).update(norm_op=BATCH_NORM), f"norm_op {BATCH_NORM}"),
    "activation": (lambda _, e: _kwargs(e).update(nonlin="torch.nn.ReLU"), "nonlin torch.nn.ReLU"),
    "dropout": (
        lambda _, e: _kwargs(e).update(dropout_op="torch.nn.Dropout3d"),
        "dropout_op torch.nn.Dropout3d",
    ),
    "network": (
        lambda _, e: e["architecture"].update(network_class_name="mine.SwinUNETR"),
        "network mine.SwinUNETR",
    ),
    "reader": (lambda p, _: p.update(image_reader_writer="MyIO"), "images read by MyIO"),
    "preprocessor": (lambda _, e: e.update(preprocessor_name="Mine"), "prepared by Mine"),
    "scheme": (lambda _, e: e.update(normalization_schemes=["Mine"]), "normalised by Mine"),
    "resampling": (
        lambda _, e: e.update(resampling_fn_data="resample_torch_fornnunet"),
        "data resampled by resample_torch_fornnunet",
    ),
    "order": (
        lambda _, e: e.update(resampling_fn_probabilities_kwargs={"order": 0}),
        "probabilities resampled with order 0, not 1",
    ),
    "tensors": (
        lambda _, e: _kwargs(e).update(features_per_stage=[4, 12]),
        "is [8, 4, 3, 3, 3] instead of [12, 4, 3, 3, 3]",
    ),
    "stages": (
        lambda _, e: _kwargs(e).update(n_conv_per_stage=[2, 3]),
        "'encoder.stages.1.0.convs.2.conv.weight' is missing",
    ),
    "missing": (lambda _, e: e.pop("spacing"), "'spacing'"),
    "broken": (lambda _, e: e.update(patch_size="large"), "cannot be understood"),
}


@pytest.mark.parametrize("change", DIFFERENT_PLANS)
def test_plans_that_want_something_else_are_refused_by_name(tmp_path: Path, change: str) -> None:
    apply, said = DIFFERENT_PLANS[change]
    folder = write_model_folder(
        tmp_path / "model", {"fold_0": random_network()}, plans=_changed(apply)
    )
    with pytest.raises(CheckpointError) as refusal:
        imported(folder, tmp_path)
    assert said in str(refusal.value)


def test_all_that_differs_is_said_at_once(tmp_path: Path) -> None:
    def change(plans: dict[str, Any], entry: dict[str, Any]) -> None:
        plans["image_reader_writer"] = "MyIO"
        entry["preprocessor_name"] = "Mine"
        _kwargs(entry)["conv_bias"] = False

    folder = write_model_folder(
        tmp_path / "model", {"fold_0": random_network()}, plans=_changed(change)
    )
    with pytest.raises(CheckpointError) as refusal:
        imported(folder, tmp_path)
    assert all(word in refusal.value.met for word in ("MyIO", "Mine", "conv_bias False"))


def warnings_of_import(folder: Path, tmp_path: Path) -> list[str]:
    heard: list[str] = []

    class Listener:
        def say(self, text: str) -> None: ...

        def warn(self, text: str) -> None:
            heard.append(text)

    options = ImportOptions("nnunet", folder, tmp_path / "c.safetensors")
    import_model(options, Listener())  # type: ignore[arg-type]
    return heard


def test_trainers_of_others_are_taken_with_a_word(tmp_path: Path) -> None:
    folder = write_model_folder(
        tmp_path / "model", {"fold_0": random_network()}, trainer="MyTrainer"
    )
    (heard,) = warnings_of_import(folder, tmp_path)
    assert "MyTrainer" in heard


def test_a_model_that_is_mirrored_along_some_axes_only_is_asked_without(tmp_path: Path) -> None:
    """From a fault: its inputs were mirrored along axes that nnU-Net forbids."""
    folder = write_model_folder(
        tmp_path / "model",
        {"fold_0": random_network()},
        trainer="nnUNetTrainer_onlyMirror01",
        more={"inference_allowed_mirroring_axes": (0, 1)},
    )
    (heard,) = warnings_of_import(folder, tmp_path)
    assert "axes 0, 1 only" in heard
    checkpoint = tmp_path / "c.safetensors"
    # What nnU-Net may do with it is kept, for the way back.
    assert read_header(checkpoint).document["imported"]["mirror_axes"] == [0, 1]
    with pytest.raises(UsageError, match="Mirrored inputs are strange"):
        load_model(checkpoint, device="cpu", assignments=("infer.mirror=true",))


def test_tensors_that_stand_there_twice_must_agree(tmp_path: Path) -> None:
    folder = write_model_folder(tmp_path / "model", {"fold_0": random_network()})
    file = folder / "fold_0" / "checkpoint_final.pth"
    document = torch.load(file, weights_only=False)  # noqa: TID251
    name = "decoder.encoder.stages.0.0.convs.0.conv.weight"
    document["network_weights"][name] = document["network_weights"][name] + 1
    torch.save(document, file)
    with pytest.raises(CheckpointError, match="twice, with different values"):
        imported(folder, tmp_path)


def test_folders_and_files_that_are_none_of_nnunet(tmp_path: Path) -> None:
    folder = write_model_folder(tmp_path / "Dataset001" / "model", {"fold_0": random_network()})
    with pytest.raises(InputError, match="no such model folder") as missing:
        imported(tmp_path / "Dataset01", tmp_path)
    assert missing.value.nearest.endswith("Dataset001")
    with pytest.raises(InputError, match="no model folder") as above:
        imported(tmp_path / "Dataset001", tmp_path)
    assert above.value.how.endswith("model")
    file = folder / "fold_0" / "checkpoint_final.pth"
    whole = file.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"no pickle"):
        file.write_bytes(content)
        with pytest.raises(CheckpointError, match="cannot be read as weights"):
            imported(folder, tmp_path)
    torch.save({"state_dict": {}}, file)
    with pytest.raises(CheckpointError, match="no checkpoint of nnU-Net"):
        imported(folder, tmp_path)
    (folder / "plans.json").write_text("{}")
    with pytest.raises(MedtoolError, match="no plan of nnU-Net"):
        imported(folder, tmp_path)
    with pytest.raises(UnknownNameError) as program:
        import_model(ImportOptions("nnunets", folder, tmp_path / "c.safetensors"))
    assert program.value.nearest == "nnunet"
