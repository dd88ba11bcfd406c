"""Weights in another order in memory give the same answers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from medtool.predict.layout import in_plain_order, ready_to_answer, use_fast_layout


def network(dimensions: int, norm: Callable[[int], nn.Module] = nn.InstanceNorm3d) -> nn.Module:
    torch.manual_seed(0)
    kind = nn.Conv3d if dimensions == 3 else nn.Conv2d
    return nn.Sequential(kind(4, 8, 3, padding=1), norm(8), nn.LeakyReLU(), kind(8, 2, 3)).eval()


def with_vectors(monkeypatch: pytest.MonkeyPatch, capability: str) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)


def test_volumes_get_channels_last_on_wide_vectors_and_the_same_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with_vectors(monkeypatch, "AVX512")
    plain, turned = network(3), network(3)
    use_fast_layout(turned, torch.device("cpu"))
    assert turned[0].weight.is_contiguous(memory_format=torch.channels_last_3d)
    assert not plain[0].weight.is_contiguous(memory_format=torch.channels_last_3d)
    batch = torch.randn(1, 4, 9, 10, 11)
    with torch.inference_mode():
        torch.testing.assert_close(turned(batch), plain(batch), rtol=1e-5, atol=1e-5)


def test_slices_with_batch_norm_get_channels_last_and_the_same_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with_vectors(monkeypatch, "AVX512")
    plain, turned = network(2, nn.BatchNorm2d), network(2, nn.BatchNorm2d)
    assert ready_to_answer(turned.train(), torch.device("cpu")) is turned
    assert not turned.training
    assert turned[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert not plain[0].weight.is_contiguous(memory_format=torch.channels_last)
    batch = torch.randn(2, 4, 9, 10)
    with torch.inference_mode():
        torch.testing.assert_close(turned(batch), plain(batch), rtol=1e-5, atol=1e-5)


def test_other_norms_other_devices_and_other_processors_stay_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with_vectors(monkeypatch, "AVX2")
    narrow, narrow_slices = network(3), network(2, nn.BatchNorm2d)
    use_fast_layout(narrow, torch.device("cpu"))
    use_fast_layout(narrow_slices, torch.device("cpu"))
    assert narrow[0].weight.is_contiguous()
    assert narrow_slices[0].weight.is_contiguous()
    with_vectors(monkeypatch, "AVX512")
    slices, elsewhere = network(2, nn.InstanceNorm2d), network(3)
    use_fast_layout(slices, torch.device("cpu"))
    use_fast_layout(elsewhere, torch.device("cuda"))
    assert slices[0].weight.is_contiguous()
    assert elsewhere[0].weight.is_contiguous()


def test_for_programs_that_read_plain_bytes_there_is_a_copy_in_the_order_of_axes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From a fault: a converter took weights in another order for zeros."""
    with_vectors(monkeypatch, "AVX512")
    turned = network(2, nn.BatchNorm2d)
    assert in_plain_order(turned) is turned
    use_fast_layout(turned, torch.device("cpu"))
    plain = in_plain_order(turned)
    assert all(one.is_contiguous() for one in plain.parameters())
    assert not turned[0].weight.is_contiguous()
    for one, other in zip(plain.parameters(), turned.parameters(), strict=True):
        assert torch.equal(one, other)
