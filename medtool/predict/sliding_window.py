"""A network moved over a volume of any size, in windows that overlap; memory stays bounded.

Windows come from the top of the volume to its bottom. Rows of z that no later window reaches are
finished: they are handed on and forgotten, so that logits of the whole volume never exist. Windows
overlap as in nnU-Net: sum of weight * logits over sum of weights (``medtool.predict.tiles``).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from medtool.core.errors import CaseRefused
from medtool.predict.tiles import STEP, window_starts, window_weights

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

Network = Callable[["Tensor"], "Tensor"]
Arithmetic = Callable[[], AbstractContextManager[Any]]
Place = tuple[int, int, int]


class Readable(Protocol):
    """An array (channels, z, y, x), in memory or on the disk, that is read in parts."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, part: Any, /) -> Any: ...


@dataclass(frozen=True)
class Windows:
    """How a network is moved over a volume.

    ``size_vox`` is (z, y, x), or (y, x) for a network that sees single slices. ``mirror_axes``
    count the axes of the window: logits are the mean over all subsets of them, each mirrored there
    and back. ``batch`` windows are answered at once. ``flat_once`` answers windows that follow each
    other and hold the same one value only once, which changes no logits.
    """

    size_vox: tuple[int, ...]
    step: float = STEP
    batch: int = 1
    mirror_axes: tuple[int, ...] = ()
    flat_once: bool = True

    @property
    def solid_vox(self) -> Place:
        """The size in three dimensions: a slice is one voxel high."""
        z, y, x = (1,) * (3 - len(self.size_vox)) + self.size_vox
        return z, y, x


@dataclass(frozen=True)
class Slab:
    """Finished logits (channels, rows, y, x), float32, of the rows of z from ``start`` on."""

    start: int
    logits: NDArray[np.float32]


def sliding_window(
    network: Network,
    volume: Readable,
    windows: Windows,
    *,
    device: torch.device | None = None,
    arithmetic: Arithmetic = torch.inference_mode,
) -> Iterator[Slab]:
    """Logits of ``volume`` in slabs, from the first row of z to the last, each row once.

    ``network`` takes (batch, channels, ...) on ``device`` and gives (batch, classes, ...) of the
    same extent. ``arithmetic`` is entered around each call of it (``Model.autocast``). A volume
    smaller than the window is padded with 0 on both sides. Raises CaseRefused (``not-finite``)
    where the network gives NaN or infinity.
    """
    where = device or torch.device("cpu")
    size = _spatial(volume)
    padded = [max(pair) for pair in zip(size, windows.solid_vox, strict=True)]
    margins = [(whole - own) // 2 for whole, own in zip(padded, size, strict=True)]
    starts = window_starts(padded, windows.solid_vox, windows.step)
    weights = torch.from_numpy(window_weights(windows.size_vox)).to(where)
    rolling = _Rolling(padded, weights.reshape(windows.solid_vox))
    places = (_place(combination) for combination in itertools.product(*starts))
    cut = _Cutter(volume, windows, margins)
    asked = _Network(network, windows, where, arithmetic)
    for place, logits in asked.answers(places, cut):
        if place[0] > rolling.first_row:
            yield from _inside(rolling.advance(place[0]), margins, size)
        rolling.add(place, logits)
    yield from _inside(rolling.advance(padded[0]), margins, size)


def whole_logits(slabs: Iterator[Slab]) -> NDArray[np.float32]:
    """All slabs as one array (channels, z, y, x): for small volumes and asked-for probabilities."""
    return np.concatenate([slab.logits for slab in slabs], axis=1)


class _Cutter:
    """Cuts windows out of a volume; what lies beyond it is 0."""

    def __init__(self, volume: Readable, windows: Windows, margins: Sequence[int]) -> None:
        self.volume = volume
        self.windows = windows
        self.margins = margins

    def __call__(self, place: Place) -> NDArray[np.float32]:
        solid = self.windows.solid_vox
        size = _spatial(self.volume)
        firsts = [start - margin for start, margin in zip(place, self.margins, strict=True)]
        source, target = [], []
        for first, length, limit in zip(firsts, solid, size, strict=True):
            low, high = max(first, 0), min(first + length, limit)
            source.append(slice(low, high))
            target.append(slice(low - first, high - first))
        window = np.zeros((self.volume.shape[0], *solid), dtype=np.float32)
        window[(slice(None), *target)] = self.volume[(slice(None), *source)]
        return window.reshape(-1, *self.windows.size_vox)


@dataclass(frozen=True)
class _Asked:
    """A window on its way through the network; None stands for the last ``flat`` one before."""

    place: Place
    window: NDArray[np.float32] | None
    flat: bool


class _Network:
    """The network, asked for windows in their order; for windows of one value it is asked once."""

    def __init__(
        self, network: Network, windows: Windows, device: torch.device, arithmetic: Arithmetic
    ) -> None:
        self.network = network
        self.windows = windows
        self.device = device
        self.arithmetic = arithmetic
        self.flat_logits: Tensor | None = None

    def answers(self, places: Iterator[Place], cut: _Cutter) -> Iterator[tuple[Place, Tensor]]:
        """Each place in order with the logits (classes, z, y, x) of its window."""
        waiting: list[_Asked] = []
        full, last = 0, None
        for place in places:
            window = cut(place)
            value = _only_value(window) if self.windows.flat_once else None
            if value is not None and value == last:
                waiting.append(_Asked(place, None, True))
                continue
            last = last if value is None else value
            waiting.append(_Asked(place, window, value is not None))
            full += 1
            if full == self.windows.batch:
                yield from self._answer(waiting)
                waiting, full = [], 0
        yield from self._answer(waiting)

    def _answer(self, waiting: Sequence[_Asked]) -> Iterator[tuple[Place, Tensor]]:
        seen = [asked.window for asked in waiting if asked.window is not None]
        fresh: Iterator[Tensor] = iter(())
        if seen:
            batch = torch.from_numpy(np.stack(seen)).to(self.device)
            with self.arithmetic():
                logits = mirrored_logits(self.network, batch, self.windows.mirror_axes).float()
            fresh = iter(logits.reshape(*logits.shape[:2], *self.windows.solid_vox))
        for asked in waiting:
            one = self.flat_logits if asked.window is None else next(fresh)
            if one is None:
                raise ValueError("no window of one value was answered before")
            if asked.flat:
                self.flat_logits = one
            yield asked.place, one


def _only_value(window: NDArray[np.float32]) -> bytes | None:
    """The one value of each channel of a window (channels, ...); None where one has several."""
    flat = window.reshape(len(window), -1)
    # Most windows differ in their first two planes: the whole is looked at only where they do not.
    for part in (flat[:, : flat.shape[1] // 16 + 1], flat):
        if (part != flat[:, :1]).any():
            return None
    return flat[:, 0].tobytes()


def mirrored_logits(network: Network, batch: Tensor, mirror_axes: Sequence[int]) -> Tensor:
    """Mean of the logits over all subsets of ``mirror_axes`` (of the window: 0 is the first)."""
    axes = [axis + 2 for axis in mirror_axes]
    total = network(batch)
    for count in range(1, len(axes) + 1):
        for subset in itertools.combinations(axes, count):
            total = total + network(batch.flip(subset)).flip(subset)
    return total.div(2 ** len(axes))


class _Rolling:
    """Sums over the windows for the rows of z that are not finished: one window's height."""

    def __init__(self, padded: Sequence[int], weights: Tensor) -> None:
        self.first_row = 0
        self.weights = weights
        self.shape = (weights.shape[0], *padded[1:])
        self.sum_of_weights = torch.zeros(self.shape, device=weights.device)
        self.sums: Tensor | None = None

    def add(self, place: Place, logits: Tensor) -> None:
        """Add one window (classes, z, y, x), whose first row is the first unfinished one."""
        if self.sums is None:
            shape = (logits.shape[0], *self.shape)
            self.sums = torch.zeros(shape, device=self.weights.device)
        _, height, width = self.weights.shape
        rows, columns = slice(place[1], place[1] + height), slice(place[2], place[2] + width)
        self.sums[:, :, rows, columns].addcmul_(logits, self.weights)
        self.sum_of_weights[:, rows, columns].add_(self.weights)

    def advance(self, row: int) -> Slab:
        """The rows before ``row``, finished; makes room for those that come into reach."""
        if self.sums is None:
            raise ValueError("no window was answered")
        count = row - self.first_row
        logits = self.sums[:, :count] / self.sum_of_weights[:count]
        require_finite(logits)
        slab = Slab(self.first_row, logits.cpu().numpy())
        _move_up(self.sum_of_weights, count)
        for channel in self.sums:
            _move_up(channel, count)
        self.first_row = row
        return slab


def _move_up(rows: Tensor, count: int) -> None:
    """Drop the first ``count`` rows, in place; the last ones become 0."""
    for row in range(count, len(rows)):
        rows[row - count].copy_(rows[row])
    rows[max(len(rows) - count, 0) :].zero_()


def _inside(slab: Slab, margins: Sequence[int], size: Sequence[int]) -> Iterator[Slab]:
    """The part of a slab that is no padding; nothing where all of it is."""
    first = slab.start - margins[0]
    low, high = max(first, 0), min(first + slab.logits.shape[1], size[0])
    if low >= high:
        return
    _, top, left = margins
    rows = slice(low - first, high - first)
    logits = slab.logits[:, rows, top : top + size[1], left : left + size[2]]
    yield Slab(low, logits)


def require_finite(logits: Tensor) -> None:
    """Raise CaseRefused ``not-finite`` where the network gave NaN or infinity."""
    if not bool(torch.isfinite(logits).all()):
        raise CaseRefused(
            "not-finite",
            "The network's answer holds values that are no numbers.",
            wanted="finite logits",
            how="try --precision 32; if it stays, the case or the checkpoint is at fault.",
        )


def _spatial(volume: Readable) -> Place:
    if len(volume.shape) != 4:
        raise ValueError(f"the volume has shape {volume.shape}, wanted (channels, z, y, x)")
    return _place(volume.shape[1:])


def _place(values: Sequence[int]) -> Place:
    z, y, x = values
    return z, y, x
