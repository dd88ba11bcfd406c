"""The folder of an optimised model, begun: the float file, the document with a probe, the card.

What is quantised, measured and judged afterwards is added to the document by those who do it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtool import __version__
from medtool.config.places import portable_document
from medtool.core.checkpoint import RawTensor, read_header, tensor_of, write_checkpoint
from medtool.core.deployed import (
    DOCUMENT_FILE,
    FLOAT_FILE,
    Deployed,
    find_deployed,
    write_deployed,
)
from medtool.core.errors import CheckpointError
from medtool.optimize.export import LARGEST_FILE_BYTES, OPSET, export_onnx, on_processor
from medtool.optimize.model_card import write_card
from medtool.predict.deployed_probe import (
    input_tensors,
    output_tensors,
    stored_inputs,
    typical_inputs,
    without_probes,
)
from medtool.predict.engines import open_engine
from medtool.predict.engines.pytorch import PyTorchEngine

if TYPE_CHECKING:
    from torch import nn

    from medtool.core.task import Task
    from medtool.predict.model import Model

# Under this key the document says which checkpoint it was made of.
OPTIMISED_FROM = "optimised_from"


def write_exported(
    model: Model,
    folder: Path,
    *,
    opset: int = OPSET,
    largest_bytes: int = LARGEST_FILE_BYTES,
) -> dict[str, Any]:
    """Export ``model`` into ``folder``, which exists; gives its optimize.json as written.

    Several members become one file. Raises as ``export_onnx``, and UsageError where members cannot
    be one file.
    """
    task, network = whole_network(model)
    network = on_processor(network)
    exported = export_onnx(
        task, network, folder / FLOAT_FILE, opset=opset, largest_bytes=largest_bytes
    )
    source = source_of(model)
    document = {**portable_document(model.document), OPTIMISED_FROM: source}
    write_checkpoint(folder / DOCUMENT_FILE, document, _probe(task, network))
    write_card(task, document, exported, folder)
    return write_deployed(
        folder,
        {
            "created_by": f"medtool {__version__}",
            "task": task.name,
            "source": source,
            "synthetic": model.synthetic,
            "default": FLOAT_FILE,
            "inputs": exported.entry()["inputs"],
            "outputs": list(exported.outputs),
            "files": {FLOAT_FILE: exported.entry()},
        },
    )


def whole_network(model: Model) -> tuple[Task, nn.Module]:
    """The task and the network that are exported: of several members all as one."""
    if not model.members:
        return model.task, model.network
    task = model.members[0].task.standing_for(len(model.members))
    return task, task.joined(model.members)


def source_of(model: Model) -> dict[str, str]:
    """Which checkpoint it was; paths are nobody's business."""
    return {"file": model.path.name, "hash": _model_hash(model.document)}


def _model_hash(document: Mapping[str, Any]) -> str:
    return str((document.get("hashes") or {}).get("model", ""))


def _probe(task: Task, network: nn.Module) -> Iterator[RawTensor]:
    """The probe of the exported whole, as PyTorch answers it in float32."""
    spec = task.exported_deployment()
    yield from input_tensors(spec)
    engine = PyTorchEngine(task.exported(network).eval(), spec)
    yield from output_tensors(engine.run(typical_inputs(spec)))


def record_probe(folder: Path, name: str) -> dict[str, Any]:
    """Keep in ``folder`` what its model file ``name`` says to the probe; gives optimize.json anew.

    For files that do not compute as PyTorch does: another machine or engine has to give the same.
    """
    deployed = _require(folder).beside(name)
    engine = open_engine(deployed.file, engine=deployed.engine)
    found = engine.run(stored_inputs(deployed))
    head = read_header(deployed.head)
    kept = [tensor_of(head, one) for one in without_probes(head.tensors, name)]
    write_checkpoint(deployed.head, head.document, [*kept, *output_tensors(found, name)])
    return write_deployed(folder, deployed.document)


def _require(folder: Path) -> Deployed:
    deployed = find_deployed(folder)
    if deployed is None:
        raise CheckpointError("This is no optimised model.", where=str(folder))
    return deployed
