"""Networks as narrow as a checkpoint says."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from medtool.core.checkpoint import write_checkpoint
from medtool.core.ensemble import write_ensemble
from medtool.core.errors import CheckpointError
from medtool.nets.convolutions import InstanceNorm
from medtool.nets.state import load_network, raw_tensor
from medtool.nets.widths import PRUNED, changed_widths, narrow, widths


def network(first: int = 8, second: int = 6) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(1, first, 3),
        InstanceNorm(first, epsilon=1e-5),
        nn.Conv3d(first, first, 3, groups=first),
        nn.ConvTranspose3d(first, second, 2),
        nn.BatchNorm3d(second),
        nn.Linear(second, 2),
    )


def test_every_kind_of_layer_becomes_as_narrow_as_one_built_so() -> None:
    narrowed, built = network(), network(5, 3)
    narrow(narrowed, changed_widths(built, network()))
    assert widths(narrowed) == widths(built)
    shapes = {name: tensor.shape for name, tensor in built.state_dict().items()}
    assert {name: tensor.shape for name, tensor in narrowed.state_dict().items()} == shapes
    assert [repr(layer) for layer in narrowed] == [repr(layer) for layer in built]


def test_only_layers_that_differ_are_listed() -> None:
    assert changed_widths(network(8, 3), network()) == {
        "3": {"in": 8, "out": 3},
        "4": {"out": 3},
        "5": {"in": 3, "out": 2},
    }


def write(path: Path, model: nn.Module, document: dict[str, Any]) -> Path:
    state = model.state_dict()
    tensors = [raw_tensor(f"model.{name}", tensor) for name, tensor in state.items()]
    write_checkpoint(path, {"task": "t", **document}, tensors)
    return path


def test_a_pruned_checkpoint_loads_into_the_network_of_its_preset(tmp_path: Path) -> None:
    pruned = network(5, 3)
    document = {PRUNED: changed_widths(pruned, network())}
    loaded = network()
    load_network(write(tmp_path / "c.safetensors", pruned, document), loaded)
    for name, tensor in pruned.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name])


def test_members_of_one_file_have_widths_of_their_own(tmp_path: Path) -> None:
    kinds = {"fold_0": network(5, 3), "fold_1": network(), "fold_2": network(4, 6)}
    files = {
        name: write(
            tmp_path / f"{name}.safetensors", model, {PRUNED: changed_widths(model, network())}
        )
        for name, model in kinds.items()
    }
    write_ensemble(tmp_path / "all.safetensors", files)
    for name, model in kinds.items():
        loaded = network()
        load_network(tmp_path / "all.safetensors", loaded, member=name)
        assert widths(loaded) == widths(model)
        assert torch.equal(loaded[0].weight, model[0].weight)


@pytest.mark.parametrize(
    "wanted",
    [
        {"9": {"out": 4}},
        {"0": {"in": 1, "out": 9}},
        {"0": {"in": 1, "out": 0}},
        {"0": {"in": 1, "out": "5"}},
        {"0": {"out": 5}},
        {"0": 5},
    ],
)
def test_widths_that_no_pruning_leaves_are_refused(tmp_path: Path, wanted: Any) -> None:
    file = write(tmp_path / "c.safetensors", network(), {PRUNED: wanted})
    with pytest.raises(CheckpointError, match="widths of this pruned network"):
        load_network(file, network())
