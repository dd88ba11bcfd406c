"""Engines of ``doctor``: which would be fastest here, and whether they keep a model's promise."""

from __future__ import annotations

import platform
from collections.abc import Sequence
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
    from medtool.predict.engines.choose import file_for, seconds_of

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
