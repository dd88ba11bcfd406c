"""What passes through a network on calibration inputs, and the range that eight bits shall span.

Values are looked at one input at a time and, where maps are large, some tensors at a time, so that
memory does not grow with the network; of each tensor the extremes are exact and the rest are evenly
spread samples, the same at every run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from medtool.core.errors import UsageError
from medtool.core.progress import Silent

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medtool.core.progress import Reporter
    from medtool.optimize.quantise_onnx import FloatGraph

Method = Literal["minmax", "percentile", "entropy"]
METHODS: tuple[Method, ...] = get_args(Method)

# Samples of each tensor that are kept of one input.
SAMPLES_PER_INPUT = 16384
# Values of tensors that are asked for at a time: a gigabyte. What leads to the next ones is then
# computed anew.
VALUES_AT_ONCE = 2**28
# Bins of the histogram of sizes that the method entropy searches.
BINS = 2048
# Thresholds are tried every so many bins.
BIN_STEP = 8
# Levels that eight bits leave on one side of zero, where values have both signs or one.
LEVELS_SIGNED, LEVELS_POSITIVE = 127, 255

Ranges = Mapping[str, tuple[float, float]]


@dataclass
class Seen:
    """Of one tensor: exact extremes, and samples (n,) float32 of each input in turn."""

    low: float = 0.0
    high: float = 0.0
    parts: list[NDArray[np.float32]] = field(default_factory=list)

    def add(self, values: NDArray[np.float32]) -> None:
        """Look at the values of one more input."""
        flat = values.reshape(-1)
        if not flat.size:
            return
        self.low = min(self.low, float(flat.min()))
        self.high = max(self.high, float(flat.max()))
        # An odd step meets every column of maps whose width is even.
        step = (flat.size // SAMPLES_PER_INPUT) | 1
        self.parts.append(flat[::step].copy())

    @property
    def samples(self) -> NDArray[np.float32]:
        """All samples, (n,)."""
        return np.concatenate(self.parts) if self.parts else np.zeros(0, np.float32)


def observe(
    graph: FloatGraph,
    inputs: Sequence[Mapping[str, NDArray[np.float32]]],
    *,
    values_at_once: int = VALUES_AT_ONCE,
    reporter: Reporter | None = None,
) -> dict[str, Seen]:
    """What the tensors of ``graph`` hold over ``inputs``.

    Outputs of a graph are kept until all are computed: no more than ``values_at_once`` are asked
    for at a time, but for a tensor that has more by itself. Raises UsageError where a value is not
    finite: nothing can be said of its range.
    """
    seen = {name: Seen() for name in graph.tensors}
    given = [name for name in graph.tensors if name in inputs[0]]
    for one in inputs:
        _look({name: one[name] for name in given}, seen)
    computed = [name for name in graph.tensors if name not in given]
    groups = list(grouped(computed, graph.sizes, values_at_once))
    steps = len(groups) * len(inputs)
    with (reporter or Silent()).progress("INT8: ranges of what passes", steps) as advance:
        for group in groups:
            engine = graph.observing(group)
            for one in inputs:
                _look(engine.run(one), seen)
                advance(1)
    return seen


def grouped(tensors: Sequence[str], sizes: Mapping[str, int], most: int) -> Iterator[list[str]]:
    """``tensors`` in their order, in groups of at most ``most`` values or of one tensor.

    One of an unknown size counts as the largest that is known.
    """
    largest = max(sizes.values(), default=0)
    group: list[str] = []
    held = 0
    for name in tensors:
        size = sizes.get(name, largest)
        if group and held + size > most:
            yield group
            group, held = [], 0
        group.append(name)
        held += size
    if group:
        yield group


def _look(found: Mapping[str, NDArray[np.float32]], seen: Mapping[str, Seen]) -> None:
    """Add what was ``found`` of each tensor to what was ``seen`` of it before."""
    for name, array in found.items():
        values = np.asarray(array, dtype=np.float32)
        if not np.isfinite(values).all():
            raise UsageError(
                "The network gives values that are no numbers on a calibration case.",
                where=f"tensor '{name}'",
                wanted="finite values",
                how="medtool doctor --checkpoint C says whether the checkpoint works here.",
            )
        seen[name].add(values)


def ranges_of(seen: Mapping[str, Seen], method: Method, percentile: float) -> Ranges:
    """The range of each tensor by ``method``; it always holds 0.

    ``percentile`` (as 99.99) is the share of samples that the method percentile keeps.
    """
    return {name: range_of(one, method, percentile) for name, one in seen.items()}


def range_of(seen: Seen, method: Method, percentile: float) -> tuple[float, float]:
    """The range of one tensor by ``method``."""
    low, high = seen.low, seen.high
    samples = seen.samples
    if method == "minmax" or not samples.size:
        return low, high
    if method == "percentile":
        tail = (100.0 - percentile) / 2.0
        # Where all values have one sign the whole tail is on the other side.
        tails = (tail, 100.0 - tail) if low < 0.0 < high else (100.0 - percentile, percentile)
        lower, upper = np.percentile(samples, tails)
        return max(low, min(0.0, float(lower))), min(high, max(0.0, float(upper)))
    threshold = entropy_threshold(samples, signed=low < 0.0)
    return max(low, -threshold), min(high, threshold)


def entropy_threshold(samples: NDArray[np.float32], *, signed: bool) -> float:
    """The size beyond which values are cut so that what eight bits keep says most.

    The threshold whose distribution of sizes, with what lies beyond added to its last bin, is
    nearest (Kullback-Leibler) to the same in as many levels as eight bits have (Migacz, 8-bit
    inference with TensorRT, 2017).
    """
    sizes = np.abs(samples)
    largest = float(sizes.max())
    if largest == 0.0:
        return 0.0
    # Zeros are exact in any range: they would hide everything else.
    counts, edges = np.histogram(sizes[sizes > 0], bins=BINS, range=(0.0, largest))
    levels = LEVELS_SIGNED if signed else LEVELS_POSITIVE
    ends = range(levels, BINS + 1, BIN_STEP)
    losses = [_divergence(counts.astype(np.float64), end, levels) for end in ends]
    return float(edges[ends[int(np.argmin(losses))]]) if min(losses) < np.inf else largest


def _divergence(counts: NDArray[np.float64], end: int, levels: int) -> float:
    """Kullback-Leibler divergence of the first ``end`` bins from their ``levels``."""
    kept = counts[:end]
    if not kept.any():
        return float(np.inf)
    reference = kept.copy()
    reference[-1] += counts[end:].sum()
    level = np.arange(end) * levels // end
    held = (kept > 0).astype(np.float64)
    sums = np.bincount(level, kept, levels)
    filled = np.bincount(level, held, levels)
    spread = np.divide(sums, filled, out=np.zeros(levels), where=filled > 0)[level] * held
    p, q = reference / reference.sum(), spread / spread.sum()
    met = p > 0
    # Where nothing is kept and something is wanted the divergence is infinite: a small floor.
    return float((p[met] * np.log(p[met] / np.maximum(q[met], 1e-9))).sum())
