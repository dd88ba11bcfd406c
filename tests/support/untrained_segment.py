"""A checkpoint of the task segment with random weights, settled without any data."""

from __future__ import annotations

from pathlib import Path

import torch
from medtool_segment import Segment
from two_levels import TWO_LEVELS

from medtool.config import resolve
from medtool.core.checkpoint import write_checkpoint
from medtool.nets.state import raw_tensor

PLANNED = (
    'data.channels=["MR"]',
    "data.label_ids={background=[0], organ=[1], nodule=[2]}",
    'data.preparation.configuration="3d_fullres"',
    "data.preparation.axes_forward=[0, 1, 2]",
    'data.preparation.normalisation=["z-score"]',
    "data.preparation.mask_for_normalisation=[false]",
    *TWO_LEVELS,
    "model.patch_size_vox=[16, 16, 16]",
    "train.batch_cases=2",
    "train.batch_dice=false",
)


def write_model(path: Path, spacing_mm: str, *settings: str) -> None:
    assignments = (*PLANNED, f"data.preparation.spacing_mm={spacing_mm}", *settings)
    task = Segment(resolve(Segment, None, folder=path.parent, assignments=assignments).settings)
    torch.manual_seed(1)
    weights = task.network().state_dict()
    tensors = [raw_tensor(f"model.{name}", value) for name, value in weights.items()]
    document = {"task": "segment", "preset": task.settings.as_dict(), "synthetic": True}
    write_checkpoint(path, document, tensors)
