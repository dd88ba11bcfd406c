"""What a model costs: time, memory, multiply-adds, parameters; each as it is measured or counted.

Times are those of whole calls, after some that are not counted, in the median: the machine does
other things as well, and a mean would show them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from medtool.core.errors import MedtoolError, UsageError
from medtool.data.machine import MEMORY_SHARE, available_memory_bytes
from medtool.nets.exporting import exporting
from medtool.nets.freezing import parameter_count
from medtool.predict.deployed_probe import typical_inputs

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from medtool.core.records import DeploymentSpec
    from medtool.predict.engines.contract import Engine

# Calls that are counted, and those before them: caches, thread pools and memory come up there.
RUNS = 50
WARM_UP = 5
# Where calls take long: fewer are counted, though never fewer than these; and of the time for them
# those that are not counted have this share.
FEWEST_RUNS, WARM_UP_SHARE = 5, 0.1
# Pixels or voxels of all images of a call that any machine is asked for: two volumes of 128 cubed.
MOST_PLACES = 2**22
# Engines may hold so many times the memory of PyTorch.
MORE_BY_ENGINES = 1.75
LONGEST_REASON = 200
# Threads of an engine go on looking for work for a moment after a call: the next one waits for it.
SETTLING_S = 0.2


@dataclass(frozen=True)
class Latency:
    """How long a call takes: median and quartiles of ``runs`` calls, in seconds.

    ``batch`` images are answered by one call, with ``threads`` threads.
    """

    batch: int
    threads: int
    runs: int
    median_s: float
    low_s: float
    high_s: float

    @property
    def per_second(self) -> float:
        """Images answered in a second."""
        return self.batch / self.median_s

    def as_dict(self) -> dict[str, Any]:
        """Plain values, times in milliseconds."""
        return {
            "batch": self.batch,
            "threads": self.threads,
            "runs": self.runs,
            "median_ms": round(self.median_s * 1e3, 3),
            "quartiles_ms": [round(self.low_s * 1e3, 3), round(self.high_s * 1e3, 3)],
            "per_second": round(self.per_second, 3),
        }


@dataclass(frozen=True)
class Counts:
    """Parameters, and multiply-adds of one answer: what a processor has to do at least."""

    parameters: int
    multiply_adds: int

    def as_dict(self) -> dict[str, int]:
        """Plain values."""
        return {"parameters": self.parameters, "multiply_adds": self.multiply_adds}


def time_calls(
    call: Callable[[], object],
    *,
    batch: int,
    threads: int,
    runs: int = RUNS,
    warm_up: int = WARM_UP,
    most_s: float = inf,
    clock: Callable[[], float] = time.perf_counter,
) -> Latency:
    """The time of ``call``, which answers ``batch`` images with ``threads`` threads.

    Of ``runs`` calls, or as many as fit into ``most_s`` seconds, but at least FEWEST_RUNS.
    """

    def timed() -> float:
        began = clock()
        call()
        return clock() - began

    spent = 0.0
    for _ in range(warm_up):
        spent += timed()
        if spent > WARM_UP_SHARE * most_s:
            break
    seconds: list[float] = []
    while len(seconds) < runs:
        seconds.append(timed())
        if len(seconds) >= FEWEST_RUNS and sum(seconds) > most_s:
            break
    low, median, high = np.quantile(np.asarray(seconds), (0.25, 0.5, 0.75))
    return Latency(batch, threads, len(seconds), float(median), float(low), float(high))


def time_engine(
    engine: Engine,
    inputs: Mapping[str, NDArray[Any]],
    *,
    batch: int,
    runs: int = RUNS,
    warm_up: int = WARM_UP,
    most_s: float = inf,
) -> Latency:
    """The time of one call of ``engine``, as ``time_calls`` has it."""
    time.sleep(SETTLING_S)
    return time_calls(
        lambda: engine.run(inputs),
        batch=batch,
        threads=engine.threads,
        runs=runs,
        warm_up=warm_up,
        most_s=most_s,
    )


def reason_of(error: BaseException) -> str:
    """Why something could not be measured, in a line; engines raise errors of all kinds."""
    if isinstance(error, MedtoolError):
        return error.what
    lines = str(error).strip().splitlines()
    return lines[0][:LONGEST_REASON] if lines else type(error).__name__


def fitting_batches(
    spec: DeploymentSpec,
    batches: Sequence[int],
    *,
    most_places: int = MOST_PLACES,
    bytes_an_image: Callable[[], int] | None = None,
) -> tuple[list[int], list[str]]:
    """Those of ``batches`` with at most ``most_places`` pixels or voxels; why others are left out.

    Larger ones too, where ``bytes_an_image`` says what PyTorch takes and so much is free. One image
    is always measured, however large it is.
    """
    first = next(iter(spec.inputs))
    one_by_one = spec.free_axes.get(first, {}).get(0) is None
    places = max((math.prod(shape[2:]) for shape in spec.inputs.values()), default=1)
    fitting, left_out = [], []
    for batch in dict.fromkeys(batches):
        if batch > 1 and one_by_one:
            left_out.append(f"{batch} images a call: this model takes one at a time")
        elif batch == 1 or batch * places <= most_places:
            fitting.append(batch)
        elif bytes_an_image is None:
            left_out.append(
                f"{batch} images a call: {batch * places / 1e6:.1f} million pixels or voxels, more "
                f"than the {most_places / 1e6:.1f} million that are measured at once"
            )
        elif batch > images_in_memory(bytes_an_image()):
            left_out.append(f"{batch} images a call: free memory may not be enough for them")
        else:
            fitting.append(batch)
    return fitting or [1], left_out


def images_in_memory(bytes_an_image: int) -> int:
    """Images that one call may have in the memory that is free now, where PyTorch takes
    ``bytes_an_image``; 0 where one of both is not known.
    """
    if not bytes_an_image:
        return 0
    free_bytes = available_memory_bytes() or 0
    return int(free_bytes * MEMORY_SHARE / (bytes_an_image * MORE_BY_ENGINES))


def example_inputs(spec: DeploymentSpec, batch: int = 1) -> dict[str, NDArray[np.float32]]:
    """Made-up inputs of ``batch`` images in the sizes of real use, the same everywhere.

    Raises UsageError where the model takes no more than one image at a time.
    """
    first = next(iter(spec.inputs))
    axis = spec.free_axes.get(first, {}).get(0)
    if axis is None and batch != 1:
        raise UsageError(
            "This model takes one image at a time.", met=f"a batch of {batch}", wanted="--batch 1"
        )
    return typical_inputs(spec, {axis: batch} if axis is not None else {})


def count_module(module: nn.Module, inputs: Sequence[Tensor]) -> Counts:
    """Parameters of ``module`` and multiply-adds of its answer to ``inputs``.

    Those of convolutions and of products of matrices, which is nearly all; a multiply-add is two
    operations of torch's counter.
    """
    counter = FlopCounterMode(display=False)
    # The counter knows the plain way alone.
    with torch.no_grad(), exporting(), counter:
        module(*inputs)
    return Counts(parameter_count(module), counter.get_total_flops() // 2)


def count_onnx(file: Path, inputs: Mapping[str, tuple[int, ...]]) -> Counts:
    """Parameters in an ONNX file and multiply-adds of its answer to inputs of these shapes.

    Counted from the graph: convolutions, transposed ones, and products of matrices, whatever the
    arithmetic. Scales and offsets of a quantised graph are no parameters.
    """
    from medtool.optimize.onnx_counts import counts

    parameters, multiply_adds = counts(file, inputs)
    return Counts(parameters, multiply_adds)
