"""A pruned network as a checkpoint: it loads, answers and learns on like any other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtool.config.places import portable_document
from medtool.core.checkpoint import RawTensor, write_checkpoint
from medtool.nets.state import MODEL_PREFIX, raw_tensor
from medtool.nets.widths import PRUNED
from medtool.optimize.folder import OPTIMISED_FROM, source_of
from medtool.train.document import group_table, layers, stage_table
from medtool.train.live import Live
from medtool.train.plan import plan_from_document
from medtool.train.probe import make_probe
from medtool.train.state import training_document, training_tensors

if TYPE_CHECKING:
    from torch import nn

    from medtool.optimize.prune_loop import Pruned
    from medtool.predict.model import Model

# What stands in a checkpoint for the tensors that it had: a writer works it out anew.
OF_THE_FILE = ("format", "hashes")
# Of the metrics what is asked, not what the whole network answered: these are numbers of another.
ASKED = ("primary",)


def write_pruned(
    model: Model, pruned: Pruned, path: Path, changes: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Write the network of ``pruned``, which came from ``model``, to ``path``; its document.

    What the checkpoint of ``model`` says of its training, thresholds and patients stays true;
    ``changes`` are what was decided anew; how good the whole network was is left out. Where it
    says how it was trained, the file also holds the state of such a training that has not begun,
    so that the network can learn on.
    """
    task, network = model.task, pruned.network
    groups = task.groups(network)
    whole = portable_document(model.document)
    kept = {key: value for key, value in whole.items() if key not in OF_THE_FILE}
    metrics: Mapping[str, Any] = kept.get("metrics") or {}
    known = kept.get("plan")
    plan = plan_from_document(known) if known else None
    document = {
        **kept,
        "metrics": {key: value for key, value in metrics.items() if key in ASKED},
        "layers": layers(network, groups),
        "groups": group_table(groups),
        PRUNED: dict(pruned.widths),
        "pruning": pruned.as_dict(),
        OPTIMISED_FROM: source_of(model),
        **(changes or {}),
    }
    if plan is None:
        tensors = list(_answering_tensors(network))
    else:
        live = Live(network, groups, task.settings.train, plan)
        document |= {"stages": stage_table(plan, groups), **training_document(live)}
        tensors = list(training_tensors(live))
    probe = list(make_probe(network, task.deployment()))
    return write_checkpoint(path, document, [*tensors, *probe])


def _answering_tensors(network: nn.Module) -> Iterator[RawTensor]:
    for name, tensor in network.state_dict().items():
        yield raw_tensor(MODEL_PREFIX + name, tensor)
