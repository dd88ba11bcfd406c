"""What a network shall see while the ranges of its activations are measured: training patients.

The inputs are those that the task itself makes of a case on its way to an answer, recorded as they
reach the engine. Of each case the inputs in which the network finds most are kept and those in
which it finds least, so that lesions and empty places are both there. The same run gives the same
inputs at every time.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from medtool.core.errors import InputError
from medtool.core.randomness import key64
from medtool.core.records import Case
from medtool.optimize.folder import whole_network
from medtool.predict.cases import predict_cases
from medtool.predict.deployed_model import engine_model

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medtool.core.progress import Advance
    from medtool.core.records import DeploymentSpec
    from medtool.data.cache import Cache
    from medtool.predict.engines.contract import Engine
    from medtool.predict.model import Model

Inputs = Mapping[str, "NDArray[Any]"]

RULE = (
    "of each case, drawn with the seed of the run and in turn from every class, the inputs in "
    "which the network finds most and, as many, those in which it finds least"
)


@dataclass(frozen=True)
class Calibration:
    """The inputs, and whose they are; ``sha256`` is over all their bytes."""

    inputs: tuple[Inputs, ...]
    cases: tuple[str, ...]
    patients: int
    sha256: str

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON: no id of a patient."""
        return {
            "inputs": len(self.inputs),
            "cases": len(self.cases),
            "patients": self.patients,
            "rule": RULE,
            "sha256": self.sha256,
        }


def calibration_of(
    model: Model,
    engine: Engine,
    cases: Sequence[Case],
    cache: Cache,
    *,
    inputs: int,
    most_cases: int,
    seed: int,
    advance: Advance,
) -> Calibration:
    """At most ``inputs`` inputs of at most ``most_cases`` of ``cases``, which are prepared.

    ``engine`` runs the float model. Raises InputError where no case gives one.
    """
    chosen = drawn_cases(cases, seed)[:most_cases]
    most = max(2, math.ceil(inputs / max(1, len(chosen))))
    task, _ = whole_network(model)
    recorder = Recorder(engine, most, task.exported_deployment())
    asked = engine_model(model, recorder)
    found: list[tuple[Case, Inputs]] = []
    for outcome in predict_cases(asked, chosen, cache=cache, workers=0):
        advance(1)
        kept = recorder.taken()
        if outcome.prediction is not None:
            found += [(outcome.case, one) for one in kept]
    if not found:
        raise no_calibration(len(cases))
    # The last cases may have been asked for nothing.
    found = found[:inputs]
    kept_inputs = tuple(one for _, one in found)
    return Calibration(
        inputs=kept_inputs,
        cases=tuple(dict.fromkeys(case.case_id for case, _ in found)),
        patients=len({case.patient_id for case, _ in found}),
        sha256=_hash(kept_inputs),
    )


def no_calibration(cases: int) -> InputError:
    """The refusal without anything to measure ranges on."""
    return InputError(
        "There is nothing to calibrate on.",
        met=f"{cases} cases of patients that the model learned from",
        wanted="at least one case of the training part that can be prepared",
        how="name their folder with --data, or other patients' scans with --calibration.",
    )


def drawn_cases(cases: Sequence[Case], seed: int) -> list[Case]:
    """All cases in an order drawn with ``seed``, in turn from every label."""
    drawn = sorted(cases, key=lambda case: (key64("calibration", seed, case.case_id), case.case_id))
    groups: dict[float | None, list[Case]] = {}
    for case in drawn:
        groups.setdefault(case.label, []).append(case)
    turns = [
        (place, number, case)
        for number, group in enumerate(groups.values())
        for place, case in enumerate(group)
    ]
    return [case for _, _, case in sorted(turns, key=lambda turn: turn[:2])]


class Recorder:
    """An engine that keeps what it is asked: the ``most`` inputs that tell most and least."""

    def __init__(self, engine: Engine, most: int, spec: DeploymentSpec) -> None:
        self._engine, self._spec = engine, spec
        self._upper, self._lower = most - most // 2, most // 2
        self._met: list[tuple[float, int, Inputs]] = []
        self._count = 0

    @property
    def name(self) -> str:
        """That of the engine."""
        return self._engine.name

    @property
    def arithmetic(self) -> str:
        """That of the engine."""
        return self._engine.arithmetic

    @property
    def input_names(self) -> tuple[str, ...]:
        """Those of the engine."""
        return self._engine.input_names

    @property
    def output_names(self) -> tuple[str, ...]:
        """Those of the engine."""
        return self._engine.output_names

    @property
    def threads(self) -> int:
        """Those of the engine."""
        return self._engine.threads

    def run(self, inputs: Inputs, outputs: Sequence[str] | None = None) -> dict[str, NDArray[Any]]:
        """As the engine; what it was asked is kept where it tells more, or less, than others."""
        found = self._engine.run(inputs, outputs)
        if found:
            told = next(iter(found.values()))
            for values, one in _single(inputs, told, self._spec):
                self._met.append((values, self._count, one))
                self._count += 1
            self._met = self._best()
        return found

    def taken(self) -> list[Inputs]:
        """What was kept since the last time, in the order in which it came."""
        kept, self._met, self._count = self._best(), [], 0
        return [one for _, _, one in sorted(kept, key=lambda met: met[1])]

    def _best(self) -> list[tuple[float, int, Inputs]]:
        """Those that tell most and least; of equal ones the first."""
        if len(self._met) <= self._upper + self._lower:
            return self._met
        ordered = sorted(self._met, key=lambda met: (-met[0], met[1]))
        return ordered[: self._upper] + ordered[len(ordered) - self._lower :]


def _single(
    inputs: Inputs, told: NDArray[Any], spec: DeploymentSpec
) -> Iterator[tuple[float, Inputs]]:
    """Each image of a batch as an input of its own, with how much the network found in it.

    Of what has another free axis, such as passes, each image gets one row, in turn; what has none
    belongs to all images.
    """
    first = {name: axes.get(0, "") for name, axes in spec.free_axes.items()}
    images = first.get(next(iter(spec.inputs)), "")
    batched = [len(inputs[name]) for name in inputs if images and first.get(name) == images]
    count = max(batched, default=1)
    for number in range(count):
        one = {}
        for name, array in inputs.items():
            rows = number % len(array) if first.get(name) else None
            one[name] = (array if rows is None else array[rows : rows + 1]).copy()
        each = told.reshape(count, -1, *told.shape[1:])[number]
        yield found_in(each, has_background=spec.has_background), one


def found_in(told: NDArray[Any], *, has_background: bool = True) -> float:
    """How much an answer (1, outputs, ...) says is there.

    Of maps the share of voxels that are not background: a logit above the first's, which is that of
    the background; where there is none, any over 0. Of plain numbers their largest.
    """
    if told.ndim < 4:
        return float(np.max(told)) if told.size else 0.0
    if told.shape[1] == 1 or not has_background:
        return float((told.max(axis=1) > 0).mean())
    return float((told[:, 1:].max(axis=1) > told[:, 0]).mean())


def _hash(inputs: Sequence[Inputs]) -> str:
    digest = hashlib.sha256()
    for one in inputs:
        for name, array in sorted(one.items()):
            digest.update(f"{name} {array.shape} {array.dtype}\n".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
