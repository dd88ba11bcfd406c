"""Devices, precision and several processes, by Lightning Fabric.

Gradients are summed over processes by ourselves, in one flat tensor: every process weighs its loss
by its share of the step's cases, so that any split of a step gives the gradient of the whole. A
task may call its network as often as it likes for one loss (bags in chunks), which a wrapper that
counts forward passes does not allow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from torch import Tensor, nn

from medtool.core.errors import MachineError
from medtool.nets.device import choose_device, choose_precision


def make_fabric(
    device: str = "auto", *, devices: int = 1, nodes: int = 1, precision: str = "auto"
) -> Fabric:
    """A Fabric for these choices, not yet launched.

    Processes of one machine are ours; on several ``nodes`` torch or SLURM started them, and Fabric
    reads from their environment which one this is. Raises MachineError where there are fewer
    devices than asked for.
    """
    chosen = choose_device(device)
    kind = chosen.type
    there = torch.cuda.device_count() if kind == "cuda" else devices
    if devices > there:
        raise MachineError(
            "This machine has fewer devices than asked for.",
            met=f"{there} of kind {kind}",
            wanted=f"{devices}",
            how=f"use --devices {there}",
        )
    which: int | list[int] = devices
    if chosen.index is not None and devices == 1:
        which = [chosen.index]
    several = devices * nodes > 1
    return Fabric(
        accelerator=kind,
        devices=which,
        num_nodes=nodes,
        # Processes are spawned on one machine and come from the scheduler on several.
        strategy="auto" if not several else "ddp" if nodes > 1 else "ddp_spawn",
        precision=_precision(precision, chosen),
        # Else a job of SLURM, or one rank of torch, would say who each of our own processes is.
        plugins=[LightningEnvironment()] if nodes == 1 else None,
    )


def _precision(name: str, device: torch.device) -> Any:
    chosen = choose_precision(name, device)
    if chosen is None:
        return "32-true"
    return "bf16-mixed" if chosen is torch.bfloat16 else "16-mixed"


def make_deterministic() -> None:
    """Ask for the same bits in every run on the same machine."""
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def sum_gradients(fabric: Fabric, parameters: Sequence[nn.Parameter]) -> None:
    """Replace each gradient by its sum over processes; missing ones count as 0."""
    if fabric.world_size == 1:
        return
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    _reduce(fabric, [p.grad for p in parameters if p.grad is not None], "sum")


def share_buffers(fabric: Fabric, network: nn.Module) -> None:
    """Give every process the mean of the running statistics of what is in training mode."""
    if fabric.world_size == 1:
        return
    moving = [
        buffer
        for module in network.modules()
        if module.training
        for buffer in module.buffers(recurse=False)
        if buffer.is_floating_point()
    ]
    _reduce(fabric, moving, "mean")


def _reduce(fabric: Fabric, tensors: Sequence[Tensor], operation: str) -> None:
    """Reduce ``tensors`` in place, all in one message."""
    if not tensors:
        return
    flat = torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
    total = cast(Tensor, fabric.all_reduce(flat, reduce_op=operation))
    offset = 0
    for tensor in tensors:
        with torch.no_grad():
            tensor.copy_(total[offset : offset + tensor.numel()].view_as(tensor))
        offset += tensor.numel()


def any_process(fabric: Fabric, value: bool) -> bool:  # noqa: FBT001 - the value itself
    """Whether ``value`` is true in any process."""
    if fabric.world_size == 1:
        return value
    flag = torch.tensor(float(value), device=fabric.device)
    return bool(cast(Tensor, fabric.all_reduce(flag, reduce_op="sum")) > 0)


def gather(fabric: Fabric, items: list[Any]) -> list[Any]:
    """The items of all processes, in the order of the processes."""
    if fabric.world_size == 1:
        return items
    everything: list[Any] = [None] * fabric.world_size
    torch.distributed.all_gather_object(everything, items)
    return [item for part in everything for item in part]


def clip(fabric: Fabric, network: nn.Module, optimiser: Any, largest_norm: float) -> Tensor | None:
    """Scale gradients down to ``largest_norm``; 0 leaves them (but unscales 16-bit ones)."""
    if largest_norm <= 0:
        return None
    return fabric.strategy.clip_gradients_norm(
        network, optimiser, max_norm=largest_norm, norm_type=2.0, error_if_nonfinite=False
    )
