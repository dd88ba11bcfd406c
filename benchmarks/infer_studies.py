"""``infer``: where the seconds of a study go, whether reading overlaps the network, and memory.

    python benchmarks/infer_studies.py [--studies 8] [--slices 32] [--many 200]

Seconds come from the ``run.json`` of one call of the command. For the overlap, all of the work is
timed beside preparing alone and the network alone, on the same studies and worker; they take turns
and of each the best counts. The network is the preset ``default``'s (ResNet-50), with random
weights. Memory is the peak of a whole process with many small studies over that with few.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from cohort import SYNTAXES, write_series
from results import Row, begin, best_in_turn, work_folder

from medtool.config import resolve
from medtool.core.checkpoint import write_checkpoint
from medtool.core.records import Case, Source
from medtool.core.registry import load_task
from medtool.data.cache import Cache, read_prepared
from medtool.data.preparation import prepare_stream
from medtool.nets.state import raw_tensor
from medtool.predict.cases import predict_cases
from medtool.predict.model import Model, load_model

TASK = "brainmet"
LEAST_THROUGHPUT = 0.8
MOST_MEMORY = 1.1
ROUNDS = 3
# One worker reads and prepares while this process computes.
WORKERS = 1
SMALL = ("model.backbone=test_resnet", "data.preparation.size_px=64", "model.hidden_features=16")
SMALL_SLICES, SMALL_SIDE_PX = 12, 128
FEW_STUDIES = 20


def write_model(path: Path, assignments: Sequence[str]) -> None:
    """A checkpoint of the task with random weights, as ``infer`` needs it."""
    task_class = load_task(TASK)
    settings = resolve(task_class, None, assignments=assignments).settings
    torch.manual_seed(0)
    network = task_class(settings).network()
    document = {
        "task": TASK,
        "preset": settings.as_dict(),
        "epoch": 1,
        "metrics": {},
        "threshold": 0.5,
    }
    tensors = [raw_tensor(f"model.{name}", value) for name, value in network.state_dict().items()]
    write_checkpoint(path, document, tensors)


def write_studies(folder: Path, count: int, slices: int, side_px: int) -> None:
    """Studies of one series each, every one a patient of its own."""
    for number in range(count):
        target = folder / f"P{number:04d}"
        write_series(
            target,
            SYNTAXES["uncompressed"],
            slices=slices,
            rows=side_px,
            columns=side_px,
            patient=f"P{number:04d}",
        )


def infer_command(studies: Path, model: Path, output: Path, *words: str) -> float:
    """Seconds of one call of ``medtool infer``."""
    medtool = Path(sys.executable).parent / "medtool"
    command = [medtool, "infer", studies, "--checkpoint", model, "-o", output, *words]
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"infer ends with {done.returncode}: {done.stderr[-500:]}")
    return time.perf_counter() - began


def split_rows(studies: Path, model: Path, output: Path, count: int) -> list[Row]:
    """Seconds of one call, by step."""
    whole_s = infer_command(studies, model, output, "--workers", str(WORKERS))
    record: dict[str, Any] = json.loads((output / "run.json").read_text(encoding="utf-8"))
    seconds = record["seconds"]
    rows = [Row("start-up, once (models, headers, imports)", seconds["startup"], "s")]
    rows += [
        Row(f"{step}, a study", seconds[step] / count, "s")
        for step in ("reading", "preparing", "network", "writing")
    ]
    whole = Row(f"the whole command, a study of {count}", whole_s / count, "s")
    return [*rows, whole]


def overlap_rows(studies: Path, file: Path, folder: Path, rounds: int) -> list[Row]:
    """Throughput of everything over that of its slower half alone."""
    model = load_model(file, device="cpu")
    cases = model.task.find(Source((studies,))).cases
    numbers = iter(range(10**6))
    spent: dict[str, float] = {}

    def timed(name: str, work: Callable[[Cache], float]) -> None:
        cache = Cache(folder / f"cache-{next(numbers)}", model.task)
        spent[name] = min(spent.get(name, float("inf")), work(cache))

    kept = Cache(folder / "kept", model.task)
    files = [done.path for done in prepare_stream(model.task, cases, kept, workers=WORKERS)]
    prepared = [read_prepared(path) for path in files if path is not None]

    def network() -> float:
        began = time.perf_counter()
        for case, study in zip(cases, prepared, strict=True):
            model.task.predict(model, study, case)
        return time.perf_counter() - began

    best_in_turn(
        {
            "both": partial(timed, "both", partial(both, model, cases)),
            "preparing": partial(timed, "preparing", partial(preparing, model, cases)),
            "network": partial(timed, "network", lambda cache: network()),
        },
        rounds=rounds - 1,
    )
    slower = max(spent["preparing"], spent["network"])
    return [
        Row(
            "throughput over that of the slower of preparing and network",
            slower / spent["both"],
            least=LEAST_THROUGHPUT,
            detail={"seconds": spent, "studies": len(cases), "workers": WORKERS},
        )
    ]


def preparing(model: Model, cases: Sequence[Case], cache: Cache) -> float:
    """Seconds of preparing all cases, without the time until the worker is up."""
    began, count = 0.0, len(cases)
    for number, _ in enumerate(prepare_stream(model.task, cases, cache, workers=WORKERS)):
        if number == 0:
            began = time.perf_counter()
    return (time.perf_counter() - began) * count / (count - 1)


def both(model: Model, cases: Sequence[Case], cache: Cache) -> float:
    """Seconds of answering for all cases, from when the first one is prepared."""
    began: list[float] = []
    features = model.network.features

    def noted(inputs: torch.Tensor) -> torch.Tensor:
        began.append(time.perf_counter())
        return features(inputs)

    model.network.features = noted
    try:
        for outcome in predict_cases(model, cases, cache=cache, workers=WORKERS):
            if outcome.status != "ok":
                raise SystemExit(f"{outcome.case.case_id}: {outcome.message}")
    finally:
        del model.network.features
    return time.perf_counter() - began[0]


def peak_megabytes(studies: Path, model: Path, output: Path) -> tuple[float, float]:
    """Peak memory of a process that answers for all studies, and of its largest worker."""
    command = [sys.executable, __file__, "--peak", str(studies), str(model), str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    own, worker = json.loads(done.stdout.splitlines()[-1])
    return own, worker


def measure_peak(studies: Path, model: Path, output: Path) -> None:
    """In this process: answer for all studies, then print both peaks."""
    import resource

    from medtool.verbs.infer import InferOptions, infer
    from medtool.verbs.options import RunOptions

    infer(InferOptions((studies,), model, output, run=RunOptions(device="cpu", workers=WORKERS)))
    peaks = [
        resource.getrusage(who).ru_maxrss / 1024
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    ]
    print(json.dumps(peaks))


def memory_rows(folder: Path, few: int, many: int) -> list[Row]:
    """Peak memory with many studies over that with few."""
    model = folder / "small.safetensors"
    write_model(model, SMALL)
    peaks = {}
    for count in (few, many):
        studies = folder / f"studies-{count}"
        write_studies(studies, count, SMALL_SLICES, SMALL_SIDE_PX)
        peaks[count] = peak_megabytes(studies, model, folder / f"answers-{count}")
    rows = []
    for number, what in enumerate(("memory", "memory of the worker")):
        ratio = peaks[many][number] / peaks[few][number]
        detail = {"megabytes": [peaks[few][number], peaks[many][number]]}
        name = f"peak {what}, {many} studies over {few}"
        rows.append(Row(name, ratio, most=MOST_MEMORY, detail=detail))
    return rows


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--studies", type=int, default=8)
    parser.add_argument("--slices", type=int, default=32)
    parser.add_argument("--many", type=int, default=200)
    parser.add_argument("--peak", nargs=3, type=Path, help=argparse.SUPPRESS)


def main() -> int:
    """Measure, print, keep."""
    run = begin("infer_studies", __doc__, ("torch", "timm", "numpy"), add_options)
    options, quick = run.options, run.options.quick
    if options.peak:
        measure_peak(*options.peak)
        return 0
    count, slices, side_px, many = options.studies, options.slices, 512, options.many
    if quick:
        count, slices, side_px, many = 3, 12, 128, 4
    with work_folder() as folder:
        model, studies = folder / "model.safetensors", folder / "studies"
        write_model(model, SMALL if quick else ())
        write_studies(studies, count, slices, side_px)
        rows = split_rows(studies, model, folder / "answers", count)
        rows += overlap_rows(studies, model, folder, 1 if quick else ROUNDS)
        rows += memory_rows(folder, 2 if quick else FEW_STUDIES, many)
    return run.finish(rows)


if __name__ == "__main__":
    sys.exit(main())
