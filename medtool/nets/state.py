"""Tensors of a checkpoint into a network, and out of it; no pickle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from medtool.core.checkpoint import RawTensor, read_header
from medtool.core.ensemble import member_header, member_prefix, members_of
from medtool.core.errors import CheckpointError
from medtool.core.names import nearest_name
from medtool.nets.widths import PRUNED, Widths, narrow

MODEL_PREFIX = "model."

TYPE_NAMES: Mapping[torch.dtype, str] = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def raw_tensor(name: str, tensor: Tensor) -> RawTensor:
    """``tensor`` as it is written: on the CPU, contiguous, little endian, any shape."""
    flat = tensor.detach().to("cpu").contiguous().reshape(-1)
    shape = tuple(tensor.shape)
    # Through bytes, since numpy has no bfloat16.
    data = flat.view(torch.uint8).numpy().data if flat.numel() else b""
    return RawTensor(name, TYPE_NAMES[tensor.dtype], shape, data)


def read_tensors(path: Path, prefix: str) -> Iterator[tuple[str, Tensor]]:
    """Name without ``prefix``, and tensor on the CPU, for each tensor that begins with it.

    Nothing is copied: each tensor is a view that keeps the file mapped as long as it lives, and on
    Windows a mapped file cannot be replaced. Who keeps one while the file may be written again
    copies it. Raises CheckpointError where the file is no whole checkpoint of medtool.
    """
    from safetensors import safe_open

    names = read_header(path).names(prefix)
    with safe_open(str(path), framework="pt") as file:
        for name in names:
            yield name.removeprefix(prefix), file.get_tensor(name)


def load_network(path: Path, network: nn.Module, *, member: str = "") -> None:
    """Load ``model.*`` of ``path`` into ``network``, which must have exactly these tensors.

    A network that was pruned is first made as narrow as the file says. ``member`` names one of
    several models in the file (``medtool.core.ensemble``). Raises CheckpointError that names the
    first tensors that are missing, unknown or of another shape.
    """
    where = f"{path}, {member}" if member else str(path)
    narrow(network, pruned_widths(path, member=member), where=where)
    tensors = dict(read_tensors(path, member_prefix(MODEL_PREFIX, member)))
    fill(network, tensors, where=where)


def pruned_widths(path: Path, *, member: str = "") -> Widths:
    """The widths that the network of a checkpoint was pruned to; {} where it is whole."""
    header = read_header(path)
    for one in members_of(header):
        if one.name == member:
            header = member_header(header, one)
    widths: Widths = header.document.get(PRUNED) or {}
    return widths


def fill(network: nn.Module, tensors: Mapping[str, Tensor], *, where: str = "") -> None:
    """Copy ``tensors`` (names as in ``network.state_dict()``) into ``network``."""
    own = network.state_dict()
    faults = [f"'{name}' is missing{_offer(name, tensors)}" for name in own if name not in tensors]
    faults += [f"'{name}' is unknown" for name in tensors if name not in own]
    faults += [
        f"'{name}' is {list(tensors[name].shape)} instead of {list(tensor.shape)}"
        for name, tensor in own.items()
        if name in tensors and tensors[name].shape != tensor.shape
    ]
    if faults:
        shown = "; ".join(faults[:5]) + (f"; and {len(faults) - 5} more" if len(faults) > 5 else "")
        raise CheckpointError(
            "The tensors of this checkpoint do not fit the network of its preset.",
            where=where,
            met=shown,
            wanted=f"{len(own)} tensors of the same names and shapes",
            how="use the version of the task's package that trained it.",
        )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])


def _offer(name: str, tensors: Mapping[str, Tensor]) -> str:
    near = nearest_name(name, tensors)
    return f" (nearest '{near}')" if near else ""
