"""Which engine answers for an optimised model: the one that was named, or of those that give here
what was promised the fastest.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from medtool.core.deployed import Deployed, verify_deployed
from medtool.core.errors import MachineError, MedtoolError, UsageError
from medtool.predict.deployed_probe import broken_promise, check_deployed
from medtool.predict.engines import EVERYWHERE, engines_for, open_engine, require_device
from medtool.predict.engines.contract import AUTO_ENGINE, ONNX_RUNTIME, PYTORCH, Engine
from medtool.predict.engines.presence import engines_here, require_engine, require_known

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Calls before the clock counts, and those that are timed: enough to tell engines apart.
WARM_UP, TIMED = 2, 5


@dataclass(frozen=True)
class Chosen:
    """A model file, the engine that runs it, and a sentence on the choice."""

    deployed: Deployed
    engine: Engine
    said: str


def file_for(deployed: Deployed, engine: str) -> Deployed | None:
    """The file of the same arithmetic that is meant for ``engine``, else one that it reads; None
    where there is none.
    """
    if deployed.engine == engine:
        return deployed
    alike = [
        deployed.beside(name)
        for name, entry in deployed.document["files"].items()
        if entry.get("arithmetic") == deployed.arithmetic
    ]
    meant = [one for one in alike if one.engine == engine]
    readable = [one for one in (deployed, *alike) if engine in engines_for(one.file)]
    return next(iter([*meant, *readable]), None)


def choose_engine(
    deployed: Deployed,
    name: str = "",
    *,
    device: str = "auto",
    threads: int | None = None,
    inputs: Mapping[str, NDArray[Any]] | None = None,
) -> Chosen:
    """The engine ``name``, by default the one that the file is for; ``auto`` proves and measures
    all.

    ``inputs``, the probe's, are what is measured with; ``deployed`` itself was verified before,
    other files are here. Raises UnknownNameError, MachineError (not installed, no such device, of
    ``auto`` also where no engine gives what was promised), UsageError (no file for it),
    CheckpointError as ``open_engine`` and where a file is not the one that was made.
    """
    if name == AUTO_ENGINE and inputs is not None:
        return _fastest(deployed, device, threads, inputs)
    own, wanted = _named(deployed, name)
    _verify_other(own, deployed)
    opened = _opened(own, wanted, device, threads)
    return Chosen(own, opened, own.said_by(wanted))


def require_possible(deployed: Deployed, name: str, device: str) -> None:
    """Raises as ``choose_engine``, as far as that is known before any file is opened."""
    if name == AUTO_ENGINE:
        if device in EVERYWHERE:
            return
        # The only one with devices of its own; where it has no file the default's refusal says so.
        name = ONNX_RUNTIME if file_for(deployed, ONNX_RUNTIME) is not None else deployed.engine
    own, wanted = _named(deployed, name)
    require_device(own.file, wanted, device, arithmetic=own.arithmetic)


def _named(deployed: Deployed, name: str) -> tuple[Deployed, str]:
    """The engine that ``name`` means, by default that of the file, and its file."""
    wanted = deployed.engine if name in ("", AUTO_ENGINE) else name
    require_known(wanted)
    own = file_for(deployed, wanted)
    if own is None:
        raise UsageError(
            f"This optimised model has no file for the engine '{wanted}'.",
            where=str(deployed.folder),
            met=f"--engine {wanted}",
            wanted=", ".join(_possible(deployed)),
            how="answer with the checkpoint that it was made of." if wanted == PYTORCH else "",
        )
    require_engine(wanted)
    return own, wanted


def _opened(own: Deployed, name: str, device: str, threads: int | None) -> Engine:
    return open_engine(
        own.file, engine=name, device=device, threads=threads, arithmetic=own.arithmetic
    )


def _verify_other(own: Deployed, verified: Deployed) -> None:
    """No engine reads a file that was changed: what it makes of it may be anything."""
    if own.file != verified.file:
        verify_deployed(own)


def _possible(deployed: Deployed) -> list[str]:
    return [one.name for one in engines_here() if file_for(deployed, one.name) is not None]


def _fastest(
    deployed: Deployed, device: str, threads: int | None, inputs: Mapping[str, NDArray[Any]]
) -> Chosen:
    found: dict[str, tuple[float, Deployed, Engine]] = {}
    broken: dict[str, str] = {}
    refused: dict[str, MedtoolError] = {}
    for one in engines_here():
        own = file_for(deployed, one.name) if one.installed else None
        if own is None:
            continue
        _verify_other(own, deployed)
        try:
            engine = _opened(own, one.name, device, threads)
            # Eight bits that saturate here are no slower for it.
            result = check_deployed(own, engine)
            if not result.passed:
                broken[one.name] = broken_promise(own, engine, result)
                continue
            found[one.name] = (seconds_of(engine, inputs), own, engine)
        except MedtoolError as error:
            # One that cannot run the file is no candidate.
            refused[one.name] = error
    others = [f"{one}: {error.what.rstrip('.')}" for one, error in refused.items()]
    left_out = "; ".join([*broken.values(), *others])
    if not found:
        if broken:
            raise _nothing_holds(deployed, left_out)
        if refused:
            raise refused.get(deployed.engine) or next(iter(refused.values()))
        return choose_engine(deployed, device=device, threads=threads)
    name = min(found, key=lambda one: found[one][0])
    _, own, engine = found[name]
    times = ", ".join(f"{one} {seconds * 1000:.1f} ms" for one, (seconds, *_) in found.items())
    said = f"{own.said_by(name)}, the fastest here: {times}"
    return Chosen(own, engine, said + (f"; left out: {left_out}" if left_out else ""))


def _nothing_holds(deployed: Deployed, met: str) -> MachineError:
    return MachineError(
        "No engine gives here what this optimised model gave when it was made.",
        where=str(deployed.file),
        met=met,
        wanted="the answer to the probe that was recorded",
        how=f"'medtool doctor --checkpoint {deployed.folder}' names other files of the folder that "
        "do, if any; else answer with the checkpoint that it was made of.",
    )


def seconds_of(engine: Engine, inputs: Mapping[str, NDArray[Any]]) -> float:
    """The median of a few calls, after a warm-up."""
    for _ in range(WARM_UP):
        engine.run(inputs)
    times = []
    for _ in range(TIMED):
        started = time.perf_counter()
        engine.run(inputs)
        times.append(time.perf_counter() - started)
    return median(times)
