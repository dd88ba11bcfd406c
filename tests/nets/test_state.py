"""Tensors into a network and out of it."""

from pathlib import Path

import pytest
import torch
from torch import nn

from medtool.core.checkpoint import write_checkpoint
from medtool.core.errors import CheckpointError
from medtool.nets.state import load_network, raw_tensor


def save(path: Path, network: nn.Module) -> Path:
    state = network.state_dict()
    write_checkpoint(path, {}, [raw_tensor(f"model.{name}", t) for name, t in state.items()])
    return path


def test_a_network_comes_back_bit_by_bit(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 1).bfloat16())
    other = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 1).bfloat16())
    load_network(save(tmp_path / "c.safetensors", network), other)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])


def test_a_tensor_that_is_not_contiguous_is_written_in_order() -> None:
    tensor = torch.arange(6, dtype=torch.int32).reshape(2, 3).T
    raw = raw_tensor("w", tensor)
    assert raw.shape == (3, 2)
    assert torch.frombuffer(bytearray(raw.data), dtype=torch.int32).tolist() == [0, 3, 1, 4, 2, 5]


def test_another_network_is_refused_by_names(tmp_path: Path) -> None:
    path = save(tmp_path / "c.safetensors", nn.Sequential(nn.Linear(3, 2)))
    with pytest.raises(CheckpointError, match=r"'1\.weight' is missing"):
        load_network(path, nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1)))
    with pytest.raises(CheckpointError, match=r"\[2, 3\] instead of \[2, 4\]"):
        load_network(path, nn.Sequential(nn.Linear(4, 2)))
