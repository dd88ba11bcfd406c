"""A prepared image holds what the plan wants, and masks find their way back to the input's grid."""

from __future__ import annotations

import json

import numpy as np
import pytest

from medtool.core.errors import InputError
from medtool.core.geometry import Grid
from medtool.core.plan import Configuration
from medtool.core.records import Prepared
from medtool.data.case_file import read_case_file, to_bytes
from medtool.data.fingerprint import CaseFingerprint, pooled
from medtool.data.placement import Placement, placement_from_facts
from medtool.data.planning import make_plan
from medtool.data.segmentation_preparation import OUTSIDE, locations_name, prepare_image
from medtool.predict.decide import LabelRule, decide, way_back
from medtool.predict.sliding_window import Slab

# x, y, z; the coarse axis is x, so the plan turns it to the front.
SPACING_MM = (2.0, 1.0, 0.5)
GRID = Grid((10, 24, 30), SPACING_MM, (0.0, 0.0, 0.0))


def planned(channels=("MR",), relative_size=1.0, spacing_mm=(0.8, 0.8, 1.6)):
    """A plan of uniform cases; ``spacing_mm`` is z, y, x."""
    case = CaseFingerprint((30, 24, 12), spacing_mm, relative_size, ())
    return make_plan(pooled([case] * 5), channels=channels, label_count=3)


def ball(grid=GRID):
    """A label map (z, y, x) with a ball of radius 5 mm, its core of 3 mm being label 2."""
    shape, spacing = grid.size[::-1], grid.spacing_mm[::-1]
    axes = [(np.arange(n) - n / 2 + 0.5) * s for n, s in zip(shape, spacing, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    radius = np.sqrt(z**2 + y**2 + x**2)
    return (radius < 5).astype(np.uint8) + (radius < 3)


def prepared(label=None, image=None, plan=None, name="3d_fullres", grid=GRID):
    plan = plan or planned()
    image = np.ones((1, *grid.size[::-1]), np.float32) if image is None else image
    configuration: Configuration = plan.configurations[name]
    return prepare_image(
        image, label, grid, plan, configuration, case_id="a", classes=((1,), (2,), (1, 2))
    )


def noise(shape=(1, 30, 24, 10)):
    return np.random.default_rng(5).normal(100, 20, shape).astype(np.float32)


def test_axes_are_turned_and_resampled():
    arrays, facts = prepared(ball(), noise())
    place = placement_from_facts(facts)

    # x first: 10 * 2 / 1.6 = 12.5 -> 12, then z 30 * .5 / .8 = 18.75 -> 19, y 24 / .8 = 30.
    assert place.axes_forward == (2, 0, 1)
    assert arrays["image"].shape == (1, 12, 19, 30) and arrays["image"].dtype == np.float32
    assert arrays["label"].shape == (12, 19, 30) and arrays["label"].dtype == np.int8
    assert set(np.unique(arrays["label"])) == {0, 1, 2}
    assert place.spacing_mm == (2.0, 0.5, 1.0)


def test_an_image_at_the_plans_spacing_is_only_turned_and_normalised():
    image, label = noise(), ball()
    arrays, _ = prepared(label, image, planned(spacing_mm=(0.5, 1.0, 2.0)))

    scores = (image - image.mean(dtype=np.float64)) / image.std(dtype=np.float64)
    assert np.allclose(arrays["image"][0], scores[0].transpose(2, 0, 1), atol=1e-5)
    assert np.array_equal(arrays["label"], label.transpose(2, 0, 1))


def test_what_is_zero_all_around_is_cropped_and_the_mask_comes_back():
    image, label = np.zeros((1, 30, 24, 10), np.float32), ball()
    image[0, 5:25, 4:20, 1:9] = noise((20, 16, 8))
    arrays, facts = prepared(label, image, planned(spacing_mm=(0.5, 1.0, 2.0)))
    place = placement_from_facts(facts)

    assert place.box == ((1, 9), (5, 25), (4, 20))
    assert arrays["image"].shape == (1, 8, 20, 16)
    inside = np.zeros_like(label)
    inside[5:25, 4:20, 1:9] = label[5:25, 4:20, 1:9]
    assert np.array_equal(on_input(arrays["label"], place), inside)


def on_input(label, place):
    """The prepared label as a network would answer it, decided on the input's grid."""
    scores = np.stack([label == value for value in (0, 1, 2)]).astype(np.float32)
    return decide([Slab(0, scores)], way_back(place), LabelRule((0, 1, 2))).mask


def test_scores_come_back_to_the_inputs_grid():
    label = ball()
    arrays, facts = prepared(label, noise())
    place = placement_from_facts(json.loads(json.dumps(facts)))

    found = on_input(arrays["label"], place)

    assert found.shape == label.shape
    for value in (1, 2):
        both = np.count_nonzero((found == value) & (label == value))
        assert 2 * both / ((found == value).sum() + (label == value).sum()) > 0.85


def test_slices_of_a_2d_configuration_stay_where_they_are():
    arrays, facts = prepared(ball(), noise(), name="2d")

    assert arrays["image"].shape == (1, 10, 19, 30)
    assert placement_from_facts(facts).prepared_spacing_mm == (2.0, 0.8, 0.8)


def test_outside_is_marked_where_a_channel_is_normalised_inside():
    image, label = np.zeros((1, 30, 24, 10), np.float32), np.zeros((30, 24, 10), np.uint8)
    image[0, 5:25, 4:20, 1:9] = 100 + noise((20, 16, 8))
    image[0, 5:10, 4:9, 1:3] = 0
    label[5, 4, 1] = 1
    plan = planned(relative_size=0.5, spacing_mm=(0.5, 1.0, 2.0))
    arrays, _ = prepared(label, image, plan)

    outside = arrays["label"] == OUTSIDE
    # The corner of 2 x 5 x 5 but for the voxel with a label, which is taken for inside.
    assert outside.sum() == 49 and outside[:2, :5, :5].sum() == 49
    assert np.all(arrays["image"][0][outside] == 0)
    assert arrays["image"][0][~outside].mean() == pytest.approx(0, abs=1e-5)
    assert arrays["image"][0][~outside].std() == pytest.approx(1, abs=1e-5)


def test_places_of_each_class_and_of_regions():
    arrays, _ = prepared(ball(), noise())
    label = arrays["label"]

    for labels in ((1,), (2,), (1, 2)):
        places = arrays[locations_name(labels)]
        assert len(places) == np.isin(label, labels).sum()
        assert np.isin(label[tuple(places.T)], labels).all()


def test_of_a_large_class_some_places_are_drawn_the_same_each_time():
    grid = Grid((100, 100, 100), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    label = np.zeros((100, 100, 100), np.uint8)
    label[:, :50] = 1
    plan = planned(spacing_mm=(1.0, 1.0, 1.0))
    image = np.ones((1, 100, 100, 100), np.float32)

    first, _ = prepared(label, image, plan, grid=grid)
    again, _ = prepared(label, image, plan, grid=grid)

    places = first["locations_1"]
    # 1 % of 500,000 is less than 10,000.
    assert places.shape == (10_000, 3) and places.dtype == np.int32
    assert len(np.unique(places, axis=0)) == 10_000
    assert np.array_equal(places, again["locations_1"])
    assert first["locations_2"].shape == (0, 3)
    # Uniform: the mean along y of 0..49 is 24.5, of so many draws within 0.8 (5 deviations).
    assert abs(places[:, 1].mean() - 24.5) < 0.8


def test_without_a_label_there_is_only_the_image():
    arrays, _ = prepared()
    assert set(arrays) == {"image"}


def test_labels_over_127_are_kept():
    label = ball().astype(np.int32) * 150
    arrays, _ = prepared(label, noise(), planned(spacing_mm=(0.5, 1.0, 2.0)))
    assert arrays["label"].dtype == np.int16 and arrays["label"].max() == 300


def test_the_input_is_not_changed():
    image, label = noise(), ball()
    before = image.copy(), label.copy()
    prepared(label, image, planned(spacing_mm=(0.5, 1.0, 2.0)))
    assert np.array_equal(image, before[0]) and np.array_equal(label, before[1])


def test_a_label_of_another_size_is_refused():
    with pytest.raises(InputError, match="label is not on the grid"):
        prepared(ball()[:-1])


def test_the_cache_gives_patches_of_all_channels(tmp_path):
    plan = planned(channels=("MR", "MR"))
    arrays, facts = prepared(ball(), noise((2, 30, 24, 10)), plan)
    case = Prepared("a", arrays, {"input": GRID}, facts=facts)
    path = tmp_path / "case"
    path.write_bytes(b"".join(to_bytes(case)))

    patch = (slice(None), slice(2, 9), slice(0, 5), slice(7, 20))
    part = read_case_file(path, names=["image"], index=patch)
    whole = read_case_file(path)

    assert np.array_equal(part.arrays["image"], arrays["image"][patch])
    assert np.array_equal(whole.arrays["locations_1"], arrays["locations_1"])
    assert isinstance(placement_from_facts(whole.facts), Placement)
