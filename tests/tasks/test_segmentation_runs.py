"""A segmentation through the verbs: planned, trained, answered, evaluated."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from medtool_segment import Segment
from medtool_segment.demo import draw_case, write_dataset
from mr_series import write_mr_series
from two_levels import TWO_LEVELS

from medtool.config import resolve
from medtool.core.checkpoint import read_header
from medtool.core.errors import UsageError
from medtool.core.records import Source
from medtool.data.predictions import read_predictions
from medtool.score.overlap import overlap
from medtool.verbs.evaluate import EvaluateOptions, evaluate
from medtool.verbs.infer import InferOptions, infer
from medtool.verbs.options import RunOptions
from medtool.verbs.train import TrainOptions, train

CASES = 8
SMALL = (
    "model.budget=cpu",
    *TWO_LEVELS,
    "model.patch_size_vox=[16, 16, 16]",
    "train.epochs=2",
    "train.batch_cases=2",
    "train.examples_per_case=1",
    "metrics.bootstrap_draws=100",
    "infer.step=1.0",
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("segmentation")
    write_dataset(folder / "data", seed=3, cases=CASES)
    result = train(
        TrainOptions(
            task=Segment,
            data=folder / "data",
            assignments=(*SMALL, f"data.folder={folder / 'data'}"),
            folder=folder,
            run=RunOptions(run="a", workers=0, cache=folder / "cache", device="cpu"),
        )
    )
    return folder, result


def test_the_run_holds_plan_labels_and_scores(trained):
    _, result = trained
    document = read_header(result.checkpoint).document
    data = document["preset"]["data"]
    assert data["channels"] == ["MR"]
    assert data["label_ids"] == {"background": [0], "organ": [1], "nodule": [2]}
    assert len(data["preparation"]["spacing_mm"]) == 3
    # What the preset fixed is not planned.
    assert document["preset"]["model"]["patch_size_vox"] == [16, 16, 16]
    assert document["planned"]["decisions"][0]["why"]
    assert document["synthetic"] is True
    scores = result.scores["test"]["metrics"]
    assert {"dice", "dice.organ", "dice.nodule", "hd95_mm.organ", "nsd.organ"} <= set(scores)
    assert result.report.is_file()


def test_a_planned_preset_plans_nothing_anew(trained):
    folder, result = trained
    settings = resolve(Segment, str(result.run / "preset.toml"), folder=folder).settings
    task = Segment(settings)
    again = task.planned((), intake={}, folder=folder / "nowhere")
    assert again.settings == settings


def test_masks_lie_on_the_grid_of_their_image_and_volumes_are_theirs(trained):
    folder, result = trained
    answers = folder / "answers"
    infer(
        InferOptions(
            sources=(folder / "data" / "imagesTr",),
            checkpoint=result.checkpoint,
            output=answers,
            run=RunOptions(workers=0, device="cpu"),
        )
    )
    rows = read_predictions(answers)
    assert [row["case"] for row in rows] == [f"demo_{n:03d}" for n in range(CASES)]
    for row in rows[:2]:
        image = sitk.ReadImage(str(folder / "data" / "imagesTr" / f"{row['case']}_0000.nii.gz"))
        mask = sitk.ReadImage(str(answers / row["mask"]))
        assert mask.GetSize() == image.GetSize()
        np.testing.assert_allclose(mask.GetOrigin(), image.GetOrigin(), atol=1e-4)
        np.testing.assert_allclose(mask.GetSpacing(), image.GetSpacing(), rtol=1e-6)
        voxels = sitk.GetArrayFromImage(mask)
        voxel_ml = np.prod(mask.GetSpacing()) / 1000
        assert float(row["volume_organ_ml"]) == pytest.approx((voxels == 1).sum() * voxel_ml)
        assert float(row["volume_ml"]) == pytest.approx((voxels > 0).sum() * voxel_ml)


def test_evaluation_of_the_same_answers_gives_the_numbers_of_the_run(trained):
    folder, result = trained
    test = result.run / "predictions" / "test"
    found = evaluate(
        EvaluateOptions(subjects=(test,), checkpoints=(result.checkpoint,), data=folder / "data")
    )
    stated = result.scores["test"]["metrics"]
    for name in ("dice", "dice.organ", "hd95_mm.organ"):
        value = found.evaluated[0].scores.metrics[name].value
        assert value == pytest.approx(stated[name]["value"], nan_ok=True), name
    # And Dice is that of the files, counted here.
    row = read_predictions(test)[0]
    number = int(row["case"].rsplit("_", 1)[1])
    _, truth, _ = draw_case(3, number)
    mask = sitk.GetArrayFromImage(sitk.ReadImage(str(test / row["mask"])))
    both = np.count_nonzero((mask == 1) & (truth == 1))
    wanted = 2 * both / (np.count_nonzero(mask == 1) + np.count_nonzero(truth == 1))
    cases = json.loads((result.run / "scores.json").read_text())["test"]["tables"]
    stored = next(
        line
        for line in cases["structures_by_case"]
        if line["case"] == row["case"] and line["structure"] == "organ"
    )
    assert stored["dice"] == pytest.approx(wanted)
    assert overlap(mask == 1, truth == 1).metrics()["dice"] == pytest.approx(wanted)


def test_references_are_found_where_the_run_found_them_or_asked_for(trained, tmp_path, monkeypatch):
    """A relative folder of the preset once led to the whole disk."""
    _, result = trained
    test = result.run / "predictions" / "test"
    monkeypatch.chdir(tmp_path)
    found = evaluate(EvaluateOptions(subjects=(test,), checkpoints=(result.run,)))
    stated = result.scores["test"]["metrics"]["dice"]["value"]
    assert found.evaluated[0].scores.metrics["dice"].value == pytest.approx(stated)
    lonely = tmp_path / "lonely.safetensors"
    lonely.write_bytes(result.checkpoint.read_bytes())
    with pytest.raises(UsageError, match="where the references lie"):
        evaluate(EvaluateOptions(subjects=(test,), checkpoints=(lonely,)))


@pytest.mark.parametrize(
    ("option", "value"),
    [("by", "patient"), ("threshold", 0.5), ("labels", Path("labels.csv"))],
)
def test_an_option_that_says_nothing_of_masks_is_refused(trained, option, value):
    _, result = trained
    with pytest.raises(UsageError, match="beside masks|reads no table of labels"):
        evaluate(EvaluateOptions(subjects=(result.run,), **{option: value}))


def test_subgroups_are_those_of_a_column_of_the_manifest(trained, tmp_path):
    folder, result = trained
    test = result.run / "predictions" / "test"
    rows = ["case,patient,image_MR,mask,site"]
    for row in read_predictions(test):
        image = folder / "data" / "imagesTr" / f"{row['case']}_0000.nii.gz"
        mask = folder / "data" / "labelsTr" / f"{row['case']}.nii.gz"
        rows.append(f"{row['case']},{row['patient']},{image},{mask},south")
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("\n".join(rows) + "\n", encoding="utf-8")
    options = EvaluateOptions(
        subjects=(test,),
        checkpoints=(result.checkpoint,),
        data=manifest,
        subgroups=("site",),
        output=tmp_path / "out",
    )
    found = evaluate(options).evaluated[0].scores
    organ, nodule = found.tables["subgroups"]
    by_case = found.tables["structures_by_case"]
    dices = [row["dice"] for row in by_case if row["structure"] == "organ"]
    assert (organ["by"], organ["group"], organ["structure"]) == ("site", "south", "organ")
    assert (organ["n"], organ["dice"]) == (len(dices), pytest.approx(np.mean(dices)))
    assert nodule["structure"] == "nodule"
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "south" in page and "Small groups have wide intervals" in page
    with pytest.raises(UsageError, match="no fact 'scanner'"):
        evaluate(replace(options, subgroups=("scanner",), output=None))


def test_a_network_that_is_given_in_part_is_refused(trained):
    folder, _ = trained
    settings = resolve(
        Segment, None, folder=folder, assignments=("model.features=[8, 16]", "model.budget=cpu")
    ).settings
    task = Segment(settings)
    found = task.find(Source((folder / "data",)))
    with pytest.raises(UsageError, match="only a part of the network"):
        task.planned(found.cases, intake=found.intake, folder=folder / "fingerprints")


def test_several_channels_are_told_apart_by_their_numbers(tmp_path):
    for case, channels in (("a", (0, 1)), ("b", (0,))):
        image, _, grid = draw_case(0, 0)
        from medtool.data.nifti_writer import write_nifti

        for channel in channels:
            write_nifti(tmp_path / f"{case}_{channel:04d}.nii.gz", image, grid)
    settings = resolve(Segment, None, folder=tmp_path, assignments=('data.channels=["T1", "T2"]',))
    found = Segment(settings.settings).find(Source((tmp_path,)))
    assert [case.case_id for case in found.cases] == ["a"]
    assert list(found.cases[0].inputs) == ["T1", "T2"]
    assert Path(found.cases[0].inputs["T2"]).name == "a_0001.nii.gz"
    assert [(study.case_id, study.code) for study in found.refused] == [("b", "channels-differ")]


def test_pictures_of_the_cases_lie_beside_the_answers(trained):
    _, result = trained
    pictures = sorted((result.run / "predictions" / "test" / "overlays").rglob("*.png"))
    assert pictures
    page = result.report.read_text(encoding="utf-8")
    assert "Dice organ" in page
    assert page.count("data:image/png;base64") >= len(pictures)


def test_dicom_goes_in_and_a_segmentation_object_comes_out(trained, tmp_path):
    """A synthetic MR series: the mask on its grid, and as DICOM SEG with the same voxels."""
    folder, result = trained
    image, _, grid = draw_case(3, 0)
    write_mr_series(tmp_path / "series", image, grid)
    answers = tmp_path / "answers"
    done = infer(
        InferOptions(
            sources=(tmp_path / "series",),
            checkpoint=result.checkpoint,
            output=answers,
            dicom_seg=True,
            allow_demo=True,
            assignments=CODES,
            run=RunOptions(workers=0, device="cpu"),
        )
    )
    assert done.ok == 1
    (row,) = done.rows
    mask = sitk.GetArrayFromImage(sitk.ReadImage(str(answers / row["mask"])))
    (written,) = (answers / "dicom-seg").glob("*.dcm")
    stored = pydicom.dcmread(written)
    assert stored.Modality == "SEG"
    assert [item.SegmentLabel for item in stored.SegmentSequence] == ["organ", "nodule"]
    organ, nodule = stored.SegmentSequence
    (kind,) = organ.SegmentedPropertyTypeCodeSequence
    assert (kind.CodeValue, kind.CodingSchemeDesignator) == ("78961009", "SCT")
    (category,) = nodule.SegmentedPropertyCategoryCodeSequence
    assert category.CodeMeaning == "Morphologically Abnormal Structure"
    (region,) = nodule.AnatomicRegionSequence
    assert region.CodeMeaning == "Spleen"
    assert "AnatomicRegionSequence" not in organ
    pixels = stored.pixel_array.reshape(-1, *image.shape[1:])
    assert int(pixels.astype(bool).sum()) == int((mask > 0).sum())


CODES = (
    'infer.dicom_type.organ=["78961009", "SCT", "Spleen"]',
    'infer.dicom_category.nodule=["49755003", "SCT", "Morphologically Abnormal Structure"]',
    'infer.dicom_region.nodule=["78961009", "SCT", "Spleen"]',
)


def test_a_code_of_a_label_that_there_is_not_is_refused(trained, tmp_path):
    folder, _ = trained
    code = 'infer.dicom_type.organs=["78961009", "SCT", "Spleen"]'
    with pytest.raises(UsageError, match="a label that there is not") as error:
        train(
            TrainOptions(
                task=Segment,
                data=folder / "data",
                assignments=(*SMALL, code),
                folder=tmp_path,
                run=RunOptions(workers=0, cache=folder / "cache", device="cpu"),
            )
        )
    assert error.value.nearest == "organ"


def test_a_model_beside_itself_differs_in_nothing(trained, tmp_path):
    _, result = trained
    found = evaluate(
        EvaluateOptions(subjects=(result.run, result.run), output=tmp_path / "compared")
    )
    differences = found.comparison.differences
    assert {one.structure for one in differences} == {"organ", "nodule"}
    assert all(one.difference == 0 for one in differences)
    assert "First minus second" in found.report.read_text(encoding="utf-8")
