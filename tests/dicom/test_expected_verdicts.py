"""Every line of expected_verdicts.json, on the real files it speaks of."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from medtool.dicom import scan
from medtool.dicom.document import intake_document


def lines(root: Path) -> list[dict[str, Any]]:
    document: dict[str, Any] = json.loads((root / "expected_verdicts.json").read_text())
    series: list[dict[str, Any]] = document["series"]
    return series


@pytest.mark.real_data
def test_every_line(real_data: Path) -> None:
    wrong = []
    for line in lines(real_data):
        source = real_data / line["folder"]
        intake = intake_document(scan([source / line["file"] if "file" in line else source]))
        if len(intake["series"]) != 1:
            wrong.append(f"{line['folder']}: {len(intake['series'])} series")
            continue
        series = intake["series"][0]
        said = " ".join(series["reasons"] + series["repairs"]).lower()
        missing = [word for word in line["words"] if word not in said]
        skipped = sorted(Path(one["file"]).name for one in intake["skipped"])
        if (
            series["verdict"] != line["verdict"]
            or series["files"] != line["files"]
            or missing
            or not set(line.get("skipped", [])) <= set(skipped)
        ):
            wrong.append(
                f"{line['folder']}: {series['verdict']} {series['files']} {said} {skipped}"
            )
    assert wrong == []


@pytest.mark.real_data
def test_whole_folders_give_the_same_verdicts(real_data: Path) -> None:
    by_folder = {}
    for top in ("head_ct", "torso_ct", "petct"):
        for series in intake_document(scan([real_data / top]))["series"]:
            key = (Path(series["folder"]).relative_to(real_data).as_posix(), series["files"])
            by_folder.setdefault(key, []).append(series["verdict"])
    for line in lines(real_data):
        assert line["verdict"] in by_folder[line["folder"], line["files"]], line


@pytest.mark.real_data
def test_philips_three_slices_are_repaired_with_a_warning(real_data: Path) -> None:
    intake = intake_document(scan([real_data / "head_ct/philips_phantom_tilt/S2010"]))
    (series,) = intake["series"]
    assert "only 3 slices" in series["warnings"]
    assert series["codes"] == ["few-slices", "gantry-tilt"]
    assert series["spacing_mm"][2] == pytest.approx(2.371, abs=0.001)
    assert [one["code"] for one in intake["skipped"]] == ["dicomdir"]


@pytest.mark.real_data
def test_duplicate_and_gap_gives_all_codes(real_data: Path) -> None:
    (series,) = scan([real_data / "torso_ct/ge_duplicate_gap"]).series
    codes = {finding.code for finding in series.findings}
    assert {"duplicate-dropped", "missing-slices", "too-few-slices"} <= codes


@pytest.mark.real_data
def test_empty_uids_are_accepted_with_a_warning(real_data: Path) -> None:
    (series,) = intake_document(scan([real_data / "torso_ct/siemens_j2k_no_uid"]))["series"]
    assert series["verdict"] == "accepted"
    assert any("SeriesInstanceUID" in warning for warning in series["warnings"])


@pytest.mark.real_data
def test_two_folders_of_empty_uids_stay_apart(real_data: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        shutil.copytree(real_data / "torso_ct/siemens_j2k_no_uid", tmp_path / name)
    intake = scan([tmp_path])
    assert [series.files for series in intake.series] == [20, 20]
    assert len({series.key for series in intake.series}) == 2


@pytest.mark.real_data
def test_regular_stacks_agree_with_geometry_json(real_data: Path) -> None:
    compared = 0
    for top in ("head_ct", "torso_ct"):
        for line in json.loads((real_data / top / "geometry.json").read_text())["series"]:
            document = intake_document(scan([real_data / top / line["folder"]]))
            series = document["series"][0]
            if series["verdict"] != "accepted":
                continue
            compared += 1
            truth = line["sitk"]
            assert series["size"] == truth["size"]
            for key, own in (("spacing", "spacing_mm"), ("origin", "origin_mm")):
                assert series[own] == pytest.approx(truth[key], abs=0.01)
            assert series["direction"] == pytest.approx(truth["direction"], abs=1e-5)
    assert compared == 2


@pytest.mark.real_data
def test_tilted_head_has_positions_of_geometry_json(real_data: Path) -> None:
    truth = json.loads((real_data / "head_ct/geometry.json").read_text())["series"][0]
    (series,) = scan([real_data / "head_ct/ge_tilt_uneven"]).series
    assert series.geometry is not None
    expected = [one["position"] for one in truth["positions_along_normal"]]
    assert series.geometry.positions_mm == pytest.approx(expected, abs=0.001)
    assert [plane.path.name for plane in series.planes] == truth["sitk_gdcm_order"]
    assert series.geometry.tilt_degrees == pytest.approx(18.5, abs=0.01)
    assert series.geometry.slice_spacing_mm == pytest.approx(4.002, abs=0.001)
    steps = {round(b - a, 6) for a, b in zip(expected, expected[1:], strict=False)}
    assert len(steps) > 2
    targets = series.geometry.target_positions_mm
    assert targets[0] == series.geometry.positions_mm[0]
    assert targets[-1] <= series.geometry.positions_mm[-1]
