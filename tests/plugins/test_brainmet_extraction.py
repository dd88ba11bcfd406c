"""Brain extraction: what is brain, what is no head, and when the whole head is taken instead."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from medtool_brainmet.extraction import extract_brain
from medtool_brainmet.settings import ExtractionSection

SPACING_MM = (1.8, 1.8, 6.0)
SECTION = ExtractionSection()


def ball_head(brain_radius_mm: float, *, skull_mm: float = 8.0, height_mm: float = 192.0):
    """A ball of brain (35 HU) in a shell of bone and one of skin, in air; (z, y, x)."""
    x_mm, y_mm, z_mm = SPACING_MM
    slices = round(height_mm / z_mm)
    z, y, x = np.ogrid[:slices, :128, :128]
    radius = np.sqrt(
        ((z - (slices - 1) / 2) * z_mm) ** 2 + ((y - 63.5) * y_mm) ** 2 + ((x - 63.5) * x_mm) ** 2
    )
    volume = np.full(radius.shape, -1000.0, dtype=np.float32)
    volume[radius < brain_radius_mm + skull_mm + 5] = 25.0
    volume[radius < brain_radius_mm + skull_mm] = 900.0
    volume[radius < brain_radius_mm] = 35.0
    volume[:, 125:, 20:108] = 200.0
    return volume, radius


def test_a_ball_of_brain_is_found_with_its_volume() -> None:
    volume, radius = ball_head(70.0)
    found = extract_brain(volume, SPACING_MM, SECTION)
    truth = radius < 70.0
    assert not found.fallback
    assert found.full_head
    # 4/3 pi 7^3 cm^3 is 1436.8 mL.
    assert found.volume_ml == pytest.approx(1436.8, rel=0.02)
    assert (found.mask & truth).sum() / truth.sum() > 0.98
    assert (found.mask & ~truth).sum() / truth.sum() < 0.01
    assert found.enclosed_share == pytest.approx(1.0)


def test_calcium_and_ventricles_stay_inside() -> None:
    volume, radius = ball_head(70.0)
    z, y, x = np.ogrid[: len(volume), :128, :128]
    volume[(abs(z - 16) < 2) & (abs(y - 64) < 3) & (abs(x - 64) < 3)] = 400.0
    volume[(abs(z - 16) < 2) & (abs(y - 40) < 8) & (abs(x - 64) < 4)] = 5.0
    found = extract_brain(volume, SPACING_MM, SECTION)
    assert found.mask[16, 64, 64]
    assert found.mask[16, 40, 64]


def test_fine_pixels_give_the_mask_on_the_grid_of_the_scan() -> None:
    volume, _ = ball_head(70.0)
    fine = volume.repeat(4, axis=1).repeat(4, axis=2)
    found = extract_brain(fine, (0.45, 0.45, 6.0), SECTION)
    assert found.mask.shape == fine.shape
    assert found.volume_ml == pytest.approx(1436.8, rel=0.02)


def test_an_implausible_brain_is_replaced_by_the_head_and_flagged() -> None:
    volume, _ = ball_head(52.0, skull_mm=26.0)
    found = extract_brain(volume, SPACING_MM, SECTION)
    # 4/3 pi 5.2^3 cm^3 is 589 mL: too small for a whole head.
    assert found.volume_ml == pytest.approx(589.0, rel=0.03)
    assert found.fallback
    assert [finding.code for finding in found.findings] == ["brain-volume"]
    assert found.mask.sum() > 2.5 * found.volume_ml / (1.8 * 1.8 * 6.0 / 1000)


def test_part_of_a_head_may_have_little_brain() -> None:
    volume, _ = ball_head(70.0)
    found = extract_brain(volume[12:20], SPACING_MM, SECTION)
    assert not found.full_head
    assert not found.fallback
    assert 0 < found.volume_ml < 900


def test_an_open_skull_is_no_error() -> None:
    volume, radius = ball_head(70.0)
    z, y, x = np.ogrid[: len(volume), :128, :128]
    volume[(radius > 70) & (radius < 78) & (x < 40) & (abs(y - 64) < 20)] = 30.0
    found = extract_brain(volume, SPACING_MM, SECTION)
    assert found.mask.any()


def test_half_a_skull_gone_is_flagged_and_not_refused() -> None:
    # A hemicraniectomy: one side open from the first quarter of the head up.
    volume, radius = ball_head(70.0)
    z, _, x = np.ogrid[: len(volume), :128, :128]
    volume[(radius > 69) & (radius < 80) & (x < 64) & (z > 10)] = 30.0
    found = extract_brain(volume, SPACING_MM, SECTION)
    assert found.enclosed_share < 0.2
    assert all(finding.severity == "warning" for finding in found.findings)
    assert found.mask.any()


def test_soft_tissue_without_a_skull_is_no_brain() -> None:
    volume, _ = ball_head(70.0)
    volume[volume > 100] = 30.0
    found = extract_brain(volume, SPACING_MM, SECTION)
    assert [finding.code for finding in found.findings] == ["no-brain"]
    assert found.findings[0].severity == "refusal"


@settings(max_examples=40, deadline=None)
@given(
    volume=arrays(
        np.float32,
        st.tuples(st.integers(1, 5), st.integers(1, 24), st.integers(1, 24)),
        elements=st.one_of(st.floats(-3000, 4000, width=32), st.just(float("nan"))),
    ),
    spacing=st.tuples(*(st.floats(0.2, 10.0),) * 3),
)
def test_it_never_raises(volume, spacing) -> None:
    found = extract_brain(volume, spacing, SECTION)
    assert found.mask.shape == volume.shape


def test_half_a_head_is_said() -> None:
    """From a fault: of a head in two stacks one was answered, and nothing told of the other."""
    whole, _ = ball_head(70.0)
    assert not any(
        f.code == "partial-head" for f in extract_brain(whole, SPACING_MM, SECTION).findings
    )
    upper = whole[16:]
    (said,) = extract_brain(upper, SPACING_MM, SECTION).findings
    assert (said.code, said.severity) == ("partial-head", "warning")
    # 83 mm of head above the middle, in slices of 6 mm.
    assert "84 mm of a head" in said.message
