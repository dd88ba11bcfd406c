"""Dropout masks belong to slices: where and with whom a slice is computed changes nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medtool.nets.dropout import KeyedDropout, KeyedMapDropout, keyed_bits, slice_keys


def splitmix64(state: int) -> int:
    """The finaliser as its authors publish it, in plain integers."""
    z = state % 2**64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % 2**64
    return z ^ (z >> 31)


@given(key=st.integers(-(2**63), 2**63 - 1))
def test_bits_are_those_of_splitmix64(key: int) -> None:
    found = keyed_bits(torch.tensor([key]), 3)[0].tolist()
    gamma = 0x9E3779B97F4A7C15
    assert found == [splitmix64(key + (n + 1) * gamma) >> 40 for n in range(3)]


def test_chunks_and_order_do_not_matter() -> None:
    layer = KeyedDropout(0.4).train()
    rows = torch.randn(12, 7)
    keys = slice_keys(1, 2, "case", list(range(12)))
    whole = layer(rows, keys)
    parts = torch.cat([layer(rows[s], keys[s]) for s in (slice(0, 5), slice(5, 6), slice(6, 12))])
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    shuffled = layer(rows[order], keys[order])
    assert torch.equal(whole, parts)
    assert torch.equal(whole[order], shuffled)


def test_no_global_stream_is_drawn_from() -> None:
    before = torch.get_rng_state()
    KeyedDropout(0.4).train()(torch.ones(3, 4), slice_keys(0, 0, "c", [0, 1, 2]))
    assert torch.equal(before, torch.get_rng_state())


def test_masks_are_the_same_in_another_process() -> None:
    code = (
        "import torch; from medtool.nets.dropout import *; "
        "print(KeyedDropout(0.4).train()(torch.ones(2, 6), slice_keys(3, 1, 'a', [0, 9])).tolist())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    own = KeyedDropout(0.4).train()(torch.ones(2, 6), slice_keys(3, 1, "a", [0, 9])).tolist()
    assert other.stdout.strip() == str(own)


def test_seed_epoch_case_slice_copy_and_layer_all_count() -> None:
    rows = torch.ones(1, 64)
    masks = [
        KeyedDropout(0.5, layer=layer).train()(rows, slice_keys(seed, epoch, case, [index], copy))
        for seed, epoch, case, index, copy, layer in [
            (0, 0, "a", 0, 0, 0),
            (1, 0, "a", 0, 0, 0),
            (0, 1, "a", 0, 0, 0),
            (0, 0, "b", 0, 0, 0),
            (0, 0, "a", 1, 0, 0),
            (0, 0, "a", 0, 1, 0),
            (0, 0, "a", 0, 0, 1),
        ]
    ]
    assert len({tuple(mask.flatten().tolist()) for mask in masks}) == len(masks)


def test_the_share_is_dropped_and_the_mean_kept() -> None:
    rows = torch.ones(2000, 50)
    out = KeyedDropout(0.4).train()(rows, slice_keys(0, 0, "case", list(range(2000))))
    # 100,000 features: five standard deviations are 0.008.
    assert (out == 0).double().mean().item() == pytest.approx(0.4, abs=0.008)
    assert out.max().item() == pytest.approx(1 / 0.6)
    # Nor may slices or features share their fate.
    assert torch.corrcoef((out == 0).double().T).triu(1).abs().max() < 0.12


def test_in_evaluation_nothing_is_dropped() -> None:
    rows = torch.randn(3, 4)
    assert KeyedDropout(0.9).eval()(rows) is rows


def test_training_without_keys_is_an_error() -> None:
    with pytest.raises(ValueError, match="keys"):
        KeyedDropout(0.1).train()(torch.ones(1, 1))


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_share_outside_the_range(share: float) -> None:
    with pytest.raises(ValueError, match="share"):
        KeyedDropout(share)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")
def test_masks_are_the_same_on_another_device() -> None:
    keys = slice_keys(0, 3, "case", list(range(50)))
    assert torch.equal(keyed_bits(keys, 512), keyed_bits(keys.cuda(), 512).cpu())


def test_maps_are_dropped_whole_and_as_their_features_would_be() -> None:
    maps = torch.rand(4, 6, 3, 5) + 0.5
    keys = slice_keys(0, 0, "case", [0, 1, 2, 3])
    dropped = KeyedMapDropout(0.4, layer=2).train()(maps, keys)
    rows = KeyedDropout(0.4, layer=2).train()(torch.ones(4, 6), keys)
    torch.testing.assert_close(dropped, maps * rows[:, :, None, None])
    assert (rows == 0).any()
    assert KeyedMapDropout(0.4).eval()(maps) is maps
