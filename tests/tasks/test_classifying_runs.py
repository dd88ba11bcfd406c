"""Masks with classes through the verbs: trained, answered, evaluated, and with the head off."""

import csv
import re
import shutil
from dataclasses import replace

import numpy as np
import pydicom
import pytest
from dicom_builder import build_series
from medtool_pancreas import Pancreas
from scipy import ndimage
from tiny_classified import SMALL, class_of, draw_tiny, write_tiny_classified

from medtool.config import resolve
from medtool.config.sections import DataSection
from medtool.core.checkpoint import read_header, write_checkpoint
from medtool.core.ensemble import write_ensemble
from medtool.core.errors import LabelsError, UsageError
from medtool.core.progress import Silent
from medtool.core.records import Source
from medtool.data.cohort import build_cohort
from medtool.data.dataset_record import ImageReference
from medtool.data.fold_files import read_folds
from medtool.data.nifti_writer import write_nifti
from medtool.data.predictions import read_predictions
from medtool.data.run_folder import RunFolder, fold_folders
from medtool.data.volumes import read_mask
from medtool.nets.state import raw_tensor, read_tensors
from medtool.verbs.evaluate import EvaluateOptions, evaluate
from medtool.verbs.infer import InferOptions, infer
from medtool.verbs.options import RunOptions
from medtool.verbs.train import TrainOptions, train


class Heard(Silent):
    """Keeps what is said."""

    def __init__(self):
        self.lines = []

    def say(self, text):
        self.lines.append(text)

    def warn(self, text):
        self.lines.append(text)


def trained_on(folder, *assignments, reporter=None, **options):
    wanted = {
        "task": Pancreas,
        "data": folder / "data",
        "assignments": (*SMALL, *assignments),
        "folder": folder,
        "run": RunOptions(run="a", workers=0, cache=folder / "cache", device="cpu"),
    }
    return train(TrainOptions(**{**wanted, **options}), reporter)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classifying")
    write_tiny_classified(folder / "data")
    return folder, trained_on(folder)


def test_the_run_holds_classes_weights_and_scores(trained):
    _, result = trained
    document = read_header(result.checkpoint).document
    preset = document["preset"]
    assert preset["data"]["classes"] == ["cystic", "solid"]
    # As many of either: no class weighs more.
    assert preset["train"]["class_weights"] == [1.0, 1.0]
    assert document["metrics"]["primary"] == "dice_and_f1"
    metrics = result.scores["test"]["metrics"]
    wanted = {"dice_and_f1", "dice", "macro_f1", "accuracy", "recall.cystic", "f1.solid"}
    wanted |= {"lesion_f1.lesion", "false_positive_ml.lesion", "false_negative_ml.lesion"}
    assert wanted | {"dice.organ", "dice.lesion", "dice.whole organ"} <= set(metrics)
    assert preset["infer"]["removed_becomes"] == {"lesion": "organ"}
    assert preset["infer"]["least_volumes_ml"]["lesion"]
    # The union is no structure of its own in the mean.
    by_hand = (metrics["dice.organ"]["value"] + metrics["dice.lesion"]["value"]) / 2
    assert metrics["dice"]["value"] == pytest.approx(by_hand)
    both = (metrics["dice"]["value"] + metrics["macro_f1"]["value"]) / 2
    assert metrics["dice_and_f1"]["value"] == pytest.approx(both)
    assert metrics["macro_f1"]["trivial_by"].startswith("always ")
    history = RunFolder(result.run).read_history()
    assert {"classification", "segmentation", "selection_macro_f1"} <= set(history[0])


def test_the_report_shows_what_was_taken_for_what(trained):
    _, result = trained
    page = result.report.read_text(encoding="utf-8")
    text = re.sub(r"<[^>]+>", " ", page)
    for words in (
        "Confusion matrix",
        "called cystic",
        "Mean of Dice and macro F1",
        "F1 of lesions",
        "False-positive volume (mL)",
        "classification head",
    ):
        assert words in text, words
    assert "studies positive" not in text
    assert re.search(r"\d+ cystic, \d+ solid", text)


def test_answers_have_a_class_and_probabilities_and_are_scored_as_in_the_run(trained, tmp_path):
    folder, result = trained
    done = infer(
        InferOptions(
            sources=(folder / "data" / "imagesTr",),
            checkpoint=result.run,
            output=tmp_path / "answers",
            allow_demo=True,
            run=RunOptions(workers=0, device="cpu"),
        )
    )
    assert done.ok == 12
    for row in read_predictions(tmp_path / "answers"):
        chances = {name: float(row[f"probability_{name}"]) for name in ("cystic", "solid")}
        assert sum(chances.values()) == pytest.approx(1.0)
        assert row["class"] == max(chances, key=chances.get)
        assert (tmp_path / "answers" / row["mask"]).is_file()
    found = evaluate(
        EvaluateOptions(
            subjects=(tmp_path / "answers",),
            checkpoints=(result.run,),
            labels=folder / "data" / "labels.csv",
            seen="leave-out",
        )
    ).evaluated[0]
    stated = result.scores["test"]["metrics"]
    for name in ("dice_and_f1", "dice.lesion", "macro_f1", "recall.solid"):
        assert found.scores.metrics[name].value == pytest.approx(stated[name]["value"]), name
    # And accuracy is that of the table, counted here.
    numbers = [row["case"] for row in read_predictions(result.run / "predictions" / "test")]
    answers = {row["case"]: row["class"] for row in read_predictions(tmp_path / "answers")}
    right = [answers[case] == class_of(int(case[-2:])) for case in numbers]
    assert found.scores.metrics["accuracy"].value == pytest.approx(np.mean(right))


def test_lesions_are_those_of_the_files(trained):
    """Found, invented and missed pieces of the lesion, counted here by scipy."""
    folder, result = trained
    test = result.run / "predictions" / "test"
    found = evaluate(EvaluateOptions(subjects=(result.run,))).evaluated[0].scores
    f1, invented_ml, missed_ml = [], [], []
    for row in read_predictions(test):
        masks = [
            read_mask(ImageReference(path))
            for path in (test / row["mask"], folder / "data/labelsTr" / f"{row['case']}.nii.gz")
        ]
        ours, theirs = (mask.array == 2 for mask in masks)
        voxel_ml = np.prod(masks[0].grid.spacing_mm) / 1000
        pieces = []
        for one, other in ((ours, theirs), (theirs, ours)):
            labelled, count = ndimage.label(one, np.ones((3, 3, 3)))
            apart = [n for n in range(1, count + 1) if not other[labelled == n].any()]
            pieces.append((count, len(apart), np.isin(labelled, apart).sum() * voxel_ml))
        (_, invented, invented_volume), (lesions, missed, missed_volume) = pieces
        f1.append(2 * (lesions - missed) / (2 * (lesions - missed) + invented + missed))
        invented_ml.append(invented_volume)
        missed_ml.append(missed_volume)
    assert found.metrics["lesion_f1.lesion"].value == pytest.approx(np.mean(f1))
    assert found.metrics["false_positive_ml.lesion"].value == pytest.approx(np.mean(invented_ml))
    assert found.metrics["false_negative_ml.lesion"].value == pytest.approx(np.mean(missed_ml))


def test_an_evaluation_of_the_run_finds_the_classes_again(trained):
    _, result = trained
    found = evaluate(EvaluateOptions(subjects=(result.run,))).evaluated[0].scores
    assert found.metrics["macro_f1"].value == result.scores["test"]["metrics"]["macro_f1"]["value"]


def test_an_evaluation_reads_the_column_of_classes_that_is_named(trained, tmp_path):
    """From a fault: of masks --label-column was heard and changed nothing."""
    folder, result = trained
    rows = [row.split(",") for row in (folder / "data/labels.csv").read_text().splitlines()[1:]]
    other = {"cystic": "solid", "solid": "cystic"}
    lines = [f"{case},{other[kind]},{kind}" for case, kind in rows]
    (tmp_path / "table.csv").write_text("\n".join(["case,class,kind", *lines]) + "\n")
    options = EvaluateOptions(
        subjects=(result.run,),
        labels=tmp_path / "table.csv",
        columns=DataSection(label_column="kind"),
    )
    found = evaluate(options).evaluated[0].scores
    assert found.metrics["macro_f1"].value == result.scores["test"]["metrics"]["macro_f1"]["value"]
    with pytest.raises(LabelsError, match="no column 'sort'") as refusal:
        evaluate(replace(options, columns=DataSection(label_column="sort")))
    assert refusal.value.how == "--label-column NAME."


def test_the_table_of_a_run_is_not_that_of_other_data(trained, tmp_path):
    """From a fault: cases elsewhere that are called alike took their classes from there."""
    folder, result = trained
    shutil.copytree(result.run, tmp_path / "run")
    shutil.copytree(folder / "data", tmp_path / "other")
    (tmp_path / "other" / "labels.csv").rename(tmp_path / "table.csv")
    preset = tmp_path / "run" / "preset.toml"
    words = preset.read_text(encoding="utf-8")
    assert words.count("\n[data]\n") == 1
    named = f"\n[data]\nlabels = '{tmp_path / 'table.csv'}'\n"
    preset.write_text(words.replace("\n[data]\n", named), encoding="utf-8")
    options = EvaluateOptions(
        (),
        checkpoints=(tmp_path / "run",),
        data=tmp_path / "other",
        seen="report",
        allow_demo=True,
        run=RunOptions(workers=0, device="cpu"),
    )
    found = evaluate(options).evaluated[0].scores
    assert "dice.lesion" in found.metrics
    assert "macro_f1" not in found.metrics


def test_references_of_masks_are_those_of_medtool_toml(trained, tmp_path, monkeypatch):
    folder, result = trained
    lonely = tmp_path / "lonely.safetensors"
    lonely.write_bytes(result.checkpoint.read_bytes())
    monkeypatch.chdir(tmp_path)
    options = EvaluateOptions((result.run / "predictions" / "test",), checkpoints=(lonely,))
    with pytest.raises(UsageError, match="where the references lie"):
        evaluate(options)
    (tmp_path / "medtool.toml").write_text(f"[data]\nfolder = '{folder / 'data'}'\n")
    found = evaluate(options).evaluated[0].scores
    for name in ("dice.lesion", "macro_f1"):
        stated = result.scores["test"]["metrics"][name]["value"]
        assert found.metrics[name].value == pytest.approx(stated), name


def test_two_runs_are_compared_in_their_classes_as_well(trained, tmp_path):
    folder, result = trained
    options = RunOptions(run="b", workers=0, cache=folder / "cache", device="cpu")
    other = trained_on(folder, "train.epochs=1", run=options)
    found = evaluate(EvaluateOptions(subjects=(result.run, other.run), output=tmp_path / "both"))
    rows = {(one.structure, one.metric): one for one in found.comparison.differences}
    stated = [run.scores["test"]["metrics"]["accuracy"]["value"] for run in (result, other)]
    one = rows["class", "accuracy"]
    assert [one.first, one.second] == pytest.approx(stated)
    assert ("class", "macro_f1") in rows and ("lesion", "dice") in rows
    text = re.sub(r"<[^>]+>", " ", found.report.read_text(encoding="utf-8"))
    assert re.search(r"class\s+Macro f1", text)


def test_a_resumed_run_ends_with_the_same_weights(tmp_path):
    """Dropout of the head, patches, true masks and the share of the class follow from the epoch."""
    write_tiny_classified(tmp_path / "data", cases=8)
    shares = ("train.class_hold_epochs=1", "train.class_ramp_epochs=0")
    run = trained_on(tmp_path, "train.checkpoint_every_epochs=1", *shares).run
    last = run / "checkpoints" / "last.safetensors"
    wanted = dict(read_tensors(last, "model."))
    last.unlink()
    trained_on(tmp_path, resume=run / "checkpoints" / "epoch_0000.safetensors", assignments=())
    found = dict(read_tensors(last, "model."))
    assert wanted.keys() == found.keys()
    assert all(wanted[name].equal(found[name]) for name in wanted)


def test_classes_from_names_by_a_pattern(tmp_path):
    write_tiny_classified(tmp_path / "data", named=True, table=False)
    settings = resolve(
        Pancreas, None, folder=tmp_path, assignments=("data.class_pattern=^([a-z]+)_",)
    ).settings
    task = Pancreas(settings)
    found = build_cohort(task, Source((tmp_path / "data",)))
    assert {case.case_id.split("_")[0]: case.label for case in found.cases} == {
        "cystic": 0.0,
        "solid": 1.0,
    }
    assert task.informed(found.cohort.intake).settings.data.classes == ["cystic", "solid"]
    codes = {finding.code for finding in found.findings}
    assert "label-by-pattern" in codes
    nowhere = settings.data.model_copy(update={"class_pattern": "^grade_([0-9])"})
    other = Pancreas(settings.model_copy(update={"data": nowhere}))
    with pytest.raises(LabelsError, match="The pattern of the label fits no case"):
        build_cohort(other, Source((tmp_path / "data",)))
    # A model that knows its classes answers for cases of other names.
    known = nowhere.model_copy(update={"classes": ["cystic", "solid"]})
    model = Pancreas(settings.model_copy(update={"data": known}))
    assert all(c.label is None for c in build_cohort(model, Source((tmp_path / "data",))).cases)


def test_classes_of_a_manifest(tmp_path):
    data = write_tiny_classified(tmp_path / "data", cases=4, table=False)
    rows = [("case", "image", "mask", "patient", "label", "grade")]
    for number in range(4):
        name = f"case_{number:02d}"
        grade = "low" if number < 2 else "high"
        image, mask = f"imagesTr/{name}_0000.nii.gz", f"labelsTr/{name}.nii.gz"
        rows.append((name, image, mask, f"p{number}", class_of(number), grade))
    (data / "dataset.json").unlink()
    with (data / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    for column, wanted in ((None, [0, 1, 0, 1]), ("grade", [1, 1, 0, 0])):
        given = () if column is None else (f"data.label_column={column}",)
        settings = resolve(Pancreas, None, folder=tmp_path, assignments=given).settings
        found = build_cohort(Pancreas(settings), Source((data / "manifest.csv",)))
        assert [case.label for case in found.cases] == wanted


def test_without_classes_the_head_is_off_and_that_is_said(tmp_path):
    write_tiny_classified(tmp_path / "data", cases=8, table=False)
    heard = Heard()
    result = trained_on(tmp_path, "train.epochs=1", reporter=heard)
    assert any("the classification head is off" in line for line in heard.lines)
    document = read_header(result.checkpoint).document
    assert document["metrics"]["primary"] == "dice"
    assert not any("classifier" in layer["name"] for layer in document["layers"])
    row = read_predictions(result.run / "predictions" / "test")[0]
    assert "class" not in row
    assert "macro_f1" not in result.scores["test"]["metrics"]
    text = re.sub(r"<[^>]+>", " ", result.report.read_text(encoding="utf-8"))
    assert re.search(r"classification head\s+off\s+no case has a class", text)


def test_a_second_decoder_feeds_the_classes(tmp_path):
    write_tiny_classified(tmp_path / "data", cases=8)
    result = trained_on(tmp_path, "train.epochs=1", preset="dual-decoder")
    names = dict(read_tensors(result.checkpoint, "model.classifier."))
    assert any("decoder" in name for name in names)
    row = read_predictions(result.run / "predictions" / "test")[0]
    assert row["class"] in ("cystic", "solid")


def answers_of(checkpoint, folder, output):
    infer(
        InferOptions(
            sources=(folder / "data" / "imagesTr" / "case_00_0000.nii.gz",),
            checkpoint=checkpoint,
            output=output,
            allow_demo=True,
            run=RunOptions(workers=0, device="cpu"),
        )
    )
    (row,) = read_predictions(output)
    return {name: value for name, value in row.items() if name.startswith(("prob", "class", "vol"))}


def test_models_answer_with_the_mean_of_their_probabilities(trained, tmp_path):
    """Members with one mask and heads that say otherwise: the mean, counted here."""
    folder, result = trained
    header = read_header(result.checkpoint)
    tensors = []
    for name, value in read_tensors(result.checkpoint, "model."):
        turned = value * -1.7 if name.startswith("classifier.") else value
        tensors.append(raw_tensor(f"model.{name}", turned))
    other = tmp_path / "other.safetensors"
    write_checkpoint(other, header.document, tensors)
    joined = tmp_path / "joined.safetensors"
    write_ensemble(joined, {"fold_0": result.checkpoint, "fold_1": other})
    one = answers_of(result.checkpoint, folder, tmp_path / "one")
    two = answers_of(other, folder, tmp_path / "two")
    both = answers_of(joined, folder, tmp_path / "both")
    chances = [name for name in one if name.startswith("probability_")]
    assert abs(float(one[chances[0]]) - float(two[chances[0]])) > 0.02
    means = {name: (float(one[name]) + float(two[name])) / 2 for name in chances}
    for name, wanted in means.items():
        assert float(both[name]) == pytest.approx(wanted, rel=1e-5), name
    assert both["class"] == max(means, key=means.get).removeprefix("probability_")
    for name in one.keys() - {"class", *chances}:
        assert float(both[name]) == pytest.approx(float(one[name]), rel=1e-6), name


def test_models_of_other_classes_do_not_answer_together(trained):
    _, result = trained
    document = read_header(result.checkpoint).document
    data = {**document["preset"]["data"], "classes": ["cystic", "neuroendocrine"]}
    settings = Pancreas.settings_type.model_validate({**document["preset"], "data": data})
    one = Pancreas(Pancreas.settings_type.model_validate(document["preset"]))
    with pytest.raises(UsageError, match="different classes"):
        one.require_together([one, Pancreas(settings)])


def test_a_dicom_series_is_answered_as_the_same_image_in_nifti(trained, tmp_path):
    """A CT of whole HU: the class, its probabilities and the mask are those of the NIfTI file."""
    folder, result = trained
    image, _, grid = draw_tiny(0)
    whole = np.round(image)
    write_nifti(tmp_path / "image.nii.gz", whole, grid)
    build_series(
        tmp_path / "series",
        (whole + 1024).astype(np.int16),
        origin_mm=grid.origin_mm,
        step_mm=grid.spacing_mm[2],
        spacing_mm=(grid.spacing_mm[1], grid.spacing_mm[0]),
    )
    rows, masks = [], []
    for name in ("image.nii.gz", "series"):
        output = tmp_path / f"answers {name}"
        infer(
            InferOptions(
                sources=(tmp_path / name,),
                checkpoint=result.checkpoint,
                output=output,
                dicom_seg=name == "series",
                allow_demo=True,
                run=RunOptions(workers=0, device="cpu"),
            )
        )
        (row,) = read_predictions(output)
        rows.append(row)
        masks.append(read_mask(ImageReference(output / row["mask"])))
    assert rows[0]["status"] == rows[1]["status"] == "ok"
    assert rows[0]["class"] == rows[1]["class"]
    for name in ("probability_cystic", "probability_solid"):
        assert float(rows[0][name]) == pytest.approx(float(rows[1][name]), rel=1e-5)
    assert np.array_equal(masks[0].array, masks[1].array)
    assert masks[1].grid.origin_mm == pytest.approx(masks[0].grid.origin_mm, abs=1e-4)
    (written,) = (tmp_path / "answers series" / "dicom-seg").glob("*.dcm")
    organ, lesion = pydicom.dcmread(written).SegmentSequence
    # The preset that ships has codes of a lesion in the pancreas; nobody said what the organ is.
    assert lesion.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Lesion"
    assert lesion.AnatomicRegionSequence[0].CodeValue == "15776009"
    assert organ.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Tissue"


def test_a_job_that_is_started_again_goes_on_with_what_was_planned(trained):
    """What the preset left to the data, and the run planned, once counted as another setting."""
    folder, result = trained
    plan = RunFolder(result.run).read_run()["audit"]["plan"]
    assert [one["what"] for one in plan["decisions"]][-2:] == [
        "classification head",
        "class weights",
    ]
    again = trained_on(folder, start_or_resume=True)
    assert again.run == result.run
    assert RunFolder(result.run).read_run()["audit"]["plan"] == plan
    with pytest.raises(UsageError, match="cannot go on with other settings"):
        trained_on(folder, "data.classes=['solid', 'cystic']", start_or_resume=True)


def test_folds_are_scored_together_with_their_classes(tmp_path):
    write_tiny_classified(tmp_path / "data", cases=8)
    options = RunOptions(
        run="folds", folds=2, workers=0, cache=tmp_path / "cache", device="cpu", minutes=None
    )
    result = trained_on(tmp_path, "train.epochs=1", run=options)
    joint = RunFolder(tmp_path / "runs" / "pancreas" / "folds")
    metrics = joint.read_scores()["out-of-fold"]["metrics"]
    assert metrics["macro_f1"]["n"] == metrics["dice_and_f1"]["n"] == 8
    assert result.report == joint.report_file
    text = re.sub(r"<[^>]+>", " ", joint.report_file.read_text(encoding="utf-8"))
    assert "Confusion matrix" in text
    found = evaluate(EvaluateOptions(subjects=(joint.path / "fold_0",))).evaluated[0].scores
    assert found.metrics["accuracy"].n == 4
    # The folds as nnU-Net keeps them: of each fold its own, above them both.
    names = {f"case_{number:02d}" for number in range(8)}
    folds = read_folds(joint.folds_file)
    assert [set(fold.train) | set(fold.held_out) for fold in folds] == [names, names]
    assert set(folds[0].held_out) | set(folds[1].held_out) == names
    for fold, run in zip(folds, fold_folders(joint.path), strict=True):
        tested = {row["case"] for row in run.read_cases() if row["part"] == "test"}
        assert set(fold.held_out) == tested and read_folds(run.folds_file) == (fold,)
