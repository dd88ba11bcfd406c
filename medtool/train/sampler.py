"""Which cases make up each step of an epoch: drawn from (seed, epoch), the same everywhere.

The order does not depend on how many devices share a step: two devices with a batch of 2 see, in
each step, the cases that one device with a batch of 4 sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medtool.core.errors import UsageError
from medtool.core.randomness import generator
from medtool.core.records import ExampleKey


@dataclass(frozen=True)
class Step:
    """What one device does in one step: batches, of which some may be empty at an epoch's end.

    ``cases`` counts those of all devices and all batches of the step.
    """

    batches: tuple[tuple[ExampleKey, ...], ...]
    cases: int


def epoch_keys(
    labels: Sequence[float | None],
    *,
    sampling: str,
    seed: int,
    epoch: int,
    examples_per_case: int = 1,
) -> list[ExampleKey]:
    """The keys of one epoch in order, ``examples_per_case`` times as many as there are cases.

    ``natural``: every case as often, each time as another ``copy``. ``balanced``: every class
    alike; a class that is drawn more often than it has cases begins anew, with another ``copy``.
    Raises UsageError where balanced sampling meets cases without labels or a single class.
    """
    draw = generator("order", seed, epoch)
    if sampling == "natural":
        return [
            ExampleKey(seed, epoch, int(i), copy)
            for copy in range(examples_per_case)
            for i in draw.permutation(len(labels))
        ]
    classes = sorted({label for label in labels if label is not None})
    if len(classes) < 2 or None in labels:
        raise UsageError(
            "Balanced sampling needs cases of at least two classes, all with a label.",
            where="train.sampling",
            met=f"{len(classes)} class(es) among {len(labels)} cases",
            how="use --set train.sampling=natural",
        )
    keys: list[ExampleKey] = []
    for number, label in enumerate(classes):
        members = np.flatnonzero([other == label for other in labels])
        # Classes differ by at most one; which gets more turns with the epochs.
        turn = (number + epoch) % len(classes)
        examples = len(labels) * examples_per_case
        wanted = examples // len(classes) + (turn < examples % len(classes))
        copies = -(-wanted // len(members))
        chosen = [(int(i), c) for c in range(copies) for i in draw.permutation(members)]
        keys += [ExampleKey(seed, epoch, index, copy) for index, copy in chosen[:wanted]]
    return [keys[i] for i in draw.permutation(len(keys))]


def epoch_steps(
    keys: Sequence[ExampleKey],
    *,
    batch_cases: int,
    accumulate: int,
    device: int = 0,
    devices: int = 1,
    steps: int | None = None,
) -> list[Step]:
    """The steps of an epoch as ``device`` of ``devices`` sees them; at most ``steps``."""
    per_step = batch_cases * accumulate * devices
    result = []
    for begin in range(0, len(keys), per_step):
        whole = keys[begin : begin + per_step]
        batches = []
        for number in range(accumulate):
            first = (number * devices + device) * batch_cases
            batches.append(tuple(whole[first : first + batch_cases]))
        result.append(Step(tuple(batches), len(whole)))
    return result[:steps]
