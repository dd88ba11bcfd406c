"""The synthetic data of segment: no threshold answers for them."""

from __future__ import annotations

import numpy as np
import pytest
from medtool_segment.demo import LABELS, NODULE, ORGAN, draw_case

TRAINING, HELD_OUT = 8, 6
# Each image has a scale of its own: brightness is counted in its own deviations.
EDGES = np.linspace(-3.0, 5.0, 81)
BINS = np.concatenate([[-np.inf], EDGES, [np.inf]])
STRUCTURES = {"organ": (ORGAN,), "nodule": (NODULE,), "both": (ORGAN, NODULE)}


def counts(number: int, ids: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Voxels of the structure, and all, from each edge of brightness on upwards."""
    image, mask, _ = draw_case(0, number)
    scaled = (image - image.mean()) / image.std()
    each = (np.histogram(scaled[np.isin(mask, ids)], BINS)[0], np.histogram(scaled, BINS)[0])
    return each[0], each[1]


def mean_dice(cases: list[tuple[np.ndarray, np.ndarray]], low: int, high: int) -> float:
    """Dice of what lies between two edges, mean over the cases."""
    found = [
        2 * inside[low:high].sum() / (inside.sum() + every[low:high].sum())
        for inside, every in cases
    ]
    return float(np.mean(found))


@pytest.mark.parametrize("name", STRUCTURES)
def test_the_best_range_of_brightness_stays_under_06(name: str) -> None:
    """Chosen of all ranges there are on training cases, judged on others."""
    cases = [counts(number, STRUCTURES[name]) for number in range(TRAINING + HELD_OUT)]
    ranges = [(low, high) for low in range(len(BINS)) for high in range(low + 1, len(BINS))]
    chosen = max(ranges, key=lambda one: mean_dice(cases[:TRAINING], *one))
    assert 0.02 < mean_dice(cases[TRAINING:], *chosen) < 0.6


def test_the_labels_are_those_that_are_drawn() -> None:
    _, mask, _ = draw_case(0, 0)
    assert set(np.unique(mask)) == set(LABELS.values())
