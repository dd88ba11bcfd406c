"""Structured pruning: whole channels leave a network, with everything that belongs to them.

A channel of a convolution belongs to the norm behind it, to the inputs of all layers that read it
and, over additions, to channels of other convolutions: these stand in one group of the dependency
graph (Fang 2023, "DepGraph"; package torch-pruning) and leave together, the least important first.
What is narrower is faster on every processor and needs no special engine.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from medtool.core.errors import MachineError, UsageError
from medtool.nets.convolutions import InstanceNorm
from medtool.nets.widths import Widths, width_of, widths

# Rounding may differ, as a share of the largest value, when sums have fewer terms.
LARGEST_DIFFERENCE = 1e-3
SMALLEST_SCALE = 1e-6

# What tracing and one pass with fewer channels can meet in a network that does not fit.
FAULTS = (RuntimeError, ValueError, TypeError, AssertionError, IndexError, KeyError, AttributeError)


@dataclass(frozen=True)
class Removed:
    """What one round took away: channels that left, by module, as numbered before it.

    ``kept_whole`` names layers that are not pruned, each with the reason.
    """

    channels: Mapping[str, Sequence[int]]
    kept_whole: Mapping[str, str] = field(default_factory=dict)


def kept_width(width: int, share: float, round_to: int) -> int:
    """Channels that stay of ``width`` when ``share`` of them leaves.

    Rounded down to a multiple of ``round_to``, for processors compute so many at a time; layers
    that are narrower than that stay as they are.
    """
    # Shares such as 0.35 are not exact in binary: 20 * 0.65 is 13, not 12.
    kept = int(width * (1 - share) + 1e-9)
    rounded = kept // round_to * round_to
    return rounded or min(width, round_to)


def prune_channels(
    network: nn.Module,
    inputs: Sequence[Tensor],
    *,
    share: float,
    round_to: int = 8,
    whole: Widths | None = None,
) -> Removed:
    """Take ``share`` of the channels of ``whole`` (by default of ``network``) out, in place.

    ``inputs`` are those that the network is traced with. Layers whose channels reach an output
    keep them all: the heads, and features that a head pools. Raises UsageError for a network that
    cannot be pruned so, MachineError where torch-pruning is not installed.
    """
    whole = whole or widths(network)
    before = _shapes(network, inputs)
    original = copy.deepcopy(network)
    with _as_it_was(network):
        graph = _graph(network, inputs)
        removed: dict[str, list[int]] = {}
        kept_whole: dict[str, str] = {}
        for name, group in _groups(graph, network):
            reason = _reason_to_keep(graph, group)
            if reason:
                kept_whole[name] = reason
                continue
            had = width_of(graph.module(name))["out"]
            leaving = had - kept_width(whole[name]["out"], share, round_to)
            if leaving <= 0:
                continue
            _take_out(graph, name, _least_important(group, leaving), removed)
            if _shapes(network, inputs) != before:
                raise _cannot(f"outputs of other shapes after {leaving} channels of '{name}'")
    _require_equal(network, silenced(original, removed), inputs)
    return Removed(removed, kept_whole)


@torch.no_grad()
def silenced(network: nn.Module, channels: Mapping[str, Sequence[int]]) -> nn.Module:
    """``network`` itself, in which these channels now say nothing, as if they were gone."""
    modules = dict(network.named_modules())
    for name, leaving in channels.items():
        module, rows = modules[name], torch.tensor(sorted(leaving), dtype=torch.int64)
        for part in ("weight", "bias"):
            tensor: Tensor | None = getattr(module, part, None)
            if tensor is not None:
                axis = 1 if isinstance(module, _ConvTransposeNd) and tensor.ndim > 1 else 0
                tensor.index_fill_(axis, rows.to(tensor.device), 0.0)
    return network


def traced_outputs(network: nn.Module, inputs: Sequence[Tensor]) -> list[Tensor]:
    """The ends of all ways through a network: its ``channel_paths``, else what it answers."""
    paths = getattr(network, "channel_paths", None)
    found: Any = network(*inputs) if paths is None else paths(*inputs)
    if isinstance(found, Tensor):
        return [found]
    return list(found.values() if isinstance(found, Mapping) else found)


def output_layers(network: nn.Module, inputs: Sequence[Tensor]) -> list[str]:
    """Names of the layers whose values are themselves outputs, unchanged: the last heads."""
    with _as_it_was(network):
        graph = _graph(network, inputs)
        return [name for name, group in _groups(graph, network) if graph.ends_in(name, group)]


class _Graph:
    """torch-pruning's dependency graph of a network, by names of modules."""

    def __init__(self, network: nn.Module, inputs: Sequence[Tensor]) -> None:
        library = torch_pruning()
        self.library = library
        self.names: dict[Any, str] = {one: name for name, one in network.named_modules()}
        self.modules: dict[str, nn.Module] = dict(network.named_modules())
        with warnings.catch_warnings(), _plain_norms(network):
            # It warns of parameters that are no layer's; where one is met its group is kept.
            warnings.simplefilter("ignore")
            self.graph = library.DependencyGraph().build_dependency(
                network,
                example_inputs=list(inputs),
                # Times 1, so that an output is a step of its own, apart from its layer.
                forward_fn=lambda model, given: [one * 1 for one in traced_outputs(model, given)],
                customized_pruners={InstanceNorm: _norm_pruner(library)()},
                verbose=False,
            )

    def module(self, name: str) -> nn.Module:
        """The module called ``name``."""
        return self.modules[name]

    def group(self, name: str, channels: Sequence[int]) -> Any:
        """The group of these output channels of a layer."""
        module = self.modules[name]
        pruner = self.graph.get_pruner_of_module(module)
        return self.graph.get_pruning_group(module, pruner.prune_out_channels, list(channels))

    def knows(self, name: str) -> bool:
        """Whether the layer was met on the ways through the network."""
        return self.modules[name] in self.graph.module2node

    def takes_out(self, item: Any) -> bool:
        """Whether this part of a group is about channels that come out of a module."""
        return bool(self.graph.is_out_channel_pruning_fn(item.handler))

    def is_output(self, item: Any) -> bool:
        """Whether this part of a group is an output of the network."""
        return bool(item.target.type == self.library.ops.OPTYPE.OUTPUT)

    def is_parameter(self, item: Any) -> bool:
        """Whether this part of a group is a parameter that belongs to no layer."""
        return bool(item.target.type == self.library.ops.OPTYPE.PARAMETER)

    def ends_in(self, name: str, group: Any) -> bool:
        """Whether the channels of a layer go to an output and to no other layer."""
        layers = {
            self.names[item.target.module]
            for item, _ in group
            if width_of(item.target.module) and item.target.module in self.names
        }
        return layers == {name} and any(self.is_output(item) for item, _ in group)


def torch_pruning() -> Any:
    """The package torch-pruning. Raises MachineError where it is not installed."""
    try:
        import torch_pruning as library
    except ImportError as error:
        raise MachineError(
            "Pruning needs the package torch-pruning.",
            met=str(error),
            how='pip install "medtool[optimize]"',
        ) from error
    return library


@contextmanager
def _plain_norms(network: nn.Module) -> Iterator[None]:
    """Within it our instance norms are one step each, not the views that torch makes of them."""
    norms = [module for module in network.modules() if isinstance(module, InstanceNorm)]
    for norm in norms:
        norm.__dict__["forward"] = _unchanged
    try:
        yield
    finally:
        for norm in norms:
            del norm.__dict__["forward"]


def _unchanged(maps: Tensor) -> Tensor:
    return maps * 1


def _norm_pruner(library: Any) -> Any:
    """How channels leave our own instance norm."""

    class NormPruner(library.BasePruningFunc):  # type: ignore[misc]
        """Scale and shift of a channel leave with it."""

        TARGET_MODULES = InstanceNorm

        def prune_out_channels(self, layer: InstanceNorm, idxs: Sequence[int]) -> nn.Module:
            leaving = set(idxs)
            kept = [number for number in range(len(layer.weight)) if number not in leaving]
            for name in ("weight", "bias"):
                tensor = layer.get_parameter(name)
                setattr(layer, name, nn.Parameter(tensor.detach()[kept].clone()))
            return layer

        prune_in_channels = prune_out_channels

        def get_out_channels(self, layer: InstanceNorm) -> int:
            return len(layer.weight)

        get_in_channels = get_out_channels

    return NormPruner


def _graph(network: nn.Module, inputs: Sequence[Tensor]) -> _Graph:
    try:
        return _Graph(network, inputs)
    except FAULTS as error:
        raise _cannot(f"{type(error).__name__}: {error}") from error


def _groups(graph: _Graph, network: nn.Module) -> Iterator[tuple[str, Any]]:
    """Each group once, under the first layer whose channels it is about, with all of them.

    As the network is when the group is asked for: groups are taken out one after another.
    """
    seen: set[str] = set()
    for name, module in list(network.named_modules()):
        if name in seen or not isinstance(module, _ConvNd | nn.Linear) or not graph.knows(name):
            continue
        group = graph.group(name, range(width_of(module)["out"]))
        seen |= {
            graph.names[item.target.module]
            for item, _ in group
            if graph.takes_out(item) and item.target.module in graph.names
        }
        yield name, group


def _reason_to_keep(graph: _Graph, group: Any) -> str:
    """Why the channels of a group must all stay; "" where they may leave."""
    for item, _ in group:
        module = item.target.module
        if graph.is_output(item):
            return "reaches an output"
        if graph.is_parameter(item):
            return "meets a parameter that is no layer's"
        if isinstance(module, _ConvNd) and 1 < module.groups != module.in_channels:
            return "meets a convolution of groups of channels"
        own = next(module.parameters(recurse=False), None) if _is_module(module) else None
        if own is not None and not width_of(module):
            return f"meets a {type(module).__name__}"
    return ""


def _is_module(module: Any) -> bool:
    return isinstance(module, nn.Module)


def _least_important(group: Any, count: int) -> list[int]:
    """The ``count`` channels of least importance: the size (L2) of all that belongs to them."""
    try:
        importance = torch_pruning().importance.GroupMagnitudeImportance(p=2)(group)
    except FAULTS as error:
        raise _cannot(f"{type(error).__name__}: {error}") from error
    order = torch.argsort(importance.detach().cpu(), stable=True)
    return sorted(int(channel) for channel in order[:count])


def _take_out(
    graph: _Graph, name: str, channels: Sequence[int], removed: dict[str, list[int]]
) -> None:
    group = graph.group(name, channels)
    try:
        for item, leaving in group:
            if graph.takes_out(item) and item.target.module in graph.names:
                module = graph.names[item.target.module]
                if width_of(item.target.module):
                    removed.setdefault(module, []).extend(int(number) for number in leaving)
        group.prune(record_history=False)
    except FAULTS as error:
        raise _cannot(f"'{name}': {type(error).__name__}: {error}") from error


def _shapes(network: nn.Module, inputs: Sequence[Tensor]) -> list[tuple[int, ...]]:
    """Shapes of the outputs; also the test that the network still computes."""
    with _as_it_was(network), torch.no_grad():
        network.eval()
        try:
            return [tuple(one.shape) for one in traced_outputs(network, inputs)]
        except FAULTS as error:
            raise _cannot(f"{type(error).__name__}: {error}") from error


def _require_equal(network: nn.Module, silent: nn.Module, inputs: Sequence[Tensor]) -> None:
    """Shapes alone do not show that a channel left in place of another: values do."""
    with torch.no_grad(), _as_it_was(network):
        found = traced_outputs(network.eval(), inputs)
        wanted = traced_outputs(silent.eval(), inputs)
    for ours, theirs in zip(found, wanted, strict=True):
        scale = float(theirs.abs().max())
        difference = float((ours - theirs).abs().max())
        if not difference <= LARGEST_DIFFERENCE * scale + SMALLEST_SCALE:
            raise _cannot(
                f"other answers than with silent channels, by {difference:.3g} of {scale:.3g}"
            )


@contextmanager
def _as_it_was(network: nn.Module) -> Iterator[None]:
    """Tracing puts a network into evaluation: afterwards each part is as it was before."""
    before = {module: module.training for module in network.modules()}
    learning = {name: one.requires_grad for name, one in network.named_parameters()}
    network.requires_grad_(True)
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(learning[name])


def _cannot(met: str) -> UsageError:
    return UsageError(
        "This network cannot be pruned by channels.",
        where="optimize.prune",
        met=met,
        wanted="convolutions, linear layers, batch and instance norms that belong together in a "
        "way that tracing can follow",
        how="leave pruning out (optimize.prune.share = 0): INT8 alone makes most of the gain.",
    )


def batch_norms_present(network: nn.Module) -> bool:
    """Whether the network has statistics to be estimated anew after pruning."""
    return any(isinstance(module, _BatchNorm) for module in network.modules())
