"""Every family, exported and answered by engines, against PyTorch on whole cases."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from medtool_brainmet import Brainmet
from medtool_brainmet.normalisation import normalise_slices
from medtool_brainmet.normalisation_layer import SliceNormalisation
from medtool_pancreas import Pancreas
from medtool_petct import Petct
from optimised import CLASSES_IN_VOLUMES, learned_somewhat, write_untrained
from tiny_bag import TinyBag, tiny_cases
from tiny_bag import tiny_settings as bag_settings
from tiny_prognosis import tiny_settings as prognosis_settings
from tiny_prognosis import tiny_studies

from medtool.config import resolve
from medtool.core.checkpoint import CheckpointHeader
from medtool.core.errors import UsageError
from medtool.core.task import Task
from medtool.optimize.export import export_onnx
from medtool.optimize.measure import example_inputs
from medtool.optimize.onnx_counts import counts
from medtool.predict.engines import open_engine
from medtool.predict.layout import use_fast_layout
from medtool.predict.model import Model, load_model
from medtool.tasks.bag_predict import LARGEST_LOGIT
from medtool.tasks.prognosis_covariates import with_known_covariates
from medtool.tasks.prognosis_passes import Looked, look_at

ENGINES = ("onnxruntime", "openvino")


def untrained(task: Task) -> Model:
    """A model with random weights."""
    torch.manual_seed(1)
    network = task.network().eval()
    learned_somewhat(network.state_dict())
    header = CheckpointHeader(Path("none"), {"threshold": 0.5}, {}, 0)
    return Model(task, network, torch.device("cpu"), None, header, Path("none"), "")


def parts_when_compiled(model: Model) -> int:
    """Graphs that ``torch.compile`` makes of what is exported: more than one where it is cut."""
    module = model.task.exported(model.network).eval()
    inputs = example_inputs(model.task.exported_deployment(), 1)
    torch._dynamo.reset()
    with torch.inference_mode():
        told = torch._dynamo.explain(module)(*map(torch.from_numpy, inputs.values()))
    return int(told.graph_count)


def by_engine(model: Model, file: Path, engine: str) -> Model:
    """The model, answered by another engine."""
    opened = open_engine(file, engine=engine, threads=1)
    return replace(model, network=model.task.answered_by(opened))


@pytest.mark.parametrize("pooling", ["max", "mean", "top-k", "lse", "noisy-or", "attention"])
def test_a_study_in_chunks_is_answered_alike(tmp_path: Path, pooling: str) -> None:
    """More slices than a chunk of 4 holds, and a last chunk of one."""
    model = untrained(TinyBag(bag_settings(model={"pooling": pooling})))
    export_onnx(model.task, model.network, tmp_path / "model.onnx")
    cases = tiny_cases(2, slices=9)
    for engine in ENGINES:
        other = by_engine(model, tmp_path / "model.onnx", engine)
        for case in cases:
            prepared = model.task.prepare(case)
            wanted = model.task.predict(model, prepared, case)
            found = other.task.predict(other, prepared, case)
            assert found.scalars["logit"] == pytest.approx(wanted.scalars["logit"], abs=1e-4)
            for name in ("top_slice_index", "slices_used", "decision"):
                assert found.scalars[name] == wanted.scalars[name]
            for one, row in zip(found.elements, wanted.elements, strict=True):
                for name in {"logit", "attention"} & set(row):
                    assert one[name] == pytest.approx(row[name], abs=1e-4)


def test_weights_in_another_order_leave_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Channels last, a pooled map was gathered number by number, and its size was not known."""
    small = ("model.backbone=resnet10t", "data.preparation.size_px=64")
    task = Brainmet(resolve(Brainmet, None, folder=tmp_path, assignments=small).settings)
    model = untrained(task)
    plain = export_onnx(task, model.network, tmp_path / "plain.onnx")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    use_fast_layout(model.network, torch.device("cpu"))
    assert not all(one.is_contiguous() for one in model.network.parameters())
    turned = export_onnx(task, model.network, tmp_path / "turned.onnx")
    kinds = [[node.op_type for node in onnx.load(one.file).graph.node] for one in (plain, turned)]
    assert kinds[0] == kinds[1]
    shapes = {"slices": (1, 64, 64), "mask": (1, 64, 64)}
    assert counts(turned.file, shapes) == counts(plain.file, shapes)


@pytest.mark.parametrize("pooling", ["max", "mean", "top-k", "lse", "noisy-or"])
def test_studies_that_are_nearly_certain_keep_their_logit(tmp_path: Path, pooling: str) -> None:
    """Engines know sigmoid, exp and log alone, whose rounding near 1 is all there is of a P."""
    for shift in (-18.0, 18.0):
        model = untrained(TinyBag(bag_settings(model={"pooling": pooling})))
        layer: Any = model.network.head.output  # type: ignore[union-attr]
        with torch.no_grad():
            layer.bias.add_(shift)
        export_onnx(model.task, model.network, tmp_path / "model.onnx")
        case = tiny_cases(1, slices=4)[0]
        prepared = model.task.prepare(case)
        wanted = model.task.predict(model, prepared, case).scalars["logit"]
        assert abs(wanted) > 8
        fed: dict[str, Any] = {"slices": prepared.arrays["slices"][:, None] * 2 - 1}
        for engine in ENGINES:
            opened = open_engine(tmp_path / "model.onnx", engine=engine, threads=1)
            said = opened.run(fed)
            found = float(np.clip(said["logit"][0], -LARGEST_LOGIT, LARGEST_LOGIT))
            assert found == pytest.approx(wanted, abs=2e-3), (engine, shift)
            probability = 1 / (1 + np.exp(-float(said["logit"][0])))
            assert said["probability"][0] == pytest.approx(probability, rel=1e-4)


@pytest.mark.parametrize("pooling", ["max", "top-k", "attention"])
def test_one_call_gives_the_answer_of_a_study(tmp_path: Path, pooling: str) -> None:
    model = untrained(TinyBag(bag_settings(model={"pooling": pooling})))
    export_onnx(model.task, model.network, tmp_path / "model.onnx")
    case = tiny_cases(1, slices=7)[0]
    prepared = model.task.prepare(case)
    wanted = model.task.predict(model, prepared, case).scalars["probability"]
    fed: dict[str, Any] = {"slices": prepared.arrays["slices"][:, None] * 2 - 1}
    if pooling == "attention":
        fed["before"] = np.zeros(model.task.exported_deployment().inputs["before"], np.float32)
    found = open_engine(tmp_path / "model.onnx", threads=1).run(fed)["probability"]
    assert float(found[0]) == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("how", ["brain_zscore", "radimagenet"])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_normalisation_as_a_layer_is_that_of_the_preparation(how: Any, channels: int) -> None:
    rng = np.random.default_rng(4)
    slices = rng.random((4, 12, 12)).astype(np.float32)
    masks = rng.random(slices.shape) > 0.4
    masks[1], slices[2] = False, 0.25
    wanted = normalise_slices(slices, masks, how)
    layer = SliceNormalisation(how, channels)
    found = layer(torch.from_numpy(slices), torch.from_numpy(masks).float()).numpy()
    assert found.shape == (4, channels, 12, 12)
    for channel in range(channels):
        np.testing.assert_allclose(found[:, channel], wanted, atol=1e-5)


def test_windowed_slices_and_masks_go_into_a_file_that_normalises(tmp_path: Path) -> None:
    small = ("model.backbone=resnet10t", "data.preparation.size_px=64", "model.chunk_slices=3")
    task = Brainmet(resolve(Brainmet, None, folder=tmp_path, assignments=small).settings)
    model = untrained(task)
    exported = export_onnx(task, model.network, tmp_path / "model.onnx")
    assert exported.inputs == {"slices": ("slices", 64, 64), "mask": ("slices", 64, 64)}
    rng = np.random.default_rng(0)
    slices = rng.random((5, 64, 64)).astype(np.float32)
    masks = rng.random(slices.shape) > 0.3
    with torch.no_grad():
        network: Any = model.network
        inputs = torch.from_numpy(task.normalise(slices, masks))
        wanted = network(inputs, torch.tensor([5]))["slice_logits"]
    for engine in ENGINES:
        other: Any = by_engine(model, tmp_path / "model.onnx", engine).network
        found = other.study(slices, masks)["slice_logits"]
        assert float((found - wanted).abs().max()) < 1e-4


CLASSES = (
    *CLASSES_IN_VOLUMES,
    "model.features=[4, 6, 8]",
    "model.kernel_sizes=[[3, 3, 3], [3, 3, 3], [3, 3, 3]]",
    "model.strides=[[1, 1, 1], [2, 2, 2], [2, 2, 2]]",
    "model.encoder_blocks=[1, 1, 1]",
    "model.decoder_convolutions=[1, 1]",
    "model.patch_size_vox=[8, 16, 16]",
)


def pancreas(folder: Path, *settings: str) -> Pancreas:
    assignments = (*CLASSES, *settings)
    return Pancreas(resolve(Pancreas, None, folder=folder, assignments=assignments).settings)


@pytest.mark.parametrize(
    "settings",
    [("model.pooling=both",), ("model.pooling=average",), ("model.class_decoder_levels=1",)],
)
def test_labels_and_classes_are_answered_alike(tmp_path: Path, settings: tuple[str, ...]) -> None:
    model = untrained(pancreas(tmp_path, *settings))
    export_onnx(model.task, model.network, tmp_path / "model.onnx")
    torch.manual_seed(0)
    for engine in ENGINES:
        other: Any = by_engine(model, tmp_path / "model.onnx", engine).network
        own: Any = model.network
        for count in (1, 2, 3):
            images = torch.randn(count, 1, 8, 16, 16)
            with torch.no_grad():
                logits, classes = own.both(images)
                found, named = other.both(images)
                labels = other(images)
            assert float((found[0] - logits[0]).abs().max()) < 1e-4
            assert float((labels - logits[0]).abs().max()) < 1e-4
            assert float((named - classes).abs().max()) < 1e-4


def petct_model(**sections: Any) -> Model:
    """A model of the task petct on slices of 32 x 32, with logits around 0."""
    settings = with_known_covariates(prognosis_settings(**sections), [])
    task = Petct(settings)  # type: ignore[arg-type]
    model = untrained(task)
    with torch.no_grad():
        layer: Any = list(model.network.decoder.seg_layers.values())[-1]  # type: ignore[operator, union-attr]
        layer.weight.mul_(5)
        layer.bias.zero_()
    return model


def test_networks_are_compiled_in_one_piece(tmp_path: Path) -> None:
    """The compiler cuts where a layer asks what it cannot follow, and compiles every part anew."""
    small = {"first_features": 4, "levels": 3, "dropout_level": 1, "head_features": [8]}
    instance = {**small, "normalisation": "instance", "pooling": "both"}
    assert parts_when_compiled(untrained(TinyBag(bag_settings(model={"pooling": "top-k"})))) == 1
    assert parts_when_compiled(untrained(pancreas(tmp_path, "model.pooling=both"))) == 1
    assert parts_when_compiled(petct_model(model=instance, infer={"passes": 4})) == 1


def same_look(found: Looked, wanted: Looked) -> None:
    np.testing.assert_allclose(found.probability, wanted.probability, atol=1e-4)
    np.testing.assert_allclose(found.tumour_square, wanted.tumour_square, atol=1e-4)
    np.testing.assert_allclose(found.entropy, wanted.entropy, atol=1e-4)
    np.testing.assert_allclose(found.risks, wanted.risks, atol=1e-4)
    np.testing.assert_allclose(found.volumes_ml, wanted.volumes_ml, rtol=0.01)


@pytest.mark.parametrize(
    "sections",
    [
        {"model": {"pooling": "both", "dropout_level": 1}},
        {"model": {"pooling": "lesion", "dropout_level": 3, "stems": "two"}},
        {"model": {"normalisation": "instance", "kind": "residual"}},
        {"infer": {"passes": 0}},
        {
            "model": {"patch_size_vox": [8, 16, 16], "pooling": "lesion"},
            "data": {
                "label_ids": {"tumour": [1]},
                "regions_order": [1],
                "preparation": {"size_px": [], "spacing_mm": [5.0, 4.0, 4.0]},
            },
        },
        {"model": {"neighbour_slices": 1}},
    ],
)
def test_passes_survive_the_export(tmp_path: Path, sections: Any) -> None:
    """The masks are those of PyTorch's passes: means, squares, entropies and risks are alike."""
    small = {"first_features": 4, "levels": 4, "head_features": [8]}
    infer = {"passes": 4, "batch_slices": 5, **sections.get("infer", {})}
    model = petct_model(
        **{**sections, "model": {**small, **sections.get("model", {})}, "infer": infer}
    )
    settings: Any = model.task.settings
    export_onnx(model.task, model.network, tmp_path / "model.onnx")
    studies = tiny_studies(tmp_path, 1)
    case, prepared = studies.cases[0], studies.prepared["case0"]
    wanted = look_at(settings, model, prepared, case)
    assert len(wanted.risks) == max(1, infer["passes"])
    assert 0.05 < wanted.probability.mean() < 0.95
    for engine in ENGINES:
        other = by_engine(model, tmp_path / "model.onnx", engine)
        same_look(look_at(settings, other, prepared, case), wanted)


def test_a_file_without_passes_refuses_them(tmp_path: Path) -> None:
    model = petct_model(infer={"passes": 0})
    export_onnx(model.task, model.network, tmp_path / "model.onnx")
    studies = tiny_studies(tmp_path, 1)
    other = by_engine(model, tmp_path / "model.onnx", "onnxruntime")
    asked: Any = prognosis_settings(infer={"passes": 3})
    with pytest.raises(UsageError, match="without Monte Carlo passes"):
        look_at(asked, other, studies.prepared["case0"], studies.cases[0])


def test_a_file_with_passes_answers_without_them(tmp_path: Path) -> None:
    """Masks of ones drop nothing."""
    model = petct_model(infer={"passes": 4})
    export_onnx(model.task, model.network, tmp_path / "model.onnx")
    studies = tiny_studies(tmp_path, 1)
    asked: Any = prognosis_settings(infer={"passes": 0})
    wanted = look_at(asked, model, studies.prepared["case0"], studies.cases[0])
    other = by_engine(model, tmp_path / "model.onnx", "onnxruntime")
    same_look(look_at(asked, other, studies.prepared["case0"], studies.cases[0]), wanted)


def test_models_of_bags_do_not_become_one_file(tmp_path: Path) -> None:
    task = TinyBag(bag_settings())
    with pytest.raises(UsageError, match="one by one"):
        task.joined([untrained(task), untrained(task)])


def test_the_checkpoint_of_a_bag_answers_from_its_folder(tmp_path: Path) -> None:
    small = ("model.backbone=resnet10t", "data.preparation.size_px=64")
    task = Brainmet(resolve(Brainmet, None, folder=tmp_path, assignments=small).settings)
    path = write_untrained(tmp_path / "model.safetensors", task)
    from optimised import optimised

    optimised(path, tmp_path / "optimised")
    assert load_model(tmp_path / "optimised").task.name == "brainmet"
