"""Every way in which a model can be computed on this machine, and how fast each is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from medtool.core.deployed import Deployed, find_deployed, verify_deployed
from medtool.core.errors import MedtoolError, UsageError
from medtool.nets.device import computes_slowly
from medtool.optimize.folder import whole_network, write_exported
from medtool.optimize.measure import RUNS, Latency, example_inputs, reason_of, time_engine
from medtool.optimize.memory import PeakMemory, peak_of_checkpoint, peak_of_engine
from medtool.predict.deployed_model import deployed_task
from medtool.predict.engines import engines_for, open_engine
from medtool.predict.engines.choose import file_for
from medtool.predict.engines.contract import PYTORCH
from medtool.predict.engines.presence import engines_here
from medtool.predict.engines.pytorch import PyTorchEngine, why_not_compiled
from medtool.predict.model import load_model

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medtool.core.records import DeploymentSpec
    from medtool.predict.engines.contract import Engine
    from medtool.predict.model import Model

    Arrays = Mapping[str, NDArray[Any]]

EAGER = "eager"
COMPILED = "compiled"
FLOAT32, BFLOAT16 = "float32", "bfloat16"
NO_UNITS = f"{PYTORCH} {BFLOAT16}: this processor has no units for it, and takes many times as long"


@dataclass(frozen=True)
class Candidate:
    """One way to compute a model; ``answers_from`` is what ``infer`` takes to compute so, None
    where it takes nothing: scans are then not answered so.

    ``model`` is what the user named, of which ``file`` is, or was made.
    ``way`` is eager or compiled for PyTorch, and "" for others.
    """

    engine: str
    arithmetic: str
    way: str
    file: Path
    size_bytes: int
    answers_from: Path | None
    open: Callable[[int], Engine]
    memory: Callable[[Arrays, int], PeakMemory] | None = None
    model: Path = Path()

    @property
    def name(self) -> str:
        """Engine, way and arithmetic in a few words."""
        return " ".join(filter(None, (self.engine, self.way, self.arithmetic)))

    @property
    def is_baseline(self) -> bool:
        """Whether others are compared with it: PyTorch as it comes."""
        return (self.engine, self.arithmetic, self.way) == (PYTORCH, FLOAT32, EAGER)


@dataclass(frozen=True)
class Measured:
    """A candidate at so many threads and images; ``why_not`` where it could not be measured."""

    candidate: Candidate
    threads: int
    batch: int
    latency: Latency | None = None
    why_not: str = ""


@dataclass(frozen=True)
class Benched:
    """What can be measured of one model: its ways, and what goes into the network.

    ``left_out`` are ways that this machine does not have, each with why not.
    """

    candidates: tuple[Candidate, ...]
    spec: DeploymentSpec
    left_out: tuple[str, ...] = ()


def ways_to_compute(
    path: Path,
    scratch: Path,
    *,
    engines: Sequence[str] = (),
    compiled: bool = True,
    named: Path | None = None,
) -> Benched:
    """The ways that this machine has for a checkpoint, or for the files of an optimised folder.

    A checkpoint is exported into ``scratch`` in float32. ``engines`` are those that are wanted, all
    where it is empty; ``named`` is what the user called ``path``. Raises as ``load_model`` and
    ``export_onnx``.
    """
    here = [one.name for one in engines_here() if one.installed]
    wanted = [name for name in here if not engines or name in engines]
    deployed = find_deployed(path)
    if deployed is None:
        benched = _of_checkpoint(path, scratch, wanted, compiled=compiled)
    else:
        names = list(deployed.document["files"]) if path.is_dir() else [deployed.file.name]
        files = [deployed.beside(name) for name in names]
        found = [one for file in files for one in _of_file(file, wanted)]
        benched = Benched(tuple(found), deployed_task(deployed).exported_deployment())
    model = named or path
    return replace(
        benched, candidates=tuple(replace(one, model=model) for one in benched.candidates)
    )


def _of_checkpoint(path: Path, scratch: Path, wanted: Sequence[str], *, compiled: bool) -> Benched:
    model = load_model(path, device="cpu", precision="32", alone=True)
    spec = whole_network(model)[0].exported_deployment()
    found: list[Candidate] = []
    left_out: list[str] = []
    if PYTORCH in wanted:
        arithmetics, ways = [FLOAT32], [EAGER]
        if computes_slowly(torch.bfloat16, torch.device("cpu")):
            left_out.append(NO_UNITS)
        else:
            arithmetics.append(BFLOAT16)
        if compiled:
            why_not = why_not_compiled()
            left_out += [f"{PYTORCH} {COMPILED}: {why_not}"] if why_not else []
            ways += [] if why_not else [COMPILED]
        found += _of_pytorch(model, ways, arithmetics)
    if set(wanted) - {PYTORCH}:
        folder = scratch / f"exported_{len(list(scratch.iterdir()))}"
        folder.mkdir()
        write_exported(model, folder)
        deployed = find_deployed(folder)
        found += _of_file(deployed, wanted) if deployed is not None else []
    return Benched(tuple(found), spec, tuple(left_out))


def _of_pytorch(
    model: Model, ways: Sequence[str], arithmetics: Sequence[str]
) -> Iterator[Candidate]:
    """What is exported of ``model``, computed by PyTorch in every way and arithmetic."""
    task, network = whole_network(model)
    spec, module = task.exported_deployment(), task.exported(network).eval()
    size_bytes = model.path.stat().st_size

    def memory(inputs: Arrays, threads: int) -> PeakMemory:
        return peak_of_checkpoint(model.path, inputs, threads=threads)

    def candidate(way: str, arithmetic: str) -> Candidate:
        def opened(threads: int) -> Engine:
            torch.set_num_threads(threads)
            return PyTorchEngine(
                module, spec, bfloat16=arithmetic == BFLOAT16, compiled=way == COMPILED
            )

        plain = (way, arithmetic) == (EAGER, FLOAT32)
        return Candidate(
            engine=PYTORCH,
            arithmetic=arithmetic,
            way=way,
            file=model.path,
            size_bytes=size_bytes,
            answers_from=model.path if plain else None,
            open=opened,
            memory=memory if plain else None,
        )

    return (candidate(way, arithmetic) for way in ways for arithmetic in arithmetics)


def _of_file(deployed: Deployed, wanted: Sequence[str]) -> list[Candidate]:
    verify_deployed(deployed)
    file = deployed.file
    external = [file.with_name(name) for name in deployed.entry.get("external", {})]
    size_bytes = sum(path.stat().st_size for path in (file, *external))

    def candidate(engine: str) -> Candidate:
        def opened(threads: int) -> Engine:
            return open_engine(file, engine=engine, threads=threads)

        def memory(inputs: Arrays, threads: int) -> PeakMemory:
            return peak_of_engine(file, engine, inputs, threads=threads)

        # Where a folder has a file for an engine, that engine answers by no other.
        own = file_for(deployed, engine)
        taken = file if own is not None and own.file == file else None
        return Candidate(engine, deployed.arithmetic, "", file, size_bytes, taken, opened, memory)

    return [candidate(name) for name in engines_for(file) if name in wanted]


def measure_all(
    benched: Benched,
    *,
    threads: Sequence[int],
    batches: Sequence[int],
    runs: int = RUNS,
) -> Iterator[Measured]:
    """Each candidate with each number of threads and images, in that order.

    One that cannot compute so says why; the others are measured.
    """
    inputs = {batch: _inputs(benched.spec, batch) for batch in batches}
    for candidate in benched.candidates:
        for count in threads:
            with torch_threads():
                yield from _measure_one(candidate, count, inputs, runs)


def _inputs(spec: DeploymentSpec, batch: int) -> Arrays | UsageError:
    """What goes in for ``batch`` images, or why so many do not."""
    try:
        return example_inputs(spec, batch)
    except UsageError as error:
        return error


def _measure_one(
    candidate: Candidate, threads: int, inputs: Mapping[int, Arrays | UsageError], runs: int
) -> Iterator[Measured]:
    engine: Engine | None = None
    for batch, arrays in inputs.items():
        try:
            if isinstance(arrays, UsageError):
                raise arrays
            engine = engine or candidate.open(threads)
            latency = time_engine(engine, arrays, batch=batch, runs=runs)
        except Exception as error:  # noqa: BLE001 - engines have no common kind; it is told
            yield Measured(candidate, threads, batch, why_not=_why(error))
        else:
            yield Measured(candidate, threads, batch, latency)


def _why(error: Exception) -> str:
    """Why a way could not be measured, and of a refusal what was met as well."""
    reason = reason_of(error)
    met = error.met if isinstance(error, MedtoolError) else ""
    return f"{reason.rstrip('.')}: {met}" if met else reason


@contextmanager
def torch_threads() -> Iterator[None]:
    """Within it the number of PyTorch's threads may be changed."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)
