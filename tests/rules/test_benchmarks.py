"""docs/benchmarks.md is what the results make, and names every benchmark there is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
PAGE = ROOT / "docs" / "benchmarks.md"
RESULTS = sorted((BENCHMARKS / "results").glob("*.json"))


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


def documents() -> dict[str, dict]:
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in RESULTS}


def test_the_page_is_made_from_the_results() -> None:
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "page.py", "--check"], check=False, capture_output=True
    )
    assert done.returncode == 0, "python benchmarks/page.py writes it anew"


def test_the_page_and_make_bench_know_every_benchmark() -> None:
    scripts = {path.stem for path in BENCHMARKS.glob("*.py")} - NOT_MEASURING
    text = (BENCHMARKS / "page.py").read_text(encoding="utf-8")
    assert all(f'"{name}": Text(' in text for name in scripts)
    assert {path.stem for path in RESULTS} <= scripts


def test_the_page_shows_every_row_and_hides_no_miss() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert RESULTS
    for document in documents().values():
        for row in document["rows"]:
            lines = [line for line in text.splitlines() if line.startswith(f"| {row['what']} |")]
            assert len(lines) == 1, row["what"]
            aimed = row["least"] is not None or row["most"] is not None
            assert lines[0].endswith("| **no** |") == (aimed and not row["kept"])


def test_results_are_of_whole_runs_and_name_no_place() -> None:
    for name, document in documents().items():
        assert not document["quick"], name
        assert "/" not in document["command"].removeprefix(f"python benchmarks/{name}.py"), name
