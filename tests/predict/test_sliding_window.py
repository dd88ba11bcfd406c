"""A network moved over volumes: against the network on the whole volume, and by hand."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from medtool.core.errors import CaseRefused
from medtool.predict.sliding_window import (
    Windows,
    mirrored_logits,
    sliding_window,
    whole_logits,
)
from medtool.predict.tiles import window_starts, window_weights


def random_volume(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(3).normal(size=shape).astype(np.float32)


def pointwise(channels: int, classes: int, dimensions: int) -> nn.Module:
    """A network without borders: each voxel's logits depend on that voxel alone."""
    torch.manual_seed(0)
    kind = nn.Conv3d if dimensions == 3 else nn.Conv2d
    return kind(channels, classes, 1)


def ramp_in_window(batch: Tensor) -> Tensor:
    """A network whose answer depends on the place within the window, and on the window."""
    places = torch.arange(batch[0, 0].numel(), dtype=torch.float32).reshape(batch.shape[2:])
    return torch.stack(
        [batch[:, 0] + places, batch.mean(dim=(1, 2, 3, 4))[:, None, None, None] + 0 * places],
        dim=1,
    )


@pytest.mark.parametrize("size", [(21, 30, 17), (8, 12, 10), (5, 30, 17), (3, 4, 5)])
@pytest.mark.parametrize("batch", [1, 3])
def test_a_network_without_borders_answers_as_on_the_whole_volume(
    size: tuple[int, int, int], batch: int
) -> None:
    network, volume = pointwise(2, 3, 3), random_volume(2, *size)
    slabs = sliding_window(network, volume, Windows((8, 12, 10), batch=batch))
    with torch.inference_mode():
        whole = network(torch.from_numpy(volume)[None])[0].numpy()
    np.testing.assert_allclose(whole_logits(slabs), whole, atol=1e-5)


def test_slices_are_answered_one_by_one() -> None:
    network, volume = pointwise(1, 2, 2), random_volume(1, 7, 30, 9)
    slabs = list(sliding_window(network, volume, Windows((16, 12), batch=4)))
    assert [slab.start for slab in slabs] == list(range(7))
    with torch.inference_mode():
        whole = network(torch.from_numpy(volume[0])[:, None]).numpy()
    np.testing.assert_allclose(whole_logits(iter(slabs)), whole.transpose(1, 0, 2, 3), atol=1e-5)


@pytest.mark.parametrize("batch", [1, 4])
def test_overlapping_windows_are_weighted_as_by_hand(batch: int) -> None:
    volume, size = random_volume(1, 19, 12, 20), (8, 8, 8)
    sums, counts = np.zeros((2, 19, 12, 20)), np.zeros((19, 12, 20))
    weights = window_weights(size)
    for place in itertools.product(*window_starts(volume.shape[1:], size)):
        part = tuple(slice(start, start + 8) for start in place)
        answer = ramp_in_window(torch.from_numpy(volume[(slice(None), *part)])[None])[0]
        sums[(slice(None), *part)] += answer.numpy() * weights
        counts[part] += weights
    slabs = sliding_window(ramp_in_window, volume, Windows(size, batch=batch))
    np.testing.assert_allclose(whole_logits(slabs), sums / counts, rtol=1e-4, atol=1e-4)


def test_a_small_volume_lies_in_the_middle_of_its_window() -> None:
    seen: list[Tensor] = []

    def network(batch: Tensor) -> Tensor:
        seen.append(batch)
        return batch

    volume = np.ones((1, 3, 4, 5), dtype=np.float32)
    assert whole_logits(sliding_window(network, volume, Windows((6, 4, 8)))).shape == volume.shape
    # nnU-Net's padding: the smaller half before, the larger after.
    assert seen[0].shape == (1, 1, 6, 4, 8)
    assert seen[0][0, 0, 1:4, :, 1:6].sum() == seen[0].sum() == 60


def test_rows_are_handed_on_as_soon_as_no_window_reaches_them() -> None:
    calls: list[int] = []

    def network(batch: Tensor) -> Tensor:
        calls.append(len(batch))
        return batch

    stream = sliding_window(network, random_volume(1, 32, 8, 8), Windows((8, 8, 8)))
    shown = [(slab.start, slab.logits.shape[1], len(calls)) for slab in stream]
    # Windows at 0, 4, ..., 24: rows 0 to 3 are known once the second window is answered.
    assert shown == [*((4 * k, 4, k + 2) for k in range(6)), (24, 8, 7)]


def test_the_disk_is_read_window_by_window() -> None:
    class OnDisk:
        shape = (1, 32, 16, 16)
        largest = 0

        def __getitem__(self, part: Any) -> NDArray[np.float32]:
            values = np.zeros(self.shape, dtype=np.float32)[part]
            self.largest = max(self.largest, values.size)
            return values

    volume = OnDisk()
    assert whole_logits(sliding_window(lambda x: x, volume, Windows((8, 8, 8)))).sum() == 0
    assert volume.largest == 8**3


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_windows_of_one_value_are_answered_once_and_change_nothing(batch: int) -> None:
    volume = random_volume(2, 44, 8, 8)
    # Air: four windows of (0, -3), then four of (1, 1), between windows that show something.
    volume[:, 4:24] = np.reshape((0.0, -3.0), (2, 1, 1, 1))
    volume[:, 24:] = 1.0
    answered: list[int] = []

    def network(windows: Tensor) -> Tensor:
        answered.append(len(windows))
        return ramp_in_window(windows)

    found = whole_logits(sliding_window(network, volume, Windows((8, 8, 8), batch=batch)))
    # Starts 0, 4, ..., 36: of those that hold one value, the three after the first cost nothing.
    assert sum(answered) == 10 - 3 - 3
    sums, counts = np.zeros((2, 44, 8, 8)), np.zeros((44, 8, 8))
    weights = window_weights((8, 8, 8))
    for start in range(0, 37, 4):
        part = torch.from_numpy(volume[None, :, start : start + 8])
        sums[:, start : start + 8] += ramp_in_window(part)[0].numpy() * weights
        counts[start : start + 8] += weights
    np.testing.assert_allclose(found, sums / counts, rtol=1e-4, atol=1e-4)


def test_a_volume_of_one_value_is_asked_for_once() -> None:
    answered: list[int] = []

    def network(windows: Tensor) -> Tensor:
        answered.append(len(windows))
        return windows + 1

    volume = np.full((1, 24, 16, 16), 2.0, np.float32)
    logits = whole_logits(sliding_window(network, volume, Windows((8, 8, 8), batch=4)))
    assert answered == [1]
    np.testing.assert_allclose(logits, 3.0, rtol=1e-6)


def test_mirroring_is_the_mean_over_all_subsets_of_axes() -> None:
    # Along each axis (0, 1) the network adds its own index: mirrored there and back, 1 - index.
    index = torch.tensor([[0.0, 1.0], [10.0, 11.0]])
    batch = torch.zeros(1, 1, 2, 2)
    network = lambda x: x + index  # noqa: E731
    assert mirrored_logits(network, batch, ()).equal(index[None, None])
    both = mirrored_logits(network, batch, (0, 1))
    assert both.equal(torch.full((1, 1, 2, 2), 5.5))
    rows = mirrored_logits(network, batch, (0,))
    assert rows[0, 0].tolist() == [[5.0, 6.0], [5.0, 6.0]]


def test_the_arithmetic_is_entered_for_the_network_alone() -> None:
    inside: list[bool] = []

    @contextmanager
    def arithmetic() -> Iterator[None]:
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
            yield

    def network(batch: Tensor) -> Tensor:
        inside.append(torch.is_autocast_enabled("cpu") and torch.is_inference_mode_enabled())
        return batch.bfloat16()

    volume = random_volume(1, 16, 8, 8)
    for slab in sliding_window(network, volume, Windows((8, 8, 8)), arithmetic=arithmetic):
        assert not torch.is_inference_mode_enabled()
        assert slab.logits.dtype == np.float32
    assert inside == [True] * 3


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_answer_that_is_no_number_is_refused(value: float) -> None:
    volume = random_volume(1, 8, 8, 8)
    with pytest.raises(CaseRefused, match="no numbers") as refused:
        list(sliding_window(lambda batch: batch * value, volume, Windows((8, 8, 8))))
    assert refused.value.code == "not-finite"


def test_a_volume_without_channels_is_refused() -> None:
    with pytest.raises(ValueError, match="channels"):
        list(sliding_window(lambda x: x, random_volume(8, 8, 8), Windows((8, 8, 8))))
