"""Engines of ``doctor``: which would be fastest here, and whether they keep a model's promise."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medtool.core.deployed import Deployed, verify_deployed
from medtool.core.errors import CheckpointError
from medtool.predict.engines.contract import ONNX_RUNTIME, OPENVINO
from medtool.predict.engines.presence import EngineHere, engines_here


@dataclass(frozen=True)
class Proof:
    """How this machine answered to the probe of a checkpoint; ``milliseconds`` where it was timed,
    0 where not.

    Of an optimised model ``device`` is an engine, ``by_default`` says whether this file and this
    engine answer where nothing else is named, and ``words`` are those of ``infer`` that name them,
    "" where none do.
    """

    checkpoint: Path
    device: str
    precision: str
    share: float
    tolerance: float
    passed: bool
    milliseconds: float = 0.0
    by_default: bool = True
    words: str = ""


# Devices that every engine has; others are those of ONNX Runtime alone.
EVERYWHERE = ("auto", "cpu")
# What a build of ONNX Runtime computes with, as people call it; the best of them first.
BUILT_FOR = {
    "TensorrtExecutionProvider": "TensorRT",
    "CUDAExecutionProvider": "CUDA",
    "CPUExecutionProvider": "processors",
}


def engines_and_builds() -> list[EngineHere]:
    """Every engine, and of ONNX Runtime also what its build computes with."""
    return [_with_build(one) if one.name == ONNX_RUNTIME else one for one in engines_here()]


def _with_build(engine: EngineHere) -> EngineHere:
    if not engine.installed:
        return engine
    try:
        import onnxruntime

        there = onnxruntime.get_available_providers()
    except (ImportError, OSError) as error:
        return replace(engine, note=f"cannot be loaded: {error}")
    names = ", ".join(name for provider, name in BUILT_FOR.items() if provider in there)
    return replace(engine, note=f"{engine.note}; built for {names}")


def likely_fastest() -> str:
    """The engine that is usually the fastest on such a processor, and whether it is installed."""
    name = OPENVINO if is_x86() else ONNX_RUNTIME
    here = {engine.name: engine for engine in engines_here()}[name]
    how = "" if here.installed else f" (not installed: {here.install_line})"
    return f"{name}{how}; 'medtool infer --engine auto' measures"


def is_x86() -> bool:
    """Whether this is a processor of Intel's or AMD's kind."""
    return platform.machine().lower() in ("x86_64", "amd64", "i386", "i686")


def prove_deployed(deployed: Deployed, device: str = "auto") -> list[Proof]:
    """How every engine that is here answers to the probe by every file that it reads, on the device
    that ``infer`` takes.

    Raises CheckpointError where a file is not as it was made, there is no probe, or no engine that
    could answer; MachineError where there is no such device.
    """
    from medtool.predict.deployed_probe import check_deployed, stored_inputs
    from medtool.predict.engines import engines_for, open_engine
    from medtool.predict.engines.choose import file_for, seconds_of

    inputs, proofs = stored_inputs(deployed), []
    installed = {engine.name for engine in engines_here() if engine.installed}
    if device not in EVERYWHERE:
        installed &= {ONNX_RUNTIME}
    for name in deployed.document["files"]:
        own = deployed.beside(name)
        readers = [engine for engine in engines_for(own.file) if engine in installed]
        if readers:
            verify_deployed(own)
        for reader in readers:
            try:
                engine = open_engine(
                    own.file, engine=reader, device=device, arithmetic=own.arithmetic
                )
                result = check_deployed(own, engine)
            except CheckpointError:
                # An engine that cannot run the file promises nothing.
                continue
            milliseconds = seconds_of(engine, inputs) * 1000
            answers = file_for(own, reader)
            named = answers is not None and answers.file == own.file
            chosen = "" if reader == own.engine else f" --engine {reader}"
            proofs.append(
                Proof(
                    own.file,
                    reader,
                    own.arithmetic,
                    result.share,
                    result.tolerance,
                    result.passed,
                    milliseconds,
                    by_default=(own.file, reader) == (deployed.file, deployed.engine),
                    words=f"--checkpoint {own.file}{chosen}" if named else "",
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


def kept_promise(proofs: Sequence[Proof]) -> bool:
    """Whether everything that answers by default gives what was promised."""
    deciding = [proof for proof in proofs if proof.by_default]
    return bool(deciding or not proofs) and all(proof.passed for proof in deciding)


def advice(proofs: Sequence[Proof]) -> str:
    """What to answer with here where an optimised model's own file and engine do not keep its
    promise; "" where they do, and for checkpoints.
    """
    if kept_promise(proofs) or not any(proof.words for proof in proofs):
        return ""
    own = next((proof for proof in proofs if proof.by_default), None)
    met = (
        f"{own.checkpoint.name} by {own.device} does not give here what it gave when it was made"
        if own is not None
        else "the engine that answers unless another is named cannot run its file here"
    )
    kept = [
        f"{proof.checkpoint.name} by {proof.device}: medtool infer SCANS {proof.words}"
        for proof in proofs
        if proof.passed and proof.words
    ]
    if not kept:
        return f"{met}, and nothing else does: answer with the checkpoint that it was made of."
    return f"{met}. This does: " + "; ".join(kept)
