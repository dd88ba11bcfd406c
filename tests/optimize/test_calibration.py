"""Which inputs calibrate: told by hand with an engine whose answers are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from medtool.core.records import Case, DeploymentSpec
from medtool.optimize.calibration import Recorder, drawn_cases, found_in

SPEC = DeploymentSpec(
    inputs={"image": (1, 1, 4, 4)}, outputs=("logits",), free_axes={"image": {0: "images"}}
)


class Threshold:
    """An engine whose logits are the image."""

    name, arithmetic, threads = "onnxruntime", "float32", 1
    input_names, output_names = ("image",), ("logits",)

    def run(
        self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None = None
    ) -> dict[str, NDArray[Any]]:
        return {"logits": inputs["image"]}


def image(marked: int) -> NDArray[np.float32]:
    """(1, 1, 4, 4) with so many pixels over 0."""
    values = np.full(16, -1.0, np.float32)
    values[:marked] = 1.0
    return values.reshape(1, 1, 4, 4)


def marked(one: Mapping[str, NDArray[Any]]) -> int:
    return int((one["image"] > 0).sum())


def test_the_fullest_and_the_emptiest_are_kept_in_their_order() -> None:
    recorder = Recorder(Threshold(), 4, SPEC)
    for count in (3, 0, 16, 7, 1, 9):
        recorder.run({"image": image(count)})
    assert [marked(one) for one in recorder.taken()] == [0, 16, 1, 9]
    # The next case begins anew.
    assert recorder.taken() == []


def test_images_of_a_batch_count_each() -> None:
    recorder = Recorder(Threshold(), 2, SPEC)
    recorder.run({"image": np.concatenate([image(5), image(2), image(8)])})
    kept = recorder.taken()
    assert [marked(one) for one in kept] == [2, 8]
    assert all(one["image"].shape == (1, 1, 4, 4) for one in kept)


def test_images_of_a_patient_with_passes_are_taken_one_by_one() -> None:
    """Each with one of the passes; what belongs to the patient stays with every image."""

    class Passes(Threshold):
        input_names = ("image", "field_ml", "masks")

        def run(
            self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None = None
        ) -> dict[str, NDArray[Any]]:
            return {"logits": np.repeat(inputs["image"], len(inputs["masks"]), axis=0)}

    spec = DeploymentSpec(
        inputs={"image": (1, 1, 4, 4), "field_ml": (1,), "masks": (1, 2)},
        outputs=("logits",),
        free_axes={"image": {0: "images"}, "masks": {0: "passes"}},
    )
    recorder = Recorder(Passes(), 2, spec)
    masks = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    images = np.concatenate([image(5), image(2), image(8)])
    recorder.run({"image": images, "field_ml": np.array([7.0], np.float32), "masks": masks})
    kept = recorder.taken()
    assert [marked(one) for one in kept] == [2, 8]
    assert [one["masks"].tolist() for one in kept] == [[[0.0, 1.0]], [[1.0, 0.0]]]
    assert [one["field_ml"].tolist() for one in kept] == [[7.0], [7.0]]


def test_what_is_kept_does_not_change_with_the_callers_array() -> None:
    recorder = Recorder(Threshold(), 2, SPEC)
    array = image(3)
    recorder.run({"image": array})
    array[:] = 0
    assert marked(recorder.taken()[0]) == 3


def test_answers_pass_through() -> None:
    found = Recorder(Threshold(), 2, SPEC).run({"image": image(3)}, ["logits"])
    np.testing.assert_array_equal(found["logits"], image(3))


def test_how_much_is_found() -> None:
    assert found_in(image(4)) == 0.25
    # Of several outputs what exceeds the first, which is the background.
    two = np.stack([np.zeros((2, 2)), np.array([[1, -1], [-1, -1]])])[None]
    assert found_in(two) == 0.25
    assert found_in(np.array([[-2.0, 3.0]])) == 3.0
    # Regions say each by itself that they are there. From a fault: the first one, which holds the
    # others, was taken for background, and what was kept was what has nothing in it.
    everywhere_less = np.stack([np.full((2, 2), -9.0), np.full((2, 2), -5.0)])[None]
    assert found_in(everywhere_less, has_background=False) == 0.0
    assert found_in(two, has_background=False) == 0.25
    assert found_in(two[:, ::-1], has_background=False) == 0.25


def case(name: str, label: float | None) -> Case:
    return Case(name, name, "", {}, label=label)


def test_classes_take_turns_and_the_order_is_that_of_the_seed() -> None:
    cases = [case(f"n{k}", 0.0) for k in range(6)] + [case(f"p{k}", 1.0) for k in range(2)]
    drawn = drawn_cases(cases, seed=3)
    assert [one.label for one in drawn[:4]] in ([0, 1, 0, 1], [1, 0, 1, 0])
    assert drawn == drawn_cases(list(reversed(cases)), seed=3)
    others = [drawn_cases(cases, seed=seed) for seed in range(5)]
    assert any(one != drawn for one in others)
    assert sorted(one.case_id for one in drawn) == sorted(one.case_id for one in cases)


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_inputs_than_wanted_are_all_kept(count: int) -> None:
    recorder = Recorder(Threshold(), 4, SPEC)
    for number in range(count):
        recorder.run({"image": image(number)})
    assert len(recorder.taken()) == count
