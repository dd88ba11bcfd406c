"""Masks on their own grid: written as NIfTI, and measured."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medtool.core.files import replacing
from medtool.data.nifti_writer import write_nifti

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medtool.core.geometry import Grid

MM3_PER_ML = 1000.0


def write_mask(path: Path, mask: NDArray[np.unsignedinteger[Any]], grid: Grid) -> None:
    """Write a mask (z, y, x) of labels on ``grid`` as ``path`` (.nii.gz).

    The smallest type that holds the labels is taken. Raises ValueError where mask and grid do not
    fit or a label is over 65535, MachineError where the file cannot be written.
    """
    kind = np.min_scalar_type(int(mask.max(initial=0)))
    write_nifti(path, mask.astype(kind, copy=False), grid)


def write_mask_picture(path: Path, mask: NDArray[np.unsignedinteger[Any]]) -> None:
    """Write a mask (1, y, x) of labels up to 255 as a PNG of 8 bits.

    Raises ValueError where there are several slices or a label is larger, MachineError where the
    file cannot be written.
    """
    import cv2

    if len(mask) != 1 or mask.max(initial=0) > np.iinfo(np.uint8).max:
        raise ValueError(f"a mask of {len(mask)} slices and labels up to {mask.max(initial=0)}")
    _, content = cv2.imencode(".png", mask[0].astype(np.uint8))
    with replacing(path) as file:
        file.write(content.tobytes())


def voxel_ml(grid: Grid | None) -> float:
    """Millilitres of one voxel; 1 where its size is not known, so that voxels are counted."""
    return 1.0 if grid is None else float(np.prod(grid.spacing_mm)) / MM3_PER_ML


def label_volumes_ml(
    mask: NDArray[np.unsignedinteger[Any]], grid: Grid, labels: Mapping[str, Collection[int]]
) -> dict[str, float]:
    """Millilitres of each named structure in ``mask`` (z, y, x); a region has several labels."""
    counts, each_ml = label_counts(mask), voxel_ml(grid)
    return {
        name: sum(int(counts[label]) for label in set(values) if label < len(counts)) * each_ml
        for name, values in labels.items()
    }


def label_counts(mask: NDArray[np.unsignedinteger[Any]]) -> NDArray[np.int64]:
    """Voxels of each label from 0 to the largest in ``mask`` (z, y, x)."""
    counts = np.zeros(int(mask.max(initial=0)) + 1, dtype=np.int64)
    # Slice by slice: counting widens its input to eight bytes a voxel.
    for plane in mask:
        counts += np.bincount(plane.ravel(), minlength=len(counts))
    return counts
