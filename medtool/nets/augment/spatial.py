"""Rotating and scaling a patch and its labels, in one interpolation.

A matrix takes the offset of an output voxel from the patch's centre, in voxels and array axis
order, to the offset in the source. The source is at least as large as the patch and has the same
centre: the patch's first voxel is voxel ``(source - patch) // 2`` of the source. A source whose
matrix has fewer rows than it has axes is a stack of planes, each changed alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, cos, prod, radians, sin

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

# Rows of plain numbers, so that what was drawn can be compared and written down.
Matrix = tuple[tuple[float, ...], ...]

# What nnU-Net takes for the smallest scale when it enlarges a patch before rotation. Objects are
# scaled to 0.7-1.4; it keeps this older value, and so corners may lie outside.
_LEAST_SCALE = 0.85
# Rounding must not add a voxel.
_SLACK_VOX = 1e-6


def enlarged_patch_size_vox(
    patch_size_vox: Sequence[int], *, most_degrees: float, in_plane: bool
) -> tuple[int, ...]:
    """What nnU-Net reads before it rotates by up to ``most_degrees`` about each axis and scales.

    ``in_plane`` leaves the first axis as it is.
    """
    angle = radians(min(90.0, most_degrees))
    size = np.asarray(patch_size_vox, dtype=float)
    largest = size.copy()
    # One direction about each axis only, as there: in 3D each axis grows once.
    for first, second in ((0, 1), (1, 2), (2, 0)) if len(size) == 3 else ((0, 1),):
        turned = _turn(len(size), second, first, angle) @ size
        largest = np.maximum(largest, np.abs(turned))
    enlarged = [int(length / _LEAST_SCALE) for length in largest]
    return (patch_size_vox[0], *enlarged[1:]) if in_plane else tuple(enlarged)


def source_size_vox(patch_size_vox: Sequence[int], matrix: Matrix | None) -> tuple[int, ...]:
    """The smallest source, in voxels, from which a patch is changed without looking outside."""
    if matrix is None:
        return tuple(patch_size_vox)
    untouched = len(patch_size_vox) - len(matrix)
    half = (np.asarray(patch_size_vox[untouched:]) - 1) / 2
    reach = np.abs(matrix) @ half
    # As much on both sides, so that the centre stays where it is.
    grown = [
        size + 2 * max(0, ceil(far - near - _SLACK_VOX))
        for size, far, near in zip(patch_size_vox[untouched:], reach, half, strict=True)
    ]
    return (*patch_size_vox[:untouched], *grown)


def _turn(dimensions: int, first: int, second: int, angle: float) -> NDArray[np.float64]:
    """The rotation by ``angle`` (radians) from axis ``first`` towards ``second``."""
    matrix = np.eye(dimensions)
    matrix[first, first] = matrix[second, second] = cos(angle)
    matrix[first, second], matrix[second, first] = -sin(angle), sin(angle)
    return matrix


def change_matrix(angles_degrees: Sequence[float], scale: float) -> Matrix:
    """The matrix of one angle (in a plane) or three (about the axes 0, 1, 2), and a scale.

    A scale above 1 shows more of the source: objects become smaller.
    """
    angles = [radians(angle) for angle in angles_degrees]
    if len(angles) == 1:
        return _rows(_turn(2, 0, 1, angles[0]) * scale)
    about_0, about_1, about_2 = angles
    turned = _turn(3, 0, 1, about_2) @ _turn(3, 2, 0, about_1) @ _turn(3, 1, 2, about_0)
    return _rows(turned * scale)


def _rows(matrix: NDArray[np.float64]) -> Matrix:
    return tuple(tuple(row) for row in matrix.tolist())


def changed_patch(
    image: Tensor,
    labels: Tensor,
    patch_size_vox: Sequence[int],
    matrix: Matrix | None,
    *,
    outside: int,
) -> tuple[Tensor, Tensor]:
    """The patch (channels, *patch) and its labels (*patch) from a larger source.

    The image is interpolated linearly, 0 outside; of the labels the one that has most of a voxel
    is taken, ``outside`` where the source ends. Without a matrix the patch is cut out as it is.
    """
    if matrix is None:
        window = _window(labels.shape, patch_size_vox)
        return image[:, *window].clone(), labels[window].clone()
    untouched = labels.ndim - len(matrix)
    planes = _window(labels.shape[:untouched], patch_size_vox[:untouched])
    image, labels = image[:, *planes], labels[planes]
    others = [label for label in _present(labels) if label != outside]
    shares = torch.stack([labels == label for label in others]) if others else image[:0]
    together = torch.cat((image, shares.to(image.dtype)))
    moved = _interpolated(together, tuple(patch_size_vox), matrix)
    values, found = moved[: len(image)], moved[len(image) :]
    return values, _most_of(found, others, outside, labels.dtype)


def _present(labels: Tensor) -> list[int]:
    """The labels that occur, -1 or more, in order; sorting all voxels would take longer."""
    counts = torch.bincount(labels.flatten().long() + 1)
    return [label - 1 for label in counts.nonzero().flatten().tolist()]


def _most_of(shares: Tensor, labels: list[int], outside: int, dtype: torch.dtype) -> Tensor:
    """The label with the largest share of each voxel; ``outside`` has what the others leave."""
    largest = 1 - shares.sum(dim=0)
    found = torch.full_like(largest, outside, dtype=dtype)
    # One after the other: argmax over a first axis of so few takes forty times as long.
    for label, share in zip(labels, shares, strict=True):
        found.masked_fill_(share > largest, label)
        largest = torch.maximum(largest, share)
    return found


def _window(source: Sequence[int], patch: Sequence[int]) -> tuple[slice, ...]:
    starts = [(old - new) // 2 for old, new in zip(source, patch, strict=True)]
    return tuple(slice(start, start + new) for start, new in zip(starts, patch, strict=True))


def _interpolated(volumes: Tensor, patch_size_vox: tuple[int, ...], matrix: Matrix) -> Tensor:
    """Volumes (channels, *source) on the patch's grid; axes the matrix lacks become channels."""
    dimensions = len(matrix)
    source, patch = volumes.shape[-dimensions:], patch_size_vox[-dimensions:]
    stacked = volumes.reshape(1, prod(volumes.shape[:-dimensions]), *source)
    grid = _grid(source, patch, matrix).to(volumes.dtype)
    moved = F.grid_sample(stacked, grid, mode="bilinear", align_corners=False)
    return moved.reshape(len(volumes), *patch_size_vox)


def _grid(source: Sequence[int], patch: Sequence[int], matrix: Matrix) -> Tensor:
    """Where each output voxel lies in the source, as ``grid_sample`` wants it.

    It counts from -1 to 1 between the outer faces of the outer voxels, and names the last axis
    first.
    """
    old, new = np.asarray(source, dtype=float), np.asarray(patch, dtype=float)
    scaled = np.asarray(matrix) * new[None, :] / old[:, None]
    centre = (np.asarray(source) - np.asarray(patch)) // 2 + (new - 1) / 2
    shift = 2 * (centre - (old - 1) / 2) / old
    theta = np.concatenate((scaled[::-1, ::-1], shift[::-1, None]), axis=1)
    return F.affine_grid(torch.from_numpy(theta)[None].float(), [1, 1, *patch], align_corners=False)
