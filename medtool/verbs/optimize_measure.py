"""The step of ``optimize`` that measures: time and memory of every file, and what each computes.

What cannot be measured says why, and everything else is kept: by then hours may have been spent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from medtool.core.deployed import FLOAT_FILE
from medtool.core.errors import CheckpointError
from medtool.optimize.export import on_processor
from medtool.optimize.folder import whole_network
from medtool.optimize.measure import (
    count_module,
    count_onnx,
    example_inputs,
    fitting_batches,
    reason_of,
    time_engine,
)
from medtool.optimize.memory import PeakMemory, peak_of_checkpoint, peak_of_engine
from medtool.optimize.processor import processor_record
from medtool.predict.engines import open_engine
from medtool.predict.engines.contract import PYTORCH
from medtool.predict.engines.pytorch import PyTorchEngine

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medtool.config.optimize_section import OptimizeSection
    from medtool.core.progress import Reporter
    from medtool.predict.engines.contract import Engine
    from medtool.predict.model import Model

# What a row of optimize.json is about that is no file of the folder.
CHECKPOINT = "the checkpoint"

Arrays = Mapping[str, "NDArray[Any]"]
Files = Mapping[str, Mapping[str, Any]]


def measured(
    original: Model,
    stage: Path,
    files: Files,
    settings: OptimizeSection,
    reporter: Reporter,
) -> dict[str, Any]:
    """Rows of time and memory of PyTorch and of ``files`` in ``stage``, and on which machine.

    ``original`` is what PyTorch computes. Batches for which memory is not free are left out, and
    one for which the user leaves too little time has fewer calls: both are said.
    """
    spec = whole_network(original)[0].exported_deployment()
    batches, left_out = fitting_batches(
        spec, settings.measure_batches, bytes_an_image=partial(_bytes_an_image, original)
    )
    for why in left_out:
        reporter.say(f"Not measured: {why}.")
    inputs = {batch: example_inputs(spec, batch) for batch in batches}
    ways: dict[str, Callable[[], Engine]] = {CHECKPOINT: partial(pytorch_engine, original)}
    ways |= {name: partial(open_engine, stage / name) for name in files}
    rows: list[dict[str, Any]] = []
    with reporter.progress("Measuring", len(ways) * len(batches)) as advance:
        for name, opened in ways.items():
            label = {"file": name, "engine": files[name]["engine"] if name in files else PYTORCH}
            for row in timed_rows(label, opened, inputs, settings):
                rows.append(row)
                advance(1, name)
    # In a process of its own, which takes seconds: at the first batch only.
    once = [row for row in rows if row["batch"] == batches[0] and "why_not" not in row]
    with reporter.progress("Measuring memory", len(once)) as advance:
        for row in once:
            row.update(_memory(row, original.path, stage, inputs[batches[0]]))
            advance(1, row["file"])
    for row in rows:
        for why in filter(None, (row.get("why_not"), row.get("why_no_memory"))):
            reporter.warn(f"Not measured: {row['file']}, {row['batch']} images a call: {why}.")
    return {
        "latency": rows,
        "machine": processor_record(),
        "measuring": {
            "calls": settings.measure_runs,
            "seconds": settings.measure_seconds,
            "left_out": left_out,
        },
    }


def _bytes_an_image(original: Model) -> int:
    """What PyTorch takes for one answer; 0 where that is not known."""
    inputs = example_inputs(whole_network(original)[0].exported_deployment())
    try:
        return peak_of_checkpoint(
            original.path, inputs, threads=torch.get_num_threads()
        ).model_bytes
    except Exception:  # noqa: BLE001 - the system ends what takes too much
        return 0


def pytorch_engine(model: Model) -> PyTorchEngine:
    """What is exported of ``model``, computed by PyTorch on the processor."""
    task, network = whole_network(model)
    return PyTorchEngine(task.exported(on_processor(network)), task.exported_deployment())


def timed_rows(
    label: Mapping[str, Any],
    opened: Callable[[], Engine],
    inputs: Mapping[int, Arrays],
    settings: OptimizeSection,
) -> Iterator[dict[str, Any]]:
    """A row for each batch of ``inputs``; with ``why_not`` in the place of times that are not."""
    engine: Engine | None = None
    for batch, arrays in inputs.items():
        try:
            engine = engine or opened()
            found = time_engine(
                engine,
                arrays,
                batch=batch,
                runs=settings.measure_runs,
                most_s=settings.measure_seconds or inf,
            )
        except Exception as error:  # noqa: BLE001 - engines have no common kind; it is told
            yield {**label, "batch": batch, "why_not": reason_of(error)}
        else:
            yield {**label, **found.as_dict()}


def _memory(
    row: Mapping[str, Any], checkpoint: Path, stage: Path, inputs: Arrays
) -> dict[str, Any]:
    """Peak memory of a process of its own that answers one batch; or why it is not known."""
    peak: Callable[..., PeakMemory] = partial(peak_of_checkpoint, checkpoint)
    if row["file"] != CHECKPOINT:
        peak = partial(peak_of_engine, stage / row["file"], row["engine"])
    try:
        whole_bytes = peak(inputs, threads=row["threads"]).whole_bytes
    except Exception as error:  # noqa: BLE001 - the system ends what takes too much; it is told
        return {"why_no_memory": reason_of(error)}
    # Where the system does not say it is 0.
    return {"memory_mb": round(whole_bytes / 1e6, 1)} if whole_bytes else {}


def counted(original: Model, model: Model, stage: Path, reporter: Reporter) -> dict[str, Any]:
    """Parameters and multiply-adds of the exported file; of a pruned one also those before."""
    spec = whole_network(model)[0].exported_deployment()
    shapes = {name: tuple(shape) for name, shape in spec.inputs.items()}
    found: dict[str, Any] = {}
    try:
        found["counts"] = count_onnx(stage / FLOAT_FILE, shapes).as_dict()
    except CheckpointError as error:
        reporter.warn(f"Multiply-adds are not known: {error.what} ({error.met})")
    if model is not original:
        found["counts_before"] = _module_counts(original)
    return found


def _module_counts(model: Model) -> dict[str, int]:
    """Those of what PyTorch computes, for one image."""
    task, network = whole_network(model)
    spec = task.exported_deployment()
    inputs = example_inputs(spec)
    module = task.exported(on_processor(network)).eval()
    return count_module(module, [torch.from_numpy(inputs[name]) for name in spec.inputs]).as_dict()
