"""A lazy row is as long as what it is made from, makes what is asked for, and keeps nothing."""

from medtool.core.lazy import Lazily


def test_made_at_each_look_and_not_before():
    made = []

    def make(number):
        made.append(number)
        return number * 10

    row = Lazily(make, [1, 2, 3])
    assert len(row) == 3
    assert made == []
    assert row[1] == 20
    assert row[-1] == 30
    assert list(row) == [10, 20, 30]
    assert list(row[1:]) == [20, 30]
    assert made == [2, 3, 1, 2, 3, 2, 3]
