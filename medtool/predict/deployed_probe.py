"""The probe of an optimised model: made-up inputs, and what PyTorch and each file said to them.

Without torch. An image of many voxels is a small random block repeated, and of an answer every
k-th value along each of its axes is kept, so that the probe of a volume stays small.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from medtool.core.checkpoint import RawTensor, read_header, tensor_of
from medtool.core.deployed import Deployed
from medtool.core.errors import CheckpointError
from medtool.core.probe_result import (
    TOLERANCE_FLOAT32,
    TOLERANCE_REDUCED,
    ProbeResult,
    output_range,
)
from medtool.core.randomness import generator

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medtool.core.records import DeploymentSpec
    from medtool.predict.engines.contract import Engine

PROBE_INPUT, PROBE_OUTPUT = "probe.input.", "probe.output."
# Values that are kept of an input and of an output, at most.
MOST_VALUES = 1 << 16
FLOAT32 = "F32"
# Arithmetic that is as exact as PyTorch's own.
EXACT = "float32"


def typical_inputs(
    spec: DeploymentSpec, sizes: Mapping[str, int] | None = None
) -> dict[str, NDArray[np.float32]]:
    """Made-up inputs of the usual size of each, the same everywhere; ``sizes`` are those of free
    axes, which have 1 else.
    """
    return {
        name: _whole(_block(spec, name), _shape(spec, name, sizes or {})) for name in spec.inputs
    }


def _shape(spec: DeploymentSpec, name: str, sizes: Mapping[str, int]) -> tuple[int, ...]:
    free = spec.free_axes.get(name, {})
    return tuple(
        sizes.get(free[axis], 1) if axis in free else size
        for axis, size in enumerate(spec.inputs[name])
    )


def _block(spec: DeploymentSpec, name: str) -> NDArray[np.float32]:
    """The random part of an input, with one image."""
    shape = spec.inputs[name]
    whole = math.prod(shape)
    size = tuple(shape)
    if whole > MOST_VALUES and len(shape) > 2:
        # Along the axes of the image, the third and later ones.
        shrink = (whole / MOST_VALUES) ** (1 / (len(shape) - 2))
        size = (*shape[:2], *(max(1, int(axis / shrink)) for axis in shape[2:]))
    drawn = generator("probe", name).standard_normal(size, dtype="float32")
    means, deviations = spec.typical.get(name, ((0.0,), (1.0,)))
    wide = (1, -1, *(1,) * (len(shape) - 2)) if len(shape) > 1 else (-1,)
    mean, deviation = (np.asarray(one, np.float32).reshape(wide) for one in (means, deviations))
    return np.asarray(drawn * deviation + mean, dtype=np.float32)


def _whole(block: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """``block`` repeated to ``shape``."""
    counts = [math.ceil(size / own) for size, own in zip(shape, block.shape, strict=True)]
    return np.ascontiguousarray(
        np.tile(block, counts)[tuple(slice(size) for size in shape)], dtype=np.float32
    )


def _thinned(values: NDArray[Any]) -> NDArray[np.float32]:
    """Every k-th value along the axes from the third on, so that few enough are left."""
    step = 1
    while math.prod(_kept(values.shape, step)) > MOST_VALUES and step < max(values.shape):
        step += 1
    return np.ascontiguousarray(values[_every(values.ndim, step)], dtype=np.float32)


def _kept(shape: tuple[int, ...], step: int) -> tuple[int, ...]:
    return (*shape[:2], *(math.ceil(size / step) for size in shape[2:]))


def _every(axes: int, step: int) -> tuple[slice, ...]:
    return tuple(slice(None, None, step if axis > 1 else 1) for axis in range(axes))


def input_tensors(spec: DeploymentSpec) -> Iterator[RawTensor]:
    """The inputs of the probe, for the document; what is large as the block that is repeated."""
    for name in spec.inputs:
        yield _raw(PROBE_INPUT + name, _block(spec, name))


def output_tensors(outputs: Mapping[str, NDArray[Any]], file: str = "") -> Iterator[RawTensor]:
    """What was answered, by PyTorch or by the model file ``file``, for the document."""
    for name, values in outputs.items():
        yield _raw(_prefix(file) + name, _thinned(np.asarray(values)))


def _prefix(file: str) -> str:
    return f"probe.{file}.output." if file else PROBE_OUTPUT


def _raw(name: str, values: NDArray[np.float32]) -> RawTensor:
    return RawTensor(name, FLOAT32, values.shape, np.ascontiguousarray(values).tobytes())


def stored(deployed: Deployed, prefix: str) -> dict[str, NDArray[np.float32]]:
    """Tensors of the document that begin with ``prefix``, by the rest of their names."""
    header = read_header(deployed.head)
    found = {}
    for name in header.names(prefix):
        tensor = tensor_of(header, name)
        values = np.frombuffer(tensor.data, np.float32).reshape(tensor.shape)
        found[name.removeprefix(prefix)] = values
    return found


def stored_inputs(deployed: Deployed) -> dict[str, NDArray[np.float32]]:
    """The probe's inputs at their full size, one image. Raises CheckpointError without a probe."""
    blocks = stored(deployed, PROBE_INPUT)
    shapes = deployed.document.get("inputs") or {}
    if not blocks or set(blocks) != set(shapes):
        raise _no_probe(deployed)
    return {
        name: _whole(block, tuple(1 if isinstance(n, str) else int(n) for n in shapes[name]))
        for name, block in blocks.items()
    }


def _no_probe(deployed: Deployed) -> CheckpointError:
    return CheckpointError(
        "This optimised model holds no probe.",
        where=str(deployed.head),
        wanted=f"tensors {PROBE_INPUT}* and {PROBE_OUTPUT}*",
    )


def check_deployed(deployed: Deployed, engine: Engine) -> ProbeResult:
    """Compare what ``engine`` says to the probe with what the file said when it was made.

    Of a file in float32 that is what PyTorch said. Raises CheckpointError without a probe.
    """
    exact = deployed.arithmetic == EXACT and engine.arithmetic == EXACT
    wanted = stored(deployed, _prefix("" if exact else deployed.file.name))
    wanted = wanted or stored(deployed, PROBE_OUTPUT)
    if not wanted:
        raise _no_probe(deployed)
    found = engine.run(stored_inputs(deployed), list(wanted))
    return compared(found, wanted, TOLERANCE_FLOAT32 if exact else TOLERANCE_REDUCED)


def broken_promise(deployed: Deployed, engine: Engine, result: ProbeResult) -> str:
    """What to say of an engine whose ``result`` did not pass."""
    return (
        f"{deployed.file.name} by {engine.name} does not give here what it gave when it was made: "
        f"{result.share:.1e} of the output's range off (allowed {result.tolerance:.0e})"
    )


def compared(
    found: Mapping[str, NDArray[Any]], wanted: Mapping[str, NDArray[Any]], tolerance: float
) -> ProbeResult:
    """The output that is furthest from the stored one, by its own range."""
    results = []
    for name, values in wanted.items():
        own = _thinned(np.asarray(found[name]))
        difference = float(np.abs(own - values).max()) if own.shape == values.shape else math.inf
        size = output_range(float(values.min()), float(values.max()))
        results.append(ProbeResult(difference, size, tolerance))
    return max(results, key=lambda one: (not math.isfinite(one.share), one.share))


def without_probes(tensors: Mapping[str, Any], file: str) -> list[str]:
    """Names of the tensors of a document but those that ``file`` said."""
    return list(itertools.filterfalse(lambda name: name.startswith(_prefix(file)), tensors))
