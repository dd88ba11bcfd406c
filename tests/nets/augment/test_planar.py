"""Flat images: flips and turns by hand, image and mask together, nothing left to chance."""

from __future__ import annotations

import random
import subprocess
import sys

import numpy as np
import pytest

from medtool.nets.augment.planar import (
    FOURFOLD,
    PlanarChanges,
    PlanarRecipe,
    apply_planar_changes,
    draw_fourfold_changes,
    draw_planar_changes,
)


def scene(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    image = np.arange(rows * columns, dtype=np.float32).reshape(rows, columns, 1)
    return image, image[..., 0].astype(np.uint8)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        (PlanarChanges(), [[0, 1, 2], [3, 4, 5], [6, 7, 8]]),
        (PlanarChanges(rows_flipped=True), [[6, 7, 8], [3, 4, 5], [0, 1, 2]]),
        (PlanarChanges(columns_flipped=True), [[2, 1, 0], [5, 4, 3], [8, 7, 6]]),
        (PlanarChanges(angle_degrees=90.0), [[2, 5, 8], [1, 4, 7], [0, 3, 6]]),
        (PlanarChanges(rows_flipped=True, angle_degrees=90.0), [[8, 5, 2], [7, 4, 1], [6, 3, 0]]),
    ],
)
def test_changes_by_hand(changes: PlanarChanges, wanted: list[list[int]]) -> None:
    image, labels = apply_planar_changes(*scene(3, 3), changes, (3, 3))
    assert labels.tolist() == wanted
    np.testing.assert_allclose(image[..., 0], wanted, atol=1e-4)


def test_image_and_mask_go_together_at_their_new_size() -> None:
    mask = np.zeros((90, 60), dtype=np.uint8)
    mask[20:50, 30:55] = 3
    image = (mask[..., None] > 0).astype(np.float32)
    changes = PlanarChanges(rows_flipped=True, angle_degrees=37.0)
    changed, labels = apply_planar_changes(image, mask, changes, (64, 48))
    assert changed.shape == (64, 48, 1)
    assert labels.shape == (64, 48)
    assert changed.dtype == np.float32
    assert set(np.unique(labels)) == {0, 3}
    assert ((changed[..., 0] > 0.5) == (labels == 3)).mean() > 0.98
    again = apply_planar_changes(image, mask, changes, (64, 48))
    assert np.array_equal(changed, again[0])


def test_what_is_drawn() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_planar_changes(rng, PlanarRecipe()) for _ in range(4000)]
    angles = np.array([c.angle_degrees for c in drawn if c.angle_degrees])
    # Five standard errors of a half are 0.04.
    assert np.mean([c.rows_flipped for c in drawn]) == pytest.approx(0.5, abs=0.04)
    assert np.mean([c.columns_flipped for c in drawn]) == pytest.approx(0.5, abs=0.04)
    assert len(angles) / 4000 == pytest.approx(0.5, abs=0.04)
    assert -45 <= angles.min() < -44
    assert 44 < angles.max() <= 45


def test_the_four_copies_of_an_image() -> None:
    copies = [
        draw_fourfold_changes(np.random.default_rng(1), PlanarRecipe(), copy)
        for copy in range(FOURFOLD)
    ]
    assert copies[0] == PlanarChanges()
    assert copies[1] == PlanarChanges(columns_flipped=True)
    assert copies[2] == PlanarChanges(rows_flipped=True)
    assert 0 < abs(copies[3].angle_degrees) <= 45


def test_no_global_stream_is_drawn_from() -> None:
    states = random.getstate(), np.random.get_state()[1]
    apply_planar_changes(*scene(8, 8), PlanarChanges(True, True, 20.0), (8, 8))
    assert states[0] == random.getstate()
    assert np.array_equal(states[1], np.random.get_state()[1])


def test_no_socket_is_opened() -> None:
    code = """
import socket
def refused(*words, **names): raise SystemExit("a socket was opened")
socket.socket.connect = refused
socket.getaddrinfo = refused
import numpy as np
from medtool.nets.augment.planar import PlanarChanges, apply_planar_changes
image = np.zeros((4, 4, 1), np.float32)
apply_planar_changes(image, image[..., 0].astype(np.uint8), PlanarChanges(True), (4, 4))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
