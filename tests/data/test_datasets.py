"""Segmentation data sets in every layout: what is taken, what is said, what is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from medtool.core.errors import InputError, LabelsError, MedtoolError, UsageError
from medtool.data.dataset_record import ImageReference, LabelScheme, SegmentationDataset
from medtool.data.datasets import read_dataset

NNUNET = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "organ": 1, "lesion": 2},
    "numTraining": 2,
    "file_ending": ".nii.gz",
}
MSD = {
    "name": "Organs",
    "modality": {"0": "MRI"},
    "labels": {"0": "background", "1": "organ"},
    "numTraining": 2,
    "numTest": 1,
    "training": [
        {"image": "./imagesTr/a_1.nii.gz", "label": "./labelsTr/a_1.nii.gz"},
        {"image": "./imagesTr/b_2.nii.gz", "label": "./labelsTr/b_2.nii.gz"},
    ],
    "test": ["./imagesTs/c_3.nii.gz"],
}


def folder_of(root: Path, *files: str) -> Path:
    """``root`` with empty files: reading a data set opens no image."""
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def described(root: Path, document: Mapping[str, Any] | str) -> Path:
    text = document if isinstance(document, str) else json.dumps(document)
    root.mkdir(parents=True, exist_ok=True)
    (root / "dataset.json").write_text(text, encoding="utf-8")
    return root


def said(dataset: SegmentationDataset, code: str) -> str:
    return "; ".join(f.message for f in dataset.findings if f.code == code)


def nnunet(root: Path, changes: Mapping[str, Any] | None = None) -> Path:
    names = ("imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz", "imagesTr/b_0000.nii.gz")
    return described(folder_of(root, *names, "labelsTr/b.nii.gz"), {**NNUNET, **(changes or {})})


# --- nnU-Net -------------------------------------------------------------------------------------
def test_nnunet_folder(tmp_path: Path) -> None:
    root = folder_of(nnunet(tmp_path / "Dataset007_Organs"), "imagesTs/t_0000.nii.gz")
    dataset = read_dataset(root)
    assert (dataset.layout, dataset.name, dataset.channels) == (
        "nnunet",
        "Dataset007_Organs",
        ("CT",),
    )
    assert dataset.labels == LabelScheme({"background": (0,), "organ": (1,), "lesion": (2,)})
    assert [(c.case_id, c.patient_id, c.part) for c in dataset.cases] == [
        ("a", "a", None),
        ("b", "b", None),
        ("t", "t", None),
    ]
    assert dataset.cases[0].images == (ImageReference(root / "imagesTr/a_0000.nii.gz"),)
    assert dataset.cases[0].mask == ImageReference(root / "labelsTr/a.nii.gz")
    assert dataset.cases[2].mask is None
    assert "every case is taken for a patient" in said(dataset, "patients-by-case")
    assert not said(dataset, "mask-missing"), "test images need no mask"
    assert read_dataset(tmp_path) == read_dataset(root) == read_dataset(root / "dataset.json")


def test_test_images_with_masks_are_the_test_part(tmp_path: Path) -> None:
    root = folder_of(nnunet(tmp_path), "imagesTs/t_0000.nii.gz", "labelsTs/t.nii.gz")
    assert [case.part for case in read_dataset(root).cases] == [None, None, "test"]


def test_regions_and_ignore(tmp_path: Path) -> None:
    labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "active": 3, "ignore": 4}
    root = nnunet(tmp_path, {"labels": labels, "regions_class_order": [1, 2, 3]})
    scheme = read_dataset(root).labels
    assert scheme.ids == {"background": (0,), "whole": (1, 2, 3), "core": (2, 3), "active": (3,)}
    assert (scheme.regions_order, scheme.ignore_id) == ((1, 2, 3), 4)
    assert scheme.has_regions and scheme.foreground == ("whole", "core", "active")
    assert scheme.declared == {0, 1, 2, 3, 4}


def test_explicit_entries_come_before_names_of_files(tmp_path: Path) -> None:
    root = folder_of(tmp_path, "x/one.nii.gz", "x/one_t2.nii.gz", "y/mask.nii.gz")
    entries = {
        "case1": {"images": ["x/one.nii.gz", "x\\one_t2.nii.gz"], "label": "y/mask.nii.gz"},
        "case2": {"images": ["x/one.nii.gz", "x/absent.nii.gz"], "label": "y/mask.nii.gz"},
        "case3": {"images": ["x/one.nii.gz"], "label": "y/mask.nii.gz"},
    }
    channels = {"0": "T1", "1": "T2"}
    described(root, {**NNUNET, "channel_names": channels, "dataset": entries, "numTraining": 3})
    dataset = read_dataset(root)
    assert [case.case_id for case in dataset.cases] == ["case1"]
    assert [ref.path.name for ref in dataset.cases[0].images] == ["one.nii.gz", "one_t2.nii.gz"]
    assert [(r.case_id, r.code) for r in dataset.refused] == [
        ("case2", "image-missing"),
        ("case3", "channels-differ"),
    ]


def test_colour_pictures_hold_their_channels_in_one_file(tmp_path: Path) -> None:
    root = folder_of(tmp_path, "imagesTr/a_0000.png", "labelsTr/a.png")
    colours = {"0": "R", "1": "G", "2": "B"}
    described(root, {**NNUNET, "channel_names": colours, "file_ending": ".png", "numTraining": 1})
    file = root / "imagesTr/a_0000.png"
    assert read_dataset(root).cases[0].images == tuple(ImageReference(file, n) for n in range(3))


def test_what_does_not_fit_is_listed(tmp_path: Path) -> None:
    root = folder_of(
        nnunet(tmp_path, {"channel_names": {"1": "PT", "0": "CT"}, "numTraining": 7}),
        "imagesTr/a_0001.nii.gz",
        "imagesTr/bare_0000.nii.gz",
        "imagesTr/bare_0001.nii.gz",
        "imagesTr/no-number.nii.gz",
        "imagesTr/._a_0000.nii.gz",
        "labelsTr/nobody.nii.gz",
        "labelsTr/a.nrrd",
    )
    dataset = read_dataset(root)
    assert dataset.channels == ("CT", "PT")
    assert [case.case_id for case in dataset.cases] == ["a", "bare"]
    assert [(r.case_id, r.code) for r in dataset.refused] == [("b", "channels-differ")]
    assert "0000; the data set declares 2: CT, PT" in dataset.refused[0].message
    assert said(dataset, "mask-missing").endswith("have no mask: bare")
    left = said(dataset, "file-unmatched")
    assert left.startswith("3 files") and "._a" not in left
    assert all(name in left for name in ("no-number.nii.gz", "nobody.nii.gz", "labelsTr/a.nrrd"))
    assert "declares 7 training cases, 3 are there" in said(dataset, "count-differs")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"labels": {"background": 0, "a": 1, "b": 1}}, "'a' and 'b' are both 1"),
        ({"labels": {"background": 0}}, "no label but the background"),
        ({"labels": {"background": 0, "a": -1}}, "'a': -1 is neither an id"),
        ({"labels": {"background": 0, "a": 1.5}}, "'a': 1.5 is neither an id"),
        ({"labels": {"background": 0, "a": [1, "x"]}}, "is no list of different ids"),
        ({"labels": {"background": 0, "1": 2}}, "which of the two is the name?"),
        ({"labels": {"a": [0, 1], "b": 2}}, "holds the id 0"),
        ({"labels": {"background": 0, "a": [1, 2], "b": 2}}, "'regions_class_order' is needed"),
        (
            {"labels": {"background": 0, "a": [1, 2], "b": 2}, "regions_class_order": [1]},
            "wanted are 2 ids, one for each of a, b",
        ),
        ({"labels": {"background": 0, "a": 1, "ignore": 1}}, "a label and 'ignore'"),
        ({"labels": []}, "no table 'labels'"),
        ({"channel_names": {"1": "CT"}}, "channels of the data set"),
        ({"dataset": {"a": {"label": "x"}}}, "'a' of 'dataset' has no list of images"),
    ],
)
def test_descriptions_that_cannot_be_used(
    tmp_path: Path, changes: Mapping[str, Any], words: str
) -> None:
    with pytest.raises(LabelsError) as caught:
        read_dataset(nnunet(tmp_path, changes))
    assert words in str(caught.value) and "dataset.json" in str(caught.value)


def test_a_missing_key_has_its_nearest_name(tmp_path: Path) -> None:
    document = {key: value for key, value in NNUNET.items() if key != "channel_names"}
    described(tmp_path, {**document, "channel_name": {"0": "CT"}})
    with pytest.raises(LabelsError, match=r"lacks 'channel_names'(?s:.*)nearest: channel_name"):
        read_dataset(tmp_path)


# --- MSD -----------------------------------------------------------------------------------------
def msd(root: Path, changes: Mapping[str, Any] | None = None) -> Path:
    files = [
        f"{folder}/{name}.nii.gz" for name in ("a_1", "b_2") for folder in ("imagesTr", "labelsTr")
    ]
    return described(folder_of(root, *files, "imagesTs/c_3.nii.gz"), {**MSD, **(changes or {})})


def test_msd_folder(tmp_path: Path) -> None:
    dataset = read_dataset(msd(tmp_path))
    assert (dataset.layout, dataset.name, dataset.channels) == ("msd", "Organs", ("MRI",))
    assert dataset.labels.ids == {"background": (0,), "organ": (1,)}
    assert [(c.case_id, c.mask is not None) for c in dataset.cases] == [
        ("a_1", True),
        ("b_2", True),
        ("c_3", False),
    ]
    assert said(dataset, "labels-by-id") == "dataset.json lists labels as id -> name"
    assert dataset.file_ending == ".nii.gz" and not said(dataset, "file-unmatched")


def test_channels_of_a_4d_image_are_parts_of_one_file(tmp_path: Path) -> None:
    dataset = read_dataset(msd(tmp_path, {"modality": {"0": "FLAIR", "1": "T1w"}}))
    file = tmp_path / "imagesTr/a_1.nii.gz"
    assert dataset.cases[0].images == (ImageReference(file, 0), ImageReference(file, 1))


def test_files_with_the_suffixes_of_nnunet_v1(tmp_path: Path) -> None:
    msd(tmp_path)
    for file in (*tmp_path.glob("imagesT?/*"),):
        file.rename(file.with_name(file.name.replace(".nii", "_0000.nii")))
    dataset = read_dataset(tmp_path)
    assert [c.images[0].path.name for c in dataset.cases][:1] == ["a_1_0000.nii.gz"]
    assert dataset.cases[0].case_id == "a_1" and not dataset.refused


def test_both_directions_of_labels_in_one_table(tmp_path: Path) -> None:
    labels = {"0": "background", "organ": 1, "2": "lesion", "vessel": "3"}
    dataset = read_dataset(msd(tmp_path, {"labels": labels}))
    assert dataset.labels.ids == {"background": (0,), "organ": (1,), "lesion": (2,), "vessel": (3,)}
    assert said(dataset, "labels-by-id").endswith("the latter are background, lesion")


def test_background_under_another_name_or_none(tmp_path: Path) -> None:
    dataset = read_dataset(msd(tmp_path / "a", {"labels": {"0": "clear", "1": "organ"}}))
    assert list(dataset.labels.ids) == ["background", "organ"]
    assert "'clear'" in said(dataset, "labels-background")
    dataset = read_dataset(msd(tmp_path / "b", {"labels": {"organ": 1, "far": 4}}))
    assert list(dataset.labels.ids) == ["background", "organ", "far"]
    assert "no id 0" in said(dataset, "labels-background")
    assert said(dataset, "labels-with-gaps") == "dataset.json leaves out the ids 2, 3 below 4"


def test_comments_and_trailing_commas_are_told_with_their_line(tmp_path: Path) -> None:
    text = """{
  "name": "Or // gans, ]",
  "modality": {"0": "MRI"}, // from the scanner
  "labels": {
    "0": "background",
    "1": "organ",
  },
  "training": [
    {"image": "./imagesTr/a_1.nii.gz", "label": "./labelsTr/a_1.nii.gz"}, // last one
  ]
}"""
    dataset = read_dataset(described(msd(tmp_path), text))
    assert dataset.name == "Or // gans, ]" and dataset.labels.ids["organ"] == (1,)
    assert said(dataset, "json-repaired").split("; read over")[:4] == [
        "dataset.json, line 3: a comment is no JSON",
        "; dataset.json, line 6: a comma before a closing bracket is no JSON",
        "; dataset.json, line 9: a comma before a closing bracket is no JSON",
        "; dataset.json, line 9: a comment is no JSON",
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{\n "a": 1\n "b": 2\n}', "line 3, column 2"),
        ('{"a": 1, "a": 2}', "names something twice"),
        ("[1]", "is no table"),
        ("", "line 1, column 1"),
        ('{"labels": {}}', "neither nnU-Net's nor MSD's"),
    ],
)
def test_what_is_no_json(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(LabelsError) as caught:
        read_dataset(described(tmp_path, text))
    assert words in str(caught.value)


def test_lists_that_cannot_be_used(tmp_path: Path) -> None:
    twice = [MSD["training"][0], MSD["training"][0]]  # type: ignore[index]
    for changes, words in (
        ({"training": twice}, "lists cases twice"),
        ({"training": "a"}, "'training' is no list"),
        ({"training": [{"label": "a"}]}, "Entry 1 of 'training' names no image"),
    ):
        with pytest.raises(LabelsError, match=words):
            read_dataset(msd(tmp_path, changes))
    (tmp_path / "imagesTr/a_1.nii.gz").unlink()
    dataset = read_dataset(msd_again := described(tmp_path, MSD))
    assert [(r.case_id, r.code) for r in dataset.refused] == [("a_1", "image-missing")]
    assert said(dataset, "file-unmatched").endswith("labelsTr/a_1.nii.gz"), msd_again


# --- manifest ------------------------------------------------------------------------------------
def test_manifest(tmp_path: Path) -> None:
    folder_of(tmp_path, "scans/1_ct.nii.gz", "scans/1_pet.nii.gz", "masks/1.nii.gz", "scans/2.nii")
    table = tmp_path / "cases.csv"
    table.write_bytes(
        "Case;Patient;Image_CT;image_PET;mask;label;part;alter\r\n"
        "007;p1;scans/1_ct.nii.gz;scans\\1_pet.nii.gz;masks/1.nii.gz;gutartig;val;61\r\n"
        "8;p1;scans/2.nii;scans/2.nii;;bösartig;train;\r\n".encode("cp1252")
    )
    dataset = read_dataset(table)
    first, second = dataset.cases
    assert dataset.channels == ("CT", "PET")
    assert (first.case_id, first.patient_id, first.label, first.part) == (
        "007",
        "p1",
        "gutartig",
        "selection",
    )
    assert first.covariates == {"alter": "61"}
    assert first.images[1].path == tmp_path / "scans/1_pet.nii.gz"
    assert (second.mask, second.part, second.label) == (None, "train", "bösartig")
    assert dataset.labels.ids == {"background": (0,), "foreground": (1,)}
    assert said(dataset, "mask-missing").endswith("have no mask: 8")
    assert "semicolon-separated, Windows-1252" in said(dataset, "manifest-columns")
    assert read_dataset(tmp_path) == dataset, "found in its folder by its columns"
    labels = LabelScheme({"background": (0,), "heart": (1,)})
    assert read_dataset(table, labels=labels).labels == labels


def test_manifest_without_case_takes_the_images_name(tmp_path: Path) -> None:
    folder_of(tmp_path, "a/1.png", "b/1.png", "b/2.png", "m.png")
    (tmp_path / "t.csv").write_text(
        "patient,image,mask\na,a/1.png,m.png\nb,b/1.png,m.png\nb,b/2.png,m.png\n"
    )
    assert [c.case_id for c in read_dataset(tmp_path).cases] == ["2", "a_1", "b_1"]


def test_every_fault_of_a_manifest_is_told(tmp_path: Path) -> None:
    folder_of(tmp_path, "a.nii", "m.nii")
    table = tmp_path / "t.csv"
    table.write_text(
        "case,image,mask,part\nx,a.nii,gone.nii,\nx,,m.nii,\n,a.nii,m.nii,\nz,a.nii,m.nii,maybe\n"
        "w,a.nii,m.nii,test\nw,a.nii,m.nii,test\n"
    )
    with pytest.raises(LabelsError) as caught:
        read_dataset(table)
    for words in (
        "line 2: there is no 'gone.nii' (mask)",
        "line 3: image is empty",
        "line 4: the case has no id",
        "line 5: part 'maybe' is none of train, selection, test",
        "case 'w' is there twice",
    ):
        assert words in caught.value.met
    table.write_text("case,imgae,mask\nx,a.nii,m.nii\n")
    with pytest.raises(LabelsError, match="nearest: imgae"):
        read_dataset(table)


# --- pairs ---------------------------------------------------------------------------------------
def test_folders_of_images_and_masks(tmp_path: Path) -> None:
    names = (
        "Images/a.png",
        "Images/b.tif",
        "Images/c.png",
        "masks/a.tiff",
        "masks/b.png",
        "masks/x.png",
    )
    dataset = read_dataset(folder_of(tmp_path, *names))
    assert [(c.case_id, c.mask.path.name if c.mask else "") for c in dataset.cases] == [
        ("a", "a.tiff"),
        ("b", "b.png"),
        ("c", ""),
    ]
    assert said(dataset, "pairs-rule") == "The mask of Images/NAME is masks/NAME."
    assert said(dataset, "file-unmatched") == "1 files belong to no case: masks/x.png"
    assert said(dataset, "mask-missing").endswith(": c")


def test_masks_by_suffix(tmp_path: Path) -> None:
    dataset = read_dataset(
        folder_of(tmp_path / "one", "a.png", "a_mask.png", "b.png", "z_mask.png")
    )
    assert [(c.case_id, c.mask is not None) for c in dataset.cases] == [("a", True), ("b", False)]
    assert said(dataset, "pairs-rule") == "The mask of NAME is NAME_mask, in one folder."
    assert "z_mask.png" in said(dataset, "file-unmatched")
    dataset = read_dataset(folder_of(tmp_path / "two", "images/a.png", "masks/a_seg.nii.gz"))
    assert said(dataset, "pairs-rule") == "The mask of images/NAME is masks/NAME_seg."
    assert dataset.cases[0].mask is not None


def test_one_folder_of_pairs_a_patient(tmp_path: Path) -> None:
    names = [f"{p}/{f}" for p in ("p1", "p2") for f in ("dicom/1.dcm", "masks/1.png")]
    dataset = read_dataset(folder_of(tmp_path, *names, "p1/dicom/2.dcm", "papers/x.txt"))
    assert [(c.case_id, c.patient_id) for c in dataset.cases] == [
        ("p1_1", "p1"),
        ("p1_2", "p1"),
        ("p2_1", "p2"),
    ]
    assert said(dataset, "pairs-rule") == "The mask of dicom/NAME is masks/NAME."
    assert said(dataset, "patients-by-folder").startswith("Each of the 2 folders")
    assert not said(dataset, "patients-by-case")


# --- patients, classes, nothing there ------------------------------------------------------------
def test_patients_and_classes_from_names(tmp_path: Path) -> None:
    dataset = read_dataset(
        msd(tmp_path), patient_pattern="^([a-z])", label_pattern=r"_(?P<label>[12])$"
    )
    assert [(c.patient_id, c.label) for c in dataset.cases] == [("a", "1"), ("b", "2"), ("c", "")]
    assert "fits 1 cases not: c_3" in said(dataset, "label-by-pattern")
    assert not said(dataset, "patients-by-case")
    with pytest.raises(LabelsError, match="fits no case"):
        read_dataset(tmp_path, patient_pattern="^(Z)")
    with pytest.raises(UsageError, match="no regular expression"):
        read_dataset(tmp_path, patient_pattern="(")


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ((), "an empty folder"),
        (("notes.txt",), "No data set is recognised"),
        (("Dataset001_A/x.png", "Dataset002_B/x.png"), "holds several data sets"),
    ],
)
def test_folders_without_a_data_set(tmp_path: Path, files: tuple[str, ...], words: str) -> None:
    with pytest.raises(InputError) as caught:
        read_dataset(folder_of(tmp_path, *files))
    assert words in str(caught.value)


def test_no_cases_and_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no usable case"):
        read_dataset(described(tmp_path / "data", NNUNET))
    with pytest.raises(MedtoolError, match=r"nothing by this name(?s:.*)nearest: .*data"):
        read_dataset(tmp_path / "dta")
    with pytest.raises(InputError, match="no data set"):
        read_dataset(folder_of(tmp_path, "a.nii") / "a.nii")


# --- real ----------------------------------------------------------------------------------------
@pytest.mark.real_data
def test_real_data_sets(real_data: Path) -> None:
    hippocampus = read_dataset(real_data / "hippocampus")
    assert sum(case.mask is not None for case in hippocampus.cases) == 90
    assert [c.case_id for c in hippocampus.cases if c.mask is None] == ["hippocampus_118"]
    assert hippocampus.labels.foreground == ("Anterior", "Posterior")
    heart = read_dataset(real_data / "heart_mr")
    assert len(heart.cases) == 41 and all(case.mask for case in heart.cases)
    assert sorted({case.patient_id for case in heart.cases})[0] == "SCD0000101"
    pancreas = read_dataset(real_data / "pancreas")
    assert (pancreas.layout, [c.case_id for c in pancreas.cases]) == ("nnunet", ["pancreas_ts"])
    for dataset in (hippocampus, pancreas):
        codes = {finding.code for finding in dataset.findings}
        assert not codes & {"file-unmatched", "mask-missing", "count-differs", "json-repaired"}
