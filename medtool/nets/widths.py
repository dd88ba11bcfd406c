"""How wide the layers of a network are, and a network made as narrow as a pruned one was.

A preset says what a network looks like before channels are taken out of it; what was taken out
stands beside the weights, as the width of every layer that differs. A fresh network made so narrow
takes exactly the tensors of the pruned one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from medtool.core.errors import CheckpointError
from medtool.core.names import nearest_name
from medtool.nets.convolutions import InstanceNorm

# Of a module, by its name: channels that go in and come out; of a norm only what comes out.
Widths = Mapping[str, Mapping[str, int]]

# The key of a checkpoint's document.
PRUNED = "pruned"


def widths(network: nn.Module) -> dict[str, dict[str, int]]:
    """The width of every layer that can be pruned."""
    found = {name: width_of(module) for name, module in network.named_modules()}
    return {name: width for name, width in found.items() if width}


def changed_widths(network: nn.Module, whole: nn.Module) -> dict[str, dict[str, int]]:
    """Those of ``network`` that differ from ``whole``, the same network before pruning."""
    before = widths(whole)
    return {name: width for name, width in widths(network).items() if width != before[name]}


def width_of(module: nn.Module) -> dict[str, int]:
    """The width of one layer; {} of what is no layer that can be pruned."""
    if isinstance(module, _ConvNd):
        return {"in": module.in_channels, "out": module.out_channels}
    if isinstance(module, nn.Linear):
        return {"in": module.in_features, "out": module.out_features}
    if isinstance(module, _BatchNorm):
        return {"out": module.num_features}
    if isinstance(module, InstanceNorm):
        return {"out": len(module.weight)}
    return {}


def narrow(network: nn.Module, wanted: Widths, *, where: str = "") -> None:
    """Make the layers of ``network`` as narrow as ``wanted`` says, in place.

    Which channels stay does not matter: the tensors of the pruned network are loaded next. Raises
    CheckpointError where the network has no such layer, or none so wide.
    """
    modules = dict(network.named_modules())
    for name, width in wanted.items():
        module = modules.get(name)
        had = width_of(module) if module is not None else {}
        if module is None or not _fits(had, width):
            raise CheckpointError(
                "The widths of this pruned network do not fit the network of its preset.",
                where=where,
                met=f"'{name}' with {_text(width)}",
                wanted=f"at most {_text(had)}" if had else "the name of a layer",
                nearest="" if had else nearest_name(name, widths(network)),
                how="use the version of the task's package that trained it.",
            )
        _narrow_one(module, had, width)


def _fits(had: Mapping[str, int], wanted: Any) -> bool:
    return (
        bool(had)
        and isinstance(wanted, Mapping)
        and wanted.keys() == had.keys()
        and all(isinstance(n, int) and 1 <= n <= had[side] for side, n in wanted.items())
    )


def _text(width: Any) -> str:
    if not isinstance(width, Mapping):
        return str(width)
    return ", ".join(f"{number} {side}" for side, number in width.items())


def _narrow_one(module: Any, had: Mapping[str, int], width: Mapping[str, int]) -> None:
    out = width["out"]
    if isinstance(module, _ConvNd):
        # A convolution of each channel by itself stays one.
        groups = width["in"] if 1 < module.groups == had["in"] else module.groups
        shape = (
            [width["in"], out // groups] if _transposed(module) else [out, width["in"] // groups]
        )
        module.in_channels, module.out_channels, module.groups = width["in"], out, groups
        _cut(module, "weight", shape)
        _cut(module, "bias", [out])
    elif isinstance(module, nn.Linear):
        module.in_features, module.out_features = width["in"], out
        _cut(module, "weight", [out, width["in"]])
        _cut(module, "bias", [out])
    else:
        if isinstance(module, _BatchNorm):
            module.num_features = out
        for name in ("weight", "bias", "running_mean", "running_var"):
            _cut(module, name, [out])


def _transposed(module: nn.Module) -> bool:
    return isinstance(module, _ConvTransposeNd)


def _cut(module: nn.Module, name: str, sizes: list[int]) -> None:
    """Keep the first ``sizes`` along the leading axes of a tensor, where ``module`` has it."""
    tensor = getattr(module, name, None)
    if tensor is None:
        return
    kept = tensor.detach()
    for axis, size in enumerate(sizes):
        kept = kept.narrow(axis, 0, size)
    kept = kept.clone(memory_format=torch.contiguous_format)
    if isinstance(tensor, nn.Parameter):
        setattr(module, name, nn.Parameter(kept, requires_grad=tensor.requires_grad))
    else:
        setattr(module, name, kept)
