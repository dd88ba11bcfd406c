"""On whom ``optimize`` calibrates, learns again, chooses and judges, and where their labels lie."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pytest
from listening import Listening
from tiny_task import TinyTask, write_tiny_cohort

from medtool.core.checkpoint import read_header
from medtool.core.errors import GateError, InputError, UsageError
from medtool.core.progress import Reporter, Silent
from medtool.data import case_file
from medtool.data.patient_hashes import hash_patients
from medtool.data.run_folder import RunFolder, read_rows
from medtool.verbs import optimize_leaks
from medtool.verbs.optimize_data import CALIBRATION, TRAINING, OptimizeData, optimize_data
from medtool.verbs.options import RunOptions
from medtool.verbs.train import TrainOptions, train

PATIENTS = 24
QUICK = ("train.epochs=1", "train.split=three-part", "metrics.bootstrap_draws=100")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny cohort whose table of labels lies elsewhere, and a run on both."""
    folder = tmp_path_factory.mktemp("optimize_data")
    write_tiny_cohort(folder / "data", patients=PATIENTS)
    (folder / "data" / "labels.csv").rename(folder / "outcomes.csv")
    train(
        TrainOptions(
            TinyTask,
            data=folder / "data",
            labels=folder / "outcomes.csv",
            assignments=QUICK,
            folder=folder,
            run=RunOptions(run="a", workers=0, device="cpu", cache=folder / "cache"),
        )
    )
    return folder


def found(
    place: Path,
    *,
    run: RunFolder | None = None,
    patients: Collection[str] = (),
    needs: Collection[str] = (CALIBRATION,),
    data: Path | None = None,
    labels: Path | None = None,
    calibration: Path | None = None,
    reporter: Reporter | None = None,
) -> OptimizeData:
    """Of ``run``, else of a model that knows these ``patients``."""
    document = {"patients": hash_patients(patients)} if patients else {}
    if run is not None:
        document = read_header(run.checkpoints_folder / "best.safetensors").document
    return optimize_data(
        TinyTask(TinyTask.settings_type()),  # type: ignore[arg-type]
        document,
        [] if run is None else [run],
        data=data,
        labels=labels,
        calibration=calibration,
        needs=needs,
        cache=place / "cache",
        workers=0,
        reporter=reporter or Silent(),
    )


def run_of(place: Path) -> RunFolder:
    return RunFolder(place / "runs" / "tiny" / "a")


def test_of_a_run_its_own_table_of_labels_is_taken(place: Path) -> None:
    of_run = found(place, run=run_of(place), needs=(CALIBRATION, TRAINING))
    assert of_run.training == of_run.calibration
    assert of_run.judging and of_run.judged == "test part"
    assert all(case.label is not None for case in of_run.cases)


def test_a_table_of_labels_that_is_named_goes_before(place: Path, tmp_path: Path) -> None:
    table = tmp_path / "others.csv"
    shutil.copy(place / "outcomes.csv", table)
    assert found(place, run=run_of(place), labels=table).judging
    # Other labels than those that it learned from: it was read, not the run's.
    text = table.read_text(encoding="utf-8")
    table.write_text(text.replace(",1", ",x").replace(",0", ",1").replace(",x", ",0"))
    with pytest.raises(UsageError, match="Labels changed"):
        found(place, run=run_of(place), labels=table)


def test_of_data_alone_labels_are_read_where_they_are_named(place: Path) -> None:
    known = {f"P{number:03d}" for number in range(PATIENTS // 2)}
    with pytest.raises(InputError, match="nobody to judge"):
        found(place, patients=known, data=place / "data")
    of_data = found(place, patients=known, data=place / "data", labels=place / "outcomes.csv")
    assert {case.patient_id for case in of_data.judging} == {
        f"P{number:03d}" for number in range(PATIENTS // 2, PATIENTS)
    }


def test_a_table_beside_the_scans_moves_with_them(tmp_path: Path) -> None:
    """From a fault: --data named the new folder, and the table was looked for in the old one."""
    write_tiny_cohort(tmp_path / "data", patients=PATIENTS)
    train(
        TrainOptions(
            TinyTask,
            data=tmp_path / "data",
            assignments=QUICK,
            folder=tmp_path,
            run=RunOptions(run="a", workers=0, device="cpu", cache=tmp_path / "cache"),
        )
    )
    moved = (tmp_path / "data").rename(tmp_path / "moved")
    assert found(tmp_path, run=run_of(tmp_path), data=moved).judging


def test_scans_that_calibrate_are_not_learned_from(place: Path, tmp_path: Path) -> None:
    """From a fault: --prune with --calibration trained on the calibration scans."""
    others = write_tiny_cohort(tmp_path / "others", 5, patients=3)
    (others / "labels.csv").unlink()
    for file in list((others / "scans").rglob("*.npy")):
        folder = others / "scans" / f"X{file.parent.name}"
        folder.mkdir(exist_ok=True)
        file.rename(folder / f"X{file.name}")
    both = (CALIBRATION, TRAINING)
    plain = found(place, run=run_of(place), needs=both)
    named = found(place, run=run_of(place), needs=both, calibration=others)
    assert {case.patient_id[0] for case in named.calibration} == {"X"}
    assert named.training == plain.training
    assert {case.case_id for case in named.training} <= {case.case_id for case in named.cases}
    known = {f"P{number:03d}" for number in range(PATIENTS // 2)}
    labels = place / "outcomes.csv"
    of_data = found(
        place, patients=known, needs=both, data=place / "data", labels=labels, calibration=others
    )
    assert {case.patient_id[0] for case in of_data.calibration} == {"X"}
    assert {case.patient_id for case in of_data.training} < known
    chosen, taught = ({c.patient_id for c in p} for p in (of_data.choosing, of_data.training))
    assert chosen | taught == known
    assert not chosen & taught


def test_where_nothing_learns_again_nobody_is_kept_for_it(place: Path) -> None:
    assert found(place, run=run_of(place)).training == ()


# --- other data by the same names, the same scans by other names ----------------------------------
def scan_of(cohort: Path, case: str) -> Path:
    return cohort / "scans" / case.partition("_")[0] / f"{case}.npy"


@pytest.mark.parametrize("part", ["train", "selection"])
def test_scans_of_another_hospital_may_have_names_of_ours(
    place: Path, tmp_path: Path, part: str
) -> None:
    """From a fault: one case an id was prepared, and the other's file of the cache missed."""
    rows = read_rows(run_of(place).cases_file)
    name = next(row["case"] for row in rows if row["part"] == part)
    write_tiny_cohort(tmp_path / "theirs", 5, patients=PATIENTS)
    file = tmp_path / "others" / "case" / f"{name}.npy"
    file.parent.mkdir(parents=True)
    scan_of(tmp_path / "theirs", name).rename(file)
    both = (CALIBRATION, TRAINING)
    plain = found(place, run=run_of(place), needs=both)
    named = found(place, run=run_of(place), needs=both, calibration=tmp_path / "others")
    assert [case.case_id for case in named.calibration] == [name]
    assert named.cache.load(named.calibration[0]).case_id == name
    assert named.cache.path(named.calibration[0]).is_file()
    assert (named.training, named.choosing) == (plain.training, plain.choosing)


def test_what_cannot_be_prepared_does_not_calibrate_by_a_name_that_can(
    place: Path, tmp_path: Path
) -> None:
    rows = read_rows(run_of(place).cases_file)
    name = next(row["case"] for row in rows if row["part"] == "selection")
    file = tmp_path / "others" / "case" / f"{name}.npy"
    file.parent.mkdir(parents=True)
    np.save(file, np.zeros((3, 5, 5), np.float32))
    with pytest.raises(InputError, match="nothing to calibrate on"):
        found(place, run=run_of(place), calibration=tmp_path / "others")


@pytest.mark.parametrize("needs", [(CALIBRATION,), (TRAINING,), ()])
def test_a_known_patient_does_not_judge_under_another_name(
    place: Path, tmp_path: Path, needs: Collection[str]
) -> None:
    """From a fault: outside a run pixels were compared for --calibration alone."""
    data = Path(shutil.copytree(place / "data", tmp_path / "data"))
    table = tmp_path / "labels.csv"
    shutil.copy(place / "outcomes.csv", table)
    known = [f"P{number:03d}" for number in range(PATIENTS // 2)]
    plain = found(place, patients=known, needs=needs, data=data, labels=table)
    assert plain.judging and plain.choosing
    for case in (plain.calibration[0], plain.choosing[0]):
        again = Path(shutil.copytree(data, tmp_path / case.case_id))
        (again / "scans" / "ANON7").mkdir()
        shutil.copy(scan_of(data, case.case_id), again / "scans" / "ANON7" / "ANON7_0.npy")
        more = tmp_path / f"{case.case_id}.csv"
        more.write_text(table.read_text(encoding="utf-8") + "ANON7_0,1\n", encoding="utf-8")
        with pytest.raises(GateError, match="would also judge") as refused:
            found(place, patients=known, needs=needs, data=again, labels=more)
        assert f"identical pixels: {case.case_id} is ANON7_0" in refused.value.met
        assert "--calibration" not in refused.value.how
        # Where both are known to be one patient there is no leak.
        assert found(
            place, patients=[*known, "ANON7"], needs=needs, data=again, labels=more
        ).judging


def test_a_leak_that_was_allowed_at_the_training_is_said(tmp_path: Path) -> None:
    write_tiny_cohort(tmp_path / "data", patients=PATIENTS)
    table = tmp_path / "data" / "labels.csv"
    table.write_text(table.read_text(encoding="utf-8") + "ANON7_0,0\n", encoding="utf-8")
    (tmp_path / "data" / "scans" / "ANON7").mkdir()
    split = tmp_path / "split.csv"
    parts = ["train", "selection", "test", "train"]
    rows = [f"P{number:03d},{parts[number // 2 % 4]}" for number in range(PATIENTS)]
    split.write_text("\n".join(["patient,part", *rows, "ANON7,test"]) + "\n", encoding="utf-8")
    shutil.copy(
        scan_of(tmp_path / "data", "P000_0"), tmp_path / "data" / "scans" / "ANON7" / "ANON7_0.npy"
    )
    train(
        TrainOptions(
            TinyTask,
            data=tmp_path / "data",
            assignments=(QUICK[0], f"data.split_file={split}", QUICK[2]),
            allow_leak=("ANON7",),
            folder=tmp_path,
            run=RunOptions(run="a", workers=0, device="cpu", cache=tmp_path / "cache"),
        )
    )
    said = Listening()
    assert found(tmp_path, run=run_of(tmp_path), reporter=said).judging
    (line,) = [line for line in said.lines if "identical pixels" in line]
    assert "P000_0 is ANON7_0" in line and "--allow-leak" in line


def test_pixels_are_compared_without_reading_anything_twice(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []

    def noted(path: Path, **named: object) -> object:
        read.append(path)
        return case_file.read_case_file(path, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(optimize_leaks, "read_prepared", noted)
    data = found(place, run=run_of(place), needs=(CALIBRATION, TRAINING))
    assert sorted(read) == sorted({data.cache.path(case) for case in data.cases})
