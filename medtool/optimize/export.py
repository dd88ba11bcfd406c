"""A network as an ONNX file: whole, in float32, for any number of images.

PyTorch's exporter over ``torch.export`` is used, not the one over TorchScript: the latter is
deprecated, and where a network takes another way for one image it silently keeps the way of the
example, while the former fixes the size, which is refused here. Layers keep their names in the
network; paths of this machine, which the exporter notes at each node, are left out.
"""

from __future__ import annotations

import copy
import inspect
import itertools
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from medtool.core.errors import CheckpointError, MachineError
from medtool.core.files import file_sha256
from medtool.core.randomness import generator
from medtool.nets.exporting import exporting
from medtool.predict.engines.contract import ONNX_RUNTIME
from medtool.predict.layout import in_plain_order

if TYPE_CHECKING:
    from torch import nn

    from medtool.core.records import DeploymentSpec
    from medtool.core.task import Task

# The first with all operators that are needed, and read by engines of the last years.
OPSET = 18
# A file of ONNX cannot be larger: tensors then lie beside it.
LARGEST_FILE_BYTES = 2**31 - 2**20
EXTERNAL_ENDING = ".data"
# In an example no free axis has the size 1, which would be taken for fixed.
EXAMPLE_SIZE = 2
# Where an exported module holds the network.
NETWORK_PREFIX = "network."
WEIGHT_ENDING = ".weight"
# What the exporter says where an operation is in no layer.
NO_LAYER = "_empty_nn_module"
# How it names an operator that ONNX has nothing for.
LACKING = re.compile(r"No ONNX function found for <OpOverload\(op='([\w.]+)'")


@dataclass(frozen=True)
class ExportedFile:
    """An ONNX file, and what optimize.json says of it."""

    file: Path
    opset: int
    inputs: Mapping[str, tuple[int | str, ...]]
    outputs: tuple[str, ...]
    arithmetic: str = "float32"
    external: tuple[Path, ...] = field(default=())

    @property
    def size_bytes(self) -> int:
        """Bytes of the file and of what lies outside it."""
        return sum(path.stat().st_size for path in (self.file, *self.external))

    def entry(self) -> dict[str, Any]:
        """Its entry in ``files`` of optimize.json."""
        return {
            "engine": ONNX_RUNTIME,
            "arithmetic": self.arithmetic,
            "sha256": file_sha256(self.file),
            "bytes": self.size_bytes,
            "opset": self.opset,
            "external": {path.name: file_sha256(path) for path in self.external},
            "inputs": {name: list(shape) for name, shape in self.inputs.items()},
            "outputs": list(self.outputs),
        }


def export_onnx(
    task: Task,
    network: nn.Module,
    file: Path,
    *,
    opset: int = OPSET,
    largest_bytes: int = LARGEST_FILE_BYTES,
) -> ExportedFile:
    """Write ``network``, whole as ``task.exported`` has it, to ``file``.

    Beyond ``largest_bytes`` its tensors lie beside it. Raises MachineError where the packages for
    it are missing, CheckpointError that names operator and layer where one cannot be exported.
    """
    _require_exporter()
    spec = task.exported_deployment()
    # Weights with channels last leave traces: pooled maps would be gathered number by number.
    module = task.exported(in_plain_order(on_processor(network))).to("cpu").eval()
    example = tuple(_example(spec, name) for name in spec.inputs)
    program: Any
    try:
        with exporting(), torch.no_grad(), warnings.catch_warnings():
            # The exporter's own, on parts of torch that it uses itself.
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module,
                example,
                dynamo=True,
                input_names=list(spec.inputs),
                output_names=list(spec.outputs),
                dynamic_shapes=_free_axes(module, spec),
                opset_version=opset,
                verbose=False,
            )
    except Exception as error:  # noqa: BLE001 - whatever of torch's exporter; it is told
        lacking = _lacking_operator(error, module, example, _free_axes(module, spec))
        raise _not_exportable(file, error, lacking) from error
    model = program.model
    _clean(model.graph)
    external = _save(model, file, largest_bytes)
    return ExportedFile(file, opset, exported_inputs(spec), spec.outputs, external=external)


def on_processor(network: nn.Module) -> nn.Module:
    """``network`` where it computes on the processor; else a copy there.

    A network that answers on a GPU goes on answering there.
    """
    tensors = itertools.chain(network.parameters(), network.buffers())
    if all(one.device.type == "cpu" for one in tensors):
        return network
    return copy.deepcopy(network).cpu()


def _require_exporter() -> None:
    try:
        import onnxscript  # noqa: F401 - whether it is there is the question
    except ImportError as error:
        raise MachineError(
            "Exporting a model needs packages that are not installed.",
            wanted="onnx and onnxscript",
            how='pip install "medtool[optimize]"',
        ) from error


def _example(spec: DeploymentSpec, name: str) -> torch.Tensor:
    shape = list(spec.inputs[name])
    for axis in spec.free_axes.get(name, {}):
        shape[axis] = EXAMPLE_SIZE
    return torch.from_numpy(generator("export", name).standard_normal(shape, dtype="float32"))


def _free_axes(module: nn.Module, spec: DeploymentSpec) -> tuple[Any, ...]:
    """The free axes of each input; what ``forward`` takes as ``*others`` is one group."""
    names = {axis for axes in spec.free_axes.values() for axis in axes.values()}
    sizes = {name: torch.export.Dim(name) for name in sorted(names)}
    each = [
        {axis: sizes[own] for axis, own in spec.free_axes.get(name, {}).items()}
        for name in spec.inputs
    ]
    parameters = inspect.signature(module.forward).parameters.values()
    own = sum(one.kind is not one.VAR_POSITIONAL for one in parameters)
    return (*each[:own], tuple(each[own:])) if len(each) > own else tuple(each)


def exported_inputs(spec: DeploymentSpec) -> dict[str, tuple[int | str, ...]]:
    """Shapes of the inputs, with names where the size is free."""
    return {
        name: tuple(spec.free_axes.get(name, {}).get(axis, size) for axis, size in enumerate(shape))
        for name, shape in spec.inputs.items()
    }


def _clean(graph: Any) -> None:
    """Name nodes by their layers, and forget where on this machine the code lay."""
    seen: dict[str, int] = {}
    for node in graph:
        path = _layer(node)
        name = f"{path}/{node.op_type}" if path else node.op_type
        seen[name] = seen.get(name, 0) + 1
        node.name = name if seen[name] == 1 else f"{name}_{seen[name]}"
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*graph.inputs, *graph.initializers.values()):
        value.metadata_props.clear()
    graph.metadata_props.clear()


def _layer(node: Any) -> str:
    """The layer of a node, named as in the checkpoint; "" for none.

    By its weights, for a convolution and the norm behind it become one node; else by the exporter's
    list of nested names, the last of which is the operation itself.
    """
    weights = (value.name or "" for value in node.inputs if value is not None)
    name = next((one for one in weights if one.endswith(WEIGHT_ENDING)), "")
    if not name:
        scopes = node.metadata_props.get("pkg.torch.onnx.name_scopes", "").split(",")
        name = scopes[-2].strip(" '\"[]") if len(scopes) > 1 else ""
        name = "" if name.startswith(NO_LAYER) else name
    return str(name.removesuffix(WEIGHT_ENDING).removeprefix(NETWORK_PREFIX))


def _save(model: Any, file: Path, largest_bytes: int) -> tuple[Path, ...]:
    import onnx_ir

    model.metadata_props.clear()
    model.producer_name, model.producer_version = "medtool", ""
    size = sum(one.const_value.nbytes for one in model.graph.initializers.values())
    if size <= largest_bytes:
        onnx_ir.save(model, file)
        return ()
    beside = file.with_name(file.name + EXTERNAL_ENDING)
    onnx_ir.save(model, file, external_data=beside.name)
    return (beside,)


def _lacking_operator(
    error: Exception, module: nn.Module, example: Any, free_axes: tuple[Any, ...]
) -> str:
    """The operator that ONNX lacks, with its layer; "" where it failed for another reason.

    The exporter names the operator alone: the layer is that of the first such operator of the
    traced network.
    """
    found = LACKING.search(_with_causes(error))
    if found is None:
        return ""
    name = found[1].rpartition(".")[2]
    try:
        with exporting(), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.export(module, example, dynamic_shapes=free_axes, strict=False)
    except Exception:  # noqa: BLE001 - what it says of the operator is enough
        return f"operator {found[1]}"
    for node in program.graph.nodes:
        # What ONNX lacks may be a part of what the layer calls: bessel_j0 of special_bessel_j0.
        if node.op == "call_function" and name in str(node.target):
            path, _ = [*node.meta.get("nn_module_stack", {"": ("", "")}).values()][-1]
            layer = str(path).removeprefix(NETWORK_PREFIX)
            return f"operator {found[1]}" + (f" of the layer {layer}" if layer else "")
    return f"operator {found[1]}"


def _with_causes(error: BaseException | None) -> str:
    """Everything that was said, the last words first."""
    said = []
    while error is not None:
        said.append(str(error))
        error = error.__cause__ or error.__context__
    return "\n".join(said)


def _not_exportable(file: Path, error: Exception, lacking: str) -> CheckpointError:
    text = str(error)
    causes = [str(one) for one in (error.__cause__, error.__context__) if one is not None]
    first = next((line for line in "\n".join([*causes, text]).splitlines() if line.strip()), text)
    return CheckpointError(
        "This network cannot be exported.",
        where=str(file),
        met=lacking or f"{type(error).__name__}: {first.strip()[:300]}",
        wanted="layers that ONNX has operators for",
        how="choose another network, such as the preset's default.",
    )
