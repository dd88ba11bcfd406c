"""Turned and scaled patches: landmarks by hand, sizes of nnU-Net, values of batchgeneratorsv2.

``augment_golden.json`` comes from batchgeneratorsv2 0.3.6, its own transforms with these angles and
scales on images that are ``waves``.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medtool.nets.augment.spatial import (
    change_matrix,
    changed_patch,
    enlarged_patch_size_vox,
    source_size_vox,
)

GOLDEN = json.loads(Path(__file__).with_name("augment_golden.json").read_text(encoding="utf-8"))


def waves(shape: tuple[int, ...]) -> torch.Tensor:
    count = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return (count * 0.37).sin().float().reshape(shape)


@pytest.mark.parametrize(
    ("patch", "degrees", "in_plane", "wanted"),
    [
        ((128, 128, 128), 30.0, False, (205, 205, 205)),
        ((40, 224, 224), 180.0, True, (40, 263, 263)),
        # By batchgenerators 0.25.5's rotations of the corner.
        ((40, 56, 40), 30.0, False, (73, 80, 64)),
        ((100, 151), 15.0, False, (159, 177)),
    ],
)
def test_nnunets_enlarged_patches(
    patch: tuple[int, ...], degrees: float, in_plane: bool, wanted: tuple[int, ...]
) -> None:
    found = enlarged_patch_size_vox(patch, most_degrees=degrees, in_plane=in_plane)
    assert found == wanted


def test_the_source_of_a_patch_by_hand() -> None:
    assert source_size_vox((4, 6), None) == (4, 6)
    # Turned by 90 degrees the long side needs as much along the short axis.
    assert source_size_vox((4, 10), change_matrix([90.0], 1.0)) == (10, 10)
    # 5 voxels reach 2 to each side; at twice the scale 4.
    assert source_size_vox((5, 5, 5), change_matrix([0.0, 0.0, 0.0], 2.0)) == (9, 9, 9)
    assert source_size_vox((5, 5, 5), change_matrix([0.0], 2.0)) == (5, 9, 9)


ANGLES = st.floats(-180, 180)


@settings(max_examples=60, deadline=None)
@given(angles=st.tuples(ANGLES, ANGLES, ANGLES), scale=st.floats(0.5, 2.0))
def test_the_source_holds_all_that_is_looked_at(
    angles: tuple[float, float, float], scale: float
) -> None:
    for patch, matrix in [
        ((6, 5, 9), change_matrix(angles, scale)),
        ((3, 5, 9), change_matrix(angles[:1], scale)),
        ((7, 4), change_matrix(angles[:1], scale)),
    ]:
        size = source_size_vox(patch, matrix)
        ones, labels = torch.ones(1, *size), torch.ones(size, dtype=torch.uint8)
        image, found = changed_patch(ones, labels, patch, matrix, outside=0)
        torch.testing.assert_close(image, torch.ones(1, *patch), atol=1e-4, rtol=0)
        assert (found == 1).all()


@pytest.mark.parametrize("source", [(8, 11), (9, 12)])
def test_without_a_matrix_the_middle_is_cut_out(source: tuple[int, int]) -> None:
    image, labels = waves((2, *source)), torch.arange(source[0] * source[1]).reshape(source)
    patch, found = changed_patch(image, labels, (4, 6), None, outside=0)
    rows, columns = (source[0] - 4) // 2, (source[1] - 6) // 2
    assert torch.equal(found, labels[rows : rows + 4, columns : columns + 6])
    assert torch.equal(patch, image[:, rows : rows + 4, columns : columns + 6])
    patch.zero_()
    assert image.any()


# Angle, then the offset in the source and the one in the patch: M (patch) = source.
@pytest.mark.parametrize(
    ("angles", "scale", "in_source", "in_patch"),
    [
        ([90.0, 0.0, 0.0], 1.0, (1, 0, 3), (1, 3, 0)),
        ([0.0, 90.0, 0.0], 1.0, (3, 1, 0), (0, 1, 3)),
        ([0.0, 0.0, 90.0], 1.0, (0, 3, 1), (3, 0, 1)),
        ([0.0, 0.0, 0.0], 2.0, (2, -4, 6), (1, -2, 3)),
        ([90.0], 1.0, (1, 0, 3), (1, 3, 0)),
        ([0.0], 2.0, (1, -4, 6), (1, -2, 3)),
    ],
)
@pytest.mark.parametrize("odd", [0, 1])
def test_a_landmark_moves_where_the_matrix_says(
    angles: list[float],
    scale: float,
    in_source: tuple[int, ...],
    in_patch: tuple[int, ...],
    odd: int,
) -> None:
    """An odd difference of sizes leaves one more voxel after the patch than before it."""
    matrix = change_matrix(angles, scale)
    patch, source = (7, 7, 9), (17 + odd, 17 + odd, 19 + odd)
    if len(angles) == 1:
        source = (7, *source[1:])
    centre = [(old - new) // 2 + new // 2 for old, new in zip(source, patch, strict=True)]
    place = tuple(c + offset for c, offset in zip(centre, in_source, strict=True))
    image, labels = torch.zeros(1, *source), torch.zeros(source, dtype=torch.uint8)
    image[0][place] = 1
    labels[place] = 2
    moved, found = changed_patch(image, labels, patch, matrix, outside=0)
    wanted = tuple(new // 2 + offset for new, offset in zip(patch, in_patch, strict=True))
    assert moved[0][wanted].item() == pytest.approx(1, abs=1e-4)
    assert moved.sum().item() == pytest.approx(1, abs=1e-3)
    assert found[wanted] == 2
    assert int((found > 0).sum()) == 1


def test_planes_keep_to_themselves() -> None:
    planes = torch.arange(4.0)[:, None, None].expand(4, 20, 20)[None].contiguous() + 1
    labels = planes[0].to(torch.int16)
    matrix = change_matrix([33.0], 1.1)
    image, found = changed_patch(planes, labels, (4, 8, 8), matrix, outside=0)
    torch.testing.assert_close(image, planes[:, :, :8, :8])
    assert torch.equal(found, labels[:, :8, :8])


@pytest.mark.parametrize("outside", [0, -1])
def test_labels_stay_in_their_set_and_what_lies_outside_is_said(outside: int) -> None:
    labels = torch.full((10, 10, 10), 7, dtype=torch.int16)
    labels[:5] = 3
    matrix = change_matrix([30.0, 20.0, 10.0], 1.0)
    _, found = changed_patch(
        torch.ones(1, 10, 10, 10), labels, (10, 10, 10), matrix, outside=outside
    )
    assert found.dtype == torch.int16
    assert set(torch.unique(found).tolist()) == {outside, 3, 7}
    assert found[0, 0, 0] == outside
    assert found[5, 5, 5] in (3, 7)


def test_a_ball_stays_a_ball() -> None:
    """In any direction a ball is the same; scaled, its radius is."""
    zyx = torch.meshgrid(*[torch.arange(31.0) - 15] * 3, indexing="ij")
    distance = torch.stack(zyx).square().sum(0).sqrt()
    labels = (distance <= 9).to(torch.uint8)
    matrix = change_matrix([25.0, -13.0, 28.0], 1.25)
    _, found = changed_patch(torch.zeros(1, 31, 31, 31), labels, (31, 31, 31), matrix, outside=0)
    wanted = distance <= 9 / 1.25
    both = (wanted & (found > 0)).sum() * 2 / (wanted.sum() + (found > 0).sum())
    assert both > 0.96


@pytest.mark.parametrize(
    ("name", "source", "patch", "angles", "scale"),
    [
        ("turned_3d", (20, 24, 22), (6, 8, 10), [20.0, -10.0, 25.0], 1.2),
        ("turned_2d", (24, 30), (8, 12), [50.0], 0.8),
    ],
)
def test_the_patches_of_batchgenerators(
    name: str,
    source: tuple[int, ...],
    patch: tuple[int, ...],
    angles: list[float],
    scale: float,
) -> None:
    labels = (waves(source) * 1.5).round().abs().to(torch.int16)
    matrix = change_matrix(angles, scale)
    image, found = changed_patch(waves((1, *source)), labels, patch, matrix, outside=0)
    wanted = GOLDEN[name]
    some = image.flatten()[:: image.numel() // 8][:8].tolist()
    assert some == pytest.approx(wanted["image"]["values"], abs=1e-4)
    assert image.abs().sum().item() == pytest.approx(wanted["image"]["sum_of_sizes"], rel=1e-4)
    counts = np.bincount(found.flatten().numpy(), minlength=3)
    # Where two labels have the same share, and only there, the peer asks the nearest voxel.
    assert np.abs(counts - wanted["label_counts"]).max() <= 2
