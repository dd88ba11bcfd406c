"""Parts of a network that do not learn: their gradients, their batch-norm statistics, counts."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from medtool.core.errors import UsageError
from medtool.core.names import nearest_name


def set_learning(groups: Mapping[str, Sequence[nn.Module]], learning: Collection[str]) -> None:
    """Let the named groups learn and freeze the others; raises UsageError for unknown names."""
    for name in learning:
        if name not in groups:
            raise UsageError(
                f"The network has no part named '{name}'.",
                met=name,
                wanted="one of: " + ", ".join(groups),
                nearest=nearest_name(name, groups),
            )
    for name, modules in groups.items():
        for module in modules:
            module.requires_grad_(name in learning)
            if name not in learning:
                module.zero_grad(set_to_none=True)
    keep_frozen_statistics(_modules(groups))


def keep_frozen_statistics(modules: nn.Module | Iterable[nn.Module]) -> None:
    """Put every part whose parameters are all frozen into evaluation.

    To be called after each ``train()``: without gradients alone, batch norms would still move
    their running mean and variance, and dropout would still drop.
    """
    for module in [modules] if isinstance(modules, nn.Module) else modules:
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()
        else:
            keep_frozen_statistics(module.children())


def batch_norms(network: nn.Module) -> list[_BatchNorm]:
    """Every batch norm of ``network`` (timm's own kinds are subclasses)."""
    return [module for module in network.modules() if isinstance(module, _BatchNorm)]


@contextmanager
def statistics_kept(network: nn.Module) -> Iterator[None]:
    """Within it batch norms do not move their statistics: a second look is no second example."""
    norms = [norm for norm in batch_norms(network) if norm.training]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked -= 1


def parameter_count(modules: nn.Module | Iterable[nn.Module], *, learning: bool = False) -> int:
    """Number of parameters, each counted once; with ``learning`` only those that learn."""
    listed = [modules] if isinstance(modules, nn.Module) else list(modules)
    parameters = {id(p): p for module in listed for p in module.parameters()}
    return sum(p.numel() for p in parameters.values() if p.requires_grad or not learning)


def _modules(groups: Mapping[str, Sequence[nn.Module]]) -> list[nn.Module]:
    return [module for modules in groups.values() for module in modules]
