"""``optimize`` on a run of several folds: who calibrates, who judges, and when nobody is left."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import SimpleITK as sitk
from named_in import files_naming
from optimised import change_weights
from trained_heart import train_heart

from medtool.config import task_from_document
from medtool.core.checkpoint import read_header
from medtool.core.ensemble import members_of
from medtool.core.errors import CheckpointError, InputError
from medtool.core.progress import Silent
from medtool.data.run_folder import RunFolder, read_rows, write_rows
from medtool.verbs.infer_model import answering_file
from medtool.verbs.optimize import optimize
from medtool.verbs.optimize_data import CALIBRATION, OptimizeData, optimize_data
from medtool.verbs.optimize_options import OptimizeOptions, OptimizeResult
from medtool.verbs.options import RunOptions


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cohort, and ``folds``: two models that both test the same patients."""
    folder = tmp_path_factory.mktemp("folds")
    run = train_heart(folder, "train.epochs=1")
    for number in (0, 1):
        shutil.copytree(run, folder / "folds" / f"fold_{number}")
    change_weights(folder / "folds" / "fold_1" / "checkpoints" / "best.safetensors")
    return folder


@pytest.fixture(scope="module")
def apart(place: Path) -> Path:
    """The same run where each fold tests others, as folds do."""
    run = Path(shutil.copytree(place / "folds", place / "apart"))
    file = run / "fold_1" / "cases.csv"
    turned = {"test": "train", "train": "test"}
    rows = [{**row, "part": turned.get(row["part"], row["part"])} for row in read_rows(file)]
    write_rows(file, rows)
    return run


def small(place: Path, output: Path, run: Path, **options: Any) -> OptimizeResult:
    return optimize(
        OptimizeOptions(
            checkpoint=run,
            output=output,
            formats=("float16",),
            tolerance=0.9,
            assignments=("optimize.measure_runs=0",),
            run=RunOptions(workers=0, device="cpu", cache=place / "cache"),
            **options,
        )
    )


def parts_of(run: Path) -> dict[str, set[str]]:
    rows = read_rows(run / "cases.csv")
    return {
        part: {row["case"] for row in rows if row["part"] == part} for part in ("test", "train")
    }


def test_one_file_of_all_folds_is_judged_on_what_every_fold_tests(
    place: Path, tmp_path: Path
) -> None:
    result = small(place, tmp_path / "small", place / "folds")
    accuracy = result.document["accuracy"]
    assert accuracy["part"] == "test part of every fold"
    assert accuracy["cases"] == len(parts_of(place / "folds" / "fold_0")["test"]) > 0
    head = read_header(tmp_path / "small" / "document.safetensors")
    assert [member.name for member in members_of(head)] == ["fold_0", "fold_1"]
    assert files_naming(tmp_path / "small", str(place)) == []


def groups_of(place: Path, run: Path, scratch: Path) -> OptimizeData:
    header = read_header(answering_file((run,), scratch)[0])
    first = members_of(header)[0].document
    return optimize_data(
        task_from_document(str(first["task"]), first["preset"]),
        header.document,
        [RunFolder(run / name) for name in ("fold_0", "fold_1")],
        data=None,
        labels=None,
        calibration=None,
        needs=[CALIBRATION],
        cache=place / "cache",
        workers=0,
        reporter=Silent(),
    )


def test_whoever_a_fold_learned_from_calibrates_or_chooses(place: Path, tmp_path: Path) -> None:
    data = groups_of(place, place / "folds", tmp_path)
    tested = parts_of(place / "folds" / "fold_0")["test"]
    known = {row["case"] for row in read_rows(place / "folds" / "fold_0" / "cases.csv")} - tested
    calibration, choosing = (
        {case.case_id for case in cases} for cases in (data.calibration, data.choosing)
    )
    assert {case.case_id for case in data.judging} == tested
    assert calibration | choosing == known
    assert not calibration & choosing
    assert data.optimistic == ""


def test_where_each_fold_tests_others_nobody_judges(
    place: Path, apart: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="nobody to judge the folds") as refused:
        small(place, tmp_path / "small", apart)
    assert refused.value.met == "2 folds, and no case is in the test part of all of them"
    assert str(apart / "fold_0") in refused.value.how and "--data" in refused.value.how
    assert not any(tmp_path.iterdir())
    # What it advises: patients that no fold learned from, in a folder with the others; one fold.
    never_met = parts_of(apart / "fold_0")["test"]
    result = small(place, tmp_path / "small", apart, data=place / "data")
    assert result.document["accuracy"]["part"] == "patients that the model never met"
    assert result.document["accuracy"]["cases"] == len(never_met)
    alone = small(place, tmp_path / "alone", apart / "fold_0")
    assert alone.document["accuracy"]["part"] == "test part"


def test_the_data_must_be_those_of_every_fold(place: Path, tmp_path: Path) -> None:
    data = shutil.copytree(place / "data", tmp_path / "data")
    file = sorted((data / "images").rglob("*.nii.gz"))[0]
    sitk.WriteImage(sitk.ReadImage(file) + 1, file)
    with pytest.raises(CheckpointError, match="not the data") as refused:
        small(place, tmp_path / "small", place / "folds", data=data)
    assert refused.value.where == str(place / "folds" / "fold_0" / "cases.csv")
    # One that was begun with other parts than its checkpoint says is as strange.
    run = Path(shutil.copytree(place / "folds", tmp_path / "folds"))
    rows = read_rows(run / "fold_1" / "cases.csv")
    turned = {"selection": "train", "train": "selection"}
    changed = [{**row, "part": turned.get(row["part"], row["part"])} for row in rows]
    write_rows(run / "fold_1" / "cases.csv", changed)
    with pytest.raises(CheckpointError, match="not the data") as strange:
        small(place, tmp_path / "small", run)
    assert strange.value.where == str(run / "fold_1" / "cases.csv")
