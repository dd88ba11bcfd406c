"""The six panels of a case, looked at by their pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from medtool_petct.demo import draw_case, write_cohort
from medtool_petct.task import Petct
from tiny_prognosis import tiny_settings

from medtool.core.records import Case, Prediction, Prepared, Source
from medtool.tasks.prognosis_answers import UNCERTAINTY
from medtool.tasks.prognosis_pictures import draw_study
from medtool.tasks.segmentation_labels import MASK

SETTINGS = tiny_settings(data={"preparation": {"size_px": [64, 64]}})
# Green, red and white as OpenCV has them: blue first.
GREEN, RED = (113, 191, 47), (47, 64, 224)
RISK = {"risk": 0.8, "risk_low": 0.2, "risk_high": 1.4, "survival_365": 0.7}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Case, Prepared, np.ndarray]:
    """A case of the synthetic cohort, prepared, and its tumour."""
    folder = tmp_path_factory.mktemp("cohort")
    write_cohort(folder, 0, 1)
    task = Petct(SETTINGS)
    case = task.find(Source((folder,))).cases[0]
    return case, task.prepare(case), draw_case(0, 0).mask


def shown(
    study: tuple[Case, Prepared, np.ndarray], folder: Path, arrays: dict[str, Any], **said: Any
) -> np.ndarray:
    case, prepared, _ = study
    grids = dict.fromkeys(arrays, prepared.grids["image"])
    prediction = Prediction(case.case_id, case.patient_id, said, arrays, grids)
    (file,) = draw_study(SETTINGS, prediction, prepared, case, folder)
    picture = cv2.imread(str(file))
    assert picture is not None
    return picture


def places(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Rows and columns near a colour; lines are drawn with soft edges."""
    apart = np.abs(picture.astype(int) - colour).sum(axis=-1)
    return np.argwhere(apart < 60)


def test_reference_and_answer_stand_in_panels_of_their_own(
    study: tuple[Case, Prepared, np.ndarray], tmp_path: Path
) -> None:
    mask = study[2]
    doubt = np.where(mask > 0, 0.6, 0.05).astype(np.float32)
    picture = shown(study, tmp_path, {MASK: mask, UNCERTAINTY: doubt}, **RISK)
    height, width = picture.shape[:2]
    green, red = places(picture, GREEN), places(picture, RED)
    # The reference is the third panel of the first row, the answer the first of the second.
    assert len(green) > 50
    assert (green[:, 0] < height / 2).all()
    assert (green[:, 1] > width * 0.6).all()
    assert len(red) > 50
    assert (red[:, 0] > height / 2).all()
    assert (red[:, 1] < width * 0.4).all()
    # Same mask, same outline: as large in both panels.
    for axis in (0, 1):
        assert np.ptp(green[:, axis]) == pytest.approx(np.ptp(red[:, axis]), rel=0.1)
    assert (tmp_path / "six-panels.png").stat().st_size < 600_000


def test_an_empty_answer_and_a_model_of_half_of_it_are_drawn_too(
    study: tuple[Case, Prepared, np.ndarray], tmp_path: Path
) -> None:
    mask = study[2]
    empty = shown(study, tmp_path / "empty", {MASK: np.zeros_like(mask)}, **RISK)
    assert len(places(empty, RED)) < 20
    assert len(places(empty, GREEN)) > 50
    risk_alone = shown(study, tmp_path / "risk", {}, **RISK)
    masks_alone = shown(study, tmp_path / "masks", {MASK: mask})
    assert risk_alone.shape == masks_alone.shape == empty.shape
    # The panel of the risk, in the lower right corner, says that there is none.
    corner = (slice(empty.shape[0] // 2, None), slice(int(empty.shape[1] * 0.7), None))
    assert not np.array_equal(masks_alone[corner], risk_alone[corner])
    assert len(places(masks_alone, RED)) > 50


def test_the_same_answer_is_the_same_picture(
    study: tuple[Case, Prepared, np.ndarray], tmp_path: Path
) -> None:
    for name in ("one", "two"):
        shown(study, tmp_path / name, {MASK: study[2]}, **RISK)
    one, two = ((tmp_path / name / "six-panels.png").read_bytes() for name in ("one", "two"))
    assert one == two
