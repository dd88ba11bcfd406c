"""``runs`` on folders made by hand: a line for each run, with what its number is worth."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medtool.core.errors import ExitStatus
from medtool.data.run_folder import RunFolder, write_json
from medtool.verbs.runs import list_runs

OPTIMISTIC = "selection set, optimistic"


def scores(value: float | None, **more: Any) -> dict[str, Any]:
    auroc = {"value": value, "low": 0.75, "high": 0.95, "n": 24}
    return {"metrics": {"brier": {"value": 0.1, "n": 24}, "auroc": auroc}, **more}


def write_run(
    path: Path,
    parts: dict[str, Any] | None,
    *,
    started: str,
    epochs: int = 3,
    **document: Any,
) -> RunFolder:
    run = RunFolder(path)
    run.path.mkdir(parents=True, exist_ok=True)
    run.preset_file.write_text('[metrics]\nprimary = "auroc"\n')
    run.write_run({"task": "squares", "preset": "small", "started_utc": started, **document})
    if epochs:
        run.write_history([{"epoch": epoch, "stage": 0, "loss": 0.5} for epoch in range(epochs)])
        run.write_checkpoints([{"file": "b", "kind": "best", "epoch": 0, "metric": "auroc"}])
    if parts is not None:
        write_json(run.scores_file, parts)
    return run


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A finished run, a demo with two parts only, a fold run, one unfinished, one damaged."""
    root = tmp_path / "runs"
    parts = {"selection": scores(0.9, optimistic=OPTIMISTIC), "test": scores(0.875)}
    write_run(root / "squares" / "done", parts, started="5", ended_utc="6")
    write_run(
        root / "squares" / "two-parts",
        {"selection": scores(0.9, optimistic=OPTIMISTIC)},
        started="4",
        ended_utc="5",
        synthetic=True,
    )
    for fold in range(2):
        folder = root / "squares" / "cv" / f"fold_{fold}"
        write_run(folder, {"test": scores(0.8)}, started=f"3.{fold}", ended_utc="4")
    write_run(
        root / "squares" / "cv",
        {"out-of-fold": scores(0.8125)},
        started="3",
        epochs=0,
        ended_utc="4",
        folds=["fold_0", "fold_1"],
    )
    write_run(root / "squares" / "going", None, started="2", epochs=1)
    write_run(root / "squares" / "torn", None, started="1").run_file.write_text("{")
    return root


def test_each_run_has_a_line_newest_last(root: Path) -> None:
    lines = {line.run: line for line in list_runs(root)}
    assert list(lines) == [
        "squares/torn",
        "squares/going",
        "squares/cv",
        "squares/cv/fold_0",
        "squares/cv/fold_1",
        "squares/two-parts",
        "squares/done",
    ]
    assert {name.split("/", 1)[1]: line.state for name, line in lines.items()} == {
        "torn": f"damaged: {root / 'squares' / 'torn' / 'run.json'}",
        "going": "not finished",
        "cv": "2 folds joined",
        "cv/fold_0": "done",
        "cv/fold_1": "done",
        "two-parts": "done",
        "done": "done",
    }


def test_the_most_honest_part_is_shown(root: Path) -> None:
    lines = {line.run.split("/", 1)[1]: line for line in list_runs(root)}
    shown = {
        name: (line.metric, line.part, line.value, line.low, line.high, line.n, line.optimistic)
        for name, line in lines.items()
        if line.value is not None
    }
    assert shown["done"] == ("auroc", "test", 0.875, 0.75, 0.95, 24, "")
    assert shown["two-parts"] == ("auroc", "selection", 0.9, 0.75, 0.95, 24, OPTIMISTIC)
    assert shown["cv"] == ("auroc", "out-of-fold", 0.8125, 0.75, 0.95, 24, "")
    assert set(shown) == {"done", "two-parts", "cv", "cv/fold_0", "cv/fold_1"}
    assert (lines["going"].epochs, lines["going"].value) == (1, None)


def test_a_person_reads_a_table(root: Path, medtool: Callable) -> None:
    found = medtool("runs", root)
    assert found.status == ExitStatus.DONE
    rows = found.out.splitlines()
    assert rows[0].split() == ["run", "task", "preset", "state", "epochs", "metric"]
    assert len(rows) == 8
    by_name = {row.split()[0]: " ".join(row.split()) for row in rows[1:]}
    assert by_name["squares/done"] == (
        "squares/done squares small done 3 auroc 0.875 (0.750 to 0.950), n = 24, test"
    )
    assert by_name["squares/two-parts"].endswith(
        f"auroc 0.900 (0.750 to 0.950), n = 24, {OPTIMISTIC}, synthetic data"
    )
    assert by_name["squares/going"] == "squares/going squares small not finished 1"


def test_a_program_reads_the_same(root: Path, medtool: Callable) -> None:
    rows = json.loads(medtool("runs", root, "--json").out)
    assert [row["run"] for row in rows] == [line.run for line in list_runs(root)]
    assert rows[-1]["value"] == 0.875
    assert rows[0]["value"] is None


def test_a_run_itself_can_be_named(root: Path) -> None:
    (line,) = list_runs(root / "squares" / "done")
    assert line.run == "done"


def test_runs_of_the_working_folder_are_the_default(root: Path, medtool: Callable) -> None:
    (root / "squares" / "torn" / "run.json").unlink()
    assert medtool("runs", folder=root.parent).out == medtool("runs", root).out != ""


def test_an_undefined_metric_is_no_number(tmp_path: Path, medtool: Callable) -> None:
    write_run(tmp_path / "one", {"test": scores(None)}, started="1", ended_utc="2")
    (line,) = list_runs(tmp_path)
    assert (line.value, line.state) == (None, "done")
    assert medtool("runs", tmp_path).status == ExitStatus.DONE


def test_no_runs_is_said(tmp_path: Path, medtool: Callable) -> None:
    found = medtool("runs", tmp_path)
    assert found.status == ExitStatus.DONE
    assert "No run below" in found.err
    found = medtool("runs", tmp_path / "absent")
    assert found.status == ExitStatus.USAGE
    assert "There are no runs here." in found.err
