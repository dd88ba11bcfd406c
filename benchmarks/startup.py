"""How long a command takes to start, in multiples of ``python -c pass`` of the same run.

    python benchmarks/startup.py [--peers DIR]

``--peers`` names a virtual environment with nnunetv2 and TotalSegmentator; without it they are
not measured. Prints a Markdown table and ends with 1 when a limit is passed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

REPEATS = 15
# Once for the disk's cache and the .pyc files.
WARM_UP = 2
PEER_REPEATS = 3


class Row(NamedTuple):
    """One measurement: ``ratio`` must not pass ``limit`` (or, ``at_least``, must reach it)."""

    what: str
    milliseconds: float
    ratio: float
    limit: float
    at_least: bool = False

    @property
    def kept(self) -> bool:
        return self.ratio >= self.limit if self.at_least else self.ratio <= self.limit


def best_ms(
    commands: Mapping[str, Sequence[str | Path]], *, repeats: int = REPEATS
) -> dict[str, float]:
    """Best wall time of each process in ms; they run in turn, in an empty folder, and end well.

    The best, for what disturbs a start on a busy machine only ever adds; in turn, so that a busy
    minute strikes all of them.
    """
    best = dict.fromkeys(commands, float("inf"))
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(WARM_UP + repeats):
            for name, command in commands.items():
                began = time.perf_counter()
                subprocess.run(command, cwd=folder, check=True, capture_output=True)
                if turn >= WARM_UP:
                    best[name] = min(best[name], 1000 * (time.perf_counter() - began))
    return best


def write_large_checkpoint(folder: Path) -> Path:
    """A checkpoint of 100 MB: eight layers, and the document of a short training."""
    from medtool.core.checkpoint import RawTensor, write_checkpoint

    side = 1768
    layer = bytes(range(256)) * (4 * side * side // 256)
    names = [f"model.layer{number}.weight" for number in range(8)]
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


def measure(peers: Path | None = None) -> list[Row]:
    """All rows; ``peers`` is a virtual environment."""
    with tempfile.TemporaryDirectory() as folder:
        return _measure(peers, write_large_checkpoint(Path(folder)))


def _measure(peers: Path | None, checkpoint: Path) -> list[Row]:
    medtool = Path(sys.executable).parent / "medtool"
    inspect: list[str | Path] = [medtool, "inspect-checkpoint", checkpoint]
    limits = {
        "medtool --help": 14,
        "medtool --version (a bare command)": 7,
        "medtool tasks": 36,
        "medtool inspect-checkpoint (100 MB)": 14,
        "medtool inspect-checkpoint --verify (100 MB)": 25,
    }
    own: list[list[str | Path]] = [
        [medtool, "--help"],
        [medtool, "--version"],
        [medtool, "tasks"],
        inspect,
        [*inspect, "--verify"],
    ]
    empty: list[str | Path] = [sys.executable, "-c", "pass"]
    times = best_ms({"python -c pass": empty, **dict(zip(limits, own, strict=True))})
    rows = [
        Row(what, times[what], times[what] / times["python -c pass"], limit)
        for what, limit in limits.items()
    ]
    return rows + _beside_peers(rows[0].milliseconds, peers)


def _beside_peers(help_ms: float, peers: Path | None) -> list[Row]:
    scripts = {
        f"{name} -h over medtool --help": [peers / "bin" / name, "-h"]
        for name in ("nnUNetv2_train", "TotalSegmentator")
        if peers is not None and (peers / "bin" / name).exists()
    }
    times = best_ms(scripts, repeats=PEER_REPEATS)
    return [Row(what, ms, ms / help_ms, 10, at_least=True) for what, ms in times.items()]


def as_markdown(rows: Sequence[Row]) -> str:
    """A table for docs/benchmarks.md."""
    lines = ["| command | best, ms | ratio | limit | kept |", "|---|---|---|---|---|"]
    for row in rows:
        limit = f"{'at least' if row.at_least else 'at most'} {row.limit:g}"
        kept = "yes" if row.kept else "**no**"
        lines.append(
            f"| {row.what} | {row.milliseconds:.0f} | {row.ratio:.1f} | {limit} | {kept} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Measure, print, and say by the status whether every limit is kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", type=Path)
    arguments = parser.parse_args()
    rows = measure(arguments.peers)
    print(as_markdown(rows))
    return 0 if all(row.kept for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
