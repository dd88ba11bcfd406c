"""Which Pythons and systems the versions of constraints.txt have wheels for; nothing is installed.

    python benchmarks/resolve.py [--quick]

torch stands in by a wheel without content: its builds are known and large. pip evaluates the
conditions of requirements for the Python that runs it; what another system needs besides is found
from the metadata that pip reports, and asked for in a second turn.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterable, Mapping
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from results import Row, begin, work_folder

ROOT = Path(__file__).parent.parent
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
# glibc 2.35, that of Ubuntu 22.04, and all before it.
LINUX = [f"manylinux_2_{minor}_x86_64" for minor in range(35, 4, -1)]
SYSTEMS: Mapping[str, tuple[list[str], dict[str, str]]] = {
    "Linux x86-64": (
        [*LINUX, "manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64"],
        {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64"},
    ),
    "Windows x86-64": (
        ["win_amd64"],
        {"sys_platform": "win32", "platform_system": "Windows", "platform_machine": "AMD64"},
    ),
    "macOS on Apple silicon": (
        ["macosx_15_0_arm64"],
        {"sys_platform": "darwin", "platform_system": "Darwin", "platform_machine": "arm64"},
    ),
}
# Not promised, for torch itself is not asked for here: told only.
WITHOUT = {("macOS on Apple silicon", "3.14")}
TURNS = 4


def main() -> int:
    run = begin("resolve", __doc__, ["pip"])
    rows = []
    pythons = PYTHONS[:1] if run.options.quick else PYTHONS
    with work_folder() as folder:
        _write_stand_in(folder)
        for system in SYSTEMS:
            for python in pythons:
                found, problem = _resolve(folder, system, python)
                detail = {"wheels": found} | ({"problem": problem} if problem else {})
                least = None if (system, python) in WITHOUT else 1.0
                what = f"{system}, Python {python}: resolves to wheels"
                rows.append(Row(what, float(not problem), "(1: yes)", least=least, detail=detail))
    return run.finish(rows)


def _write_stand_in(folder: Path) -> None:
    """A wheel with torch's name, version and pure requirements, newer than any local build."""
    torch = distribution("torch")
    release = torch.version.partition("+")[0]
    stem = f"torch-{release}+zero"
    needs = [text for text in torch.requires or () if not text.startswith(("nvidia", "triton"))]
    lines = ["Metadata-Version: 2.1", "Name: torch", f"Version: {release}+zero"]
    lines += [f"Requires-Dist: {text}" for text in needs]
    wheel = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{stem}.dist-info/METADATA", "\n".join(lines) + "\n")
        archive.writestr(f"{stem}.dist-info/WHEEL", wheel)
        archive.writestr(f"{stem}.dist-info/RECORD", "")


def _resolve(folder: Path, system: str, python: str) -> tuple[int, str]:
    """How many wheels the base install comes to, and what pip says where it finds none."""
    platforms, conditions = SYSTEMS[system]
    environment = {**conditions, "python_version": python, "python_full_version": f"{python}.0"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked: list[str] = list(project["dependencies"])
    report: list[dict[str, Any]] = []
    for _ in range(TURNS):
        words = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--report", "-"]
        words += ["--ignore-installed", "--only-binary=:all:", "--python-version", python]
        words += ["--implementation", "cp", "--target", str(folder / "nowhere")]
        words += [word for platform in platforms for word in ("--platform", platform)]
        words += ["--find-links", str(folder), "-c", str(ROOT / "constraints.txt"), *asked]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            return len(report), " ".join(said)[-300:] or "pip failed"
        report = [entry["metadata"] for entry in json.loads(done.stdout)["install"]]
        missing = _missing(report, environment)
        if not missing:
            return len(report), ""
        asked += missing
    return len(report), f"still missing: {', '.join(missing)}"


def _missing(report: Iterable[Mapping[str, Any]], environment: Mapping[str, str]) -> list[str]:
    """Requirements that hold on the other system and that no reported wheel fulfils."""
    metadata = list(report)
    there = {canonicalize_name(entry["name"]) for entry in metadata}
    found = []
    for entry in metadata:
        for text in entry.get("requires_dist", ()):
            one = Requirement(text)
            holds = not one.marker or one.marker.evaluate({**environment, "extra": ""})
            if holds and canonicalize_name(one.name) not in there:
                found.append(f"{one.name}{one.specifier}")
    return sorted(set(found))


if __name__ == "__main__":
    sys.exit(main())
