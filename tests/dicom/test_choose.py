"""Which of several stacks is read: the stated score, by points added up by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from dicom_builder import build_series

from medtool.core.records import Finding
from medtool.dicom import scan
from medtool.dicom.body_part import HEAD, parts_in
from medtool.dicom.choose import choose, kernel_softness, score


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        ("STANDARD", "soft"),
        ("SOFT", "soft"),
        ("BONE", "sharp"),
        ("BONEPLUS", "sharp"),
        ("LUNG", "sharp"),
        ("B30f", "soft"),
        ("B31s", "soft"),
        ("H37s", "soft"),
        ("B70f", "sharp"),
        ("Br38f\\3", "soft"),
        ("Hr64h\\2", "sharp"),
        ("J40s\\3", "soft"),
        ("B", "soft"),
        ("YB", "sharp"),
        ("FC08", "soft"),
        ("FC26", "soft"),
        ("FC52", "sharp"),
        ("", "unknown"),
        ("59 convkernel.10.AB40", "unknown"),
    ],
)
def test_kernels_of_the_vendors(kernel: str, expected: str) -> None:
    assert kernel_softness(kernel) == expected


@pytest.mark.parametrize(
    ("facts", "codes", "points"),
    [
        # 30 original + 30 soft + 20 thickness + 20 * 40 / 80
        ({"kernel": "STANDARD", "thickness_mm": 2.5, "slices": 40}, [], 90.0),
        ({"kernel": "BONE", "thickness_mm": 2.5, "slices": 40}, [], 60.0),
        ({"kernel": "", "thickness_mm": 2.5, "slices": 40}, [], 75.0),
        ({"kernel": "STANDARD", "thickness_mm": 0.6, "slices": 40}, [], 80.0),
        ({"kernel": "STANDARD", "thickness_mm": 10.0, "slices": 40}, [], 70.0),
        ({"kernel": "STANDARD", "thickness_mm": None, "slices": 40}, [], 70.0),
        ({"kernel": "STANDARD", "thickness_mm": 2.5, "slices": 120}, [], 95.0),
        ({"kernel": "STANDARD", "thickness_mm": 2.5, "slices": 40}, ["derived"], 75.0),
        ({"kernel": "STANDARD", "thickness_mm": 2.5, "slices": 40}, ["gantry-tilt"], 85.0),
        ({"kernel": "STANDARD", "thickness_mm": 2.5, "slices": 40}, ["uneven-spacing"], 80.0),
    ],
)
def test_points(facts: dict[str, Any], codes: list[str], points: float) -> None:
    found, reasons = score(facts, "accepted", [Finding(code, "") for code in codes])
    assert found == points
    assert sum(float(reason.rsplit(": ", 1)[1]) for reason in reasons) == pytest.approx(points)


def test_a_refused_stack_has_no_points_and_never_wins(tmp_path: Path) -> None:
    build_series(tmp_path, (2, 6, 5))
    (series,) = scan([tmp_path]).series
    assert series.score == 0.0
    assert choose([series]) == (None, [])


def test_soft_before_bone_and_more_slices_before_fewer(tmp_path: Path) -> None:
    for name, count, kernel in (
        ("soft", 12, "STANDARD"),
        ("bone", 40, "BONE"),
        ("few", 11, "SOFT"),
    ):
        build_series(tmp_path / name, (count, 6, 5), tags={"ConvolutionKernel": kernel})
    best, others = choose(scan([tmp_path]).series)
    assert best is not None
    assert best.folder.name == "soft"
    assert [other.folder.name for other in others] == ["few", "bone"]
    assert best.score > others[0].score > others[1].score


def test_preferences_of_a_task_come_first(tmp_path: Path) -> None:
    for name, kernel in (("soft", "STANDARD"), ("bone", "BONE")):
        build_series(tmp_path / name, (12, 6, 5), tags={"ConvolutionKernel": kernel})
    series = scan([tmp_path]).series
    best, _ = choose(series, preferred_kernels=["bone"])
    assert best is not None
    assert best.folder.name == "bone"
    best, _ = choose(series, thickness_mm=(4.0, 8.0))
    assert best is not None
    (soft,) = [one for one in series if one.folder.name == "soft"]
    assert best.key == soft.key
    assert best.score == pytest.approx(soft.score - 10.0)


def test_ties_go_to_the_lower_series_number_then_to_the_key(tmp_path: Path) -> None:
    build_series(tmp_path, (12, 6, 5))
    (series,) = scan([tmp_path]).series
    later = replace(series, key="a", facts={**series.facts, "number": 9})
    twin = replace(series, key="zz")
    best, others = choose([later, twin, series])
    assert best is not None
    assert [best.key, *(other.key for other in others)] == [series.key, "zz", "a"]


def test_a_phase_that_nothing_but_its_place_chose_is_said(tmp_path: Path) -> None:
    """From a fault: plain or contrast phase was taken by the text of UIDs, seen in no result."""
    for number in (1, 2):
        build_series(
            tmp_path / str(number),
            (12, 6, 5),
            study_uid="1.2.3",
            series_uid="1.2.3.1",
            tags={"AcquisitionNumber": number},
        )
    stacks = scan([tmp_path]).series
    best, others = choose(stacks)
    assert best is not None
    said = [f for f in best.findings if f.severity == "warning" and f.code == "phase-by-order"]
    assert len(said) == 1 and f"{best.key} was taken" in said[0].message
    assert [one.key for one in (best, *others)] == [one.key for one in stacks]
    assert not any(f.code == "phase-by-order" for one in others for f in one.findings)
    # Nothing is said where a person chose, or where they differ in what decides.
    apart, _ = choose([stacks[0], replace(stacks[1], uid="1.2.3.2")])
    alone, _ = choose(stacks[:1])
    for one in (apart, alone):
        assert one is not None and "phase-by-order" not in {f.code for f in one.findings}


def _stack(folder: Path, name: str, slices: int, **tags: Any) -> None:
    """A series of one study: ``slices`` of 8 pixels, 240 mm wide unless said."""
    spacing_mm = tags.pop("spacing_mm", 30.0)
    build_series(
        folder,
        (slices, 8, 8),
        study_uid="1.2.3",
        series_uid=name,
        step_mm=5.0,
        spacing_mm=(spacing_mm, spacing_mm),
        tags={"ConvolutionKernel": "STANDARD", "SeriesDescription": "", **tags},
        name=(name + "-{:03d}.dcm").format,
    )


@pytest.mark.parametrize(
    "body",
    [
        {"BodyPartExamined": "CHEST"},
        {"SeriesDescription": "Thorax-Abdomen 5.0 B30f", "BodyPartExamined": "HEAD"},
        {"SeriesDescription": "C-Spine 5mm", "spacing_mm": 22.0},
        # Nothing says what it is, but no head is half a metre wide.
        {"spacing_mm": 62.5},
    ],
)
def test_of_a_head_and_a_body_in_one_study_the_head_is_taken(
    tmp_path: Path, body: dict[str, Any]
) -> None:
    """From a fault: the chest's many slices won, and the study was refused as without a brain."""
    _stack(tmp_path, "1.2.3.1", 30)
    _stack(tmp_path, "1.2.3.2", 120, **body)
    stacks = scan([tmp_path]).series
    best, others = choose(stacks, body_part=HEAD)
    assert best is not None and best.uid == "1.2.3.1"
    assert any(reason.endswith(("-50.0", "-25.0")) for reason in others[0].score_reasons)
    # Whoever looks at no part in particular takes more slices.
    anything, _ = choose(stacks)
    assert anything is not None and anything.uid == "1.2.3.2"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("Schädel nativ 5mm", {"head"}),
        ("crâne sans injection", {"head"}),
        ("Neurocranium/HWS 5.0 H30s", {"head", "spine"}),
        ("HEAD_NECK CTA", {"head", "neck"}),
        ("T SPINE SAG", {"spine"}),
        ("5mm STANDARD", set()),
        # Words inside of others are none.
        ("harmonized chestnut", set()),
    ],
)
def test_parts_are_named_by_words(text: str, parts: set[str]) -> None:
    assert parts_in(text) == parts


@pytest.mark.parametrize(
    ("tags", "cost"),
    [
        ({"SeriesDescription": "Thorax", "BodyPartExamined": "HEAD"}, 50.0),
        ({"SeriesDescription": "Schaedel", "BodyPartExamined": "CHEST"}, 0.0),
        ({"BodyPartExamined": "CHEST"}, 25.0),
        ({"SeriesDescription": "Skull to thigh", "spacing_mm": 62.5}, 25.0),
        # A stereotactic frame is wider than a head.
        ({"SeriesDescription": "SRS 1MM", "spacing_mm": 45.0}, 0.0),
    ],
)
def test_what_another_part_costs(tmp_path: Path, tags: dict[str, Any], cost: float) -> None:
    _stack(tmp_path, "1.2.3.1", 30, **tags)
    stacks = scan([tmp_path]).series
    (plain, _), (looking, _) = choose(stacks), choose(stacks, body_part=HEAD)
    assert plain is not None and looking is not None
    assert plain.score - looking.score == pytest.approx(cost)


def test_a_series_that_goes_on_in_another_stack_is_said(tmp_path: Path) -> None:
    """From a fault: a head in two blocks that touch was answered by one of them, without a word.

    Base in 2.5 mm and vertex in 5 mm share one position: they are told apart, and one is read.
    """
    where: dict[str, Any] = {"study_uid": "1.2.3", "series_uid": "1.2.3.1"}
    build_series(tmp_path, (24, 6, 5), step_mm=2.5, name="base-{:02d}".format, **where)
    top = (-10.0, -20.0, 30.0 + 23 * 2.5)
    vertex = {"step_mm": 5.0, "origin_mm": top, "name": "vertex-{:02d}".format}
    build_series(tmp_path, (18, 6, 5), **vertex, **where)
    best, others = choose(scan([tmp_path]).series)
    assert best is not None and len(others) == 1
    (said,) = [f for f in best.findings if f.code == "series-goes-on"]
    assert said.severity == "warning"
    # 23 steps of 2.5 mm are read, 17 of 5 mm are not.
    assert "reaches 85 mm further" in said.message and "(58 mm long)" in said.message


def test_a_recalculation_that_begins_a_little_elsewhere_is_no_loss(tmp_path: Path) -> None:
    where: dict[str, Any] = {"study_uid": "1.2.3", "series_uid": "1.2.3.1"}
    for kernel, start_mm in (("STANDARD", 30.0), ("BONE", 20.0)):
        build_series(
            tmp_path,
            (30, 6, 5),
            origin_mm=(-10.0, -20.0, start_mm),
            tags={"ConvolutionKernel": kernel},
            name=(kernel + "-{:02d}").format,
            **where,
        )
    best, others = choose(scan([tmp_path]).series)
    assert best is not None and len(others) == 1
    assert "series-goes-on" not in {finding.code for finding in best.findings}
