"""What every run.json says in the same words, whichever verb wrote it."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from medtool import RESEARCH_NOTICE, __version__
from medtool.core.environment import recorded_environment
from medtool.data.machine import describe_machine

# What decides the numbers, besides medtool and Python.
RECORDED_PACKAGES = (
    *("torch", "timm", "numpy", "lightning-fabric", "safetensors", "pydicom"),
    *("onnxruntime", "openvino"),
)


def run_record(verb: str, command: str, started: datetime) -> dict[str, Any]:
    """How a run came about; ``started`` is UTC. Plain values, ready for JSON."""
    return {
        "notice": RESEARCH_NOTICE,
        "verb": verb,
        "command": command,
        "versions": versions(),
        "machine": describe_machine().as_dict(),
        "environment": recorded_environment(),
        "started_utc": _text(started),
    }


def now_utc() -> str:
    """This second in UTC, as a run.json's ``ended_utc``."""
    return _text(datetime.now(UTC))


def versions() -> dict[str, str]:
    """Versions of medtool, Python and what decides the numbers, as installed here."""
    found = {"medtool": __version__, "python": platform.python_version()}
    for package in RECORDED_PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
