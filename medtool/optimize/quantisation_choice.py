"""Which ranges, and which layers in float: tried and chosen on the selection part, never on the
test part.

Every way of finding ranges is tried with all layers in eight bits. Where even the best of them lets
the metric fall too far, or Monte Carlo passes are no longer those of PyTorch, the layers that cost
most are left in float, one, two, four and so on, until both hold.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtool.core.errors import CheckpointError, UnknownNameError
from medtool.core.names import nearest_name
from medtool.core.progress import Reporter
from medtool.optimize.acceptance import refusal, refusal_of_passes
from medtool.optimize.activations import Ranges, Seen, ranges_of
from medtool.optimize.quantise_onnx import FloatGraph, Layer, quantise
from medtool.optimize.sensitivity import Cost, Inputs, Wanted, layer_costs, output_error
from medtool.predict.engines import open_engine
from medtool.score.falls import Fall

if TYPE_CHECKING:
    from medtool.config.optimize_section import Method, OptimizeSection
    from medtool.optimize.passes import PassesBeside


@dataclass(frozen=True)
class Judged:
    """A model file on the selection part: its falls, none where nobody can be asked, and its Monte
    Carlo passes where it has them.
    """

    falls: tuple[Fall, ...] = ()
    passes: PassesBeside | None = None


Judge = Callable[[Path], Judged]
# Inputs on which layers are compared one by one: enough to rank them.
RANKING_INPUTS = 8
# Differences of a metric below this are no reason to prefer a way over another.
EQUAL = 1e-4
UNDECIDED = (
    "INT8: no metric is defined on the selection part. Ranges are chosen by the outputs alone, and "
    "no layer is left in float to keep a metric."
)


@dataclass(frozen=True)
class Trial:
    """One way that was tried: what it did to the outputs, and to the metrics on the selection part.

    ``error`` is that of ``output_error`` on the calibration inputs.
    """

    method: Method
    floats: tuple[str, ...]
    error: float
    falls: tuple[Fall, ...]
    file: Path
    passes: PassesBeside | None = None

    @property
    def worst_fall(self) -> float:
        """The largest fall as a share of what is allowed; infinite for no number."""
        shares = [one.fall / one.tolerance for one in self.falls]
        return max((share if isfinite(share) else inf for share in shares), default=0.0)

    @property
    def passes_kept(self) -> bool:
        """Whether Monte Carlo passes, where there are any, are those of PyTorch."""
        return self.passes is None or self.passes.kept

    @property
    def kept(self) -> bool:
        """Whether the outputs are numbers, every metric holds and passes do."""
        return isfinite(self.error) and all(one.kept for one in self.falls) and self.passes_kept

    @property
    def order(self) -> tuple[int | float, ...]:
        """The smaller the better: what is beyond the allowed first, then the fall, then the
        outputs.
        """
        beyond = max(1.0, self.worst_fall, 0.0 if self.passes is None else self.passes.share)
        steps = [share / EQUAL for share in (beyond, max(self.worst_fall, 0.0))]
        return (*(round(one) if isfinite(one) else one for one in steps), self.error)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "method": self.method,
            "layers_in_float": list(self.floats),
            "output_error": self.error if isfinite(self.error) else None,
            "selection": [one.as_dict() for one in self.falls],
            **({} if self.passes is None else {"passes": self.passes.as_dict()}),
            "kept": self.kept,
        }


@dataclass(frozen=True)
class Quantised:
    """The choice: its file, and everything that was tried on the way."""

    trial: Trial
    trials: tuple[Trial, ...]
    costs: tuple[Cost, ...]
    layers: tuple[Layer, ...]
    reduce_range: bool

    @property
    def floats(self) -> tuple[str, ...]:
        """Layers in float by the names that people know, in the order of the network."""
        return self.trial.floats

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "method": self.trial.method,
            "layers": len(self.layers),
            "layers_in_float": list(self.floats),
            "reduce_range": self.reduce_range,
            "weights": "int8, symmetric, a scale an output channel",
            "activations": "uint8, asymmetric, a scale a tensor",
            "tried": [one.as_dict() for one in self.trials],
            "layer_costs": [one.as_dict() for one in self.costs],
        }


@dataclass
class Quantiser:
    """Makes trials of one float graph, and remembers them.

    ``pruned`` are the falls of that graph, of a pruned network, on the cases of ``judge``.
    """

    graph: FloatGraph
    seen: Mapping[str, Seen]
    inputs: Sequence[Inputs]
    settings: OptimizeSection
    reduce_range: bool
    folder: Path
    judge: Judge
    pruned: Sequence[Fall] = ()
    trials: list[Trial] = field(default_factory=list)
    # What layers cost by themselves, where that was asked for.
    known_costs: tuple[Cost, ...] = ()
    _wanted: Wanted | None = None

    def ranges(self, method: Method) -> Ranges:
        """The range of every activation by ``method``."""
        return ranges_of(self.seen, method, self.settings.percentile)

    def trial(self, method: Method, floats: Collection[Layer]) -> Trial:
        """The graph in eight bits, but for ``floats``, judged."""
        file = self.folder / f"trial-{len(self.trials)}.onnx"
        nodes = [layer.node for layer in floats]
        quantise(
            self.graph, self.ranges(method), file, floats=nodes, reduce_range=self.reduce_range
        )
        if self._wanted is None:
            self._wanted = Wanted(open_engine(self.graph.file), self.inputs)
        error = output_error(open_engine(file), self.inputs, self._wanted)
        judged = self.judge(file) if isfinite(error) else Judged()
        names = tuple(layer.name for layer in self.graph.layers if layer in floats)
        made = Trial(method, names, error, judged.falls, file, judged.passes)
        self.trials.append(made)
        return made

    def costs(self, method: Method, layers: Sequence[Layer], reporter: Reporter) -> list[Cost]:
        """What each of ``layers`` costs by itself, the dearest first."""
        with reporter.progress("Layers, one by one", len(layers)) as advance:
            found = layer_costs(
                self.graph,
                self.ranges(method),
                self.inputs[:RANKING_INPUTS],
                self.folder,
                layers=layers,
                reduce_range=self.reduce_range,
                advance=advance,
            )
        self.known_costs = tuple(found)
        return found

    def chosen(self, trial: Trial) -> Quantised:
        """``trial`` as the choice, with everything that was tried on the way."""
        return Quantised(
            trial=trial,
            trials=tuple(self.trials),
            costs=self.known_costs,
            layers=self.graph.layers,
            reduce_range=self.reduce_range,
        )


def choose_quantisation(quantiser: Quantiser, reporter: Reporter) -> Quantised:
    """The best way, with as few layers in float as the metric needs.

    Raises UnknownNameError (a layer named in the settings is not there), CheckpointError (no way
    gives numbers), GateError (no way keeps the metric).
    """
    settings, layers = quantiser.settings, quantiser.graph.layers
    always = {
        *_named(layers, settings.float_layers),
        *(one for one in layers if one.stays_in_float),
    }
    best = _best_method(quantiser, always, reporter)
    if not best.falls:
        reporter.warn(UNDECIDED)
    if not best.kept:
        others = [layer for layer in layers if layer not in always]
        costs = quantiser.costs(best.method, others, reporter)
        best = _with_more_in_float(quantiser, best, always, costs, reporter)
    return quantiser.chosen(best)


def _named(layers: Sequence[Layer], names: Sequence[str]) -> Iterator[Layer]:
    known = {layer.name: layer for layer in layers}
    for name in names:
        if name not in known:
            raise UnknownNameError(
                "There is no such layer to be left in float.",
                met=f"optimize.float_layers: {name}",
                wanted="a layer of the exported network",
                nearest=nearest_name(name, list(known)),
                how="optimize.json lists all layers in order.",
            )
        yield known[name]


def _best_method(quantiser: Quantiser, always: Collection[Layer], reporter: Reporter) -> Trial:
    """The way with the smallest fall; of those alike the one whose outputs are nearest."""
    methods = quantiser.settings.methods
    with reporter.progress("INT8: ways to find ranges", len(methods)) as advance:
        trials = []
        for method in dict.fromkeys(methods):
            trials.append(quantiser.trial(method, always))
            advance(1)
    numbers = [one for one in trials if isfinite(one.error)]
    if not numbers:
        raise CheckpointError(
            "In eight bits the network gives values that are no numbers.",
            met="NaN or infinity by " + ", ".join(one.method for one in trials),
            wanted="finite outputs on the calibration inputs",
            how="leave the layers that do it in float (--set optimize.float_layers), or make a "
            "lighter file: --format float16.",
        )
    return min(numbers, key=lambda one: one.order)


def _with_more_in_float(
    quantiser: Quantiser,
    best: Trial,
    always: Collection[Layer],
    costs: Sequence[Cost],
    reporter: Reporter,
) -> Trial:
    """The first trial that holds, with twice as many layers in float each time, and in the end
    with as many as may be.
    """
    most = min(int(len(quantiser.graph.layers) * quantiser.settings.most_float_share), len(costs))
    passes_alone = all(one.kept for one in best.falls)
    why = "changes uncertainty too much" if passes_alone else "costs too much"
    count = 1
    while count <= most:
        dearest = {cost.layer for cost in costs[:count]}
        reporter.say(f"INT8 {why}: {count} of the dearest layers stay in float.")
        made = quantiser.trial(best.method, {*always, *dearest})
        if made.kept:
            return made
        count = most if count < most < 2 * count else 2 * count
    if best.passes is not None and passes_alone:
        raise refusal_of_passes(best.passes, costs, "selection part")
    raise refusal(best.falls, costs, "selection part", pruned=quantiser.pruned)
