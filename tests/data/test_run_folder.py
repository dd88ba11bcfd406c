"""What a run's folder keeps, read back as it was written."""

from pathlib import Path

import pytest

from medtool.core.errors import InputError
from medtool.data.run_folder import RunFolder, find_runs, fold_folders


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
