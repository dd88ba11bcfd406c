"""MTV, SUVmax, SUVmean, SUVpeak and TLG: by hand, voxel by voxel, and as SimpleITK counts."""

from __future__ import annotations

import json
from dataclasses import astuple
from math import isnan, nan
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from mask_fixtures import box
from numpy.typing import NDArray

from medtool.core.errors import UsageError
from medtool.score.uptake import (
    NO_UPTAKE,
    PEAK_RADIUS_MM,
    case_uptake,
    lesion_uptakes,
)


def peak_by_hand(
    suv: NDArray[Any], mask: NDArray[Any], spacing_mm: tuple[float, float, float]
) -> float:
    """One voxel after the other: the mean of all voxels whose centre is within 6.2035 mm."""
    places = np.stack(np.indices(suv.shape), axis=-1) * np.asarray(spacing_mm)
    best = -np.inf
    for centre in places[mask]:
        inside = np.linalg.norm(places - centre, axis=-1) <= 6.2035049
        best = max(best, float(suv[inside].mean(dtype=np.float64)))
    return best


def test_radius_of_a_sphere_of_one_ml() -> None:
    assert pytest.approx(6.2035049, abs=1e-7) == PEAK_RADIUS_MM


def test_two_lesions_by_hand() -> None:
    suv = np.zeros((6, 6, 12), np.float32)
    suv[1, 1, 1:4] = (2, 4, 6)
    suv[4, 4, 9:11] = (10, 1)
    # Voxels of 10 mm stand in their sphere alone: the peak is the maximum.
    first, second = lesion_uptakes(suv, suv > 0, (10.0, 10.0, 10.0))
    assert astuple(first) == pytest.approx((3, 3.0, 6.0, 4.0, 6.0, 12.0))
    assert astuple(second) == pytest.approx((2, 2.0, 10.0, 5.5, 10.0, 11.0))
    assert astuple(case_uptake([first, second])) == pytest.approx(
        (5, 5.0, 10.0, 23 / 5, 10.0, 23.0)
    )
    assert first.as_row()["mtv_ml"] == pytest.approx(3.0)


def test_the_peak_looks_beyond_the_lesion_and_stops_at_the_border_of_the_image() -> None:
    # 5 mm voxels: a sphere holds its centre, 6 neighbours at 5 mm, no others (7.07 mm).
    suv = np.ones((5, 5, 5), np.float32)
    suv[2, 2, 2] = 8
    (inside,) = lesion_uptakes(suv, suv > 1, (5.0, 5.0, 5.0))
    assert inside.suv_peak == pytest.approx((8 + 6) / 7)
    corner = np.ones((5, 5, 5), np.float32)
    corner[0, 0, 0] = 8
    (at_border,) = lesion_uptakes(corner, corner > 1, (5.0, 5.0, 5.0))
    assert at_border.suv_peak == pytest.approx((8 + 3) / 4)


def test_the_peak_need_not_be_around_the_maximum() -> None:
    suv = np.zeros((3, 3, 12), np.float32)
    suv[1, 1, 1] = 10
    suv[:, :, 6:11] = 9
    mask = suv > 0
    mask[1, 1, 1:7] = True
    (found,) = lesion_uptakes(suv, mask, (5.0, 5.0, 5.0))
    assert found.suv_max == 10
    assert found.suv_peak == pytest.approx(9.0)


@given(
    st.integers(0, 2**32 - 1),
    st.tuples(*[st.floats(1.5, 9.0)] * 3),
    st.tuples(*[st.integers(1, 7)] * 3),
)
@settings(max_examples=40)
def test_peak_of_any_shape_and_spacing(
    seed: int, spacing_mm: tuple[float, float, float], shape: tuple[int, int, int]
) -> None:
    draw = np.random.default_rng(seed)
    suv = draw.gamma(1.0, 3.0, shape).astype(np.float32)
    mask = draw.random(shape) < 0.3
    found = lesion_uptakes(suv, mask, spacing_mm)
    if not mask.any():
        assert found == ()
        return
    assert case_uptake(found).suv_peak == pytest.approx(peak_by_hand(suv, mask, spacing_mm))


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_volumes_and_means_as_simpleitk_counts(seed: int) -> None:
    draw = np.random.default_rng(seed)
    suv = draw.gamma(1.0, 3.0, (8, 9, 10)).astype(np.float32)
    mask = draw.random(suv.shape) < 0.08
    image = SimpleITK.GetImageFromArray(suv)
    image.SetSpacing((1.5, 2.0, 3.0))
    labels = SimpleITK.ConnectedComponent(SimpleITK.GetImageFromArray(mask.astype(np.uint8)), True)
    labels.CopyInformation(image)
    counts = SimpleITK.LabelIntensityStatisticsImageFilter()
    counts.Execute(labels, image)
    theirs = sorted(
        (counts.GetPhysicalSize(n) / 1000, counts.GetMaximum(n), counts.GetMean(n))
        for n in counts.GetLabels()
    )
    ours = sorted(
        (one.mtv_ml, one.suv_max, one.suv_mean)
        for one in lesion_uptakes(suv, mask, (3.0, 2.0, 1.5))
    )
    assert np.asarray(ours) == pytest.approx(np.asarray(theirs), rel=1e-6)


@pytest.mark.real_data
def test_a_real_tumour(real_data: Path) -> None:
    folder = real_data / "petct/ge_sts001"
    expected = json.loads((real_data / "petct/expected_suv.json").read_text())["ge_sts001"]
    suv, mask = (
        np.asarray(nibabel.load(folder / name).dataobj).transpose(2, 1, 0)
        for name in ("suv_truth.nii.gz", "tumour_mask.nii.gz")
    )
    spacing_mm = (3.27, 4.6875, 4.6875)
    whole = case_uptake(lesion_uptakes(suv, mask > 0, spacing_mm))
    assert whole.voxels == expected["mask_voxels"]
    assert whole.mtv_ml == pytest.approx(5095 * 3.27 * 4.6875**2 / 1000)
    assert whole.suv_max == pytest.approx(expected["suvmax_in_mask"], abs=1e-3)
    assert whole.suv_mean == pytest.approx(expected["suvmean_in_mask"], abs=1e-3)
    assert whole.tlg_g == pytest.approx(whole.suv_mean * whole.mtv_ml)
    hot = (mask > 0) & (suv > 6)
    assert whole.suv_peak == pytest.approx(peak_by_hand(suv, hot, spacing_mm), rel=1e-6)


# SUVmax, SUVmean and SUVpeak (loc_peak_glob) by mirp 2.7.0, an implementation checked by IBSI.
BY_MIRP = {
    "ge_sts001/suv_truth ge_sts001/tumour_mask": (7.910674095, 2.555133820, 6.078408241),
    "ibsi_nifti/STS_002_pet ibsi_nifti/STS_002_pet_mask": (21.675746918, 7.369624138, 18.762666703),
    "ibsi_nifti/STS_003_pet ibsi_nifti/STS_003_pet_mask": (10.265303612, 5.816285610, 9.827566147),
}


@pytest.mark.real_data
@pytest.mark.parametrize("files", BY_MIRP)
def test_real_tumours_as_another_program_measures_them(real_data: Path, files: str) -> None:
    images = [nibabel.load(real_data / "petct" / f"{name}.nii.gz") for name in files.split()]
    suv, mask = (np.asarray(image.dataobj).transpose(2, 1, 0) for image in images)
    spacing_mm = tuple(float(step) for step in images[0].header.get_zooms()[::-1])
    (found,) = lesion_uptakes(suv, mask > 0, spacing_mm)
    measured = (found.suv_max, found.suv_mean, found.suv_peak)
    assert measured == pytest.approx(BY_MIRP[files], rel=2e-7)


def test_connectivity_is_a_choice() -> None:
    suv = np.ones((4, 4, 4), np.float32)
    mask = np.zeros(suv.shape, bool)
    mask[1, 1, 1] = mask[2, 2, 2] = True
    assert len(lesion_uptakes(suv, mask, (1.0, 1.0, 1.0))) == 1
    assert len(lesion_uptakes(suv, mask, (1.0, 1.0, 1.0), connectivity=18)) == 2


def test_no_lesion() -> None:
    suv = np.ones((3, 3, 3), np.float32)
    assert lesion_uptakes(suv, suv > 1, (1.0, 1.0, 1.0)) == ()
    empty = case_uptake(())
    assert empty is NO_UPTAKE
    assert (empty.voxels, empty.mtv_ml, empty.tlg_g) == (0, 0.0, 0.0)
    assert isnan(empty.suv_max)
    assert isnan(empty.suv_mean)
    assert isnan(empty.suv_peak)


@pytest.mark.parametrize(
    ("suv", "mask", "spacing_mm", "word"),
    [
        (np.ones((3, 3, 3)), np.ones((3, 3, 2), bool), (1.0, 1.0, 1.0), "(3, 3, 2)"),
        (np.ones((3, 3)), np.ones((3, 3), bool), (1.0, 1.0), "(3, 3)"),
        (np.ones((3, 3, 3)), np.ones((3, 3, 3), bool), (1.0, 0.0, 1.0), "1, 0, 1 mm"),
        (np.full((3, 3, 3), nan), box((3, 3, 3)), (1.0, 1.0, 1.0), "27 voxels of 27"),
    ],
)
def test_what_is_refused(suv: Any, mask: Any, spacing_mm: Any, word: str) -> None:
    with pytest.raises(UsageError) as caught:
        lesion_uptakes(suv, mask, spacing_mm)
    assert word in caught.value.met
