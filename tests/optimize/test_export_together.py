"""Several models, such as the folds of a run, as one file: what they say together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from medtool_pancreas import Pancreas
from medtool_petct import Petct
from optimised import CLASSES_IN_VOLUMES, learned_somewhat, write_heart
from tiny_prognosis import tiny_settings, tiny_studies
from untrained_petct import write_petct_model
from untrained_segment import write_model

from medtool.config import resolve
from medtool.core.checkpoint import CheckpointHeader
from medtool.core.ensemble import write_ensemble
from medtool.core.errors import UsageError
from medtool.core.task import Task
from medtool.optimize.export import export_onnx
from medtool.optimize.folder import whole_network, write_exported
from medtool.predict.deployed_model import engine_model
from medtool.predict.engines import open_engine
from medtool.predict.model import Model, load_model
from medtool.tasks.prognosis_passes import look_at, mean_of
from medtool.tasks.prognosis_predict import predict_study, predict_study_together

CT = (
    'data.preparation.normalisation=["ct"]',
    "data.preparation.intensities=[{mean=%s, median=55.0, std=%s, low=-900.0, high=900.0,"
    " percentile_00_5=-500.0, percentile_99_5=580.0}]",
)


def member(task: Task, seed: int, document: dict[str, Any] | None = None) -> Model:
    """A model with random weights of its own."""
    torch.manual_seed(seed)
    network = task.network().eval()
    learned_somewhat(network.state_dict())
    header = CheckpointHeader(Path("none"), document or {}, {}, 0)
    return Model(task, network, torch.device("cpu"), None, header, Path("none"), "", name=str(seed))


def together(*members: Model) -> Model:
    first = members[0]
    documents = [{"name": one.name, "document": one.document} for one in members]
    header = replace(first.header, document={"members": documents})
    return replace(first, members=members, header=header)


def exported(model: Model, file: Path, engine: str = "onnxruntime") -> Model:
    """``model``, answered by ``engine`` from one file."""
    task, network = whole_network(model)
    export_onnx(task, network, file)
    return engine_model(model, open_engine(file, engine=engine, threads=1))


def test_folds_with_scales_of_their_own_are_one_file(tmp_path: Path) -> None:
    """Each sees HU scaled by its own training patients; the file takes HU, and averages logits."""
    files = {}
    for number, (mean, std) in enumerate(((60.0, 40.0), (20.0, 80.0), (90.0, 30.0))):
        path = tmp_path / f"fold_{number}.safetensors"
        write_model(path, "[1.0, 1.0, 1.0]", CT[0], CT[1] % (mean, std))
        files[f"fold_{number}"] = path
    write_ensemble(tmp_path / "all.safetensors", files)
    model = load_model(tmp_path / "all.safetensors")
    (tmp_path / "optimised").mkdir()
    write_exported(model, tmp_path / "optimised")
    hu = np.random.default_rng(0).normal(60, 60, (2, 1, 16, 16, 16)).astype(np.float32)
    wanted = []
    for one, (mean, std) in zip(model.members, ((60, 40), (20, 80), (90, 30)), strict=True):
        with model.autocast():
            wanted.append(one.network(torch.from_numpy((hu - mean) / std)).numpy())
    for engine in ("onnxruntime", "openvino"):
        opened = open_engine(tmp_path / "optimised" / "model.onnx", engine=engine, threads=1)
        found = opened.run({"image": hu})["logits"]
        np.testing.assert_allclose(found, np.mean(wanted, axis=0), atol=1e-4)
    assert load_model(tmp_path / "optimised").members == ()


def test_folds_on_other_grids_are_refused(tmp_path: Path) -> None:
    for number, spacing in enumerate(("[1.0, 1.0, 1.0]", "[2.0, 1.0, 1.0]")):
        write_model(tmp_path / f"fold_{number}.safetensors", spacing)
    files = {f"fold_{n}": tmp_path / f"fold_{n}.safetensors" for n in (0, 1)}
    write_ensemble(tmp_path / "all.safetensors", files)
    with pytest.raises(UsageError, match="cannot become one file") as refused:
        whole_network(load_model(tmp_path / "all.safetensors"))
    assert "fold_1" in refused.value.met


def test_folds_of_slices_are_one_file(tmp_path: Path) -> None:
    """Three networks that differ; a file of one of them, or of two, would be far off."""
    task = load_model(write_heart(tmp_path / "heart.safetensors")).task
    model = together(*(member(task, seed) for seed in (1, 2, 3)))
    answered = exported(model, tmp_path / "model.onnx")
    images = torch.rand(3, 1, 16, 24)
    with torch.no_grad():
        logits = [one.network(images).numpy() for one in model.members]
        found = answered.network(images).numpy()
    np.testing.assert_allclose(found, np.mean(logits, axis=0), atol=1e-4)
    for some in (logits[:1], logits[1:2], logits[2:], logits[:2], logits[1:]):
        assert abs(found - np.mean(some, axis=0)).max() > 0.01


CLASSES = (
    *CLASSES_IN_VOLUMES,
    "model.features=[4, 6]",
    "model.kernel_sizes=[[3, 3, 3], [3, 3, 3]]",
    "model.strides=[[1, 1, 1], [2, 2, 2]]",
    "model.encoder_blocks=[1, 1]",
    "model.decoder_convolutions=[1]",
    "model.patch_size_vox=[8, 16, 16]",
)


def test_several_models_with_classes_are_one_file(tmp_path: Path) -> None:
    """Logits are averaged, and probabilities of classes."""
    resolved = resolve(Pancreas, None, folder=tmp_path, assignments=CLASSES)
    task = Pancreas(resolved.settings)
    model = together(*(member(task, seed) for seed in (1, 2, 3)))
    answered: Any = exported(model, tmp_path / "model.onnx").network
    images = torch.randn(2, 1, 8, 16, 16)
    with torch.no_grad():
        answers = [one.network.both(images) for one in model.members]  # type: ignore[operator]
        (found,), classes = answered.both(images)
    logits = np.mean([every[0].numpy() for every, _ in answers], axis=0)
    chances = np.mean([torch.softmax(one, 1).numpy() for _, one in answers], axis=0)
    np.testing.assert_allclose(found, logits, atol=1e-4)
    np.testing.assert_allclose(torch.softmax(classes, 1), chances, atol=1e-5)


@pytest.mark.parametrize("passes", [0, 3])
def test_a_deep_ensemble_with_passes_is_one_file(tmp_path: Path, passes: int) -> None:
    """Two models with passes: means, risks beside their centres, survival, all as by PyTorch."""
    settings: Any = tiny_settings(
        model={"first_features": 4, "levels": 3, "head_features": [8], "pooling": "both"},
        infer={"passes": passes, "batch_slices": 5},
    )
    task = Petct(settings)
    documents = [
        {"baseline_hazard": {"times_days": [100.0, 400.0], "hazard": [0.1, h], "mean_risk": risk}}
        for h, risk in ((0.4, 0.7), (0.6, -1.2))
    ]
    model = together(*(member(task, n + 1, one) for n, one in enumerate(documents)))
    for one in model.members:
        with torch.no_grad():
            layer: Any = list(one.network.decoder.seg_layers.values())[-1]  # type: ignore[operator, union-attr]
            layer.weight.mul_(5)
            layer.bias.zero_()
    studies = tiny_studies(tmp_path, 1)
    case, prepared = studies.cases[0], studies.prepared["case0"]
    looks = [look_at(settings, one, prepared, case) for one in model.members]
    wanted = mean_of(looks, [0.7, -1.2])
    answered = exported(model, tmp_path / "model.onnx")
    found = look_at(settings, answered, prepared, case)
    assert len(found.risks) == 2 * max(1, passes)
    np.testing.assert_allclose(found.risks, wanted.risks, atol=1e-4)
    np.testing.assert_allclose(found.probability, wanted.probability, atol=1e-4)
    np.testing.assert_allclose(found.entropy, wanted.entropy, atol=1e-4)
    np.testing.assert_allclose(found.tumour_square, wanted.tumour_square, atol=1e-4)
    np.testing.assert_allclose(found.volumes_ml, wanted.volumes_ml, rtol=0.01)
    whole = predict_study_together(model, [prepared, prepared], case).scalars
    own = predict_study(settings, answered, prepared, case).scalars
    for name in ("risk", "survival_365", "volume_ml"):
        if name in whole:
            assert own[name] == pytest.approx(whole[name], rel=1e-3)
    assert {n for n in whole if n.startswith("survival")} == {
        n for n in own if n.startswith("survival")
    }


def test_a_run_of_folds_with_passes_loads_from_its_folder(tmp_path: Path) -> None:
    files = {
        f"fold_{n}": write_petct_model(tmp_path / f"fold_{n}.safetensors", "infer.passes=2")
        for n in (0, 1)
    }
    write_ensemble(tmp_path / "all.safetensors", files)
    (tmp_path / "optimised").mkdir()
    write_exported(load_model(tmp_path / "all.safetensors"), tmp_path / "optimised")
    model = load_model(tmp_path / "optimised")
    assert model.task.exported_deployment().inputs["before"][1] == 2 * (16 + 1)
