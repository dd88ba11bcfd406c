"""A checkpoint of the task petct with random weights, which answers for whatever it is shown."""

from __future__ import annotations

from pathlib import Path

import torch
from medtool_petct import Petct

from medtool.config import resolve
from medtool.core.checkpoint import write_checkpoint
from medtool.nets.state import raw_tensor

SMALL = (
    "data.label_ids={tumour=[1]}",
    "data.regions_order=[1]",
    "data.preparation.size_px=[32, 32]",
    "model.first_features=4",
    "model.levels=3",
    "model.head_features=[8]",
    "infer.passes=3",
)


def write_petct_model(path: Path, *settings: str) -> Path:
    """Write it to ``path``, under the default preset made small and ``settings``."""
    assignments = (*SMALL, *settings)
    task = Petct(resolve(Petct, None, folder=path.parent, assignments=assignments).settings)
    torch.manual_seed(1)
    weights = task.network().state_dict()
    for name, value in weights.items():
        if "seg_layers" in name:
            # Logits on both sides of 0, so that there is something to measure.
            value.mul_(5.0 if name.endswith("weight") else 0.0)
    tensors = [raw_tensor(f"model.{name}", value) for name, value in weights.items()]
    document = {"task": "petct", "preset": task.settings.as_dict(), "synthetic": False}
    write_checkpoint(path, document, tensors)
    return path
