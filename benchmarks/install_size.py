"""Every kind of install in full, into empty environments: what each takes, and that all is there.

    python benchmarks/install_size.py [--quick] [--first N]

Packages come from wherever this machine's pip is told to take them; a CUDA build of torch alone
is larger than the limit, which is that of a machine without a GPU.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable
from pathlib import Path

from results import Row, begin, work_folder

ROOT = Path(__file__).parent.parent
MEGABYTE = 1_000_000
LARGEST_MB = 2200
CONSTRAINTS = ROOT / "constraints.txt"

Install = Callable[[Path, list[str]], None]


def main() -> int:
    run = begin("install_size", __doc__, ["pip", "torch"], _options)
    # Quick: nothing but medtool itself, so that nothing large is carried.
    extra = ["--no-deps"] if run.options.quick else []
    rows = []
    with work_folder() as folder:
        built = _build(folder / "built")
        kinds: dict[str, Install] = {
            "pip install . -c constraints.txt": lambda place, words: _pip(place, str(ROOT), words),
            "the wheel in an empty environment": lambda p, words: _pip(p, str(built[0]), words),
            "the sdist": lambda place, words: _pip(place, str(built[1]), words),
            "pip install -e .": lambda place, words: _pip(place, str(ROOT), [*words, "-e"]),
            'pipx install . --pip-args "-c constraints.txt"': _pipx,
        }
        for name, install in list(kinds.items())[: run.options.first]:
            place = folder / "environment"
            if not (run.options.quick and install is _pipx):
                install(place, extra)
                rows.append(_row(name, place, quick=run.options.quick))
            shutil.rmtree(place, ignore_errors=True)
    return run.finish(rows)


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--first", metavar="N", type=int, help="only the first N kinds")


def _build(folder: Path) -> tuple[Path, Path]:
    subprocess.run(
        [sys.executable, "-m", "build", "--outdir", folder, ROOT], check=True, capture_output=True
    )
    return next(folder.glob("*.whl")), next(folder.glob("*.tar.gz"))


def _pip(place: Path, what: str, words: list[str]) -> None:
    venv.create(place, with_pip=True)
    editable = [word for word in words if word == "-e"]
    more = [word for word in words if word != "-e"]
    subprocess.run(
        [place / "bin" / "python", "-m", "pip", "install", "--quiet", "-c", CONSTRAINTS]
        + [*more, *editable, what],
        check=True,
    )


def _pipx(place: Path, words: list[str]) -> None:
    variables = [f"PIPX_HOME={place}", f"PIPX_BIN_DIR={place / 'bin'}", f"PIPX_MAN_DIR={place}"]
    subprocess.run(
        ["env", *variables, sys.executable, "-m", "pipx", "install", "."]
        + ["--pip-args", " ".join(["-c", "constraints.txt", *words])],
        cwd=ROOT,
        check=True,
    )


def _row(name: str, place: Path, *, quick: bool) -> Row:
    """The size on disk as ``du`` sums it, and how many tasks and presets the install lists."""
    sizes = sum(path.lstat().st_size for path in place.rglob("*") if not path.is_symlink())
    detail = {} if quick else _listed(place / "bin" / "medtool")
    return Row(name, sizes / MEGABYTE, "MB", most=LARGEST_MB, detail=detail)


def _listed(command: Path) -> dict[str, int]:
    found = {}
    for verb in ("tasks", "presets"):
        with tempfile.TemporaryDirectory() as elsewhere:
            done = subprocess.run(
                [command, verb, "--json"], cwd=elsewhere, capture_output=True, check=True
            )
        listed = json.loads(done.stdout)[verb]
        if not listed or any(entry.get("problem") for entry in listed):
            raise SystemExit(f"{command} {verb}: {listed}")
        found[verb] = len(listed)
    return found


if __name__ == "__main__":
    sys.exit(main())
