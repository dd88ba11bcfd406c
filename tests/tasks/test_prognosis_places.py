"""Which slices and patches are shown, and that their mean is that of the whole image."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medtool.tasks.prognosis_places import Place, drawn_places, tiles


def places(count: int, first: int = 0) -> list[Place]:
    return [Place(first + n, (slice(n, n + 1), slice(0, 4), slice(0, 4))) for n in range(count)]


@given(st.integers(0, 9), st.integers(0, 40), st.integers(1, 16), st.floats(0, 1))
def test_shares_sum_to_one_and_nothing_is_shown_twice(
    tumour: int, other: int, count: int, share: float
) -> None:
    if not tumour + other:
        return
    every = places(tumour), places(other, tumour)
    drawn = drawn_places(*every, count, share=share, rng=np.random.default_rng(0))
    numbers = [place.number for place, _ in drawn]
    assert len(numbers) == len(set(numbers)) == min(count, tumour + other)
    assert sum(part for _, part in drawn) == pytest.approx(1)
    if count > 1 and tumour and other:
        assert {number < tumour for number in numbers} == {True, False}


def test_the_mean_of_what_is_shown_is_that_of_the_image() -> None:
    """Not biased towards the tumours of which more is shown."""
    values = np.random.default_rng(1).random(40)
    values[:6] += 5
    every = places(6), places(34, 6)
    means = []
    for seed in range(4000):
        drawn = drawn_places(*every, 6, share=0.5, rng=np.random.default_rng(seed))
        assert sum(place.number < 6 for place, _ in drawn) == 3
        means.append(sum(values[place.number] * part for place, part in drawn))
    assert np.mean(means) == pytest.approx(values.mean(), rel=0.01)


def test_without_chance_the_same_ones_evenly() -> None:
    drawn = drawn_places([], places(12), 4, share=0.5, rng=None)
    assert [place.number for place, _ in drawn] == [1, 4, 7, 10]
    assert {part for _, part in drawn} == {0.25}
    # As many as there are: all of them.
    assert len(drawn_places(places(2), places(3, 2), 16, share=0.5, rng=None)) == 5


def test_tiles_cover_an_image_smaller_or_larger_than_they() -> None:
    found = tiles((5, 20, 16), (8, 8, 16), 0.5)
    seen = np.zeros((5, 20, 16), dtype=int)
    for place in found:
        seen[place.box] += 1
    assert seen.min() >= 1
    assert found[0].box == (slice(0, 5), slice(0, 8), slice(0, 16))
    assert [place.number for place in found] == list(range(len(found)))
