"""Removing pieces of masks, and choosing to, by hand."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from medtool.predict.choose_postprocessing import Validated, choose_postprocessing
from medtool.predict.postprocess import Step, postprocessed, step_from_dict

Mask = NDArray[np.uint8]


def line(*labels: int) -> Mask:
    """A mask of one row, one slice."""
    return np.array([[labels]], dtype=np.uint8)


def cleaned(mask: Mask, *steps: Step, voxel_ml: float = 1.0) -> list[int]:
    return postprocessed(mask, steps, voxel_ml).ravel().tolist()


def test_all_but_the_largest_piece_goes() -> None:
    mask = line(1, 1, 0, 1, 1, 1, 0, 1)
    assert cleaned(mask, Step("largest-component", (1,))) == [0, 0, 0, 1, 1, 1, 0, 0]
    assert mask.sum() == 6, "the mask that was given stays"


def test_labels_that_are_taken_together_make_one_piece() -> None:
    mask = line(1, 2, 2, 0, 2, 2, 0, 1)
    assert cleaned(mask, Step("largest-component", (1, 2))) == [1, 2, 2, 0, 0, 0, 0, 0]
    # Alone, label 2 has two equal pieces: both stay. Label 1 has two of one voxel: both stay.
    assert cleaned(mask, Step("largest-component", (2,)), Step("largest-component", (1,))) == (
        mask.ravel().tolist()
    )


def test_voxels_that_share_a_corner_are_one_piece() -> None:
    mask = np.zeros((2, 2, 5), np.uint8)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[0, 0, 4] = 1
    kept = postprocessed(mask, [Step("largest-component", (1,))], 1.0)
    assert (kept[0, 0, 0], kept[1, 1, 1], kept[0, 0, 4]) == (1, 1, 0)


def test_small_pieces_go_by_their_volume_and_may_become_the_organ() -> None:
    mask = line(1, 2, 2, 1, 2, 1)
    step = Step("least-volume", (2,), least_ml=0.8, becomes=1)
    assert cleaned(mask, step, voxel_ml=0.5) == [1, 2, 2, 1, 1, 1]
    # A piece of just the least volume stays.
    assert cleaned(mask, step, voxel_ml=0.8) == mask.ravel().tolist()
    assert cleaned(mask, step, voxel_ml=0.1) == [1, 1, 1, 1, 1, 1]


def test_a_mask_without_the_label_is_given_back() -> None:
    mask = line(0, 1, 0)
    steps = [Step("largest-component", (5,)), Step("least-volume", (7,), least_ml=9.0)]
    assert postprocessed(mask, steps, 1.0) is mask


def test_pieces_are_found_wherever_they_lie() -> None:
    mask = np.zeros((9, 8, 7), np.uint8)
    mask[2:5, 1:4, 3:6] = 1
    mask[7, 6, 1] = 1
    kept = postprocessed(mask, [Step("largest-component", (1,))], 1.0)
    assert kept[2:5, 1:4, 3:6].all()
    assert kept.sum() == 27


def test_a_step_goes_through_json() -> None:
    step = Step("least-volume", (2, 3), least_ml=0.25, becomes=1)
    assert step_from_dict(json.loads(json.dumps(step.as_dict()))) == step


def cases(*pairs: tuple[Mask, Mask]) -> list[Callable[[], Validated]]:
    return [lambda pair=pair: Validated(*pair, voxel_ml=1.0) for pair in pairs]


def test_the_foreground_step_is_taken_where_every_class_gains_or_stays() -> None:
    # One stray voxel of label 1: Dice 4/5 before, 1 after; label 2 is right all along.
    pair = (line(1, 1, 2, 2, 0, 1), line(1, 1, 2, 2, 0, 0))
    chosen = choose_postprocessing(cases(pair), {"organ": (1,), "lesion": (2,)})
    assert chosen.steps == (Step("largest-component", (1, 2)),)
    first, *others = chosen.trials
    assert first.accepted
    assert first.before == pytest.approx({"organ": 0.8, "lesion": 1.0})
    assert first.after == pytest.approx({"organ": 1.0, "lesion": 1.0})
    assert [trial.accepted for trial in others] == [False, False]


def test_a_class_that_falls_forbids_the_foreground_step_and_others_still_gain() -> None:
    # Label 2 is truly apart from the rest: kept alone, the largest piece would lose it.
    pair = (line(1, 1, 1, 0, 1, 0, 2), line(1, 1, 1, 0, 0, 0, 2))
    chosen = choose_postprocessing(cases(pair), {"organ": (1,), "lesion": (2,)})
    assert chosen.steps == (Step("largest-component", (1,)),)
    assert not chosen.trials[0].accepted
    assert chosen.trials[0].after == {"organ": 1.0, "lesion": 0.0}


def test_what_changes_nothing_is_not_taken() -> None:
    pair = (line(1, 1, 0, 0), line(1, 1, 0, 0))
    chosen = choose_postprocessing(cases(pair), {"organ": (1,)})
    assert chosen.steps == ()
    # A single structure is the whole foreground: it is tried once.
    assert len(chosen.trials) == 1


def test_what_lies_where_nothing_is_known_is_no_reason_to_remove() -> None:
    """From a fault: a piece at voxels of the ignore label counted as wrong."""
    pair = (line(1, 1, 0, 1), line(1, 1, 0, 9))
    assert choose_postprocessing(cases(pair), {"organ": (1,)}).steps != ()
    assert choose_postprocessing(cases(pair), {"organ": (1,)}, ignore_label=9).steps == ()


def test_the_mean_over_cases_decides() -> None:
    gains = (line(1, 1, 0, 1), line(1, 1, 0, 0))
    loses = (line(1, 1, 0, 1, 0, 1), line(1, 1, 0, 1, 0, 1))
    # 0.8 -> 1 against 1 -> 2/3: the mean falls.
    assert choose_postprocessing(cases(gains, loses), {"organ": (1,)}).steps == ()
    assert choose_postprocessing(cases(gains, gains, loses), {"organ": (1,)}).steps != ()


def test_cases_without_the_structure_do_not_count() -> None:
    empty = (line(0, 0, 0, 0), line(0, 0, 0, 0))
    gains = (line(1, 1, 0, 1), line(1, 1, 0, 0))
    (trial,) = choose_postprocessing(cases(empty, gains), {"organ": (1,)}).trials
    assert (trial.before["organ"], trial.after["organ"]) == pytest.approx((0.8, 1.0))


def test_the_best_least_volume_is_taken_if_its_structure_gains() -> None:
    pair = (line(1, 2, 1, 2, 2, 2, 1, 2, 2), line(1, 1, 1, 2, 2, 2, 1, 1, 1))
    structures = {"organ": (1, 2), "lesion": (2,)}
    chosen = choose_postprocessing(
        cases(pair),
        structures,
        least_volumes_ml={"lesion": (1.5, 2.5, 9.0)},
        becomes={"lesion": 1},
    )
    # The largest piece of the lesion is the true one: nothing is left for a least volume.
    assert chosen.steps == (Step("largest-component", (2,), becomes=1),)
    # Two true pieces, of three voxels and of two, and a stray one: only a least volume helps.
    several = (line(1, 2, 1, 2, 2, 2, 1, 2, 2), line(1, 1, 1, 2, 2, 2, 1, 2, 2))
    chosen = choose_postprocessing(
        cases(several),
        structures,
        least_volumes_ml={"lesion": (0.5, 1.5, 9.0)},
        becomes={"lesion": 1},
    )
    assert chosen.steps == (Step("least-volume", (2,), least_ml=1.5, becomes=1),)


def test_what_a_structure_gains_may_not_cost_another_more() -> None:
    """A stray piece far from the organ: as organ it would be wrong again, and weigh more there."""
    pair = (line(1, 2, 2, 2, 2, 0, 2), line(1, 2, 2, 2, 2, 0, 0))
    structures, least = {"organ": (1,), "lesion": (2,)}, {"lesion": (1.5,)}

    def chosen(becomes: int) -> tuple[Step, ...]:
        return choose_postprocessing(
            cases(pair),
            structures,
            largest=False,
            least_volumes_ml=least,
            becomes={"lesion": becomes},
        ).steps

    # Lesion 8/9 -> 1; the organ stays at 1 with background, and falls to 2/3 as organ.
    assert chosen(0) == (Step("least-volume", (2,), least_ml=1.5),)
    assert chosen(1) == ()
