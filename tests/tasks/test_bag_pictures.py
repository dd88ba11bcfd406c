"""Pictures of the slices that speak most for positive."""

import cv2
import numpy as np

from medtool.core.geometry import Grid
from medtool.core.records import Prediction, Prepared
from medtool.tasks.bag_pictures import SIDE_PX, draw_top_slices


def elements(logits):
    used = [
        {
            "slice_index": index + 1,
            "instance_number": 40 - index,
            "position_mm": 2.5 * index,
            "used": True,
            "reason": "",
            "logit": logit,
        }
        for index, logit in enumerate(logits)
    ]
    return ({"slice_index": 0, "used": False, "reason": "little-brain", "logit": None}, *used)


def draw(tmp_path, slices, logits, grids=None):
    prepared = Prepared("c", {"slices": slices}, grids=grids or {}, elements=elements(logits))
    prediction = Prediction("c", "p", {}, elements=prepared.elements)
    return draw_top_slices(prediction, prepared, tmp_path / "overlays")


def test_highest_logits_come_first_and_show_their_own_slice(tmp_path) -> None:
    slices = np.stack([np.full((32, 32), value, np.float32) for value in (0.2, 0.4, 0.6, 0.8)])
    written = draw(tmp_path, slices, [0.5, -1.0, 2.0, 1.0])
    assert [path.name for path in written] == [
        "01_slice_0003.png",
        "02_slice_0004.png",
        "03_slice_0001.png",
    ]
    greys = [int(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)[40, 40]) for path in written]
    assert greys == [153, 204, 51]  # 0.6, 0.8, 0.2 of 255


def test_a_tall_slice_keeps_its_shape_and_equal_logits_their_order(tmp_path) -> None:
    slices = np.ones((2, 64, 32), np.uint8) * 255
    written = draw(tmp_path, slices, [1.0, 1.0])
    picture = cv2.imread(str(written[0]), cv2.IMREAD_GRAYSCALE)
    assert written[0].name == "01_slice_0001.png"
    columns = np.flatnonzero(picture[10] == 255)
    assert (columns[0], len(columns)) == (SIDE_PX // 4, SIDE_PX // 2)


def test_the_patients_side_stands_at_the_left_edge(tmp_path) -> None:
    slices = np.zeros((1, 32, 32), np.float32)
    usual = Grid((32, 32, 1), (1, 1, 1), (0, 0, 0))
    mirrored = Grid((32, 32, 1), (1, 1, 1), (0, 0, 0), (-1, 0, 0, 0, 1, 0, 0, 0, -1))
    pictures = []
    for name, grid in (("usual", usual), ("mirrored", mirrored), ("unknown", None)):
        grids = {"slices": grid} if grid else {}
        path = draw(tmp_path / name, slices, [0.0], grids)[0]
        pictures.append(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)[: SIDE_PX // 2 + 10, :40])
    assert pictures[2].max() == 0
    assert pictures[0].max() > 0
    assert pictures[1].max() > 0
    assert (pictures[0] != pictures[1]).any()
