"""How long the whole command ``medtool demo brainmet`` takes, step by step.

python benchmarks/demo_minutes.py
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from results import Row, begin, work_folder

TASK = "brainmet"
MOST_MINUTES = 4.0


def steps_of(output: str) -> dict[str, float]:
    """Seconds of each verb, from what ``demo --json`` prints."""
    return {
        step["command"].split()[1] if step["command"] else "cohort": step["seconds"]
        for step in json.loads(output)["steps"]
    }


def main() -> int:
    """Measure, print, keep; a quick run only asks for the command's help page."""
    run = begin("demo_minutes", __doc__, ("torch", "numpy"))
    medtool = Path(sys.executable).parent / "medtool"
    with work_folder() as work:
        command = [medtool, "demo", TASK, work / "demo", "--json"]
        if run.options.quick:
            command = [medtool, "demo", "--help"]
        began = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        minutes = (time.perf_counter() - began) / 60
    if done.returncode != 0:
        raise SystemExit(f"demo ends with {done.returncode}: {done.stderr[-500:]}")
    steps = {} if run.options.quick else steps_of(done.stdout)
    rows = [Row("minutes of the whole demo", minutes, "min", most=MOST_MINUTES, detail=steps)]
    rows += [Row(f"of these, {name}", seconds, "s") for name, seconds in steps.items()]
    return run.finish(rows)


if __name__ == "__main__":
    sys.exit(main())
