"""Optimised models beside PyTorch in float32: how much faster, and how much smaller.

    python benchmarks/optimisation.py

The U-Net of heart's default preset (31 million parameters, 256 x 256) and the ResNet-50 of
brainmet's, two threads, one image and eight. Weights are random, ranges of INT8 are those of
made-up images: a network takes as long for any numbers, and what INT8 costs in accuracy is measured
elsewhere. Pruned networks lose 35 % of the channels of each layer, rounded down to multiples of 8.
All ways take turns, a few calls at a time, each after a pause in which the threads of the last one
settle; the median of each counts, and its best stands beside it. PyTorch computes the network as it
is built; how ``infer`` lays its weights out stands beside it. LiteRT is among them where
benchmarks/.venv-litert has its converter (benchmarks/requirements-litert.txt); it answers an image
a call.
"""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from results import Row, begin, work_folder

if TYPE_CHECKING:
    from medtool.core.task import Task
    from medtool.predict.engines.contract import Engine

THREADS = 2
BATCHES = (1, 8)
# Calls of each way in all, how many at a time, and the pause before them.
CALLS, AT_A_TIME, WARM_UP, SETTLING_S = 50, 10, 2, 0.3
QUICK_CALLS = 2
# Calls with eight images take eight times as long: a tenth of them will do.
FEWER = 10
LITERT = Path(__file__).parent / ".venv-litert" / "bin" / "python"
SHARE, ROUND_TO = 0.35, 8
CALIBRATION_IMAGES = 4
NETWORKS: Mapping[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "U-Net": (
        "heart",
        ("data.label_ids={background=[0],heart=[1]}", 'data.channels=["red","green","blue"]'),
        ("data.preparation.size_px=[32,32]", "model.first_features=8", "model.levels=3"),
    ),
    "ResNet-50": (
        "brainmet",
        ("model.from_scratch=true",),
        ("model.backbone=test_resnet", "data.preparation.size_px=64"),
    ),
}
# At least so many times as fast as PyTorch with one image, and files at least so much smaller.
FASTER: Mapping[tuple[str, str], float] = {
    ("U-Net", "OpenVINO INT8"): 4.5,
    ("ResNet-50", "OpenVINO INT8"): 5.0,
    ("U-Net", "ONNX Runtime INT8"): 3.2,
    ("ResNet-50", "ONNX Runtime INT8"): 5.0,
    ("U-Net", "LiteRT INT8"): 4.5,
    ("U-Net", "pruned, OpenVINO INT8"): 8.0,
    ("ResNet-50", "pruned, OpenVINO INT8"): 8.0,
}
SMALLER = {"INT8": 3.9, "pruned, INT8": 8.0}
MOST_MEGABYTES = {"U-Net": 15.5, "ResNet-50": 11.8}


@dataclass(frozen=True)
class Way:
    """One way to compute a network, and the bytes of its file."""

    name: str
    engine: Engine
    size_bytes: int


def task_of(name: str, *, quick: bool) -> Task:
    """The task of a network with its default preset, made small where it only has to run."""
    from medtool.config import resolve
    from medtool.core.registry import load_task

    task_name, settled, small = NETWORKS[name]
    task_class = load_task(task_name)
    assignments = (*settled, *(small if quick else ()))
    return task_class(resolve(task_class, "default", assignments=assignments).settings)


def network_of(task: Task) -> Any:
    """Random weights, and statistics of batch norms as if something had been learned."""
    import torch

    torch.manual_seed(0)
    network = task.network().eval()
    for name, value in network.state_dict().items():
        if name.endswith("running_mean"):
            value.normal_(0, 0.1)
        elif name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
    return network


def pruned(task: Task, network: Any) -> Any:
    """A copy with fewer channels."""
    from medtool.optimize.prune import prune_channels
    from medtool.train.probe import probe_inputs

    smaller = copy.deepcopy(network)
    inputs = list(probe_inputs(task.deployment()).values())
    prune_channels(smaller, inputs, share=SHARE, round_to=ROUND_TO)
    return smaller


def ways(task: Task, network: Any, folder: Path, before: str = "") -> list[Way]:
    """The network in float32 and INT8 in both engines."""
    from medtool.optimize.activations import observe, ranges_of
    from medtool.optimize.export import export_onnx
    from medtool.optimize.for_onnx_runtime import copy_for_onnx_runtime
    from medtool.optimize.measure import example_inputs
    from medtool.optimize.openvino_file import write_openvino
    from medtool.optimize.processor import has_vnni
    from medtool.optimize.quantise_onnx import quantise, ready_graph
    from medtool.predict.engines import open_engine

    folder.mkdir()
    exported = export_onnx(task, network, folder / "model.onnx")
    graph = ready_graph(exported.file, folder)
    spec = task.exported_deployment()
    images = [example_inputs(spec, 1) for _ in range(CALIBRATION_IMAGES)]
    ranges = ranges_of(observe(graph, images), "minmax", 99.99)
    eight = folder / "model.int8.onnx"
    floats = [layer.node for layer in graph.layers if layer.stays_in_float]
    quantise(graph, ranges, eight, floats=floats, reduce_range=not has_vnni())
    weights = write_openvino(eight, folder / "model.int8.xml")
    copy_for_onnx_runtime(eight, eight)
    return [
        Way(f"{before}ONNX Runtime float32", open_engine(exported.file, threads=THREADS),
            exported.size_bytes),
        Way(f"{before}OpenVINO float32",
            open_engine(exported.file, engine="openvino", threads=THREADS), exported.size_bytes),
        Way(f"{before}ONNX Runtime INT8", open_engine(eight, threads=THREADS),
            eight.stat().st_size),
        Way(f"{before}OpenVINO INT8", open_engine(folder / "model.int8.xml", threads=THREADS),
            (folder / "model.int8.xml").stat().st_size + weights.stat().st_size),
    ]  # fmt: skip


def litert_ways(task: Task, network: Any, folder: Path, before: str = "") -> list[Way]:
    """The network in float32 and INT8 by LiteRT; none without its converter, nor for a network
    that sees several images of a patient at once.
    """
    from medtool.core.errors import UsageError
    from medtool.optimize.litert import write_litert
    from medtool.optimize.measure import example_inputs
    from medtool.predict.engines import open_engine

    if not LITERT.exists():
        return []
    spec = task.exported_deployment()
    images = [example_inputs(spec, 1) for _ in range(CALIBRATION_IMAGES)]
    try:
        files = write_litert(task, network, folder, images, python=LITERT)
    except UsageError:
        return []
    names = {"float32": "LiteRT float32", "int8": "LiteRT INT8"}
    return [
        Way(
            before + names[entry["arithmetic"]],
            open_engine(folder / file, threads=THREADS),
            entry["bytes"],
        )
        for file, entry in files.items()
    ]


def in_turn(calls: Mapping[str, Callable[[], object]], count: int) -> dict[str, list[float]]:
    """Seconds of each of ``calls``, ``count`` in all, a few at a time."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        for _ in range(WARM_UP):
            call()
    while any(len(own) < count for own in seconds.values()):
        for name, call in calls.items():
            time.sleep(SETTLING_S)
            call()
            for _ in range(min(AT_A_TIME, count)):
                began = time.perf_counter()
                call()
                seconds[name].append(time.perf_counter() - began)
    return seconds


def measured(name: str, work: Path, *, quick: bool) -> list[Row]:
    """The rows of one network."""
    import torch

    from medtool.optimize.measure import count_module, example_inputs
    from medtool.predict.engines.pytorch import PyTorchEngine
    from medtool.predict.layout import ready_to_answer

    torch.set_num_threads(THREADS)
    task = task_of(name, quick=quick)
    network = network_of(task)
    spec = task.exported_deployment()
    eager = PyTorchEngine(task.exported(network), spec)
    smaller = pruned(task, network)
    weights_bytes = sum(t.numel() * t.element_size() for t in network.state_dict().values())
    laid_out = ready_to_answer(copy.deepcopy(network), torch.device("cpu"))
    every = [
        Way("PyTorch as infer", PyTorchEngine(task.exported(laid_out), spec), weights_bytes),
        *ways(task, network, work / "whole"),
        *litert_ways(task, network, work / "whole"),
        *ways(task, smaller, work / "pruned", "pruned, "),
        *litert_ways(task, smaller, work / "pruned", "pruned, "),
    ]
    rows = []
    for batch in BATCHES:
        inputs = example_inputs(spec, batch)
        calls = {"PyTorch": partial(eager.run, inputs)}
        calls |= {way.name: partial(way.engine.run, inputs) for way in every}
        count = QUICK_CALLS if quick else CALLS // (FEWER if batch > 1 else 1)
        seconds = in_turn(calls, count)
        rows += [_faster(name, way.name, batch, seconds, quick=quick) for way in every]
    rows += sizes(name, every, weights_bytes, quick=quick)
    images = [torch.from_numpy(array) for array in example_inputs(spec, 1).values()]
    counts = [count_module(task.exported(one), images) for one in (network, smaller)]
    detail = {"whole": counts[0].as_dict(), "pruned": counts[1].as_dict()}
    shares = (
        ("parameters", counts[1].parameters / counts[0].parameters),
        ("multiply-adds", counts[1].multiply_adds / counts[0].multiply_adds),
    )
    rows += [
        Row(f"{name}, pruned: share of the {what} that stays", share, "", detail=detail)
        for what, share in shares
    ]
    return rows


def _faster(
    network: str, way: str, batch: int, seconds: Mapping[str, list[float]], *, quick: bool
) -> Row:
    least = FASTER.get((network, way)) if batch == 1 and not quick else None
    plural = "images" if batch > 1 else "image"
    return Row(
        f"{network}, {batch} {plural}: {way}, times as fast as PyTorch",
        median(seconds["PyTorch"]) / median(seconds[way]),
        least=least,
        detail={
            "best_ms": min(seconds[way]) * 1e3,
            "median_ms": median(seconds[way]) * 1e3,
            "pytorch_best_ms": min(seconds["PyTorch"]) * 1e3,
            "pytorch_median_ms": median(seconds["PyTorch"]) * 1e3,
            "calls": len(seconds[way]),
        },
    )


def sizes(name: str, every: Sequence[Way], weights_bytes: int, *, quick: bool) -> list[Row]:
    """Files in INT8 beside the weights in float32."""
    rows = []
    for way in every:
        if "INT8" not in way.name:
            continue
        kind = "pruned, INT8" if "pruned" in way.name else "INT8"
        detail = {"megabytes": way.size_bytes / 1e6, "float32_megabytes": weights_bytes / 1e6}
        rows.append(
            Row(
                f"{name}: {way.name}, times as small as the weights in float32",
                weights_bytes / way.size_bytes,
                least=None if quick else SMALLER[kind],
                detail=detail,
            )
        )
        if kind != "INT8":
            rows.append(
                Row(
                    f"{name}: {way.name}, size of the file",
                    way.size_bytes / 1e6,
                    "MB",
                    most=None if quick else MOST_MEGABYTES[name],
                )
            )
    return rows


def main() -> int:
    """Measure, print, keep."""
    run = begin("optimisation", __doc__, ("torch", "onnxruntime", "openvino", "torch-pruning"))
    with work_folder() as work:
        rows = []
        for name in NETWORKS:
            folder = work / name
            folder.mkdir()
            rows += measured(name, folder, quick=run.options.quick)
    return run.finish(rows)


if __name__ == "__main__":
    sys.exit(main())
