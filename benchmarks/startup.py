"""How long a command takes to start, in multiples of ``python -c pass`` of the same run.

    python benchmarks/startup.py [--peers DIR]

``--peers`` is a virtual environment with nnunetv2 and TotalSegmentator (benchmarks/
requirements.txt; benchmarks/.venv-peers is taken when it is there); without it they are not
measured. The best of all rounds counts, for what disturbs a start on a busy machine only ever adds.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from results import Row, begin, best_in_turn, work_folder

ROUNDS = 15
PEER_ROUNDS = 3
PEERS = Path(__file__).parent / ".venv-peers"
LEAST_OVER_PEERS = 10
# Eight layers of this many rows and columns of float32 are 100 MB.
LAYERS, SIDE = 8, 1768
QUICK_SIDE = 64

Command = Sequence[str | Path]


def write_checkpoint_file(folder: Path, side: int) -> Path:
    """A checkpoint of eight layers and the document of a short training."""
    from medtool.core.checkpoint import RawTensor, write_checkpoint

    layer = bytes(range(256)) * (4 * side * side // 256)
    names = [f"model.layer{number}.weight" for number in range(LAYERS)]
    document = {
        "task": "brainmet",
        "preset": {"description": "a benchmark"},
        "epoch": 3,
        "metrics": {"auroc": 0.9},
        "threshold": 0.5,
    }
    file = folder / "large.safetensors"
    write_checkpoint(file, document, [RawTensor(n, "F32", (side, side), layer) for n in names])
    return file


def started(command: Command, folder: Path) -> None:
    """Run a command to its good end, in an empty folder."""
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


def sides(commands: dict[str, Command], folder: Path) -> dict[str, Callable[[], None]]:
    """Each command as a side to be timed."""
    return {name: partial(started, command, folder) for name, command in commands.items()}


def own_rows(folder: Path, *, quick: bool) -> tuple[list[Row], float]:
    """Our commands over an empty Python, and the seconds of ``--help``."""
    medtool = Path(sys.executable).parent / "medtool"
    checkpoint = write_checkpoint_file(folder, QUICK_SIDE if quick else SIDE)
    empty = folder / "empty"
    empty.mkdir()
    inspect: Command = [medtool, "inspect-checkpoint", checkpoint]
    commands: dict[str, tuple[Command, float]] = {
        "medtool --help": ([medtool, "--help"], 14),
        "medtool --version (a bare command)": ([medtool, "--version"], 7),
        "medtool tasks": ([medtool, "tasks"], 36),
        "medtool inspect-checkpoint (100 MB)": (inspect, 14),
        "medtool inspect-checkpoint --verify (100 MB)": ([*inspect, "--verify"], 25),
    }
    python: dict[str, Command] = {"python -c pass": [sys.executable, "-c", "pass"]}
    timed = python | {name: command for name, (command, _) in commands.items()}
    best = best_in_turn(sides(timed, empty), rounds=1 if quick else ROUNDS)
    base = best["python -c pass"]
    rows = [
        Row(
            f"{name} over python -c pass",
            best[name] / base,
            most=most,
            detail={"milliseconds": 1000 * best[name], "python_milliseconds": 1000 * base},
        )
        for name, (_, most) in commands.items()
    ]
    return rows, best["medtool --help"]


def peer_rows(peers: Path, help_s: float, folder: Path) -> tuple[list[Row], list[str]]:
    """The peers' help pages over ours; a note for each that is not there or fails."""
    rows, notes = [], []
    for script in ("nnUNetv2_train", "TotalSegmentator"):
        program = peers / "bin" / script
        if not program.exists():
            notes.append(f"{script} -h was not measured: it is not installed.")
            continue
        try:
            best = best_in_turn(sides({script: [program, "-h"]}, folder), rounds=PEER_ROUNDS)
        except subprocess.CalledProcessError as error:
            notes.append(f"{script} -h was not measured: it ends with {error.returncode}.")
            continue
        detail = {"milliseconds": 1000 * best[script], "help_milliseconds": 1000 * help_s}
        what = f"{script} -h over medtool --help"
        rows.append(Row(what, best[script] / help_s, least=LEAST_OVER_PEERS, detail=detail))
    return rows, notes


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--peers", type=Path, default=PEERS)


def main() -> int:
    """Measure, print, keep."""
    run = begin("startup", __doc__, ("medtool", "typer", "rich"), add_options)
    with work_folder() as folder:
        rows, help_s = own_rows(folder, quick=run.options.quick)
        more, notes = ([], ["Peers are left out of a quick run."])
        if not run.options.quick:
            more, notes = peer_rows(run.options.peers, help_s, folder)
    return run.finish([*rows, *more], notes=notes)


if __name__ == "__main__":
    sys.exit(main())
