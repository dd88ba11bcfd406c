"""Overlays, looked at by their pixels."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from medtool.core.geometry import Grid
from medtool.tasks.segmentation_pictures import (
    CAPTION_PX,
    LABEL_COLOURS,
    SIDE_PX,
    TRUTH_COLOUR,
    draw_overlay,
)

GRID = Grid((20, 20, 10), (1.0, 1.0, 4.0), (0.0, 0.0, 0.0))


def box_mask(low: int = 5, high: int = 15) -> NDArray[np.uint8]:
    mask = np.zeros((10, 20, 20), np.uint8)
    mask[2:6, low:high, 5:15] = 1
    return mask


def where(picture: NDArray[np.uint8], colour: tuple[int, int, int]) -> NDArray[np.intp]:
    return np.argwhere((picture == colour).all(axis=-1))


def drawn(
    path: Path,
    *,
    grid: Grid = GRID,
    truth: NDArray[np.uint8] | None = None,
    mask: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    mask = box_mask() if mask is None else mask
    image = np.full(grid.size[::-1], 100.0)
    draw_overlay(image, mask, truth, grid, path, window=(0.0, 200.0), caption="case 1")
    picture = cv2.imread(str(path))
    assert picture is not None
    return picture


def test_three_planes_in_true_aspect(tmp_path: Path) -> None:
    picture = drawn(tmp_path / "case" / "overlay.png")
    assert picture.shape == (SIDE_PX + CAPTION_PX, 3 * SIDE_PX, 3)
    found = where(picture, LABEL_COLOURS[0])
    axial = found[found[:, 1] < SIDE_PX]
    # 20 x 20 mm fill the axial square: the box is its middle half.
    assert axial.min() == pytest.approx(SIDE_PX / 4, abs=2)
    assert axial.max() == pytest.approx(SIDE_PX * 3 / 4, abs=2)
    coronal = found[(found[:, 1] >= SIDE_PX) & (found[:, 1] < 2 * SIDE_PX)]
    # 40 mm of z are the height; the box is 16 mm high and 10 mm wide, from z 8 to 24, head up.
    assert np.ptp(coronal[:, 0]) == pytest.approx(SIDE_PX * 16 / 40, abs=2)
    assert np.ptp(coronal[:, 1]) == pytest.approx(SIDE_PX * 10 / 40, abs=2)
    assert coronal[:, 0].max() == pytest.approx(SIDE_PX * (40 - 8) / 40, abs=2)


def test_truth_and_answer_are_both_seen(tmp_path: Path) -> None:
    picture = drawn(tmp_path / "o.png", truth=box_mask(7, 12))
    assert len(where(picture, TRUTH_COLOUR))
    assert len(where(picture, LABEL_COLOURS[0]))
    assert not len(where(drawn(tmp_path / "p.png"), TRUTH_COLOUR))


def test_a_label_within_another_has_an_outline_of_its_own(tmp_path: Path) -> None:
    whole = box_mask(4, 14)
    both = np.where(box_mask(7, 10) > 0, 2 * (whole > 0), whole).astype(np.uint8)
    alone = where(drawn(tmp_path / "whole.png", truth=whole), TRUTH_COLOUR)
    assert len(where(drawn(tmp_path / "both.png", truth=both), TRUTH_COLOUR)) > len(alone)


def test_an_empty_mask_shows_the_middle(tmp_path: Path) -> None:
    picture = drawn(tmp_path / "o.png", mask=np.zeros((10, 20, 20), np.uint8))
    assert not len(where(picture, LABEL_COLOURS[0]))


def test_one_slice_is_one_plane(tmp_path: Path) -> None:
    grid = Grid((20, 20, 1), (1.0, 1.0, 4.0), (0.0, 0.0, 0.0))
    picture = drawn(tmp_path / "o.png", grid=grid, mask=box_mask()[2:3])
    assert picture.shape[1] == SIDE_PX


def test_other_shapes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="shape"):
        drawn(tmp_path / "o.png", truth=box_mask()[1:])
