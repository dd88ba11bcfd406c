"""Which PET and which CT of a study are a pair: written series, and why others are not taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_builder import build_series
from pet_builder import FACTOR, build_pet

from medtool.core.errors import CaseRefused
from medtool.core.records import Finding
from medtool.dicom import scan
from medtool.dicom.codes import CODES
from medtool.dicom.pet_ct import PetCtPair, pair_pet_ct
from medtool.dicom.series import Series

FRAME = "1.2.3.4"
# A field of 96 x 96 x 40 mm from the same corner, edges included.
PET = {"origin_mm": (2.0, 2.0, 2.0), "spacing_mm": (4.0, 4.0), "step_mm": 4.0}
CT = {"origin_mm": (1.0, 1.0, 1.0), "spacing_mm": (2.0, 2.0), "step_mm": 2.0}


class Study:
    """A study on disk to which series are added."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0

    def pet(
        self,
        changes: Mapping[str, Any] | None = None,
        drug: Mapping[str, Any] | None = None,
        slices: int = 10,
        **options: Any,
    ) -> None:
        own = {"FrameOfReferenceUID": FRAME, **(changes or {})}
        stored = np.full((slices, 24, 24), 3000, np.int16)
        build_pet(self._next(), stored, own, drug, study_uid="1.2.3", **{**PET, **options})

    def ct(
        self, changes: Mapping[str, Any] | None = None, slices: int = 20, **options: Any
    ) -> None:
        own = {"FrameOfReferenceUID": FRAME, **(changes or {})}
        stored = np.random.default_rng(0).integers(0, 1500, (slices, 48, 48)).astype(np.int16)
        build_series(self._next(), stored, tags=own, study_uid="1.2.3", **{**CT, **options})

    def _next(self) -> Path:
        self.count += 1
        return self.folder / f"{self.count}"

    def series(self) -> tuple[Series, ...]:
        return scan([self.folder]).series

    def pair(self) -> PetCtPair:
        pair = pair_pet_ct(self.series())
        assert all(f.code in CODES for f in pair.findings)
        return pair

    def refusal(self) -> CaseRefused:
        with pytest.raises(CaseRefused) as caught:
            pair_pet_ct(self.series())
        assert caught.value.code in CODES
        return caught.value


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(tmp_path)


def said(pair: PetCtPair, code: str) -> list[str]:
    return [finding.message for finding in pair.findings if finding.code == code]


def test_one_of_each(study: Study) -> None:
    study.pet()
    study.ct({"SeriesDescription": "CT AC"})
    pair = study.pair()
    assert (pair.pet.modality, pair.ct.modality) == ("PT", "CT")
    assert pair.scale.factors == (pytest.approx(FACTOR, rel=1e-7),) * 10
    assert pair.covered == pytest.approx((1.0, 1.0, 1.0))
    assert [f.code for f in pair.findings] == ["pair-chosen", "pair-registered"]
    assert "'WB AC'" in pair.findings[0].message
    assert "100% x 100% x 100%" in pair.findings[1].message


def test_a_pet_without_attenuation_correction_is_never_taken(study: Study) -> None:
    # More slices, so that by its score alone it would be.
    study.pet({"CorrectedImage": ["DECY"], "SeriesDescription": "NAC"}, slices=14)
    study.pet({"SeriesDescription": "AC"})
    study.ct(slices=40)
    pair = study.pair()
    assert pair.pet.description == "AC"
    (loser,) = said(pair, "pair-not-chosen")
    assert "'NAC'" in loser
    assert "suv-uncorrected" in loser


def test_a_pet_that_says_it_is_corrected_comes_first(study: Study) -> None:
    suv = {"Units": "GML", "SUVType": "BW"}
    study.pet({**suv, "CorrectedImage": None, "SeriesDescription": "unknown"}, slices=11)
    study.pet({**suv, "SeriesDescription": "AC"})
    study.ct(slices=30)
    pair = study.pair()
    assert pair.pet.description == "AC"
    assert "does not say that it is corrected" in said(pair, "pair-not-chosen")[0]


def test_of_two_ct_the_one_that_covers_the_pet_before_the_one_with_the_better_score(
    study: Study,
) -> None:
    study.pet()
    bone = {"ConvolutionKernel": "BONE", "SeriesDescription": "whole"}
    study.ct(bone)
    study.ct({"SeriesDescription": "half"}, slices=10)
    pair = study.pair()
    assert pair.ct.description == "whole"
    assert "covers 100% x 100% x 50% of the PET, not" in said(pair, "pair-not-chosen")[0]
    # Where both cover it the score decides, and says so.
    study.ct({"SeriesDescription": "soft"})
    pair = study.pair()
    assert pair.ct.description == "soft"
    assert any("a CT score of" in text for text in said(pair, "pair-not-chosen"))


def test_the_caller_prefers_a_kernel(study: Study) -> None:
    study.pet()
    study.ct({"ConvolutionKernel": "BONE", "SeriesDescription": "bone"})
    study.ct({"SeriesDescription": "soft"})
    assert pair_pet_ct(study.series()).ct.description == "soft"
    assert pair_pet_ct(study.series(), preferred_kernels=["BONE"]).ct.description == "bone"


def test_a_ct_of_another_coordinate_system_is_not_taken(study: Study) -> None:
    study.pet()
    study.ct({"FrameOfReferenceUID": "9.9", "SeriesDescription": "other day"}, slices=60)
    error = study.refusal()
    assert error.code == "frames-of-reference-differ"
    assert "NIfTI" in error.how
    study.ct({"SeriesDescription": "same"})
    pair = study.pair()
    assert pair.ct.description == "same"
    assert "no frame of reference or field" in said(pair, "pair-not-chosen")[0]


def test_without_a_frame_of_reference_positions_are_believed_and_it_is_said(study: Study) -> None:
    study.pet({"FrameOfReferenceUID": None})
    study.ct({"SeriesDescription": "named"})
    pair = study.pair()
    assert said(pair, "pair-frame-unknown")
    assert not said(pair, "pair-registered")


def test_a_part_of_the_pet_without_ct_is_said(study: Study) -> None:
    study.pet()
    study.ct(slices=14)
    assert said(study.pair(), "pair-partly-covered") == [
        "the CT covers only 70% of the PET's length"
    ]


@pytest.mark.parametrize(
    "place", [{"origin_mm": (1.0, 1.0, 400.0)}, {"origin_mm": (1.0, 1.0, 37.0)}]
)
def test_fields_of_view_that_lie_apart(study: Study, place: Mapping[str, Any]) -> None:
    study.pet()
    study.ct(**place)
    error = study.refusal()
    assert error.code == "fields-apart"
    assert "at least 20%" in error.wanted


def test_a_phase_comes_after_a_whole_pet_and_is_said(study: Study) -> None:
    study.pet()
    study.ct()
    pet, ct = study.series() if study.series()[0].modality == "PT" else study.series()[::-1]
    phase = replace(
        pet, key="phase", score=99.0, findings=(Finding("split-by-phase", "told apart"),)
    )
    assert pair_pet_ct([phase, pet, ct]).pet.key == pet.key
    alone = pair_pet_ct([phase, ct])
    assert said(alone, "pair-phase")


def test_the_order_of_the_series_does_not_matter(study: Study) -> None:
    for _ in range(2):
        study.pet()
        study.ct()
    series: Sequence[Series] = study.series()
    first, second = pair_pet_ct(series), pair_pet_ct(series[::-1])
    assert (first.pet.key, first.ct.key) == (second.pet.key, second.ct.key)
    assert len(said(first, "pair-not-chosen")) == 2
    assert "equals the other" in said(first, "pair-not-chosen")[0]


def test_a_study_without_ct_or_pet(study: Study) -> None:
    study.pet()
    assert study.refusal().code == "no-ct"
    assert study.refusal().met == "modalities PT"


def test_a_study_without_pet(study: Study) -> None:
    study.ct()
    assert study.refusal().code == "no-pet"
    with pytest.raises(CaseRefused) as caught:
        pair_pet_ct([])
    assert (caught.value.code, caught.value.met) == ("no-pet", "no series")


def test_a_ct_that_cannot_be_read(study: Study) -> None:
    study.pet()
    study.ct(slices=2)
    assert study.refusal().code == "too-few-slices"


def test_a_pet_in_counts(study: Study) -> None:
    study.pet({"Units": "CNTS"})
    study.ct()
    assert study.refusal().code == "suv-units"
    # Beside one that becomes SUV it is only named.
    study.pet({"SeriesDescription": "good"})
    pair = study.pair()
    assert pair.pet.description == "good"
    assert "suv-units" in said(pair, "pair-not-chosen")[0]
