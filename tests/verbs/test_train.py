"""The verb train on the tiny task: its files, its order, its refusals, its ways to go on."""

import contextlib
import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from faulty_task import FaultyTask
from listening import Listening
from safetensors.numpy import load_file
from tiny_task import TinySettings, TinyTask, write_tiny_cohort

from medtool.core.checkpoint import find_checkpoint, read_header, verify_tensors
from medtool.core.errors import (
    Interrupted,
    LabelsError,
    LeakageError,
    OutputExistsError,
    UsageError,
)
from medtool.core.records import Case, Cohort, Prepared, Source
from medtool.data.patient_hashes import seen_patients
from medtool.data.predictions import LEADING_COLUMNS, read_predictions
from medtool.data.run_folder import RunFolder
from medtool.verbs.options import RunOptions
from medtool.verbs.train import TrainOptions, TrainResult, train
from medtool.verbs.train_data import gather

QUICK = ("train.epochs=2", "metrics.bootstrap_draws=100")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_tiny_cohort(tmp_path, patients=24)


def options(name: str = "first", *settings: str, **changes: object) -> TrainOptions:
    run = {key: changes.pop(key) for key in list(changes) if key in RunOptions.__annotations__}
    return TrainOptions(
        task=TinyTask,
        assignments=(*QUICK, *settings),
        run=RunOptions(run=name, device="cpu", workers=0, **run),  # type: ignore[arg-type]
        command="medtool train tiny",
        **changes,  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainResult, list[str]]:
    """A folder with a finished run, its result and what was said: to be looked at only."""
    folder = write_tiny_cohort(tmp_path_factory.mktemp("finished"), patients=24)
    said = Listening()
    with contextlib.chdir(folder):
        result = train(options(), said)
    return folder, result, said.lines


@pytest.fixture
def copied(
    finished: tuple[Path, TrainResult, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A copy of the finished run's folder, to be changed."""
    folder = Path(shutil.copytree(finished[0], tmp_path / "copy"))
    run = run_of(folder)
    document = run.read_run()
    # A run remembers where its data were; scans that keep their times keep their cache.
    document["data"] = {"folder": str(folder), "labels": str(folder / "labels.csv")}
    run.write_run(document)
    monkeypatch.chdir(folder)
    return folder


def run_of(folder: Path, name: str = "first") -> RunFolder:
    return RunFolder(folder / "runs" / "tiny" / name)


def test_a_run_leaves_every_file(finished: tuple[Path, TrainResult, list[str]]) -> None:
    folder, result, said = finished
    run = run_of(folder)
    assert isinstance(result, TrainResult)
    for file in (
        run.preset_file,
        run.cases_file,
        run.history_file,
        run.checkpoints_file,
        run.scores_file,
        run.report_file,
        run.run_file,
        run.log_file,
        run.intake_file,
        run.predictions_folder / "test" / "predictions.csv",
        run.predictions_folder / "selection" / "predictions.csv",
    ):
        assert file.is_file(), file.name
    assert list(run.events_folder.glob("events.out.*"))
    assert [row["epoch"] for row in run.read_history()] == [0, 1]
    assert result.infer_line == f"medtool infer SCANS --checkpoint {result.checkpoint} -o OUT"
    assert find_checkpoint(run.path)[0].samefile(folder / result.checkpoint)
    estimate = next(i for i, line in enumerate(said) if line.startswith("Estimate:"))
    epoch = next(i for i, line in enumerate(said) if line.startswith("Epoch 1"))
    assert estimate < epoch
    assert "GB of disk" in said[estimate]


def test_parts_are_of_patients_and_each_held_out_case_is_answered(
    finished: tuple[Path, TrainResult, list[str]],
) -> None:
    run = run_of(finished[0])
    cases = run.read_cases()
    parts: dict[str, set[str]] = {}
    for row in cases:
        parts.setdefault(row["patient"], set()).add(row["part"])
    assert all(len(found) == 1 for found in parts.values())
    for part in ("test", "selection"):
        rows = read_predictions(run.predictions_folder / part)
        assert {r["case"] for r in rows} == {c["case"] for c in cases if c["part"] == part}
        assert tuple(rows[0])[: len(LEADING_COLUMNS)] == LEADING_COLUMNS
        assert all(0 < float(row["probability"]) < 1 for row in rows)
    scores = run.read_scores()
    assert scores["selection"]["optimistic"] == "selection set, optimistic"
    assert not scores["test"]["optimistic"]


def test_the_best_checkpoint_says_what_it_is(
    finished: tuple[Path, TrainResult, list[str]],
) -> None:
    header = read_header(finished[0] / finished[1].checkpoint)
    document = header.document
    assert verify_tensors(header) == []
    assert document["task"] == "tiny"
    assert document["preset"]["train"]["epochs"] == 2
    assert document["synthetic"] is True
    assert 0 <= document["threshold"] <= 1
    assert set(document["metrics"]["scores"]) == {"selection", "test"}
    assert document["groups"] == {
        "trunk": {"parameters": 256 * 8 + 8},
        "head": {"parameters": 9},
    }
    assert document["stages"][0]["parameters"] == 256 * 8 + 8 + 9
    shapes = {row["name"]: row["shapes"] for row in document["layers"]}
    assert shapes == {
        "trunk": {"weight": [8, 256], "bias": [8]},
        "head": {"weight": [1, 8], "bias": [1]},
    }
    assert document["training_range"]["manufacturer"].keys() == {"tiny"}
    assert document["training_range"]["spacing_mm"][2][0] == 2.0
    assert {"model.", "optimizer.", "rng.", "probe."} == {
        name.split(".")[0] + "." for name in header.tensors
    }


def test_training_patients_are_known_without_their_ids(
    finished: tuple[Path, TrainResult, list[str]],
) -> None:
    folder, result, _ = finished
    cases = run_of(folder).read_cases()
    table = read_header(folder / result.checkpoint).document["patients"]
    learned = {c["patient"] for c in cases if c["part"] in ("train", "selection")}
    everybody = {c["patient"] for c in cases} | {"stranger"}
    assert seen_patients(table, everybody) == learned
    assert not any(patient in str(table) for patient in everybody)


def test_a_finished_run_resumed_changes_no_weight(copied: Path) -> None:
    before = load_file(run_of(copied).checkpoints_folder / "best.safetensors")
    again = train(dataclasses.replace(options(), assignments=(), resume=run_of(copied).path))
    after = load_file(again.checkpoint)
    assert all(before[name].tobytes() == after[name].tobytes() for name in before)


def test_resuming_from_any_checkpoint_ends_with_the_same_weights(folder: Path) -> None:
    settings = ("train.epochs=5", "train.checkpoint_every_epochs=2")
    train(options("first", *settings))
    run = run_of(folder)
    last = run.checkpoints_folder / "last.safetensors"
    whole = load_file(last)
    for row in run.read_checkpoints():
        if row["kind"] in ("best", "milestone"):
            last.unlink()
            train(
                dataclasses.replace(
                    options(), assignments=(), resume=run.checkpoints_folder / row["file"]
                )
            )
            again = load_file(last)
            assert all(whole[name].tobytes() == again[name].tobytes() for name in whole)
    assert [row["epoch"] for row in run.read_history()] == [0, 1, 2, 3, 4]


def test_start_or_resume_starts_then_resumes(folder: Path) -> None:
    # A kill before the first checkpoint was whole leaves nothing to go on from.
    run = run_of(folder)
    run.checkpoints_folder.mkdir(parents=True)
    (run.checkpoints_folder / ".writing-half").write_bytes(b"half")
    run.write_run({"task": "tiny"})
    once = train(options(start_or_resume=True))
    said = Listening()
    twice = train(options(start_or_resume=True), said)
    assert once.run == twice.run
    assert any(line.startswith("Resuming") for line in said.lines)


def test_an_existing_run_is_not_overwritten(copied: Path) -> None:
    with pytest.raises(OutputExistsError, match="run of this name"):
        train(options())


def test_a_run_does_not_go_on_with_other_settings(copied: Path) -> None:
    with pytest.raises(UsageError, match="other settings") as error:
        train(options("first", "train.epochs=9", start_or_resume=True))
    assert "train.epochs = 2" in error.value.wanted


def test_changed_labels_are_noticed_when_resuming(copied: Path) -> None:
    table = copied / "labels.csv"
    table.write_text(table.read_text().replace("P001_0,1", "P001_0,0"))
    with pytest.raises(UsageError, match="Labels changed"):
        train(options(start_or_resume=True))


def test_identical_pixels_under_two_patients_end_the_run(folder: Path) -> None:
    first, second = sorted((folder / "scans").rglob("*.npy"))[2:4]
    second.write_bytes(first.read_bytes())
    with pytest.raises(LeakageError, match="identical pixels"):
        train(options())
    assert not run_of(folder).checkpoints_folder.exists()
    patient = first.parent.name
    train(options("second", allow_leak=(f"patient={patient}",)))


class OneStudyTwice(TinyTask):
    """The tiny task, whose third and fourth study are one by its UID."""

    def find(self, source: Source) -> Cohort:
        """As the tiny task does."""
        cohort = super().find(source)
        first, second = cohort.cases[2:4]
        twin = dataclasses.replace(second, study_uid=first.study_uid)
        return dataclasses.replace(cohort, cases=(*cohort.cases[:3], twin, *cohort.cases[4:]))

    def prepare(self, case: Case) -> Prepared:
        """Nothing is prepared before the gate."""
        raise AssertionError(case.case_id)


def test_one_study_under_two_patients_ends_the_run_before_preparing(folder: Path) -> None:
    asked = dataclasses.replace(options(), task=OneStudyTwice)
    with pytest.raises(LeakageError, match="one study or series") as caught:
        train(asked)
    assert caught.value.met.startswith("P001 and P002: StudyInstanceUID 2.25.")
    assert not run_of(folder).checkpoints_folder.exists()


def test_patients_that_may_be_one_are_warned_of(folder: Path) -> None:
    for number in range(1, 24):
        (folder / "scans" / f"P{number:03d}").rename(folder / "scans" / f"{number:05d}")
    cohort = write_tiny_cohort(folder / "more", seed=1, patients=24)
    rows = (folder / "labels.csv").read_text("utf-8")
    for file in sorted((cohort / "scans").rglob("*.npy"))[2:]:
        number = int(file.parent.name[1:])
        place = folder / "scans" / str(number)
        place.mkdir()
        file.rename(place / f"Q{number:03d}_0.npy")
        rows += f"Q{number:03d}_0,{number % 2}\n"
    (folder / "labels.csv").write_text(rows, "utf-8")
    said = Listening()
    gather(TinyTask(TinySettings()), dataclasses.replace(options(), data=folder), None, said)
    assert sum("Perhaps one patient is in two parts" in line for line in said.lines) == 1


def test_a_leak_that_was_allowed_makes_the_test_part_optimistic(folder: Path) -> None:
    first, second = sorted((folder / "scans").rglob("*.npy"))[2:4]
    np.save(second, np.load(first))
    name = f"patient={second.parent.name}"
    said = Listening()
    train(options(allow_leak=(name,)), said)
    run = run_of(folder)
    assert "both sides" in run.read_scores()["test"]["optimistic"]
    assert any("identical slices: allowed by name" in note for note in run.read_run()["notes"])
    assert any(line.startswith("test: auroc") and "optimistic" in line for line in said.lines)


def test_no_labels_are_refused(folder: Path) -> None:
    (folder / "labels.csv").unlink()
    with pytest.raises(LabelsError, match="no labels"):
        train(options())


class Labelled(TinyTask):
    """Labels come with the cases, as from a manifest."""

    def find(self, source: Source) -> Cohort:
        """Patients of odd numbers are positive."""
        found = super().find(source)
        cases = tuple(
            dataclasses.replace(case, label=float(int(case.patient_id[1:]) % 2))
            for case in found.cases
        )
        return dataclasses.replace(found, cases=cases)


def test_labels_that_come_with_the_cases_need_no_table(folder: Path) -> None:
    (folder / "labels.csv").unlink()
    result = train(dataclasses.replace(options(), task=Labelled))
    assert {row["label"] for row in run_of(folder).read_cases()} == {"0.0", "1.0"}
    assert result.scores["test"]["metrics"]["auroc"]["n"] > 0


def test_a_case_that_hangs_ends_neither_estimate_nor_run(folder: Path) -> None:
    # The first training case: the estimate meets it.
    scan = folder / "scans" / "P002" / "P002_0.npy"
    scan.rename(scan.with_name("P002_hang.npy"))
    labels = folder / "labels.csv"
    labels.write_text(labels.read_text().replace("P002_0", "P002_hang"))
    parts = ["train"] * 14 + ["selection"] * 5 + ["test"] * 5
    # P002 first, so that nothing is prepared before it.
    order = [2, 3, 0, 1, *range(4, 24)]
    rows = [f"P{n:03d},{part}" for n, part in zip(order, parts, strict=True)]
    (folder / "parts.csv").write_text("\n".join(["patient,part", *rows]))
    result = train(
        dataclasses.replace(
            options("first", "data.split_file=parts.csv"),
            task=FaultyTask,
            case_timeout_s=3.0,
            run=RunOptions(run="first", device="cpu", workers=1),
        )
    )
    assert result.failures == 1
    run = RunFolder(folder / "runs" / "faulty" / "first")
    (failure,) = run.read_run()["failures"]
    assert (failure["case"], failure["code"]) == ("P002_hang", "case-timeout")
    assert next(row for row in run.read_cases() if row["patient"] == "P002")["part"] == "train"


def test_a_case_that_cannot_be_prepared_is_left_out_and_named(folder: Path) -> None:
    file = next(file for file in sorted((folder / "scans").rglob("*.npy")) if "P010" in file.name)
    np.save(file, np.zeros((3, 8, 8), dtype=np.float32))
    result = train(options())
    assert result.failures == 1
    (failure,) = run_of(folder).read_run()["failures"]
    assert (failure["case"], failure["code"]) == ("P010_0", "wrong-size")


def test_minutes_fit_the_plan_and_stay(folder: Path) -> None:
    result = train(options("first", "train.epochs=100000", minutes=0.01))
    plan = read_header(result.checkpoint).document["plan"]
    assert plan["epochs"] < 100000
    assert plan["minutes"] == 0.01
    assert run_of(folder).read_run()["plan"] == plan
    assert len(run_of(folder).read_history()) == plan["epochs"]
    said = Listening()
    again = dataclasses.replace(options(minutes=5.0), assignments=(), resume=result.run)
    train(again, said)
    assert any(line.startswith("--minutes changes nothing now") for line in said.lines)
    assert run_of(folder).read_run()["plan"] == plan


def test_folds_are_joined_when_all_are_there(folder: Path) -> None:
    said = Listening()
    train(options("cv", folds=3), said)
    assert any("facts of the scan alone: slices" in line for line in said.lines)
    joint = run_of(folder, "cv")
    document = joint.read_scores()["out-of-fold"]
    rows = read_predictions(joint.predictions_folder / "out-of-fold")
    assert sorted(row["case"] for row in rows) == sorted(row["case"] for row in joint.read_cases())
    assert document["metrics"]["auroc"]["n"] == len(rows)
    assert joint.report_file.is_file()
    assert any("out of fold" in line for line in said.lines)
    tests = [
        {r["patient"] for r in run_of(folder, f"cv/fold_{k}").read_cases() if r["part"] == "test"}
        for k in range(3)
    ]
    assert not tests[0] & tests[1] and not tests[0] & tests[2] and not tests[1] & tests[2]


def test_slim_drops_the_optimiser_everywhere(folder: Path) -> None:
    result = train(options(slim=True))
    for file in result.checkpoint.parent.glob("*.safetensors"):
        assert read_header(file).is_slim


def test_an_unknown_group_of_a_stage_is_refused_with_a_name(folder: Path) -> None:
    stages = "train.stages=[{from_epoch=0, rates={heads=0.1}}]"
    with pytest.raises(UsageError) as error:
        train(options("first", stages))
    assert error.value.nearest == "head"


def test_two_devices_learn_through_the_verb(folder: Path) -> None:
    said = Listening()
    result = train(options("both", devices=2), said)
    assert any(line.startswith("Epoch 2 of 2") for line in said.lines)
    plan = read_header(result.checkpoint).document["plan"]
    assert plan["cases_per_step"] == 4


def test_interrupted_says_how_to_go_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os
    import signal

    from medtool.verbs import train_run

    def epoch(self: object, fact: object) -> None:
        before(self, fact)
        os.kill(os.getpid(), signal.SIGINT)

    before = train_run._Writer.epoch
    monkeypatch.setattr(train_run._Writer, "epoch", epoch)
    with pytest.raises(Interrupted) as error:
        train(options("first", "train.epochs=50"))
    assert "--resume" in error.value.how
    monkeypatch.setattr(train_run._Writer, "epoch", before)
    train(options("first", "train.epochs=50", start_or_resume=True))
    assert len(run_of(folder).read_history()) == 50
