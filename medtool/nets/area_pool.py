"""The mean of values over the places of a coarser grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from medtool.nets.exporting import takes_plain_way

_ADAPTIVE: Mapping[int, Any] = {2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}
_BY_KERNEL: Mapping[int, Any] = {2: F.avg_pool2d, 3: F.avg_pool3d}


def averaged_onto(values: Tensor, size: Sequence[int]) -> Tensor:
    """``values`` (n, channels, ...) as their means over a grid of ``size``.

    In a graph for other engines places must hold equally many values, as a U-Net's do: an operator
    for any other grid is not in ONNX.
    """
    finer = values.shape[2:]
    pool = _ADAPTIVE[len(finer)]
    if takes_plain_way() and not any(own % other for own, other in zip(finer, size, strict=True)):
        kernel = tuple(int(own // other) for own, other in zip(finer, size, strict=True))
        averaged: Tensor = _BY_KERNEL[len(finer)](values, kernel)
        return averaged
    averaged = pool(values, tuple(size))
    return averaged
