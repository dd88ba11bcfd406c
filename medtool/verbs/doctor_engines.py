"""Engines of ``doctor``: which would be fastest here, and whether they keep a model's promise."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

from medtool.core.deployed import Deployed, verify_deployed
from medtool.core.errors import CheckpointError, MedtoolError
from medtool.predict.engines.contract import ONNX_RUNTIME, OPENVINO
from medtool.predict.engines.presence import engines_here


@dataclass(frozen=True)
class Proof:
    """How this machine answered to the probe of a checkpoint; ``milliseconds`` where it was timed,
    0 where not.
    """

    checkpoint: Path
    device: str
    precision: str
    share: float
    tolerance: float
    passed: bool
    milliseconds: float = 0.0


def likely_fastest() -> str:
    """The engine that is usually the fastest on such a processor, and whether it is installed."""
    name = OPENVINO if is_x86() else ONNX_RUNTIME
    here = {engine.name: engine for engine in engines_here()}[name]
    how = "" if here.installed else f" (not installed: {here.install_line})"
    return f"{name}{how}; 'medtool infer --engine auto' measures"


def is_x86() -> bool:
    """Whether this is a processor of Intel's or AMD's kind."""
    return platform.machine().lower() in ("x86_64", "amd64", "i386", "i686")


def prove_deployed(deployed: Deployed) -> list[Proof]:
    """How every engine that is here answers to the probe by every file that it reads.

    Raises CheckpointError where a file is not as it was made, there is no probe, or no engine that
    could answer.
    """
    from medtool.predict.deployed_probe import check_deployed, stored_inputs
    from medtool.predict.engines import engines_for, open_engine
    from medtool.predict.engines.choose import seconds_of

    inputs, proofs = stored_inputs(deployed), []
    installed = {engine.name for engine in engines_here() if engine.installed}
    for name in deployed.document["files"]:
        own = deployed.beside(name)
        readers = [engine for engine in engines_for(own.file) if engine in installed]
        if readers:
            verify_deployed(own)
        for reader in readers:
            try:
                engine = open_engine(own.file, engine=reader)
                result = check_deployed(own, engine)
            except MedtoolError:
                # An engine that cannot run the file promises nothing.
                continue
            milliseconds = seconds_of(engine, inputs) * 1000
            proofs.append(
                Proof(
                    own.file,
                    reader,
                    own.arithmetic,
                    result.share,
                    result.tolerance,
                    result.passed,
                    milliseconds,
                )
            )
    if not proofs:
        raise CheckpointError(
            "No engine is here that could run this optimised model.",
            where=str(deployed.folder),
            wanted=", ".join({str(e["engine"]) for e in deployed.document["files"].values()}),
            how="'medtool doctor' says how to install them.",
        )
    return proofs
