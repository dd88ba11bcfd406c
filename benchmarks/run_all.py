"""Every benchmark one after the other, then docs/benchmarks.md: this is ``make bench``.

    python benchmarks/run_all.py [--quick] [--only NAME ...] [--peers DIR] [--plugins DIR]
                                 [--metric-peers DIR] [--survival-peers DIR] [--hippocampus DIR]

A benchmark that fails stops no other: which ones failed, and which targets were missed, is said at
the end. Takes some seven hours on two cores. The peers live in environments of their own
(benchmarks/requirements.txt, requirements-dicom.txt, requirements-metrics.txt,
requirements-survival.txt); what is not installed is not compared, and the page says so.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from page import PAGE, TITLES, page_text
from results import RESULTS

HERE = Path(__file__).parent
# A benchmark that hangs must not take the night.
TIMEOUT_S = 4 * 3600
# Exit status of a benchmark that ran, but missed a target.
MISSED = 1
WITH_BOTH = ("nnunet_planning", "nnunet_preparation", "nnunet_step", "segment_beside_nnunet")
WITH_HIPPOCAMPUS = (*WITH_BOTH, "segment_training", "optimised_accuracy")
WITH_PEERS = ("startup", "nnunet_models", "nnunet_inference", *WITH_BOTH)


def words_for(name: str, options: argparse.Namespace) -> list[str]:
    """What one benchmark is called with."""
    words = ["--out", str(options.out)]
    if options.quick:
        words.append("--quick")
    if name in WITH_PEERS and options.peers is not None:
        words += ["--peers", str(options.peers)]
    if name == "read_series" and options.plugins is not None:
        words += ["--plugins", str(options.plugins)]
    if name == "surface_metrics" and options.metric_peers is not None:
        words += ["--peers", str(options.metric_peers)]
    if name == "survival_metrics" and options.survival_peers is not None:
        words += ["--peers", str(options.survival_peers)]
    if name in WITH_HIPPOCAMPUS and options.hippocampus is not None:
        words += ["--hippocampus", str(options.hippocampus)]
    return words


def run_one(name: str, options: argparse.Namespace) -> str:
    """Run a benchmark; gives "", or what is to be said of it at the end."""
    print(f"== {name}", flush=True)
    # It writes its results only at its good end: old ones must not pass for new.
    result = options.out / f"{name}.json"
    began, before = time.perf_counter(), result.stat().st_mtime if result.exists() else 0.0
    command = [sys.executable, str(HERE / f"{name}.py"), *words_for(name, options)]
    try:
        status = subprocess.run(command, check=False, timeout=TIMEOUT_S).returncode
    except subprocess.TimeoutExpired:
        return f"{name}: FAILED, not done after {TIMEOUT_S} s"
    print(f"   {time.perf_counter() - began:.0f} s", flush=True)
    written = result.exists() and result.stat().st_mtime > before
    if status not in (0, MISSED) or not written:
        return f"{name}: FAILED with status {status}; earlier results, if any, are kept"
    return f"{name}: a target is missed" if status == MISSED else ""


def main() -> int:
    """Run them, write the page, say what did not go well."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, no page")
    parser.add_argument("--only", nargs="+", choices=list(TITLES), default=list(TITLES))
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--peers", type=Path, help="environment with nnunetv2, TotalSegmentator")
    parser.add_argument("--plugins", type=Path, help="folder with pydicom's decoder plugins")
    parser.add_argument(
        "--metric-peers", type=Path, help="environment with surface-distance, MONAI"
    )
    parser.add_argument(
        "--survival-peers", type=Path, help="environment with lifelines, scikit-survival"
    )
    parser.add_argument("--hippocampus", type=Path, help="MSD's Hippocampus set, or a part of it")
    options = parser.parse_args()
    said = [run_one(name, options) for name in options.only]
    if not options.quick:
        PAGE.write_text(page_text(options.out), encoding="utf-8")
        print(f"Page: {PAGE}")
    problems = [text for text in said if text]
    print("\n".join(problems) or "Every target is met.")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
