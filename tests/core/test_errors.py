"""The tree of errors: statuses, texts, and the way through a process pool."""

from __future__ import annotations

import pickle

import pytest

from medtool.core import errors


def all_errors(kind=errors.MedtoolError):
    yield kind
    for below in kind.__subclasses__():
        if below.__module__ == errors.__name__:
            yield from all_errors(below)


STATUSES = {
    "MedtoolError": 2,
    "UsageError": 2,
    "PresetError": 2,
    "LabelsError": 2,
    "UnknownNameError": 2,
    "CheckpointError": 2,
    "OutputExistsError": 2,
    "InputError": 3,
    "CaseRefused": 3,
    "GateError": 4,
    "LeakageError": 4,
    "MachineError": 5,
    "Interrupted": 130,
    "EndedElsewhere": 2,
}


def test_every_error_has_the_status_of_the_tree():
    assert {kind.__name__: int(kind.exit_status) for kind in all_errors()} == STATUSES


def test_the_tree_in_the_docstring_names_them_all():
    for name, status in STATUSES.items():
        line = next(line for line in errors.__doc__.splitlines() if name in line.split())
        assert str(status) in line.split()


def test_lines_are_in_one_order_and_empty_parts_are_left_out():
    error = errors.UsageError("What.", how="so", met="this", nearest="that")
    assert str(error) == "What.\n  met: this\n  nearest: that\n  how to go on: so"


@pytest.mark.parametrize(
    "error",
    [
        errors.UsageError("What.", where="here", how="so"),
        errors.CaseRefused("too-few-slices", "What.", met="2"),
        errors.PresetError("What.", faults=("one", "two"), how="so"),
    ],
)
def test_refusals_survive_the_way_between_processes(error):
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert again.lines() == error.lines()
    assert vars(again) == vars(error)
    assert again.args == error.args
