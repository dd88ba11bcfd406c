"""Weights in another order in memory give the same answers."""

from __future__ import annotations

import torch
from torch import nn

from medtool.predict.layout import use_fast_layout


def network(dimensions: int) -> nn.Module:
    torch.manual_seed(0)
    kind = nn.Conv3d if dimensions == 3 else nn.Conv2d
    return nn.Sequential(kind(4, 8, 3, padding=1), nn.LeakyReLU(), kind(8, 2, 3)).eval()


def test_volumes_on_a_processor_get_channels_last_and_the_same_answer() -> None:
    plain, turned = network(3), network(3)
    use_fast_layout(turned, torch.device("cpu"))
    assert turned[0].weight.is_contiguous(memory_format=torch.channels_last_3d)
    assert not plain[0].weight.is_contiguous(memory_format=torch.channels_last_3d)
    batch = torch.randn(1, 4, 9, 10, 11)
    with torch.inference_mode():
        torch.testing.assert_close(turned(batch), plain(batch), rtol=1e-5, atol=1e-5)


def test_slices_and_other_devices_stay_as_they_are() -> None:
    flat, elsewhere = network(2), network(3)
    use_fast_layout(flat, torch.device("cpu"))
    use_fast_layout(elsewhere, torch.device("cuda"))
    assert flat[0].weight.is_contiguous()
    assert elsewhere[0].weight.is_contiguous()
