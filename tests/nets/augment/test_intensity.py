"""Changes of intensity by hand, and beside batchgeneratorsv2 (see test_spatial.py)."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from medtool.nets.augment.intensity import (
    blurred,
    kernel_radius_vox,
    with_contrast,
    with_gamma,
    with_less_resolution,
    with_noise,
)

GOLDEN = json.loads(Path(__file__).with_name("augment_golden.json").read_text(encoding="utf-8"))
WAVES = (torch.arange(8 * 10 * 9, dtype=torch.float64) * 0.37).sin().float().reshape(8, 10, 9)

PEERS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "blurred": lambda values: blurred(values, (0.5, 0.7, 1.0)),
    "contrast": lambda values: with_contrast(values, 1.2),
    "less_resolution": lambda values: with_less_resolution(values, 0.63, (1, 2)),
    "gamma": lambda values: with_gamma(values, 0.7, inverted=False),
    "inverted_gamma": lambda values: with_gamma(values, 0.7, inverted=True),
}


@pytest.mark.parametrize("name", PEERS)
def test_the_values_of_batchgenerators(name: str) -> None:
    before = WAVES.clone()
    found = PEERS[name](WAVES)
    some = found.flatten()[:: found.numel() // 8][:8].tolist()
    assert some == pytest.approx(GOLDEN[name]["values"], abs=2e-5)
    assert found.abs().sum().item() == pytest.approx(GOLDEN[name]["sum_of_sizes"], rel=1e-5)
    assert torch.equal(WAVES, before)


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("value", [0.0, -3.0])
def test_a_constant_channel_stays_as_it_is(name: str, value: float) -> None:
    flat = torch.full((6, 6, 6), value)
    torch.testing.assert_close(PEERS[name](flat), flat)


def test_blurring_a_point_by_hand() -> None:
    point = torch.zeros(9)
    point[4] = 1
    weights = [math.exp(-0.5 * (offset / 0.6) ** 2) for offset in range(-2, 3)]
    wanted = [weight / sum(weights) for weight in weights]
    assert kernel_radius_vox(0.6) == 2
    assert blurred(point, (0.6,))[2:7].tolist() == pytest.approx(wanted)
    assert blurred(point, (0.6,)).sum().item() == pytest.approx(1)


@pytest.mark.parametrize(("sigma", "radius"), [(0.5, 1), (0.75, 2), (1.0, 3)])
def test_widths_of_kernels(sigma: float, radius: int) -> None:
    """The odd number nearest to 6 sigma + 0.5: 3, 5 and 7."""
    assert kernel_radius_vox(sigma) == radius


def test_contrast_by_hand() -> None:
    values = torch.tensor([[0.0, 1.0], [2.0, 5.0]])
    # The mean is 2; 5 would become 6.5 and 0 become -1, which are beyond what there was.
    assert with_contrast(values, 1.5).tolist() == [[0.0, 0.5], [2.0, 5.0]]
    assert with_contrast(values, 0.5).tolist() == [[1.0, 1.5], [2.0, 3.5]]


def test_noise_has_its_deviation_and_can_be_repeated() -> None:
    image = torch.ones(2, 40, 50)
    noisy = with_noise(image, 0.1, key=3)
    # 4,000 values: five standard errors of a deviation are 0.0056.
    assert (noisy - image).std().item() == pytest.approx(0.1, abs=0.0056)
    assert torch.equal(noisy, with_noise(image, 0.1, key=3))
    assert not torch.equal(noisy, with_noise(image, 0.1, key=4))


def test_gamma_keeps_mean_and_deviation() -> None:
    changed = with_gamma(WAVES + 3, 1.4, inverted=False)
    assert changed.mean().item() == pytest.approx((WAVES + 3).mean().item(), abs=1e-5)
    assert changed.std().item() == pytest.approx(WAVES.std().item(), rel=1e-5)
    assert torch.equal(changed.flatten().argsort(), WAVES.flatten().argsort())
