"""Patches lie where they should, and hold what the whole array holds there."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medtool.core.records import Prepared
from medtool.data.case_file import to_bytes
from medtool.data.patches import patch_start, read_patch


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    volume = np.arange(2 * 9 * 10 * 11, dtype=np.float32).reshape(2, 9, 10, 11)
    label = (volume[0] % 3).astype(np.int16)
    path = tmp_path_factory.mktemp("cache") / "case.b2"
    path.write_bytes(b"".join(to_bytes(Prepared("c", {"image": volume, "label": label}))))
    return path, volume, label


def test_a_patch_stays_inside_and_small_volumes_are_centred():
    assert patch_start((0, 5, 10), (4, 4, 4), (9, 10, 11)) == (0, 3, 7)
    # 9 voxels in a patch of 12: one and a half on each side, the odd one behind.
    assert patch_start((4, 0, 0), (12, 10, 4), (9, 10, 11)) == (-1, 0, 0)


def test_a_patch_over_the_border_is_filled(stored):
    path, volume, label = stored
    patch = read_patch(path, "image", (-1, 8, 9), (3, 4, 3), (9, 10, 11), channels=True, fill=-5.0)
    assert patch.shape == (2, 3, 4, 3)
    assert (patch[:, 0] == -5).all()
    assert (patch[:, :, 2:] == -5).all()
    assert (patch[:, :, :, 2] == -5).all()
    np.testing.assert_array_equal(patch[:, 1:, :2, :2], volume[:, :2, 8:, 9:])
    same = read_patch(path, "label", (2, 3, 4), (3, 4, 5), (9, 10, 11), channels=False, fill=-1)
    np.testing.assert_array_equal(same, label[2:5, 3:7, 4:9])


def test_a_patch_wholly_outside_is_only_filling(stored):
    path, _, _ = stored
    patch = read_patch(path, "label", (20, 0, 0), (2, 2, 2), (9, 10, 11), channels=False, fill=-1)
    assert (patch == -1).all()


@given(st.tuples(st.integers(0, 8), st.integers(0, 9), st.integers(0, 10)))
def test_the_voxel_that_was_drawn_is_in_the_patch(stored, centre):
    path, volume, _ = stored
    size, shape = (4, 5, 6), (9, 10, 11)
    start = patch_start(centre, size, shape)
    assert all(0 <= s and s + n <= w for s, n, w in zip(start, size, shape, strict=True))
    patch = read_patch(path, "image", start, size, shape, channels=True, fill=0.0)
    assert volume[(0, *centre)] in patch[0]
