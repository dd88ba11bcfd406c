"""The synthetic data of pancreas: what they are made of, and that no threshold answers for them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from medtool_pancreas.demo import (
    LESION,
    PANCREAS,
    ROUND,
    SUBTYPES_HU,
    DemoCase,
    draw_case,
    write_dataset,
)

from medtool.data.volumes import read_mask, read_volume

TRAINING, HELD_OUT = 8, 6
EDGES_HU = np.arange(-160.0, 260.0, 4.0)
STRUCTURES = {"pancreas": (PANCREAS,), "lesion": (LESION,), "both": (PANCREAS, LESION)}


@pytest.fixture(scope="module")
def cases() -> list[DemoCase]:
    return [draw_case(0, number) for number in range(TRAINING + HELD_OUT)]


def test_a_case_is_drawn_the_same_again_and_by_its_subtype(cases: list[DemoCase]) -> None:
    again = draw_case(0, 1)
    assert np.array_equal(again.image, cases[1].image)
    assert np.array_equal(again.mask, cases[1].mask)
    assert [case.subtype for case in cases[:4]] == list(ROUND)
    for case in cases:
        brightness = float(np.median(case.image[case.mask == LESION]))
        assert brightness == pytest.approx(SUBTYPES_HU[case.subtype], abs=25)
        assert set(np.unique(case.mask)) == {0, PANCREAS, LESION}


def test_no_threshold_tells_pancreas_and_lesion_from_what_lies_around(
    cases: list[DemoCase],
) -> None:
    """The best range of HU for each structure, chosen on other cases, of all ranges there are."""
    found = []
    for ids in STRUCTURES.values():
        low, high = _best_range(cases[:TRAINING], ids)
        found.append(_dice(cases[TRAINING:], ids, low, high))
    assert np.mean(found[:2]) < 0.6
    assert max(found) < 0.6


def _counts(case: DemoCase, ids: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Voxels of the structure, and all, in each bin of HU."""
    bins = np.concatenate([[-np.inf], EDGES_HU, [np.inf]])
    inside = np.isin(case.mask, ids)
    return np.histogram(case.image[inside], bins)[0], np.histogram(case.image, bins)[0]


def _best_range(cases: list[DemoCase], ids: tuple[int, ...]) -> tuple[int, int]:
    bins = len(EDGES_HU) + 1
    ranges = [(low, high) for low in range(bins) for high in range(low + 1, bins + 1)]
    counted = [_counts(case, ids) for case in cases]
    return max(ranges, key=lambda one: _mean_dice(counted, *one))


def _dice(cases: list[DemoCase], ids: tuple[int, ...], low: int, high: int) -> float:
    return _mean_dice([_counts(case, ids) for case in cases], low, high)


def _mean_dice(counted: list[tuple[np.ndarray, np.ndarray]], low: int, high: int) -> float:
    return float(
        np.mean(
            [
                2 * inside[low:high].sum() / (inside.sum() + every[low:high].sum())
                for inside, every in counted
            ]
        )
    )


def test_it_is_written_as_a_data_set_with_a_table_of_subtypes(tmp_path: Path) -> None:
    write_dataset(tmp_path, seed=0, cases=2)
    document = json.loads((tmp_path / "dataset.json").read_text(encoding="utf-8"))
    assert document["synthetic"] is True
    rows = (tmp_path / "labels.csv").read_text(encoding="utf-8").split()
    assert rows == ["case,subtype", "demo_000,solid", "demo_001,cystic"]
    case = draw_case(0, 1)
    from medtool.data.dataset_record import ImageReference

    mask = read_mask(ImageReference(tmp_path / "labelsTr" / "demo_001.nii.gz"))
    image = read_volume(ImageReference(tmp_path / "imagesTr" / "demo_001_0000.nii.gz"))
    assert Counter(mask.array.ravel().tolist()) == Counter(case.mask.ravel().tolist())
    assert np.array_equal(image.array, case.image)
    assert image.grid.spacing_mm == pytest.approx(case.grid.spacing_mm, rel=1e-6)
