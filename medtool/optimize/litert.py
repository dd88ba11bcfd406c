"""A network as .tflite files, for phones and tablets: in float32, and in eight bits.

The converter lives in an environment of its own (see ``docs/architecture.md``): the network is
traced here, written to a file that any PyTorch reads, and converted by the other Python in
``litert_child.py``. The converter gives every tensor a fixed size, so a file answers one image a
call; that images do not hear of each other is tried first.
"""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from medtool.core.errors import CheckpointError, MachineError, UsageError
from medtool.core.files import file_sha256
from medtool.core.progress import Reporter, Silent
from medtool.core.randomness import generator
from medtool.data.machine import usable_cores
from medtool.data.scratch import Scratch
from medtool.nets.exporting import exporting
from medtool.optimize import litert_child
from medtool.optimize.litert_split import (
    LARGEST_WEIGHT_BYTES,
    require_flat,
    split_large,
    weighted_layers,
)
from medtool.predict.engines import open_engine
from medtool.predict.engines.contract import LITERT
from medtool.predict.engines.presence import require_engine
from medtool.predict.layout import in_plain_order

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from medtool.core.records import DeploymentSpec
    from medtool.core.task import Task

Inputs = Mapping[str, "NDArray[Any]"]

LITERT_FILE, LITERT_INT8_FILE = "model.tflite", "model.int8.tflite"
# Of the range of an output: how far a split network, and a converted one, may be from the traced.
CLOSE_SPLIT, CLOSE_CONVERTED = 1e-5, 1e-3
# Lines of the child's complaints that are looked at, and what is left out of them.
LAST_LINES = 40
LONGEST_MESSAGE = 300
STEP = "step: "
STEPS = {
    "convert": "Converting the network for LiteRT.",
    "quantise": "Quantising it to eight bits.",
}
HOW_TO_INSTALL = (
    'python3 -m venv litert-env, then litert-env/bin/pip install "litert-torch>=0.10,<0.11", then '
    "--litert-python litert-env/bin/python"
)
ASK_VERSIONS = (
    "import json, sys\n"
    "from importlib.metadata import PackageNotFoundError, version\n"
    "found = {}\n"
    "for name in sys.argv[1:]:\n"
    "    try:\n"
    "        found[name] = version(name)\n"
    "    except PackageNotFoundError:\n"
    "        found[name] = ''\n"
    "sys.stdout.write(json.dumps(found))\n"
)


@dataclass(frozen=True)
class Converter:
    """The Python that has the converter, and what it has of which version."""

    python: Path
    versions: Mapping[str, str]


def find_converter(python: Path | None = None) -> Converter:
    """The converter of the environment that ``python`` belongs to; by default of this one.

    Raises MachineError, which says how to install it, where it is not there.
    """
    # Not resolved: the Python of an environment is a link that it is known by.
    asked = (python or Path(sys.executable)).absolute()
    command = [str(asked), "-I", "-c", ASK_VERSIONS, *litert_child.PACKAGES]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True)
        versions: dict[str, str] = json.loads(answer.stdout)
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        raise MachineError(
            "There is no such Python.",
            where="--litert-python",
            met=f"{asked}: {type(error).__name__}",
            wanted="the Python of an environment that has litert-torch",
            how=HOW_TO_INSTALL,
        ) from error
    missing = [name for name, version in versions.items() if not version]
    if missing:
        raise MachineError(
            "The converter to LiteRT's files is not installed.",
            where=str(asked) if python else "",
            met=f"without {', '.join(missing)}",
            wanted=", ".join(litert_child.PACKAGES),
            how=HOW_TO_INSTALL,
        )
    return Converter(asked, versions)


def write_litert(
    task: Task,
    network: nn.Module,
    folder: Path,
    calibration: Sequence[Inputs] = (),
    *,
    python: Path | None = None,
    float_layers: Collection[str] = (),
    largest_bytes: int = LARGEST_WEIGHT_BYTES,
    reporter: Reporter | None = None,
) -> dict[str, dict[str, Any]]:
    """Write ``network``, whole as ``task.exported`` has it, as .tflite files into ``folder``.

    One in float32 and, where there are ``calibration`` inputs, one in eight bits, in which
    ``float_layers``, heads and what stands before the first layer stay in float; gives their
    entries in ``files`` of optimize.json. Raises MachineError where converter or runtime are
    missing, UsageError for networks that see more than one image at a time, CheckpointError that
    names what cannot be converted.
    """
    require_engine(LITERT)
    converter = find_converter(python)
    spec = task.exported_deployment()
    # The converter loses weights that lie in memory in another order.
    module = task.exported(in_plain_order(network)).to("cpu").eval()
    example = calibration[0] if calibration else _made_up(spec)
    tensors = _tensors(spec, example)
    require_single(task.name, module, tensors)
    program, split = traced(module, tensors, largest_bytes if calibration else None)
    with Scratch() as scratch:
        job = _job(program, spec, folder, scratch.path, example, calibration)
        job["float_layers"] = sorted(float_layers)
        found = _converted(converter, job, scratch.path, reporter or Silent())
    _require_close(module, folder / LITERT_FILE, spec, example, tensors)
    entry = {"batch": 1, "made_by": dict(converter.versions)}
    files = {LITERT_FILE: _entry(folder / LITERT_FILE, spec, "float32") | entry}
    if calibration:
        eight = {"float_layers": found["float_layers"], "calibration": "minmax"}
        files[LITERT_INT8_FILE] = _entry(folder / LITERT_INT8_FILE, spec, "int8") | entry | eight
    return {name: one | {"split_layers": split} for name, one in files.items()}


def require_convertible(task: Task, network: nn.Module, example: Inputs) -> None:
    """Raises as ``write_litert`` where ``network`` cannot be LiteRT's, before anything is tried."""
    spec = task.exported_deployment()
    module, tensors = task.exported(network).to("cpu").eval(), _tensors(spec, example)
    require_single(task.name, module, tensors)
    traced(module, tensors, None)


def _tensors(spec: DeploymentSpec, example: Inputs) -> tuple[torch.Tensor, ...]:
    return tuple(torch.from_numpy(np.asarray(example[name], "f4")) for name in spec.inputs)


def _made_up(spec: DeploymentSpec) -> Inputs:
    return {
        name: generator("litert", name).standard_normal(shape, dtype=np.float32)
        for name, shape in spec.inputs.items()
    }


@torch.no_grad()
def require_single(task: str, module: nn.Module, one: Sequence[torch.Tensor]) -> None:
    """Raises UsageError where ``module`` does not answer each image by itself.

    Tried with two: the image, and its mirror image, halved.
    """
    two = [torch.cat([tensor, tensor.flip(-1) / 2]) for tensor in one]
    try:
        alone, both = module(*one), module(*two)
        single = all(
            len(first) == 1
            and len(second) == 2
            and torch.allclose(first, second[:1], rtol=1e-3, atol=1e-4)
            for first, second in zip(alone, both, strict=True)
        )
    except RuntimeError:
        single = False
    if not single:
        raise UsageError(
            f"Models of the task '{task}' cannot be LiteRT's files.",
            met="a network that sees several images of a patient at once, as many as there are",
            wanted="one that answers each image by itself: these files have one fixed size",
            how="leave 'litert' out of the formats; ONNX Runtime runs this model everywhere.",
        )


@torch.no_grad()
def traced(
    module: nn.Module, example: tuple[torch.Tensor, ...], largest_bytes: int | None
) -> tuple[torch.export.ExportedProgram, dict[str, int]]:
    """``module`` as a graph for one image, with no layer of more than ``largest_bytes``.

    Also gives which layers were split, in how many parts: the answer is the same but for rounding,
    or else CheckpointError is raised. So it is for layers that LiteRT lacks.
    """
    with exporting(), warnings.catch_warnings():
        # torch's own, on parts of it that the exporter uses.
        warnings.simplefilter("ignore")
        program = torch.export.export(module, example)
        graph: Any = program.module()
        require_flat(graph)
        split = {} if largest_bytes is None else split_large(graph, largest_bytes=largest_bytes)
        if not split:
            return program, {}
        for wanted, found in zip(program.module()(*example), graph(*example), strict=True):
            if _apart(wanted.numpy(), found.numpy()) > CLOSE_SPLIT:
                raise _different("split", ", ".join(split), wanted.numpy(), found.numpy())
        return torch.export.export(graph, example), split


def _apart(wanted: NDArray[Any], found: NDArray[Any]) -> float:
    """The largest difference, in parts of the range."""
    reach = max(float(np.ptp(wanted)), float(np.abs(wanted).max()), 1e-6)
    return float(np.abs(wanted - found).max()) / reach


def _different(how: str, what: str, wanted: NDArray[Any], found: NDArray[Any]) -> CheckpointError:
    return CheckpointError(
        f"The network is not the same when it is {how}.",
        met=f"{what}: an output differs by {_apart(wanted, found):.2g} of its range",
        how="report this as a bug, with the preset.",
    )


def _job(
    program: torch.export.ExportedProgram,
    spec: DeploymentSpec,
    folder: Path,
    scratch: Path,
    example: Inputs,
    calibration: Sequence[Inputs],
) -> dict[str, Any]:
    """What the child is told; inputs lie in files, one folder each."""
    graph: Any = program.module()
    torch.export.save(program, scratch / "network.pt2")
    folders = []
    for number, one in enumerate([example, *calibration]):
        own = scratch / f"{number:04d}"
        own.mkdir()
        for name in spec.inputs:
            np.save(own / f"{name}.npy", np.ascontiguousarray(one[name], np.float32))
        folders.append(str(own))
    return {
        "program": str(scratch / "network.pt2"),
        "inputs": list(spec.inputs),
        "outputs": list(spec.outputs),
        "example": folders[0],
        "calibration": folders[1:],
        "threads": usable_cores(),
        "layers": {one.parameter: [one.name, one.axis] for one in weighted_layers(graph)},
        # The child works in another folder.
        "float": str(folder.absolute() / LITERT_FILE),
        "int8": str(folder.absolute() / LITERT_INT8_FILE) if calibration else "",
        "found": str(scratch / "found.json"),
    }


def _converted(
    converter: Converter, job: Mapping[str, Any], scratch: Path, reporter: Reporter
) -> dict[str, Any]:
    """Let the other Python do ``job``; gives what it found."""
    (scratch / "job.json").write_text(json.dumps(job), encoding="utf-8")
    command = [str(converter.python), "-I", litert_child.__file__, str(scratch / "job.json")]
    last: deque[str] = deque(maxlen=LAST_LINES)
    step = "convert"
    # In the scratch folder: some of its packages leave notes in the working folder.
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        cwd=scratch,
    ) as child:
        try:
            for line in child.stdout or ():
                if line.startswith(STEP):
                    step = line.removeprefix(STEP).strip()
                    reporter.say(STEPS.get(step, step))
                elif line.strip():
                    last.append(line.strip())
        except BaseException:
            child.kill()
            raise
    if child.returncode:
        raise _not_converted(step, list(last))
    found: dict[str, Any] = json.loads((scratch / "found.json").read_text(encoding="utf-8"))
    return found


def _not_converted(step: str, lines: Sequence[str]) -> CheckpointError:
    """The refusal with the error itself, which stands last; tracebacks and notes stand before."""
    told = next((line for line in reversed(lines) if "Error" in line), "") or " ".join(lines)
    return CheckpointError(
        "LiteRT's converter cannot take this network."
        if step == "convert"
        else "LiteRT's quantiser cannot take this network.",
        met=told[:LONGEST_MESSAGE] or "it ended without a word",
        wanted="layers that LiteRT has operators for",
        how="leave 'litert' out of the formats, or choose another network.",
    )


@torch.no_grad()
def _require_close(
    module: nn.Module,
    file: Path,
    spec: DeploymentSpec,
    example: Inputs,
    tensors: Sequence[torch.Tensor],
) -> None:
    """Raises CheckpointError where the float file does not answer as the network does."""
    answers = open_engine(file).run(example)
    for name, wanted in zip(spec.outputs, module(*tensors), strict=True):
        if not _apart(wanted.numpy(), answers[name]) <= CLOSE_CONVERTED:
            raise _different("converted", name, wanted.numpy(), answers[name])


def _entry(file: Path, spec: DeploymentSpec, arithmetic: str) -> dict[str, Any]:
    """What optimize.json says of a file: as of the others, but for the number of images."""
    return {
        "engine": LITERT,
        "arithmetic": arithmetic,
        "sha256": file_sha256(file),
        "bytes": file.stat().st_size,
        "external": {},
        "inputs": {name: list(shape) for name, shape in spec.inputs.items()},
        "outputs": list(spec.outputs),
    }
