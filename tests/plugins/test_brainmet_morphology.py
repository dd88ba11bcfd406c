"""3D morphology in mm, against scipy and against volumes worked out by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from medtool_brainmet import morphology
from scipy import ndimage

masks = arrays(np.bool_, st.tuples(*(st.integers(1, 9),) * 3))
spacings = st.tuples(*(st.floats(0.4, 7.0),) * 3)


def test_radii_are_rounded_per_axis_and_at_least_one() -> None:
    # 3 mm on 0.5 x 0.5 x 7 mm voxels: 6 pixels in the slice, one slice (0.43 would vanish).
    assert morphology.radii_vox(3.0, (0.5, 0.5, 7.0)) == (1, 6, 6)
    assert morphology.radii_vox(3.0, (1.0, 2.0, 1.2)) == (2, 2, 3)


def test_an_ellipsoid_of_radius_one_is_the_voxel_and_its_six_neighbours() -> None:
    assert morphology.ellipsoid((1, 1, 1)).sum() == 7
    assert morphology.ellipsoid((1, 2, 3)).shape == (3, 5, 7)


@settings(max_examples=60, deadline=None)
@given(mask=masks, radius=st.floats(0.5, 5.0), spacing=spacings)
def test_erosion_and_dilation_are_those_of_scipy(mask, radius, spacing) -> None:
    element = morphology.ellipsoid(morphology.radii_vox(radius, spacing))
    eroded = ndimage.binary_erosion(mask, element, border_value=1)
    dilated = ndimage.binary_dilation(mask, element)
    assert np.array_equal(morphology.erode(mask, radius, spacing), eroded)
    assert np.array_equal(morphology.dilate(mask, radius, spacing), dilated)


@settings(max_examples=60, deadline=None)
@given(mask=masks)
def test_holes_are_filled_as_scipy_fills_them(mask) -> None:
    by_slice = np.stack([ndimage.binary_fill_holes(plane) for plane in mask])
    assert np.array_equal(morphology.fill_slices(mask), by_slice)
    assert np.array_equal(morphology.fill_volume(mask), ndimage.binary_fill_holes(mask))


def test_the_largest_component_joins_over_corners() -> None:
    mask = np.zeros((3, 4, 4), dtype=bool)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[2, 2, 2] = True
    mask[0, 3, 2:] = True
    assert morphology.largest_component(mask).sum() == 3
    assert not morphology.largest_component(np.zeros_like(mask)).any()


@pytest.mark.parametrize("gap_px", [2, 4])
def test_closing_bridges_gaps_up_to_twice_its_radius(gap_px: int) -> None:
    mask = np.ones((1, 21, 40), dtype=bool)
    mask[:, :, 18 : 18 + gap_px] = False
    closed = morphology.close(mask, 2.0, (1.0, 1.0, 5.0))
    assert closed[0, 10].all()
    wide = np.ones((1, 21, 40), dtype=bool)
    wide[:, :, 15:25] = False
    assert not morphology.close(wide, 2.0, (1.0, 1.0, 5.0))[0, 10].all()
