"""The synthetic cohort of petct: what it is made of, that no SUV tells tumours, who dies when."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from medtool_petct.demo import CASES, HEALTHY_AT, HEALTHY_EVERY, DemoCase, draw_case, write_cohort
from medtool_petct.demo_outcomes import DemoPatient, draw_patient

from medtool.core.randomness import generator
from medtool.data.dataset_record import ImageReference
from medtool.data.volumes import read_mask, read_volume
from medtool.dicom.intake import scan
from medtool.dicom.suv import read_suv
from medtool.score.survival import SurvivalSample, survival_sample
from medtool.score.survival_ranking import harrell

TRAINING = 16
THRESHOLDS_SUV = np.arange(1.0, 31.0, 0.5)


@pytest.fixture(scope="module")
def cases() -> list[DemoCase]:
    return [draw_case(0, number) for number in range(2 * HEALTHY_EVERY)]


def test_a_case_is_drawn_the_same_again(cases: list[DemoCase]) -> None:
    again, other = draw_case(0, 1), draw_case(1, 1)
    for name in ("suv", "hu", "mask"):
        assert np.array_equal(getattr(again, name), getattr(cases[1], name))
    assert again.patient == cases[1].patient
    assert (again.pet_grid, again.ct_grid) == (cases[1].pet_grid, cases[1].ct_grid)
    assert not np.array_equal(other.suv, cases[1].suv)


def test_tumours_are_small_and_a_few_patients_have_none(cases: list[DemoCase]) -> None:
    shares = np.array([case.mask.mean() for case in cases])
    healthy = np.array([n % HEALTHY_EVERY == HEALTHY_AT for n in range(len(cases))])
    assert (shares[healthy] == 0).all()
    assert shares[~healthy].min() >= 0.0003
    assert shares[~healthy].max() <= 0.005


def test_no_suv_tells_tumours_from_organs(cases: list[DemoCase]) -> None:
    """The best threshold of all there are, chosen on other cases, stays far below 0.6 Dice."""
    best = max(THRESHOLDS_SUV, key=lambda suv: _mean_dice(cases[:TRAINING], float(suv)))
    assert _mean_dice(cases[TRAINING:], float(best)) < 0.6


def test_organs_are_as_hot_as_tumours_and_tumours_are_dense(cases: list[DemoCase]) -> None:
    for case in cases:
        if case.mask.any():
            assert case.suv[case.mask > 0].mean() < case.suv[case.mask == 0].max()
    inside = np.concatenate([case.suv[case.mask > 0] for case in cases])
    assert 4.0 < inside.mean() < 9.0


def _mean_dice(cases: list[DemoCase], threshold_suv: float) -> float:
    found = []
    for case in cases:
        hot, tumour = case.suv >= threshold_suv, case.mask > 0
        if tumour.any():
            found.append(2 * (hot & tumour).sum() / (hot.sum() + tumour.sum()))
    return float(np.mean(found))


def test_the_hazard_orders_events_and_a_third_to_nearly_half_are_censored() -> None:
    """In every cohort, without its images: volumes and uptakes are drawn as the demo draws them."""
    for seed in range(5):
        people = _people(seed, 300)
        sample = _sample(people)
        reachable = harrell(sample, [one.log_hazard for one in people]).c_index()
        assert 0.75 < reachable < 0.9
        assert 0.30 <= 1.0 - sample.event_count / sample.n <= 0.45


def test_outcomes_of_the_demo_itself_depend_on_the_tumours(cases: list[DemoCase]) -> None:
    sample = _sample([case.patient for case in cases])
    volumes = [float(case.mask.sum()) for case in cases]
    hazards = [case.patient.log_hazard for case in cases]
    by_hazard = harrell(sample, hazards).c_index()
    assert by_hazard > 0.75
    assert by_hazard > harrell(sample, volumes).c_index() > 0.55


def _people(seed: int, count: int) -> list[DemoPatient]:
    rng = generator("petct-demo-people", seed)
    return [
        draw_patient(rng, float(np.exp(rng.uniform(1.8, 4.2))), float(np.exp(suv)), 2)
        for suv in rng.uniform(np.log(3.5), np.log(13.0), count)
    ]


def _sample(people: list[DemoPatient]) -> SurvivalSample:
    return survival_sample([one.time_days for one in people], [one.event for one in people])


def test_it_is_written_as_pairs_with_a_manifest_and_a_file_of_true_risks(tmp_path: Path) -> None:
    write_cohort(tmp_path, seed=0, cases=2)
    rows = _rows(tmp_path / "manifest.csv")
    assert [row["case"] for row in rows] == ["demo_000", "demo_001"]
    case = draw_case(0, 1)
    pet, ct, mask = (
        ImageReference(tmp_path / rows[1][n]) for n in ("image_pet", "image_ct", "mask")
    )
    assert np.array_equal(read_volume(pet).array, case.suv)
    assert np.array_equal(read_volume(ct).array, case.hu)
    assert np.array_equal(read_mask(mask).array, case.mask)
    assert read_volume(pet).grid.spacing_mm != read_volume(ct).grid.spacing_mm
    assert int(rows[1]["time_days"]) == case.patient.time_days
    risks = _rows(tmp_path / "true_risk.csv")
    assert float(risks[1]["true_log_hazard"]) == pytest.approx(case.patient.log_hazard, abs=1e-5)


def _rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def test_some_cells_of_the_table_are_empty() -> None:
    people = _people(0, 300)
    for name in ("age", "stage"):
        empty = sum(getattr(one, name) == "" for one in people)
        assert 0.02 * len(people) < empty < 0.25 * len(people)
    assert CASES >= 80


def test_a_further_patient_is_a_dicom_study_that_becomes_the_same_suv(tmp_path: Path) -> None:
    """Bq/mL, dose, weight and times in the headers give back what was drawn; so does HU."""
    write_cohort(tmp_path, seed=0, cases=1)
    series = {one.modality: one for one in scan([tmp_path / "dicom"]).series}
    assert {one.verdict for one in series.values()} == {"accepted"}
    drawn = draw_case(0, 1)
    suv = read_suv(series["PT"])
    np.testing.assert_allclose(suv.array, drawn.suv, rtol=1e-5, atol=1e-5)
    assert suv.grid.origin_mm == pytest.approx(drawn.pet_grid.origin_mm, abs=1e-5)
    hu = read_volume(ImageReference(tmp_path / "dicom" / "ct"))
    assert np.array_equal(hu.array, drawn.hu)
