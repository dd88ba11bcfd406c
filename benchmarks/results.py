"""What a benchmark leaves behind: ratios of one run as JSON, with the command that gave them."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def write_results(
    name: str, command: str, rows: Sequence[Mapping[str, Any]], packages: Sequence[str]
) -> Path:
    """Write ``results/<name>.json``; times in it are only good as ratios within one row."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    document = {
        "benchmark": name,
        "command": command,
        "cores": cores,
        "python": platform.python_version(),
        "packages": {package: version(package) for package in packages},
        "kept": all(row["kept"] for row in rows),
        "rows": list(rows),
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return path
