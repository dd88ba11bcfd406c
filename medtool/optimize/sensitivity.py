"""Which layers suffer most from eight bits: each in turn is the only one that has them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medtool.optimize.quantise_onnx import FloatGraph, Layer, quantise
from medtool.predict.engines import open_engine

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medtool.core.progress import Advance
    from medtool.optimize.activations import Ranges
    from medtool.predict.engines.contract import Engine

Inputs = Mapping[str, "NDArray[Any]"]

# Answers of the float model that are kept; the maps of one volume can be larger.
KEPT_BYTES = 2**28


@dataclass(frozen=True)
class Cost:
    """What eight bits in this layer alone cost: root mean square error of the outputs, as a share
    of their spread.
    """

    layer: Layer
    error: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "layer": self.layer.name,
            "kind": self.layer.kind,
            "parameters": self.layer.parameters,
            "error": self.error,
        }


def layer_costs(
    graph: FloatGraph,
    ranges: Ranges,
    inputs: Sequence[Inputs],
    folder: Path,
    *,
    layers: Sequence[Layer],
    reduce_range: bool,
    advance: Advance,
) -> list[Cost]:
    """What each of ``layers`` costs over ``inputs``, the dearest first."""
    wanted = Wanted(open_engine(graph.file), inputs)
    trial = folder / "one-layer.onnx"
    costs = []
    for layer in layers:
        quantise(graph, ranges, trial, only=[layer.node], reduce_range=reduce_range)
        costs.append(Cost(layer, output_error(open_engine(trial), inputs, wanted)))
        advance(1)
    trial.unlink(missing_ok=True)
    # Of equal ones the first in the network first.
    return sorted(costs, key=lambda cost: -cost.error)


class Wanted:
    """What ``engine`` says to each of ``inputs``, as often as it is asked.

    Up to ``most_bytes`` are kept, the rest is computed each time: memory does not grow with the
    number of inputs.
    """

    def __init__(
        self, engine: Engine, inputs: Sequence[Inputs], *, most_bytes: int = KEPT_BYTES
    ) -> None:
        self._engine, self._inputs = engine, inputs
        self._room_bytes = most_bytes
        self._kept: list[Inputs] = []

    def __iter__(self) -> Iterator[Inputs]:
        for number, one in enumerate(self._inputs):
            if number < len(self._kept):
                yield self._kept[number]
                continue
            found = self._engine.run(one)
            size = sum(array.nbytes for array in found.values())
            # The first ones only: what is kept has no gaps.
            if number == len(self._kept) and size <= self._room_bytes:
                self._kept.append(found)
                self._room_bytes -= size
            yield found


def output_error(engine: Engine, inputs: Sequence[Inputs], wanted: Iterable[Inputs]) -> float:
    """Root mean square difference of all outputs from ``wanted``, each as a share of its spread.

    Infinite where an output is no number.
    """
    squares: dict[str, float] = {}
    spreads: dict[str, tuple[float, float]] = {}
    counts: dict[str, int] = {}
    for one, expected in zip(inputs, wanted, strict=True):
        for name, found in engine.run(one).items():
            truth = expected[name].astype(np.float64)
            if not np.isfinite(found).all():
                return float(np.inf)
            squares[name] = squares.get(name, 0.0) + float(((found - truth) ** 2).sum())
            low, high = spreads.get(name, (np.inf, -np.inf))
            spreads[name] = (min(low, float(truth.min())), max(high, float(truth.max())))
            counts[name] = counts.get(name, 0) + truth.size
    shares = [
        np.sqrt(squares[name] / counts[name]) / max(high - low, 1e-6)
        for name, (low, high) in spreads.items()
    ]
    return float(np.mean(shares))
