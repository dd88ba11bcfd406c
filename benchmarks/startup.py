"""How long a command takes to start, in multiples of ``python -c pass`` of the same run.

    python benchmarks/startup.py [--peers DIR]

``--peers`` names a virtual environment with nnunetv2 and TotalSegmentator; without it they are
not measured. Prints a Markdown table and ends with 1 when a limit is passed.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
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


def median_ms(command: Sequence[str | Path], *, repeats: int = REPEATS) -> float:
    """Median wall time of a process in ms; it runs in an empty folder and must end well."""
    times = []
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(WARM_UP + repeats):
            began = time.perf_counter()
            subprocess.run(command, cwd=folder, check=True, capture_output=True)
            if turn >= WARM_UP:
                times.append(time.perf_counter() - began)
    return 1000 * statistics.median(times)


def measure(peers: Path | None = None, checkpoint: Path | None = None) -> list[Row]:
    """All rows; ``checkpoint`` is a file of about 100 MB for inspect-checkpoint."""
    scripts = Path(sys.executable).parent
    medtool = scripts / "medtool"
    python_ms = median_ms([sys.executable, "-c", "pass"])
    commands: list[tuple[str, list[str | Path], float]] = [
        ("medtool --help", [medtool, "--help"], 14),
        ("medtool --version (a bare command)", [medtool, "--version"], 7),
        ("medtool tasks", [medtool, "tasks"], 36),
    ]
    if checkpoint is not None:
        inspect: list[str | Path] = [medtool, "inspect-checkpoint", checkpoint]
        commands.append(("medtool inspect-checkpoint (100 MB)", inspect, 14))
        commands.append(
            ("medtool inspect-checkpoint --verify (100 MB)", [*inspect, "--verify"], 25)
        )
    rows = []
    for what, command, limit in commands:
        taken_ms = median_ms(command)
        rows.append(Row(what, taken_ms, taken_ms / python_ms, limit))
    return rows + _beside_peers(rows[0].milliseconds, peers)


def _beside_peers(help_ms: float, peers: Path | None) -> list[Row]:
    rows = []
    for name in ("nnUNetv2_train", "TotalSegmentator"):
        script = peers / "bin" / name if peers is not None else None
        if script is not None and script.exists():
            taken_ms = median_ms([script, "-h"], repeats=PEER_REPEATS)
            what = f"{name} -h over medtool --help"
            rows.append(Row(what, taken_ms, taken_ms / help_ms, 10, at_least=True))
    return rows


def as_markdown(rows: Sequence[Row]) -> str:
    """A table for docs/benchmarks.md."""
    lines = ["| command | median, ms | ratio | limit | kept |", "|---|---|---|---|---|"]
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
    parser.add_argument("--checkpoint", type=Path)
    arguments = parser.parse_args()
    rows = measure(arguments.peers, arguments.checkpoint)
    print(as_markdown(rows))
    return 0 if all(row.kept for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
