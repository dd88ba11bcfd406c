"""Every benchmark runs in its quick form and leaves a result that the page can show."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
# What the benchmarks share, and what runs them.
NOT_MEASURING = {
    "cohort",
    "nnunet_peer",
    "page",
    "peer_process",
    "results",
    "run_all",
    "surface_peers",
    "survival_peers",
}
# These ask an index of packages, which a test must not need; tests/rules/test_install.py tests
# what they measure with a wheelhouse.
ASK_AN_INDEX = {"install_size", "resolve"}
# One task shows that these run; each demo and each kind of pruning has tests of its own.
FEWER = {"demo_minutes": ("--only", "heart"), "optimised_accuracy": ("--only", "heart")}
SCRIPTS = sorted({path.stem for path in BENCHMARKS.glob("*.py")} - NOT_MEASURING - ASK_AN_INDEX)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_quick_run_ends_well(name: str, tmp_path: Path) -> None:
    command = [sys.executable, BENCHMARKS / f"{name}.py", "--quick", "--out", tmp_path]
    command += FEWER.get(name, ())
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    document = json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8"))
    assert document["benchmark"] == name
    assert document["quick"]
    assert set(document["machine"]) == {"processor", "cores", "system", "gpu"}
    assert document["rows"]
    for row in document["rows"]:
        assert isinstance(row["value"], float | int)
        enough = row["least"] is None or row["value"] >= row["least"]
        assert row["kept"] == (enough and (row["most"] is None or row["value"] <= row["most"]))
    assert document["kept"] == all(row["kept"] for row in document["rows"])
    assert str(tmp_path) not in json.dumps(document)
