"""``medtool doctor``: the door to ``medtool.verbs.doctor``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from medtool.cli.console import Console
from medtool.cli.flags import Device, Json, Quiet

Checkpoint = Annotated[
    Path | None,
    typer.Option(
        "--checkpoint",
        "-c",
        help="Also prove that this machine computes what this model promises.",
    ),
]


def command(
    checkpoint: Checkpoint = None,
    as_json: Json = False,
    device: Device = "auto",
    quiet: Quiet = False,
) -> int:
    """Say what this machine can do, what is missing, and how to get it."""
    from medtool.core.errors import ExitStatus
    from medtool.verbs.doctor import doctor

    console = Console(quiet=quiet)
    diagnosis = doctor(checkpoint, device=device)
    if as_json:
        console.json(diagnosis.as_dict())
    else:
        console.result("\n".join(_lines(diagnosis)))
    return int(ExitStatus.DONE if diagnosis.healthy else ExitStatus.MACHINE)


def _lines(diagnosis: Any) -> list[str]:
    machine = diagnosis.machine
    memory = machine["memory_limit_bytes"] or machine["memory_bytes"]
    lines = [
        f"Machine   {machine['cores_usable']} of {machine['cores']} cores, {machine['processor']}",
        f"          {(memory or 0) / 1e9:.1f} GB of memory, "
        f"{diagnosis.free_bytes / 1e9:.1f} GB of disk free here",
        f"          {machine['system']}, Python {diagnosis.python}",
        "",
        "Devices",
    ]
    lines += [
        f"  {device.name:8} {device.description}; precision {', '.join(device.precisions)}"
        for device in diagnosis.devices
    ] or ["  none: torch cannot be imported"]
    lines += ["", "Engines for optimised models"]
    for engine in diagnosis.engines:
        state = engine.version or f"not installed ({engine.install_line})"
        lines.append(f"  {engine.name:12} {state:16} {engine.note}")
    lines.append(f"  fastest here, usually: {diagnosis.fastest}")
    lines += ["", "Packages"]
    for package in diagnosis.packages:
        state = package.found or f"MISSING ({package.install_line})"
        extra = f" [{package.extra}]" if package.extra else ""
        lines.append(f"  {package.name + extra:32} {state:16} {package.purpose}".rstrip())
    unreadable = [codec for codec in diagnosis.codecs if not codec.readable]
    lines += ["", f"DICOM     {len(diagnosis.codecs) - len(unreadable)} transfer syntaxes readable"]
    lines += [f"  cannot read {codec.name}: {codec.why}" for codec in unreadable]
    lines += [_proof_line(proof, diagnosis.proofs) for proof in diagnosis.proofs]
    lines += [f"Advice    {diagnosis.advice}"] if diagnosis.advice else []
    return lines


def _proof_line(proof: Any, every: Any) -> str:
    verdict = "reproduced" if proof.passed else "NOT REPRODUCED"
    timed = f", {proof.milliseconds:.1f} ms" if proof.milliseconds else ""
    several = len({one.checkpoint for one in every}) > 1
    answers = ", which answers" if proof.by_default else ""
    file = f" ({proof.checkpoint.name}{answers})" if several else ""
    return (
        f"Probe     {verdict} on {proof.device} in {proof.precision}{file}: difference "
        f"{proof.share:.1e} of the output's range (allowed {proof.tolerance:.0e}){timed}"
    )
