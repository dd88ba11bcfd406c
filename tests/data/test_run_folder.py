"""What a run's folder keeps, read back as it was written."""

from pathlib import Path

import pytest
from held_open import held_open

from medtool.core.errors import InputError, MachineError
from medtool.data.run_folder import RunFolder, find_runs, fold_folders, write_rows


def test_tables_come_back_as_written(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.write_history(
        [
            {"epoch": 0, "stage": 0, "loss": 0.1, "selection_auroc": float("nan")},
            {"epoch": 1, "stage": 0, "loss": 1e-300, "rate_head": 5e-5},
        ]
    )
    first, second = run.read_history()
    assert first["loss"] == 0.1
    assert first["selection_auroc"] is None
    assert second["loss"] == 1e-300
    assert second["rate_head"] == 5e-5
    assert second["selection_auroc"] is None
    assert second["epoch"] == 1
    run.write_checkpoints([{"file": "best.safetensors", "kind": "best", "sha256": "12e4"}])
    assert run.read_checkpoints()[0]["sha256"] == "12e4"
    run.write_run({"notes": ["a"], "value": float("inf")})
    assert run.read_run() == {"notes": ["a"], "value": None}


def test_ids_stay_text_and_formulas_are_defused(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.write_cases([{"case": "007", "patient": "=1+1", "folder": "a,b\nc"}])
    (row,) = run.read_cases()
    assert (row["case"], row["patient"], row["folder"]) == ("007", "=1+1", "a,b\nc")
    assert "'=1+1" in run.cases_file.read_text()


def test_a_table_that_is_open_elsewhere_has_one_second_name_that_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = held_open(monkeypatch)
    run = RunFolder(tmp_path)
    said: list[str] = []
    for epoch in range(5):
        run.write_history([{"epoch": epoch}])
        run.tell_second_names(said.append)
        held.add(run.history_file)
    assert sorted(f.name for f in tmp_path.glob("*.csv")) == ["history-2.csv", "history.csv"]
    assert said == [
        f"{run.history_file} is open elsewhere; while it is, its rows are in history-2.csv."
    ]
    assert run.log_file.read_text().splitlines() == said
    assert [row["epoch"] for row in run.read_history()] == [4]
    # Another reader sees what is under the table's own name.
    assert [row["epoch"] for row in RunFolder(tmp_path).read_history()] == [0]
    held.clear()
    run.write_history([{"epoch": 5}])
    run.tell_second_names(said.append)
    assert [f.name for f in tmp_path.glob("*.csv")] == ["history.csv"]
    assert [row["epoch"] for row in run.read_history()] == [5]
    assert len(said) == 1


def test_tables_get_their_own_names_again_where_nobody_holds_these(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = held_open(monkeypatch)
    run = RunFolder(tmp_path)
    files = {run.history_file, run.checkpoints_file}
    for epoch in range(2):
        run.write_history([{"epoch": epoch, "stage": "=1\r\n"}])
        run.write_checkpoints([{"epoch": epoch}])
        held |= files
    written = (tmp_path / "history-2.csv").read_bytes()
    held.remove(run.history_file)
    # A person took the other one away: what is left is the table itself.
    (tmp_path / "checkpoints-2.csv").unlink()
    run.second_names.settle()
    assert run.history_file.read_bytes() == written
    assert sorted(f.name for f in tmp_path.glob("*.csv")) == ["checkpoints.csv", "history.csv"]
    assert [row["epoch"] for row in run.read_checkpoints()] == [0]


def test_another_table_that_is_open_elsewhere_is_refused_not_written_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "t.csv"
    write_rows(file, [{"a": 1}])
    held_open(monkeypatch).add(file)
    with pytest.raises(MachineError):
        write_rows(file, [{"a": 2}])
    assert [f.name for f in tmp_path.iterdir()] == ["t.csv"]


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        RunFolder(tmp_path).read_history()


def test_runs_and_folds_are_found(tmp_path: Path) -> None:
    for name in ("a", "b/fold_10", "b/fold_2"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "run.json").write_text("{}")
        (tmp_path / name / "preset.toml").write_text("")
    assert [run.path.name for run in find_runs(tmp_path)] == ["a", "fold_10", "fold_2"]
    assert [run.path.name for run in fold_folders(tmp_path / "b")] == ["fold_2", "fold_10"]
