"""Labels that have a side, and trainings that would teach that left is right."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from listening import Listening
from medtool_heart import Heart
from medtool_heart.demo import write_cohort
from medtool_pancreas import Pancreas
from medtool_petct import Petct
from medtool_segment import Segment
from medtool_segment.demo import write_dataset
from segmentation_places import TINY_SLICES, TINY_VOLUMES

from medtool.config import resolve
from medtool.core.errors import UsageError
from medtool.core.task import Task
from medtool.tasks.segmentation_sides import mirrors, sided, warn_of_sides, words_of
from medtool.verbs.options import RunOptions
from medtool.verbs.train import TrainOptions, train
from medtool.verbs.train_until import train_until


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("kidney_left", "kidney_right"),
        ("leftKidney", "rightKidney"),
        ("LEFT KIDNEY", "Right Kidney"),
        ("Hippocampus-L", "Hippocampus-R"),
        ("LKidney", "RKidney"),
        ("rib_left_1", "rib_right_1"),
        ("amygdala.lh", "amygdala.rh"),
        ("Niere links", "Niere rechts"),
        ("linke Niere", "rechte Niere"),
        ("linker_vorhof", "rechter_vorhof"),
        ("rein gauche", "rein droit"),
        ("riñón_izquierdo", "riñón_derecho"),
        ("atrio sinistro", "atrio destro"),
        ("l", "r"),
    ],
)
def test_both_sides_are_a_pair(left: str, right: str) -> None:
    assert sided(["liver", right, left]) == [(left, right)]


@pytest.mark.parametrize(
    "names",
    [
        ("left_kidney", "liver"),
        ("left kidney", "right lung"),
        ("anterior", "posterior"),
        ("clean", "crean"),
        ("rib_left_1", "rib_right_2"),
        ("L1", "L2"),
        ("L1", "R2"),
        ("bright", "bleft"),
    ],
)
def test_what_is_no_pair(names: tuple[str, str]) -> None:
    assert sided(names) == []


def test_words_of_names() -> None:
    assert words_of("leftKidney_2") == ("left", "kidney", "2")
    assert words_of("MRIleft lobe") == ("mr", "ileft", "lobe")
    assert words_of("") == ()


SIDES = "data.label_ids={kidney_left=[1], kidney_right=[2]}"


def warned(task: type[Task], folder: Path, *given: str) -> str:
    heard = Listening()
    settings: Any = resolve(task, None, folder=folder, assignments=(SIDES, *given)).settings
    warn_of_sides(settings, heard)
    return "\n".join(heard.lines)


@pytest.mark.parametrize(
    ("task", "given", "ending"),
    [
        (Segment, ("augment.mirror=true",), "--set augment.mirror=false."),
        (
            Heart,
            (),
            "--set augment.flip_rows_probability=0 --set augment.flip_columns_probability=0.",
        ),
        (
            Heart,
            ("augment.flip_rows_probability=0",),
            ": --set augment.flip_columns_probability=0.",
        ),
        (Heart, ('augment.kind="fourfold"', "train.examples_per_case=4"), "augment.kind=random"),
        (Petct, (), "--set augment.flips=[]."),
        (Petct, ('augment.flips=["rows", "columns"]',), '--set augment.flips=["rows"].'),
    ],
)
def test_the_keys_that_end_it_are_named_and_end_it(
    tmp_path: Path, task: type[Task], given: tuple[str, ...], ending: str
) -> None:
    text = warned(task, tmp_path, *given)
    assert "kidney_left and kidney_right" in text
    assert ending in text
    keys = text.rpartition("Without it: ")[2].removesuffix(".").split("--set ")[1:]
    assert warned(task, tmp_path, *given, *(key.strip() for key in keys)) == ""


@pytest.mark.parametrize(
    ("task", "given"),
    [
        (Segment, ()),
        (Segment, ("augment.mirror=true", "augment.enabled=false")),
        (Heart, ('augment.kind="none"',)),
        (Petct, ('augment.flips=["rows", "slices"]',)),
    ],
)
def test_what_needs_no_warning(tmp_path: Path, task: type[Task], given: tuple[str, ...]) -> None:
    assert warned(task, tmp_path, *given) == ""


@pytest.mark.parametrize("preset", ["nnunet", "default"])
def test_where_the_preset_leaves_it_open_labels_with_a_side_end_mirroring(
    tmp_path: Path, preset: str
) -> None:
    """The page of presets said so, and patches were mirrored all the same, with a warning."""
    task = Segment if preset == "nnunet" else Pancreas

    def of(*given: str) -> bool:
        settings: Any = resolve(task, preset, folder=tmp_path, assignments=given).settings
        return mirrors(settings)

    assert of("data.label_ids={organ=[1], nodule=[2]}")
    assert not of(SIDES)
    assert of(SIDES, "augment.mirror=true")
    assert not of("data.label_ids={organ=[1]}", "augment.mirror=false")


def test_answers_may_be_mirrored_while_labels_are_not_known_yet(tmp_path: Path) -> None:
    given = ("infer.mirror=true",)
    assert Segment(resolve(Segment, "nnunet", folder=tmp_path, assignments=given).settings)
    with pytest.raises(UsageError, match="learned from none"):
        Segment(resolve(Segment, None, folder=tmp_path, assignments=given).settings)


def test_of_many_pairs_some_are_named_and_the_rest_counted(tmp_path: Path) -> None:
    ids = ", ".join(
        f"rib_{side}_{n}=[{2 * n + place}]"
        for n in range(5)
        for place, side in ((1, "left"), (2, "right"))
    )
    text = warned(Segment, tmp_path, "augment.mirror=true", f"data.label_ids={{{ids}}}")
    assert "rib_left_1 and rib_right_1 and 3 more pairs" in text
    assert "rib_left_2" not in text


def options(folder: Path, task: type[Task], **changes: Any) -> TrainOptions:
    run = RunOptions(run="a", workers=0, cache=folder / "cache", device="cpu")
    return TrainOptions(task=task, data=folder / "data", folder=folder, run=run, **changes)


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of volumes whose two labels are called by their sides."""
    folder = tmp_path_factory.mktemp("sides")
    write_dataset(folder / "data", 0, 6)
    file = folder / "data" / "dataset.json"
    document = json.loads(file.read_text())
    document["labels"] = {"background": 0, "kidney_left": 1, "kidney_right": 2}
    file.write_text(json.dumps(document))
    (folder / "medtool.toml").write_text(TINY_VOLUMES)
    return folder


def test_planning_and_training_warn_and_the_default_has_nothing_to_warn_of(sides: Path) -> None:
    for ask in (lambda *asked: train_until("plan", *asked), train):
        heard = Listening()
        mirrored = ("augment.mirror=true", "train.epochs=1")
        ask(options(sides, Segment, assignments=mirrored, start_or_resume=True), heard)
        assert sum("Labels have a side" in line for line in heard.lines) == 1
    heard = Listening()
    (planned,) = train_until("plan", options(sides, Segment), heard)
    assert not any("Labels have a side" in line for line in heard.lines)
    # A preset that holds the plan already is not silent either.
    assert planned.plan is not None
    text = planned.plan.preset.read_text()
    assert text.count("mirror = false") == 2
    mirrors = sides / "planned.toml"
    mirrors.write_text(text.replace("mirror = false", "mirror = true", 1))
    train_until("plan", options(sides, Segment, preset=str(mirrors)), heard)
    assert any("Labels have a side" in line for line in heard.lines)


@pytest.mark.parametrize(("task", "preset"), [(Segment, "nnunet"), (Pancreas, "default")])
def test_the_plan_settles_that_labels_with_a_side_are_not_mirrored(
    sides: Path, task: type[Task], preset: str
) -> None:
    heard = Listening()
    (planned,) = train_until("plan", options(sides, task, preset=preset), heard)
    told = [line for line in heard.lines if "have a side" in line]
    assert told == ["Labels have a side (kidney_left and kidney_right): patches are not mirrored."]
    assert planned.plan is not None
    assert tomllib.loads(planned.plan.preset.read_text())["augment"]["mirror"] is False


def test_flips_of_slices_are_told_as_well(tmp_path: Path) -> None:
    write_cohort(tmp_path / "data", 0, 8)
    (tmp_path / "medtool.toml").write_text(TINY_SLICES)
    heard = Listening()
    given = (
        "data.label_ids={left_ventricle=[1], right_ventricle=[2]}",
        "data.preparation.intensity=percentiles",
    )
    train_until("plan", options(tmp_path, Heart, assignments=given), heard)
    assert any("left_ventricle and right_ventricle" in line for line in heard.lines)
