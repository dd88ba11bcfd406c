"""What settings of a segmentation change in its scores and its post-processing, by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from medtool_heart import Heart
from medtool_pancreas import Pancreas
from medtool_petct import Petct
from medtool_segment import Segment

from medtool.config import resolve
from medtool.core.errors import LabelsError, UsageError
from medtool.core.geometry import Grid
from medtool.core.records import Prediction, Truth
from medtool.predict.postprocess import Step, step_from_dict
from medtool.tasks.classifying_classes import planned_pieces
from medtool.tasks.prognosis_judged import mask_options
from medtool.tasks.segmentation_predict import decide_postprocessing, postprocessing_steps

ORGAN_LESION = "data.label_ids={ organ = [1], lesion = [2] }"
REGIONS = (
    "data.label_ids={ whole = [1, 2], lesion = [2] }",
    "data.regions_order=[1, 2]",
)


def task_of(kind, *assignments: str):
    quick = "metrics.bootstrap_draws=100"
    found = resolve(kind, None, folder=Path(), assignments=(quick, *assignments))
    return kind(found.settings)


def pair(prediction, reference, spacing_mm=(1.0, 1.0, 1.0), name="a"):
    """A prediction and its truth on one grid; masks are (z, y, x), the spacing is (x, y, z)."""
    depth, rows, columns = prediction.shape
    grid = Grid((columns, rows, depth), spacing_mm, (0.0, 0.0, 0.0))
    said = Prediction(name, name, {}, {"mask": prediction.astype(np.uint8)}, {"mask": grid})
    known = Truth(name, name, arrays={"mask": reference.astype(np.uint8)}, grids={"mask": grid})
    return said, known


def scores_of(task, *pairs):
    return task.score(*zip(*pairs, strict=True))


def line(*labels: int):
    """A mask of one row, one slice."""
    return np.array([[labels]], dtype=np.uint8)


# --- metrics ------------------------------------------------------------------------------------
def test_slices_are_scored_by_their_contours():
    """Two squares 4 mm apart: in 8 mm slices their faces once made them look alike."""
    reference, prediction = np.zeros((2, 1, 30, 30), bool)
    reference[0, 5:25, 5:25] = prediction[0, 9:21, 9:21] = True
    metrics = scores_of(
        task_of(Heart, "data.label_ids={ heart = [1] }"),
        pair(prediction, reference, (1.0, 1.0, 8.0)),
    ).metrics
    # Every point of the inner contour is 4 mm from the outer one; corners are farther.
    assert metrics["nsd.heart"].value == 0.0
    assert metrics["prediction_to_reference_mm.heart"].value == pytest.approx(4.0)
    assert metrics["hd95_mm.heart"].value > 4.0
    assert "contour" in metrics["nsd.heart"].convention


def test_labels_have_tolerances_of_their_own():
    organ, lesion = np.zeros((2, 9, 9, 9), bool)
    organ[1:8, 1:8, 1:8] = lesion[3:6, 3:6, 3:6] = True
    reference = organ.astype(int) + lesion
    shifted = np.roll(reference, 1, axis=2)
    task = task_of(Segment, ORGAN_LESION, "metrics.nsd_tolerances_mm={ lesion = 0.5 }")
    metrics = scores_of(task, pair(shifted, reference)).metrics
    # Faces across the shift lie within half of a mm of themselves, the others 1 mm away.
    assert metrics["nsd.organ"].value == 1.0
    assert 0.0 < metrics["nsd.lesion"].value < 1.0
    assert "tolerance 2 mm" in metrics["nsd.organ"].convention
    assert "tolerance 0.5 mm" in metrics["nsd.lesion"].convention


def test_lesions_are_counted_where_and_how_the_preset_says():
    # Of three lesions the first is found by its corner piece; one is invented.
    reference = line(2, 2, 2, 2, 0, 2, 0, 2, 0, 0, 0)
    prediction = line(2, 0, 0, 0, 0, 2, 0, 0, 0, 2, 2)
    wanted = (ORGAN_LESION, 'metrics.lesions=["lesion"]')
    given = pair(prediction, reference, (10.0, 10.0, 10.0))
    metrics = scores_of(task_of(Segment, *wanted), given).metrics
    assert metrics["lesion_f1.lesion"].value == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert metrics["false_positive_ml.lesion"].value == 2.0
    assert metrics["false_negative_ml.lesion"].value == 1.0
    assert "26 neighbours" in metrics["lesion_f1.lesion"].convention
    assert "lesion_f1.organ" not in metrics
    assert "lesion_f1.lesion" not in scores_of(task_of(Segment, ORGAN_LESION), given).metrics
    # A quarter of the first lesion is too little of it.
    strict = ("metrics.lesion_rule=covered", "metrics.lesion_share=0.3")
    found = scores_of(task_of(Segment, *wanted, *strict, "metrics.lesion_neighbours=6"), given)
    assert found.metrics["lesion_f1.lesion"].value == pytest.approx(2 / (2 + 2 + 2))
    assert "6 neighbours" in found.metrics["lesion_f1.lesion"].convention
    assert "at least 0.3" in found.metrics["lesion_f1.lesion"].convention


def test_of_a_pancreas_the_label_that_is_classified_has_lesions():
    given = pair(line(1, 2, 1, 2), line(1, 2, 1, 1))
    for words, expected in (
        ((), {"lesion"}),
        (('data.lesion="organ"',), {"organ"}),
        (('metrics.lesions=["organ", "whole organ"]',), {"organ", "whole organ"}),
    ):
        found = scores_of(task_of(Pancreas, ORGAN_LESION, *words), given).metrics
        counted = {n.partition(".")[2] for n in found if n.startswith("lesion_f1.")}
        assert counted == expected
    lesion = scores_of(task_of(Pancreas, ORGAN_LESION), given).metrics["lesion_f1.lesion"]
    assert lesion.value == pytest.approx(2 / 3)


def test_of_a_petct_all_labels_have_lesions_as_autopet_counts_them():
    task = task_of(Petct, "data.label_ids={ primary = [1], node = [2] }")
    options = mask_options(task.settings)
    assert (options.lesions, options.lesion_rule.connectivity) == (("primary", "node"), 18)
    task = task_of(
        Petct,
        "data.label_ids={ primary = [1], node = [2] }",
        'metrics.lesions=["node"]',
        "metrics.lesion_neighbours=26",
        "metrics.nsd_tolerances_mm={ node = 3.0 }",
    )
    options = mask_options(task.settings)
    assert (options.lesions, options.lesion_rule.connectivity) == (("node",), 26)
    assert options.tolerance_mm == {"node": 3.0}


@pytest.mark.parametrize(
    ("assignment", "where"),
    [
        ('metrics.lesions=["leson"]', "metrics.lesions"),
        ("metrics.nsd_tolerances_mm={ leson = 1.0 }", "metrics.nsd_tolerances_mm"),
        ("infer.least_volumes_ml={ leson = [1.0] }", "infer.least_volumes_ml"),
        ('infer.removed_becomes={ leson = "organ" }', "infer.removed_becomes"),
        ('infer.removed_becomes={ organ = "leson" }', "infer.removed_becomes"),
    ],
)
def test_a_label_that_there_is_not_is_refused(assignment, where):
    """It would change nothing, and look as if it had."""
    with pytest.raises(UsageError) as refused:
        task_of(Segment, ORGAN_LESION, assignment)
    assert (refused.value.where, refused.value.met) == (where, "leson")
    assert refused.value.nearest == "lesion"
    # Before labels are known nothing can be said of them.
    task_of(Segment, assignment)


# --- post-processing ----------------------------------------------------------------------------
def decided_steps(task, *pairs):
    document = decide_postprocessing(task.settings, *zip(*pairs, strict=True))
    return [step_from_dict(step) for step in document.get("postprocessing", {}).get("steps", ())]


# Two true pieces of the lesion, of three voxels and of two, and a stray one within the organ.
SEVERAL = pair(line(1, 2, 1, 2, 2, 2, 1, 2, 2), line(1, 1, 1, 2, 2, 2, 1, 2, 2), (10, 10, 10))


@pytest.mark.parametrize("largest", ["auto", "never"])
def test_least_volumes_are_tried_where_the_preset_names_some(largest):
    words = (
        ORGAN_LESION,
        f"infer.largest_component={largest}",
        "infer.least_volumes_ml={ lesion = [0.5, 1.5, 9.0] }",
    )
    # Without an organ to become, the piece is a hole, and still no lesion.
    assert decided_steps(task_of(Segment, *words), SEVERAL) == [
        Step("least-volume", (2,), least_ml=1.5)
    ]
    becomes = 'infer.removed_becomes={ lesion = "organ" }'
    assert decided_steps(task_of(Segment, *words, becomes), SEVERAL) == [
        Step("least-volume", (2,), least_ml=1.5, becomes=1)
    ]
    assert decided_steps(task_of(Segment, ORGAN_LESION), SEVERAL) == []


def test_of_a_pancreas_removed_pieces_of_the_lesion_become_the_organ():
    task = task_of(Pancreas, ORGAN_LESION)
    settings = planned_pieces(task.settings)
    assert settings.infer.removed_becomes == {"lesion": "organ"}
    stray = pair(line(1, 2, 1, 2, 2, 2, 1), line(1, 1, 1, 2, 2, 2, 1), (10, 10, 10))
    assert decided_steps(Pancreas(settings), stray) == [Step("largest-component", (2,), becomes=1)]
    # Pieces of 0.1 mL, of which only those under 0.2 mL are wrong.
    small = pair(SEVERAL[0].arrays["mask"], SEVERAL[1].arrays["mask"], (5.0, 5.0, 4.0))
    assert decided_steps(Pancreas(settings), small) == [
        Step("least-volume", (2,), least_ml=0.2, becomes=1)
    ]
    # What the preset says stands; what was planned is not planned anew.
    assert planned_pieces(settings) == settings
    given = task_of(
        Pancreas,
        ORGAN_LESION,
        'infer.removed_becomes={ lesion = "background" }',
        "infer.least_volumes_ml={ lesion = [] }",
    )
    assert planned_pieces(given.settings) == given.settings


def test_the_organ_of_a_lesion_is_the_region_around_it_or_the_only_other_label():
    def planned(*assignments):
        return planned_pieces(task_of(Pancreas, *assignments).settings).infer.removed_becomes

    assert planned(*REGIONS) == {"lesion": "whole"}
    assert planned("data.label_ids={ organ = [1], duct = [3], lesion = [2] }") == {}
    with pytest.raises(LabelsError):
        planned(ORGAN_LESION, 'data.lesion="tumour"')


class Checkpoint:
    """A model, of which only what was decided is asked."""

    def __init__(self, *steps: Step):
        self.document = {"postprocessing": {"steps": [step.as_dict() for step in steps]}}


def test_what_is_removed_as_the_preset_says_or_as_was_decided():
    small = Step("least-volume", (2,), least_ml=0.5, becomes=1)
    model = Checkpoint(Step("largest-component", (1, 2)), small)
    becomes = 'infer.removed_becomes={ lesion = "whole" }'

    def steps(largest):
        task = task_of(Segment, *REGIONS, becomes, f"infer.largest_component={largest}")
        return postprocessing_steps(task.settings, model)

    assert steps("auto") == (Step("largest-component", (1, 2)), small)
    assert steps("never") == (small,)
    # A removed piece of the lesion gets the id that is written for the whole.
    assert steps("always") == (
        Step("largest-component", (1, 2)),
        Step("largest-component", (2,), becomes=1),
        small,
    )
