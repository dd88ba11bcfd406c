"""Stage 5, and the test whether it gives the label away."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from medtool_brainmet.augmentation import apply_changes, changes_for, draw_changes
from medtool_brainmet.leak import _logistic, _out_of_fold_auroc, audit_augmentation
from medtool_brainmet.settings import BrainmetAugmentSection, ChangesSection

from medtool.core.randomness import generator
from medtool.core.records import Case, Prepared
from medtool.data.case_file import to_bytes

SECTION = BrainmetAugmentSection()


def slice_of(seed: int = 0, size: int = 64):
    rng = np.random.default_rng(seed)
    image = cv2.GaussianBlur(rng.random((size, size)), (0, 0), 2).astype(np.float32)
    image = (image - image.min()) / (image.max() - image.min())
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    mask = x**2 + y**2 < (0.4 * size) ** 2
    return np.where(mask, image, 0).astype(np.float32), mask


@given(key=st.integers(0, 10_000), label=st.sampled_from([0.0, 1.0]))
def test_values_lie_in_the_ranges_of_the_class(key: int, label: float) -> None:
    drawn = draw_changes(generator(key), changes_for(SECTION, label))
    ranges = {
        0.0: {"gamma": (0.9, 1.1), "clahe_clip": (1, 2), "sharpen_amount": (0.5, 2)},
        1.0: {"gamma": (0.95, 1.05), "blur_sigma_px": (0.3, 0.8)},
    }[label]
    assert set(drawn) - {"clahe_tiles"} <= set(ranges)
    assert all(low <= drawn[name] <= high for name, (low, high) in ranges.items() if name in drawn)


@pytest.mark.parametrize(
    ("label", "name", "share"), [(1.0, "blur_sigma_px", 0.7), (0.0, "gamma", 0.5)]
)
def test_changes_happen_with_their_probability(label: float, name: str, share: float) -> None:
    changes = changes_for(SECTION, label)
    happened = [name in draw_changes(generator("p", k), changes) for k in range(2000)]
    # Four standard deviations of a mean of 2000 draws are 0.045.
    assert np.mean(happened) == pytest.approx(share, abs=0.045)


def test_drawing_depends_on_the_key_alone() -> None:
    changes = changes_for(SECTION, 0.0)
    assert draw_changes(generator(1, "a"), changes) == draw_changes(generator(1, "a"), changes)
    many = [tuple(draw_changes(generator(1, k), changes).items()) for k in range(50)]
    assert len(set(many)) > 20


def test_which_changes_apply() -> None:
    alike = BrainmetAugmentSection(by_class=False)
    assert changes_for(alike, 0.0) is changes_for(alike, 1.0) is alike.both
    assert changes_for(SECTION, None) is None
    assert changes_for(BrainmetAugmentSection(enabled=False), 1.0) is None
    assert draw_changes(generator(0), None) == {}


@settings(max_examples=25, deadline=None)
@given(key=st.integers(0, 10_000))
def test_values_stay_in_the_window_and_the_background_stays_0(key: int) -> None:
    image, mask = slice_of(key)
    drawn = draw_changes(generator(key), SECTION.both)
    changed = apply_changes(image.astype(np.float16), mask, drawn)
    assert changed.dtype == np.float32
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert (changed[~mask] == 0).all()
    assert np.array_equal(changed, apply_changes(image.astype(np.float16), mask, drawn))


def test_no_change_changes_nothing() -> None:
    image, mask = slice_of()
    assert np.array_equal(apply_changes(image, mask, {}), image)


def test_each_change_is_the_one_that_its_name_says() -> None:
    image, _ = slice_of()
    assert apply_changes(image, None, {"gamma": 1.1}) == pytest.approx(image**1.1, abs=1e-6)
    blurred = cv2.GaussianBlur(image, (3, 3), 0.8)
    assert apply_changes(image, None, {"blur_sigma_px": 0.8}) == pytest.approx(blurred, abs=1e-6)
    grey = np.rint(image * 255).astype(np.uint8)
    equalised = cv2.createCLAHE(2.0, (8, 8)).apply(grey) / 255.0
    found = apply_changes(image, None, {"clahe_clip": 2.0, "clahe_tiles": 8.0})
    assert np.abs(found - equalised).mean() < 2 / 255
    sharp = apply_changes(image, None, {"sharpen_amount": 2.0})
    laplace = cv2.Laplacian
    assert laplace(sharp, cv2.CV_32F).std() > 1.5 * laplace(image, cv2.CV_32F).std()


def test_bounds_that_are_upside_down_are_refused() -> None:
    with pytest.raises(ValueError, match="lower bound"):
        ChangesSection(gamma=(1.1, 0.9))


# --- does it give the label away? ---------------------------------------------------------
@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory):
    """24 prepared studies of one kind; labels say nothing."""
    folder = tmp_path_factory.mktemp("studies")
    cases, paths = [], {}
    for number in range(24):
        images, masks = zip(*(slice_of(100 * number + k) for k in range(4)), strict=True)
        case = Case(f"c{number:02d}", f"p{number:02d}", "", {}, label=float(number % 2))
        arrays = {"slices": np.stack(images).astype(np.float16), "mask": np.stack(masks)}
        path = folder / f"{case.case_id}.b2"
        path.write_bytes(b"".join(to_bytes(Prepared(case.case_id, arrays))))
        cases.append(case)
        paths[case.case_id] = path
    return cases, paths


def test_augmentation_by_class_shows_and_one_for_both_does_not(studies) -> None:
    section = BrainmetAugmentSection(audit_shuffles=6)
    found = audit_augmentation(section, *studies, 0)
    assert found["used"] == "by_class"
    assert found["auroc"]["by_class"][0] > 0.9
    assert 0.3 < found["auroc"]["both_alike"][0] < 0.7
    assert 0.3 < found["auroc"]["none"][0] < 0.7
    assert found == audit_augmentation(section, *studies, 0)
    assert "by class" in found["summary"]


def test_too_few_studies_and_no_shuffles_give_no_test(studies) -> None:
    cases, paths = studies
    assert audit_augmentation(SECTION, cases[:8], paths, 0) == {}
    assert audit_augmentation(BrainmetAugmentSection(audit_shuffles=0), cases, paths, 0) == {}


def test_the_classifier_is_a_ridge_logistic_regression() -> None:
    rng = np.random.default_rng(2)
    features = rng.normal(size=(60, 3))
    labels = (features[:, 0] + 0.5 * rng.normal(size=60) > 0).astype(float)
    logits = _logistic(features, labels, features)
    # At the optimum the gradient vanishes: residuals are orthogonal to the intercept.
    share = 1 / (1 + np.exp(-logits))
    assert (share - labels).sum() == pytest.approx(0, abs=1e-3)
    assert _out_of_fold_auroc(features, labels) > 0.85
    noise = [_out_of_fold_auroc(rng.normal(size=(60, 3)), labels) for _ in range(30)]
    assert np.mean(noise) == pytest.approx(0.5, abs=0.1)
