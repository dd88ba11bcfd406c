"""Weights in every known layout reach the backbone whole, or are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from medtool.config.sections import StageSection
from medtool.config.weights import PretrainedModelSection, WeightsSection
from medtool.core.errors import CheckpointError, UsageError
from medtool.nets.backbones import create_backbone
from medtool.train.weights import (
    load_backbone_weights,
    read_tensors,
    start_weights,
    tensors_sha256,
)

NAME = "resnet10t"


@pytest.fixture(scope="module")
def rgb_resnet() -> nn.Module:
    """torchvision's own ResNet-18 with random weights: the names come from there, not from us."""
    from medtool.nets.timm_models import import_torchvision

    import_torchvision()
    import torchvision

    torch.manual_seed(0)
    return torchvision.models.resnet18(weights=None)


def numbered(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names of nn.Sequential over the first nine children of a torchvision ResNet."""
    order = ["conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"]
    return {
        f"backbone.{order.index(name.split('.')[0])}.{name.split('.', 1)[1]}": tensor
        for name, tensor in state.items()
        if not name.startswith("fc.")
    }


def layouts(state: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    plain = {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}
    return {
        "torchvision": state,
        "no classifier": plain,
        "module": {f"module.{name}": tensor for name, tensor in state.items()},
        "model": {f"model.{name}": tensor for name, tensor in state.items()},
        "module.model": {f"module.model.{name}": tensor for name, tensor in state.items()},
        "sequential": numbered(state),
        "module.sequential": {f"module.{n}": t for n, t in numbered(state).items()},
        "no counters": {n: t for n, t in plain.items() if "num_batches" not in n},
    }


@pytest.mark.parametrize(
    "layout",
    [
        "torchvision",
        "no classifier",
        "module",
        "model",
        "module.model",
        "sequential",
        "module.sequential",
        "no counters",
    ],
)
@pytest.mark.parametrize("kind", ["pt", "safetensors", "wrapped"])
def test_every_layout_gives_the_features_of_the_network_that_wrote_it(
    layout: str, kind: str, rgb_resnet: nn.Module, tmp_path: Path
) -> None:
    state = layouts(dict(rgb_resnet.state_dict()))[layout]
    path = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pt")
    if kind == "safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": state, "epoch": 3} if kind == "wrapped" else state, path)
    grey = create_backbone("resnet18", channels=1).eval()
    report = load_backbone_weights(grey, path)
    assert report.loaded == report.total == 100  # 20 convolutions, 20 batch norms of 4 tensors
    image = torch.rand(2, 1, 64, 64) * 2 - 1
    trunk = nn.Sequential(*list(rgb_resnet.children())[:9]).eval()
    with torch.no_grad():
        wanted = trunk(image.repeat(1, 3, 1, 1)).flatten(1)
        assert (grey(image) - wanted).abs().max() < 1e-4


def test_densenet_behind_a_sequential(tmp_path: Path) -> None:
    from torchvision.models import densenet121

    model = densenet121(weights=None)
    state = {
        name.replace("features.", "backbone.0.", 1): tensor
        for name, tensor in model.state_dict().items()
        if name.startswith("features.")
    }
    torch.save(state, tmp_path / "d.pt")
    report = load_backbone_weights(create_backbone("densenet121", channels=1), tmp_path / "d.pt")
    assert (report.loaded, report.layout) == (report.total, "sequential")


def refused(state: dict[str, Tensor], path: Path) -> CheckpointError:
    torch.save(state, path)
    network = create_backbone("resnet18", channels=1)
    before = tensors_sha256(network.state_dict())
    with pytest.raises(CheckpointError) as caught:
        load_backbone_weights(network, path)
    assert tensors_sha256(network.state_dict()) == before, "nothing may be loaded in part"
    return caught.value


def test_a_missing_tensor_is_counted_and_named(rgb_resnet: nn.Module, tmp_path: Path) -> None:
    state = dict(rgb_resnet.state_dict())
    del state["layer3.0.conv1.weight"]
    error = refused(state, tmp_path / "w.pt")
    assert "99 of 100" in error.met
    assert "'layer3.0.conv1.weight' is missing" in error.met


def test_another_shape_is_refused(rgb_resnet: nn.Module, tmp_path: Path) -> None:
    state = dict(rgb_resnet.state_dict())
    state["layer1.0.conv1.weight"] = torch.zeros(64, 64, 1, 1)
    assert "[64, 64, 1, 1] instead of [64, 64, 3, 3]" in refused(state, tmp_path / "w.pt").met


def test_biases_of_a_converted_keras_network_are_refused(
    rgb_resnet: nn.Module, tmp_path: Path
) -> None:
    state = dict(rgb_resnet.state_dict())
    state["conv1.bias"] = torch.zeros(64)
    assert "'conv1.bias' is unknown" in refused(state, tmp_path / "w.pt").met


def test_a_pickled_network_is_refused_unread(rgb_resnet: nn.Module, tmp_path: Path) -> None:
    torch.save(rgb_resnet, tmp_path / "whole.pt")
    with pytest.raises(CheckpointError, match="cannot be read as weights"):
        read_tensors(tmp_path / "whole.pt")


class Bomb:
    """Unpickling this writes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.target,))


def test_code_in_a_pickle_does_not_run(tmp_path: Path) -> None:
    torch.save({"weight": Bomb(tmp_path / "ran")}, tmp_path / "bomb.pt")
    with pytest.raises(CheckpointError):
        read_tensors(tmp_path / "bomb.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["cut.pt", "cut.safetensors"])
def test_a_truncated_file_is_refused(name: str, tmp_path: Path) -> None:
    state = {"conv1.weight": torch.zeros(64, 3, 7, 7)}
    path = tmp_path / name
    if path.suffix == ".pt":
        torch.save(state, path)
    else:
        save_file(state, path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(CheckpointError):
        read_tensors(path)


def model_section(path: Path | None = None, **values: object) -> PretrainedModelSection:
    return PretrainedModelSection(
        backbone=NAME, weights=WeightsSection(path=path, folder=Path("/nowhere")), **values
    )


HEAD_ONLY = [StageSection(from_epoch=0, rates={"head": 1e-4})]
EVERYTHING = [
    StageSection(
        from_epoch=0,
        rates=dict.fromkeys(["stem", "layer1", "layer2", "layer3", "layer4", "head"], 1e-4),
    )
]


def network() -> nn.Module:
    module = nn.Module()
    module.backbone = create_backbone(NAME, channels=1)
    return module


def test_a_stage_that_freezes_random_weights_is_refused_with_the_ways_out() -> None:
    with pytest.raises(UsageError) as caught:
        start_weights(network(), model_section(), HEAD_ONLY, fetch="medtool fetch some-task")
    assert "medtool fetch some-task" in caught.value.how
    assert "--from-scratch" in caught.value.how
    assert "layer4" in caught.value.met


def test_without_frozen_parts_nothing_is_needed() -> None:
    assert start_weights(network(), model_section(), EVERYTHING, fetch="medtool fetch t") is None
    assert start_weights(network(), model_section(), [], fetch="medtool fetch t") is None


def test_from_scratch_is_a_way_out() -> None:
    model = model_section(from_scratch=True)
    assert start_weights(network(), model, HEAD_ONLY, fetch="medtool fetch t") is None


def test_weights_that_the_preset_names_are_not_done_without() -> None:
    model = PretrainedModelSection(
        weights=WeightsSection(repository="a/b", file="w.pt", folder=Path("/nowhere"))
    )
    with pytest.raises(UsageError, match="not on this machine"):
        start_weights(network(), model, EVERYTHING, fetch="medtool fetch t")


def test_a_local_path_is_taken(tmp_path: Path) -> None:
    source = create_backbone(NAME, channels=3)
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    target = network()
    model = model_section(tmp_path / "w.safetensors")
    report = start_weights(target, model, HEAD_ONLY, fetch="medtool fetch t")
    assert report is not None
    assert report.loaded == report.total
    own = target.get_submodule("backbone").state_dict()
    torch.testing.assert_close(own["layer4.0.conv1.weight"], source.layer4[0].conv1.weight.data)
