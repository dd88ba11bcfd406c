"""What a benchmark leaves behind: rows with their targets, as JSON, and the command they came from.

Values are ratios wherever one can be had: the two sides of a ratio take turns in one run, so that
whatever else the machine does meets both. Of each side the best time counts, for a busy machine
only ever adds; where a benchmark takes another rule it says so.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
SUFFIX = ".json"


@dataclass(frozen=True)
class Row:
    """One measured value: it must reach ``least``, must not pass ``most``, where these are given.

    ``detail`` holds what the value was made of, rounded; it is for readers of the JSON.
    """

    what: str
    value: float
    unit: str = "x"
    least: float | None = None
    most: float | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kept(self) -> bool:
        """Whether the target is met; a row without one is only told."""
        enough = self.least is None or self.value >= self.least
        return enough and (self.most is None or self.value <= self.most)


@dataclass(frozen=True)
class Run:
    """How a benchmark was called."""

    options: argparse.Namespace
    name: str
    packages: Sequence[str]

    def finish(self, rows: Sequence[Row], *, notes: Sequence[str] = ()) -> int:
        """Print and keep the rows; the exit status says whether every target is met.

        A quick run is too small for its values to mean anything: it only has to end.
        """
        kept = self.keep(rows, notes=notes)
        for row in rows:
            print(f"{'ok  ' if row.kept else 'MISS'} {row.what}: {row.value:.3g} {row.unit}")
        return 0 if kept or self.options.quick else 1

    def keep(self, rows: Sequence[Row], *, notes: Sequence[str] = ()) -> bool:
        """Write the rows that there are: also those of a long run that is not at its end."""
        kept = all(row.kept for row in rows)
        document = {
            "benchmark": self.name,
            "command": command(self.name),
            "quick": bool(self.options.quick),
            "machine": machine(),
            "versions": versions(self.packages),
            "kept": kept,
            "rows": [{**_rounded(asdict(row)), "kept": row.kept} for row in rows],
            "notes": list(notes),
        }
        self.options.out.mkdir(parents=True, exist_ok=True)
        path = self.options.out / f"{self.name}{SUFFIX}"
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        return kept


def begin(
    name: str,
    doc: str | None,
    packages: Sequence[str],
    add: Callable[[argparse.ArgumentParser], None] | None = None,
) -> Run:
    """Read the command line that all benchmarks share, and what ``add`` adds to it."""
    parser = argparse.ArgumentParser(
        prog=f"python benchmarks/{name}.py",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="small sizes: whether it runs at all")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the JSON")
    if add is not None:
        add(parser)
    return Run(parser.parse_args(), name, packages)


def command(name: str) -> str:
    """The command as typed, without this machine's paths and without where the result goes."""
    words = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
    if "--out" in words:
        place = words.index("--out")
        del words[place : place + 2]
    return shlex.join(["python", f"benchmarks/{name}.py", *words])


def machine() -> dict[str, Any]:
    """The kind of processor and how much of it this process may use; no names of hosts."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": _processor(),
        "cores": cores,
        "system": platform.system(),
        "gpu": "none",
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Versions of Python and of ``packages``."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def best_in_turn(
    sides: Mapping[str, Callable[[], object]], *, rounds: int, least_s: float = 0.0
) -> dict[str, float]:
    """Best seconds of each side; they take turns, after one round that is not counted."""
    seconds = seconds_in_turn(sides, rounds=rounds, least_s=least_s)
    return {name: min(taken, default=math.inf) for name, taken in seconds.items()}


def seconds_in_turn(
    sides: Mapping[str, Callable[[], object]], *, rounds: int, least_s: float = 0.0
) -> dict[str, list[float]]:
    """Seconds of each side in each round; every other round begins with the last side.

    One round before is not counted.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    until = time.perf_counter() + least_s
    turn = 0
    while turn <= rounds or time.perf_counter() < until:
        for name in list(sides)[:: -1 if turn % 2 else 1]:
            began = time.perf_counter()
            sides[name]()
            if turn:
                seconds[name].append(time.perf_counter() - began)
        turn += 1
    return seconds


@contextmanager
def work_folder() -> Iterator[Path]:
    """A folder for what a benchmark needs, gone at its end."""
    with tempfile.TemporaryDirectory(prefix="medtool-bench-") as folder:
        yield Path(folder)


def _rounded(value: Any) -> Any:
    """Four significant digits: more is noise."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value
