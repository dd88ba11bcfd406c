"""A case that no training case was like is said to be so."""

from medtool.core.records import Case, Prepared
from medtool.predict.unlike import unlike_training

RANGE = {
    "cases": 10,
    "quantiles": [0.0, 0.5, 1.0],
    "kernel": {"STANDARD": 7, "SOFT": 3},
    "thickness_mm": [1.0, 2.5, 5.0],
    "spacing_mm": [[0.4, 0.5, 0.6], [0.4, 0.5, 0.6], [1.0, 2.5, 5.0]],
}


def messages(facts, spacing=(0.5, 0.5, 2.5)):
    case = Case("c", "p", "1.2", {}, facts=facts)
    prepared = Prepared("c", {}, facts={"spacing_mm": list(spacing)})
    return [finding.message for finding in unlike_training(RANGE, case, prepared)]


def test_what_was_seen_is_not_mentioned() -> None:
    assert messages({"kernel": "SOFT", "thickness_mm": 5.0}) == []
    assert messages({"kernel": "SOFT", "thickness_mm": 5.05}) == []
    assert messages({}) == []


def test_other_kernel_thickness_and_spacing_are_named_with_what_was_known() -> None:
    found = messages({"kernel": "BONE", "thickness_mm": 7}, spacing=(0.5, 0.5, 7.0))
    assert found == [
        "Unlike anything in the training: kernel BONE (in training SOFT, STANDARD); "
        "thickness 7 mm (in training 1 to 5 mm); spacing z 7 mm (in training 1 to 5 mm)."
    ]


def test_a_model_that_does_not_say_what_it_saw_judges_nothing() -> None:
    case = Case("c", "p", "1.2", {}, facts={"kernel": "X"})
    assert unlike_training({}, case, Prepared("c", {})) == []


def test_spacings_of_a_turned_image_bear_the_names_of_their_own_axes() -> None:
    """Arrays are (z, y, x): a planned image that begins with y has y's spacing first."""
    prepared = Prepared("c", {}, facts={"spacing_mm": [0.5, 9.0, 0.5], "axes_forward": [1, 0, 2]})
    known = {"spacing_mm": [[0.4, 0.6], [1.0, 5.0], [0.4, 0.6]]}
    (found,) = unlike_training(known, Case("c", "p", "", {}), prepared)
    assert "spacing z 9 mm (in training 1 to 5 mm)" in found.message
