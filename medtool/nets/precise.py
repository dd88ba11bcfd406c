"""Functions whose small values matter, precise in graphs for other engines too.

There are no operators for some of these in ONNX, and the exporter says them by sigmoid, exp and
log: what differs from 1 by less than a rounding of float32 is then lost, and a logit of -20 may
become minus infinity. In a graph they are made of operators that engines have and round well.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from medtool.nets.exporting import takes_plain_way

# Below it what is left out of the series of expm1 and log1p is less than a rounding of float32.
SERIES_BELOW = 0.1


def expm1(values: Tensor) -> Tensor:
    """exp(x) - 1; in a graph by its series where x is small."""
    if not takes_plain_way():
        return torch.expm1(values)
    series = values * (1 + values / 2 * (1 + values / 3 * (1 + values / 4 * (1 + values / 5))))
    return torch.where(values.abs() < SERIES_BELOW, series, values.exp() - 1)


def log1p(values: Tensor) -> Tensor:
    """log(1 + x); in a graph by twice the series of artanh(x / (2 + x)) where x is small."""
    if not takes_plain_way():
        return torch.log1p(values)
    part = values / (2 + values)
    square = part * part
    series = 2 * part * (1 + square * (1 / 3 + square * (1 / 5 + square / 7)))
    return torch.where(values.abs() < SERIES_BELOW, series, (1 + values).log())


def sigmoid(logits: Tensor) -> Tensor:
    """1 / (1 + exp(-x)); engines' own are cut off below some 1e-8."""
    if not takes_plain_way():
        return torch.sigmoid(logits)
    odds = (-logits.abs()).exp()
    nearer_one = 1 / (1 + odds)
    return torch.where(logits < 0, odds * nearer_one, nearer_one)


def log_sigmoid(logits: Tensor) -> Tensor:
    """log(1 / (1 + exp(-x)))."""
    if not takes_plain_way():
        return F.logsigmoid(logits)
    return logits.clamp(max=0) - log1p((-logits.abs()).exp())


def softplus(logits: Tensor) -> Tensor:
    """log(1 + exp(x))."""
    if not takes_plain_way():
        return F.softplus(logits)
    return logits.clamp(min=0) + log1p((-logits.abs()).exp())
