"""How much memory a model takes while it answers, measured in a process of its own.

Only there nothing else is counted: what this process has held so far would hide it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtool.data.worker import peak_memory_bytes
from medtool.predict.engines import open_engine

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[np.float32]]

STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class PeakMemory:
    """The most memory of a process that answered, and of that what libraries took before it had
    a model; 0 where the system does not say.
    """

    whole_bytes: int
    libraries_bytes: int

    @property
    def model_bytes(self) -> int:
        """What the model and its answer took."""
        return max(0, self.whole_bytes - self.libraries_bytes)

    def as_dict(self) -> dict[str, int]:
        """Plain values."""
        return {
            "peak_bytes": self.whole_bytes,
            "libraries_bytes": self.libraries_bytes,
            "model_bytes": self.model_bytes,
        }


def peak_of_engine(file: Path, engine: str, inputs: Arrays, *, threads: int) -> PeakMemory:
    """Peak memory of a process that opens ``file`` in ``engine`` and answers ``inputs`` once."""
    return _apart(_answer_file, file, engine, inputs, threads)


def peak_of_checkpoint(checkpoint: Path, inputs: Arrays, *, threads: int) -> PeakMemory:
    """The same of a checkpoint in PyTorch, float32, as it is exported."""
    return _apart(_answer_checkpoint, checkpoint, inputs, threads)


def _apart(work: Callable[..., PeakMemory], *arguments: Any) -> PeakMemory:
    # Spawned: a forked process would begin with the memory of this one.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def _answer_file(file: Path, engine: str, inputs: Arrays, threads: int) -> PeakMemory:
    _load_libraries(engine)
    before = _peak_bytes()
    open_engine(file, engine=engine, threads=threads).run(inputs)
    return PeakMemory(_peak_bytes(), before)


def _answer_checkpoint(checkpoint: Path, inputs: Arrays, threads: int) -> PeakMemory:
    import torch

    from medtool.optimize.folder import whole_network
    from medtool.predict.engines.pytorch import PyTorchEngine
    from medtool.predict.model import load_model

    torch.set_num_threads(threads)
    before = _peak_bytes()
    model = load_model(checkpoint, device="cpu", precision="32", alone=True)
    task, network = whole_network(model)
    PyTorchEngine(task.exported(network), task.exported_deployment()).run(inputs)
    return PeakMemory(_peak_bytes(), before)


def _load_libraries(engine: str) -> None:
    """Import what an engine stands on, so that it is counted apart from the model."""
    from importlib import import_module

    from medtool.predict.engines.contract import OPENVINO
    from medtool.predict.engines.presence import KNOWN

    if engine == OPENVINO:
        from medtool.predict.engines.openvino_import import openvino

        openvino()
    else:
        import_module(KNOWN[engine].module)


def _peak_bytes() -> int:
    """The most that this process has held. Linux tells of the process that started it as well
    where it is asked as usual; what it writes of the process itself begins anew.
    """
    try:
        lines = STATUS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return peak_memory_bytes()
    kilobytes = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(kilobytes[0]) * 1024 if kilobytes else peak_memory_bytes()
