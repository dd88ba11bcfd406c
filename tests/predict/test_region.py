"""A close look where the coarse one found something, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from medtool.predict.region import cut_out, find_region, put_back
from medtool.predict.sliding_window import Windows, sliding_window, whole_logits


def coarse_mark() -> np.ndarray:
    coarse = np.zeros((10, 20, 20), dtype=bool)
    coarse[4:6, 10:12, 0:3] = True
    return coarse


def test_the_box_is_scaled_and_widened_within_the_volume() -> None:
    region = find_region(coarse_mark(), (40, 80, 80), (5.0, 1.0, 2.0), margin_mm=10.0, least_ml=0.1)
    # Four fine voxels a coarse one; margins of 2, 10 and 5 voxels.
    assert region.box == (slice(14, 26), slice(30, 58), slice(0, 17))
    assert region.findings == ()


def test_too_little_is_nothing_and_that_is_said() -> None:
    # 12 coarse voxels of 4 x 4 x 4 fine ones of 10 mm3: 7.68 mL.
    region = find_region(coarse_mark(), (40, 80, 80), (5.0, 1.0, 2.0), margin_mm=10.0, least_ml=7.7)
    assert region.box == (slice(0, 40), slice(0, 80), slice(0, 80))
    (finding,) = region.findings
    assert (finding.code, finding.severity) == ("region-whole-volume", "warning")
    assert "7.7 mL" in finding.message


@pytest.mark.parametrize(
    ("place", "wanted"),
    [(40, slice(36, 46)), (0, slice(0, 10)), (79, slice(70, 80))],
)
def test_a_small_box_is_widened_to_a_window_where_there_is_room(place: int, wanted: slice) -> None:
    coarse = np.zeros((80, 4, 80), dtype=bool)
    coarse[place, :, place] = True
    region = find_region(
        coarse,
        (80, 4, 80),
        (1.0, 1.0, 1.0),
        margin_mm=0.0,
        least_ml=0.0,
        least_size_vox=(10, 10, 1),
    )
    assert region.box == (wanted, slice(0, 4), slice(place, place + 1))


@pytest.mark.parametrize("least_ml", [0.0, 5.0])
def test_nothing_found_is_the_whole_volume(least_ml: float) -> None:
    empty = np.zeros((4, 4, 4), dtype=bool)
    region = find_region(empty, (8, 8, 8), (1.0, 1.0, 1.0), margin_mm=1.0, least_ml=least_ml)
    assert region.box == (slice(0, 8),) * 3
    assert region.findings


def test_the_region_is_answered_in_its_place() -> None:
    volume = np.random.default_rng(0).normal(size=(1, 30, 16, 16)).astype(np.float32)
    coarse = np.zeros((30, 16, 16), dtype=bool)
    coarse[12:20, 4:10, 2:16] = True
    region = find_region(coarse, (30, 16, 16), (1.0, 1.0, 1.0), margin_mm=1.0, least_ml=0.1)
    slabs = sliding_window(lambda batch: batch * 2, cut_out(volume, region), Windows((8, 8, 8)))
    logits = whole_logits(put_back(slabs, region, (30, 16, 16), (-9.0,)))
    expected = np.full((1, 30, 16, 16), -9.0, np.float32)
    expected[:, 11:21, 3:11, 1:16] = volume[:, 11:21, 3:11, 1:16] * 2
    np.testing.assert_allclose(logits, expected, rtol=1e-5)
