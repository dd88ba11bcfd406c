"""The plugin as a whole: preparing real and synthetic studies, previews, presets, sections."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from medtool_brainmet import Brainmet
from medtool_brainmet.codes import SLICE_CODES, STUDY_CODES
from medtool_brainmet.demo import DemoOptions, plan_cohort, render, write_cohort
from medtool_brainmet.demo_dicom import slice_planes, uid_for
from medtool_brainmet.reading import read_scan
from medtool_brainmet.sections import audit_section, report_sections
from medtool_brainmet.settings import BrainmetSettings
from scipy.stats import mannwhitneyu

from medtool.config import presets_of, resolve
from medtool.core.errors import CaseRefused, LeakageError
from medtool.core.records import Case, Source
from medtool.data.leakage import leakage_gate
from medtool.data.run_folder import RunFolder

SMALL = DemoOptions(patients=6, size_px=64, workers=1)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    write_cohort(folder, 3, SMALL)
    return folder


@pytest.fixture(scope="module")
def task() -> Brainmet:
    return Brainmet(resolve(Brainmet, "demo").settings)


@pytest.fixture(scope="module")
def cases(cohort: Path, task: Brainmet) -> tuple[Case, ...]:
    return task.find(Source((cohort,))).cases


# --- the cohort ---------------------------------------------------------------------------
def test_the_cohort_has_its_oddities(cohort: Path, task: Brainmet) -> None:
    found = task.find(Source((cohort,)))
    assert len(found.cases) == 7
    assert len({case.patient_id for case in found.cases}) == 6
    assert all(case.facts["synthetic"] for case in found.cases)
    tilts = sorted(case.facts["tilt_degrees"] for case in found.cases)
    assert tilts[-1] == pytest.approx(15.0, abs=0.01)
    assert tilts[:-1] == pytest.approx([0.0] * 6)
    assert any("IM0001_copy" in row["file"] for row in found.intake["skipped"])
    scouts = [row for row in found.intake["series"] if row["verdict"] == "refused"]
    assert len(scouts) == 1
    assert "localizer" in " ".join(scouts[0]["codes"])


def test_the_same_seed_writes_the_same_files(cohort: Path, tmp_path: Path) -> None:
    write_cohort(tmp_path, 3, SMALL)
    files = sorted(path.relative_to(cohort) for path in cohort.rglob("*") if path.is_file())
    assert files == sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file())
    assert all((cohort / name).read_bytes() == (tmp_path / name).read_bytes() for name in files)


def test_a_head_without_lesions_is_otherwise_the_same() -> None:
    options = replace(SMALL, oddities=False)
    with_lesions, labels = plan_cohort(5, options)
    without, same_labels = plan_cohort(5, replace(options, lesions=False))
    assert labels == same_labels
    for first, second in zip(with_lesions, without, strict=True):
        assert replace(first.head, lesions=()) == second.head
        assert bool(first.head.lesions) == bool(labels[first.header.patient_id])
        assert (first.noise_seed, first.mean_hu) == (second.noise_seed, second.mean_hu)


def test_lesions_are_visible_and_nothing_else_changes() -> None:
    studies, labels = plan_cohort(5, replace(SMALL, oddities=False, size_px=128))
    study = next(one for one in studies if labels[one.header.patient_id])
    changed = render(study) - render(replace(study, head=replace(study.head, lesions=())))
    # The mean is kept by a shift of the whole brain: the rest moves by less than that.
    assert np.median(np.abs(changed)) < 0.8
    assert np.quantile(np.abs(changed), 0.9995) > 10


def auroc(values: list[float], labels: list[int]) -> float:
    positive = [value for value, label in zip(values, labels, strict=True) if label]
    negative = [value for value, label in zip(values, labels, strict=True) if not label]
    return float(mannwhitneyu(positive, negative).statistic) / (len(positive) * len(negative))


@pytest.mark.parametrize("seed", range(3))
def test_neither_scanner_nor_slices_nor_mean_tell_the_class(seed: int) -> None:
    studies, labels = plan_cohort(seed, DemoOptions())
    classes = [labels[study.header.patient_id] for study in studies]
    models = sorted({study.acquisition.model for study in studies})
    facts = {
        "slices": [float(study.acquisition.slices) for study in studies],
        "mean_hu": [study.mean_hu for study in studies],
        **{m: [float(study.acquisition.model == m) for study in studies] for m in models},
    }
    assert len(models) == 3
    assert sum(classes) in (60, 61)
    for name, values in facts.items():
        assert 0.35 <= auroc(values, classes) <= 0.65, name


def test_the_planned_mean_is_the_mean_of_the_brain(cases, cohort: Path, task: Brainmet) -> None:
    planned = {study.header.accession: study.mean_hu for study in plan_cohort(3, SMALL)[0]}
    for case in cases:
        mean_hu = task.prepare(case).facts["mean_hu"]
        # The mask holds some bone-softened rim; the planned mean does not.
        assert mean_hu == pytest.approx(planned[case.accession], abs=4.0)


def test_slices_of_a_tilted_stack_move_along_the_table() -> None:
    acquisition = replace(plan_cohort(0, SMALL)[0][0].acquisition, tilt_degrees=15.0, slices=4)
    positions, orientation = slice_planes(acquisition)
    assert np.ptp(positions[:, :2], axis=0).tolist() == [0.0, 0.0]
    assert np.diff(positions[:, 2]) == pytest.approx([acquisition.step_mm] * 3)
    assert np.linalg.norm(orientation[3:]) == pytest.approx(1.0)


def test_uids_are_valid_and_stable() -> None:
    uid = uid_for("a study")
    assert uid == uid_for("a study") != uid_for("another")
    assert len(uid) <= 64
    assert all(part == "0" or not part.startswith("0") for part in uid.split("."))


# --- preparing ----------------------------------------------------------------------------
def test_a_prepared_study_is_whole(cases, task: Brainmet) -> None:
    for case in cases:
        prepared = task.prepare(case)
        used = [row for row in prepared.elements if row["used"]]
        slices, masks = prepared.arrays["slices"], prepared.arrays["mask"]
        assert slices.shape == masks.shape == (len(used), 96, 96)
        assert (slices[~masks] == 0).all()
        assert slices.max() <= 1
        assert [row["slice_index"] for row in prepared.elements] == list(
            range(len(prepared.elements))
        )
        assert all(row["used"] or row["reason"] in SLICE_CODES for row in prepared.elements)
        assert len({row["sop_instance_uid"] for row in used}) == len(used)
        assert 900 < prepared.facts["brain_volume_ml"] < 1900
        assert not prepared.facts["brain_fallback"]
        assert len(prepared.facts["slice_hashes"]) == len(prepared.elements)
        json.dumps([prepared.elements, prepared.facts])


def test_the_grid_of_the_slices_lies_in_the_patient(cases, task: Brainmet) -> None:
    prepared = task.prepare(cases[0])
    image, slices = prepared.grids["image"], prepared.grids["slices"]
    middle = [
        grid.affine_lps() @ np.array([*((np.array(grid.size) - 1) / 2), 1.0])
        for grid in (image, slices)
    ]
    # The cut is around the brain, the head within 6 mm of the middle of the image.
    assert np.abs(middle[0] - middle[1])[:3].max() < 10
    assert slices.spacing_mm[0] == pytest.approx(190 / 96, rel=0.02)


def test_what_is_no_head_in_hu_is_refused(cases, task: Brainmet, tmp_path: Path) -> None:
    import SimpleITK as sitk

    def nifti(name: str, values: np.ndarray) -> Case:
        path = tmp_path / f"{name}.nii.gz"
        image = sitk.GetImageFromArray(values.astype(np.float32))
        image.SetSpacing((1.9, 1.9, 8.0))
        sitk.WriteImage(image, str(path))
        return Case(name, name, "", {"ct": path})

    volume = render(plan_cohort(3, replace(SMALL, size_px=128))[0][1])
    assert len(task.prepare(nifti("good", volume)).arrays["slices"]) > 8
    refused = {
        "not-hu": (volume + 1000) / 2000,
        "no-brain": np.where(volume > 100, 20, volume) + (np.arange(128) > 124) * 1500.0,
        "too-few-brain-slices": volume[8:10],
    }
    for code, values in refused.items():
        case = nifti(code, values)
        with pytest.raises(CaseRefused) as caught:
            task.prepare(case)
        assert caught.value.code == code
        assert code in STUDY_CODES
        assert [finding.severity for finding in task.check(case)] == ["refusal"]
    (tmp_path / "broken.nii.gz").write_bytes(b"no image")
    with pytest.raises(CaseRefused) as caught:
        task.prepare(Case("b", "b", "", {"ct": tmp_path / "broken.nii.gz"}))
    assert caught.value.code == "broken-header"


def test_files_that_do_not_say_truly_where_they_lie(tmp_path: Path) -> None:
    """From a fault: of two forms that contradict each other one was taken in silence."""
    import SimpleITK as sitk

    path = tmp_path / "a.nii"
    image = sitk.GetImageFromArray(np.zeros((4, 5, 6), np.int16))
    image.SetSpacing((1.9, 1.9, 8.0))
    sitk.WriteImage(image, str(path))
    assert not read_scan(path).findings
    header = bytearray(path.read_bytes())
    # The sform's x of the first voxel (nifti1.h).
    struct.pack_into("<f", header, 292, 15.0)
    path.write_bytes(header)
    with pytest.raises(CaseRefused) as caught:
        read_scan(path)
    assert caught.value.code == "forms-conflict"
    # Neither form counts.
    struct.pack_into("<2h", header, 252, 0, 0)
    path.write_bytes(header)
    assert [finding.code for finding in read_scan(path).findings] == ["no-orientation"]


@pytest.mark.real_data
def test_a_real_tilted_uneven_head(real_data: Path, tmp_path: Path) -> None:
    task = Brainmet(BrainmetSettings())
    (case,) = task.find(Source((real_data / "head_ct" / "ge_tilt_uneven",))).cases
    prepared = task.prepare(case)
    assert 1300 < prepared.facts["brain_volume_ml"] < 1600
    assert prepared.arrays["slices"].shape[1:] == (256, 256)
    assert len(prepared.arrays["slices"]) > 25
    assert 25 < prepared.facts["mean_hu"] < 40
    # The head is turned to the right of the picture by about 10 degrees (seen in the picture).
    assert prepared.facts["mid_sagittal"]["angle_degrees"] == pytest.approx(-10, abs=4)
    assert {finding.code for finding in task.check(case)} <= {"slices-dropped"}
    assert len(task.preview(case, tmp_path)) == 3


# --- previews, presets, report ------------------------------------------------------------
def test_previews_are_pictures_of_every_stage(cases, task: Brainmet, tmp_path: Path) -> None:
    written = task.preview(cases[0], tmp_path)
    assert [path.name for path in written] == ["stages.png", "slices.png", "augmentation.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written)
    assert all(path.is_relative_to(tmp_path) for path in written)


@pytest.mark.parametrize("name", ["default", "curriculum", "balanced", "laptop", "demo", "pruned"])
def test_a_preset_resolves_and_its_stages_name_groups(name: str) -> None:
    settings = resolve(Brainmet, name).settings
    task = Brainmet(settings)
    groups = set(task.groups(task.network()))
    assert all(set(stage.rates) <= groups for stage in settings.train.stages)
    assert settings.description


def test_all_presets_are_known() -> None:
    names = {preset.name for preset in presets_of("brainmet", "medtool_brainmet", Path())}
    assert names == {"default", "curriculum", "balanced", "laptop", "demo", "pruned"}


def test_the_curriculum_is_that_of_the_method() -> None:
    settings = resolve(Brainmet, "curriculum").settings
    stages = [(stage.from_epoch, stage.rates) for stage in settings.train.stages]
    assert stages == [
        (0, {"head": 5e-5}),
        (5, {"head": 5e-5, "layer4": 1e-5}),
        (12, {"head": 5e-5, "layer4": 1e-5, "layer3": 5e-6}),
    ]
    assert (settings.train.epochs, settings.train.gradient_clip) == (50, 1.0)
    network = Brainmet(settings).network()
    assert sum(parameter.numel() for parameter in network.parameters()) == 24_551_361
    groups = Brainmet(settings).groups(network)
    sizes = [
        sum(p.numel() for name in rates for part in groups[name] for p in part.parameters())
        for _, rates in stages
    ]
    assert sizes == [1_049_601, 16_014_337, 23_112_705]


AUDIT = {
    "studies": 40,
    "slices_per_study": 6,
    "shuffles": 10,
    "used": "by_class",
    "auroc": {"none": [0.5, 0.4, 0.6], "both_alike": [0.51, 0.4, 0.6], "by_class": [0.97, 0.9, 1]},
}


def test_the_report_says_whether_the_augmentation_gives_the_label_away() -> None:
    section = audit_section(AUDIT)
    assert section is not None
    assert "leaves a trace of the label (AUROC 0.97 for shuffled labels" in section.html
    assert "<svg" in section.html
    fair = audit_section({**AUDIT, "used": "both_alike"})
    assert fair is not None
    assert "no notable trace of the label (AUROC 0.51 for shuffled labels" in fair.html
    assert audit_section({}) is None


def test_top_slices_come_from_held_out_studies(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.write_run({"audit": AUDIT})
    run.write_cases([{"case": "a", "label": 1}, {"case": "b", "label": 0}])
    folder = run.predictions_folder / "test"
    folder.mkdir(parents=True)
    (folder / "predictions.csv").write_text(
        "case,status,probability,top_slice_instance,top_slice_index,top_slice_position_mm,"
        "slices_used,slices_read\n"
        "a,ok,0.2,,3,12.5,10,12\n"
        "b,ok,0.9,7,6,-4,11,12\n"
        "c,refused,,,,,,\n"
    )
    titles = {section.title: section.html for section in report_sections(run)}
    assert set(titles) == {"Top slices", "Does the augmentation give the label away?"}
    assert titles["Top slices"].index(">b<") < titles["Top slices"].index(">a<")
    assert ">c<" not in titles["Top slices"]
    assert [word in titles["Top slices"] for word in (">positive<", ">12.5<", ">1.0<")] == [
        True,
        True,
        False,
    ]


# --- what reading finds -------------------------------------------------------------------
def rewritten(files: list[Path], folder: Path, **changes: str) -> None:
    """Copies of DICOM files with other elements, by keyword."""
    import pydicom

    folder.mkdir(parents=True)
    for path in files:
        data = pydicom.dcmread(path)
        for keyword, value in changes.items():
            setattr(data, keyword, value)
        data.save_as(folder / path.name)


def test_a_part_of_a_tilted_study_under_another_patient_is_found(
    cases, task: Brainmet, tmp_path: Path
) -> None:
    # Without its lowest planes a tilted stack is sheared from another plane on, with two steps it
    # is resampled: no slice that the network sees is the same, yet the planes are.
    tilted = max(cases, key=lambda case: case.facts["tilt_degrees"])
    planes = tilted.inputs["ct"].planes
    kept = [plane.path for plane in planes[2:]]
    rewritten(kept, tmp_path / "CTs" / "other", PatientID="other", StudyInstanceUID="1.2.3.4")
    (copy,) = task.find(Source((tmp_path,))).cases
    assert copy.patient_id == "other"
    hashes = {case.case_id: task.prepare(case).facts["slice_hashes"] for case in (tilted, copy)}
    parts = {tilted.case_id: "train", copy.case_id: "test"}
    with pytest.raises(LeakageError, match="identical pixels") as caught:
        leakage_gate([tilted, copy], parts, hashes)
    assert f"{len(kept)} identical slices" in caught.value.met


def test_what_only_pixels_show_is_said_of_the_study(cases, task: Brainmet, tmp_path: Path) -> None:
    import pydicom

    planes = cases[0].inputs["ct"].planes
    folder = tmp_path / "CTs" / "p"
    rewritten([plane.path for plane in planes], folder)
    # Corners outside the field of view that no tag declares as padding.
    for path in folder.iterdir():
        data = pydicom.dcmread(path)
        pixels = data.pixel_array.astype("<i2")
        pixels[:4, :4] = -4000
        data.PixelRepresentation, data.BitsStored, data.HighBit = 1, 16, 15
        data.PixelData = pixels.tobytes()
        data.save_as(path)
    (case,) = task.find(Source((tmp_path,))).cases
    assert "undeclared-padding" in [finding.code for finding in task.prepare(case).findings]


def test_voxels_without_a_number_are_air_and_said(task: Brainmet, tmp_path: Path) -> None:
    import SimpleITK as sitk

    volume = render(plan_cohort(3, replace(SMALL, size_px=128))[0][1]).astype(np.float32)
    case_of = {}
    for name, outside in (("air", -1024.0), ("nan", np.nan)):
        values = volume.copy()
        values[:, :6] = outside
        image = sitk.GetImageFromArray(values)
        image.SetSpacing((1.9, 1.9, 8.0))
        sitk.WriteImage(image, str(tmp_path / f"{name}.nii.gz"))
        case_of[name] = task.prepare(Case(name, name, "", {"ct": tmp_path / f"{name}.nii.gz"}))
    air, nan = case_of["air"], case_of["nan"]
    assert "undefined-values" in [finding.code for finding in nan.findings]
    assert "undefined-values" in STUDY_CODES
    assert np.array_equal(air.arrays["slices"], nan.arrays["slices"])
    assert air.facts == nan.facts
    assert air.facts["slice_hashes"]
