"""``train --until``: the plan alone, the cache alone, and a training that then starts at once."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from pathlib import Path

import pytest
from medtool_segment import Segment
from medtool_segment.demo import write_dataset
from tiny_task import TinyTask, write_tiny_cohort
from two_levels import TWO_LEVELS

from medtool.core.errors import ExitStatus, UsageError
from medtool.verbs.options import RunOptions
from medtool.verbs.preprocess import preprocess
from medtool.verbs.task_data import DataOptions
from medtool.verbs.train import TrainOptions, train
from medtool.verbs.train_until import next_line, train_until

# The network is fixed; what becomes of spacing and intensities is planned.
SMALL = (
    *TWO_LEVELS,
    "model.patch_size_vox=[16, 16, 16]",
    "train.epochs=1",
    "train.examples_per_case=1",
    "metrics.bootstrap_draws=100",
    "infer.step=1.0",
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dataset")
    write_dataset(folder, seed=5, cases=8)
    return folder


def options(dataset: Path, folder: Path, **run: object) -> TrainOptions:
    return TrainOptions(
        task=Segment,
        preset="demo",
        data=dataset,
        assignments=SMALL,
        folder=folder,
        run=RunOptions(workers=0, device="cpu", cache=folder / "cache", **run),  # type: ignore[arg-type]
        command="medtool train segment --preset demo --until prepare",
    )


def test_the_plan_is_a_file_with_reasons_and_a_preset_that_gives_it_again(
    dataset: Path, tmp_path: Path
) -> None:
    (planned,) = train_until("plan", options(dataset, tmp_path))
    plan = planned.plan
    assert plan is not None
    written = json.loads(plan.file.read_text(encoding="utf-8"))
    assert written["planner"] == "default"
    assert all(one["why"] for one in written["decisions"])
    assert ("spacing_mm" in written["configurations"]["3d_fullres"]) and written["chosen"]
    preset = tomllib.loads(plan.preset.read_text(encoding="utf-8"))
    assert len(preset["data"]["preparation"]["spacing_mm"]) == 3
    # Nothing but the plan: no case is prepared, no run begun.
    assert not planned.cache.exists()
    assert not (tmp_path / "runs").exists()
    # The preset of the plan, as it is, plans nothing anew.
    again = dataclasses.replace(options(dataset, tmp_path), preset=str(plan.preset), assignments=())
    (fixed,) = train_until("plan", again)
    assert fixed.plan is None


def test_a_training_finds_everything_that_was_prepared(dataset: Path, tmp_path: Path) -> None:
    (first,) = train_until("prepare", options(dataset, tmp_path))
    assert (first.prepared, first.reused, first.failures) == (8, 0, 0)
    (second,) = train_until("prepare", options(dataset, tmp_path))
    assert (second.prepared, second.reused) == (8, 8)
    assert second.plan is not None and first.plan is not None
    assert second.plan.file == first.plan.file
    files = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.b2")}
    train(options(dataset, tmp_path, run="a"))
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.b2")} == files


def test_preprocess_plans_from_the_folds_that_lie_beside_the_data(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    write_dataset(folder, seed=5, cases=8)
    names = sorted(path.name.removesuffix(".nii.gz") for path in (folder / "labelsTr").iterdir())
    # Not the parts that the seed of the preset would have drawn, and other spacings.
    folds = [{"train": names[4:], "val": names[:4]}]
    (folder / "splits_final.json").write_text(json.dumps(folds), encoding="utf-8")
    asked = DataOptions("segment", folder, preset="demo", assignments=SMALL)
    assert preprocess(asked, cache=tmp_path / "cache", workers=0).status == ExitStatus.DONE
    (planned,) = train_until("prepare", options(folder, tmp_path))
    assert (planned.prepared, planned.reused) == (8, 8)


def test_each_fold_has_a_plan_of_its_own_cases(dataset: Path, tmp_path: Path) -> None:
    both = train_until("plan", options(dataset, tmp_path, folds=2))
    assert [one.fold for one in both] == [0, 1]
    spacings = {tuple(one.plan.document["original_median_spacing_mm"]) for one in both if one.plan}
    assert len(spacings) == 2
    (second,) = train_until("plan", options(dataset, tmp_path, folds=2, fold=1))
    assert second.plan == both[1].plan


def test_the_next_command_is_the_same_without_the_stop(dataset: Path, tmp_path: Path) -> None:
    asked = options(dataset, tmp_path)
    assert next_line(asked, "segment") == "medtool train segment --preset demo"
    joined = dataclasses.replace(asked, command="medtool train segment --until=plan --data 'a b'")
    assert next_line(joined, "segment") == "medtool train segment --data 'a b'"


def test_what_cannot_stop_there_is_refused(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as wrong:
        train_until("prepared", options(dataset, tmp_path))
    assert wrong.value.nearest == "prepare"
    begun = dataclasses.replace(options(dataset, tmp_path), resume=tmp_path)
    with pytest.raises(UsageError, match="A run that has begun"):
        train_until("plan", begun)
    with pytest.raises(UsageError, match="one machine"):
        train_until("prepare", options(dataset, tmp_path, nodes=2))
    tiny = TrainOptions(task=TinyTask, data=write_tiny_cohort(tmp_path / "tiny", patients=12))
    with pytest.raises(UsageError, match="plans nothing"):
        train_until("plan", tiny)


def test_a_task_without_a_plan_prepares_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(write_tiny_cohort(tmp_path, patients=12))
    (done,) = train_until("prepare", TrainOptions(task=TinyTask, run=RunOptions(workers=0)))
    assert done.plan is None
    assert done.prepared == len(list(Path("scans").rglob("*.npy")))


def test_on_the_command_line(medtool, dataset: Path, tmp_path: Path) -> None:
    words = ("train", "segment", "--preset", "demo", "--data", dataset, "--workers", "0")
    outcome = medtool(*words, "--until", "plan", folder=tmp_path)
    assert outcome.status == ExitStatus.DONE, outcome.err
    (plan,) = outcome.out.split()
    assert (tmp_path / plan).is_file()
    # Each decision stands on the screen with its reason.
    assert "Why" in outcome.err and "median" in outcome.err
    assert "as --preset" in outcome.err
    broken = tmp_path / "broken"
    write_dataset(broken, seed=5, cases=6)
    (broken / "imagesTr" / "demo_002_0000.nii.gz").write_bytes(b"no image")
    words = ("train", "segment", "--preset", "demo", "--data", broken, "--workers", "0")
    outcome = medtool(*words, "--until", "prepare", "--json", folder=tmp_path)
    assert outcome.status == ExitStatus.SOME_CASES_FAILED, outcome.err
    (stopped,) = json.loads(outcome.out)["stopped"]
    assert (stopped["until"], stopped["prepared"], stopped["failures"]) == ("prepare", 5, 1)
