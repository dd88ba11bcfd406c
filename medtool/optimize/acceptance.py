"""Whether a smaller model is as good: the gate between ``optimize`` and its output."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING

from medtool.core.errors import GateError
from medtool.score.falls import AUROC, DICE, HARRELL_C, JUDGED, MACRO_F1, Fall, change_text

if TYPE_CHECKING:
    from medtool.config.optimize_section import OptimizeSection
    from medtool.optimize.passes import PassesBeside
    from medtool.optimize.sensitivity import Cost

# By how much a metric may fall where the preset does not say.
TOLERANCES: Mapping[str, float] = {DICE: 0.005, AUROC: 0.005, MACRO_F1: 0.01, HARRELL_C: 0.01}
LAYERS_SHOWN = 5

ON_PURPOSE = "or allow more on purpose: --tolerance."
EIGHT_BITS = (
    "try more calibration (--set optimize.calibration_inputs=256), more layers in float "
    "(--set optimize.most_float_share=0.8, or optimize.float_layers), a lighter file "
    f"(--format float16), {ON_PURPOSE}"
)
FEWER_CHANNELS = (
    "try a smaller share (--set optimize.prune.share=0.2), more rounds (optimize.prune.steps), "
    f"more epochs after each (optimize.prune.epochs, optimize.prune.last_epochs), {ON_PURPOSE}"
)
EXPORTED = (
    "this file holds the network as it is: 'medtool doctor --checkpoint CHECKPOINT' says whether "
    "the checkpoint itself works here."
)
PASSES_ON_PURPOSE = (
    "or allow more on purpose: --set optimize.passes_correlation=0.9, or "
    "--set optimize.passes_mean=0.02."
)
LIGHTER = f"name the other files that are wanted with --format, without this one, {ON_PURPOSE}"


def tolerances_of(settings: OptimizeSection) -> dict[str, float]:
    """By how much each judged metric may fall."""
    if settings.tolerance is not None:
        return dict.fromkeys(JUDGED, settings.tolerance)
    return dict(TOLERANCES)


def tolerance_text(settings: OptimizeSection) -> str:
    """The same in words."""
    if settings.tolerance is not None:
        return f"{settings.tolerance:g} of each metric"
    return ", ".join(f"{value:g} of {name}" for name, value in TOLERANCES.items())


def accepted(fall: Fall, settings: OptimizeSection) -> bool:
    """Whether a metric fell by no more than is allowed, judged as the settings say."""
    return fall.proved if settings.judged_by == "interval" else fall.kept


def advice(arithmetic: str, *, pruned: bool) -> str:
    """What to try where a file of that arithmetic is worse than allowed."""
    if arithmetic == "int8":
        return EIGHT_BITS
    if arithmetic == "float32":
        return FEWER_CHANNELS if pruned else EXPORTED
    return LIGHTER


def require_answers(
    silent: Mapping[str, str], answered: int, *, part: str, file: str, how: str
) -> None:
    """Raises GateError where cases of the ``answered`` ones lost their answer: ``silent``, why."""
    if silent:
        raise GateError(
            "Cases that had an answer have none any more: nothing was written.",
            where=f"{file}, {part}",
            met=f"{len(silent)} of {answered} cases: {'; '.join(sorted(set(silent.values())))}",
            wanted="an answer to every case that the original model answers",
            how=how,
        )


def require_accepted(
    falls: Sequence[Fall],
    settings: OptimizeSection,
    *,
    costs: Sequence[Cost],
    part: str,
    file: str,
    how: str = EIGHT_BITS,
    pruned: Sequence[Fall] = (),
) -> None:
    """Raises GateError where ``file`` is worse by more than is allowed, or cannot be judged.

    ``costs`` and ``pruned`` are as in ``refusal``; ``how`` says what to try.
    """
    if not falls:
        raise GateError(
            "Nothing says how good the smaller model is.",
            where=file,
            met=f"no metric that is defined on the {part}",
            wanted=f"one of {', '.join(JUDGED)}",
            how="name data with references, of both classes where there are classes, by --data.",
        )
    failed = [one for one in falls if not accepted(one, settings)]
    if failed:
        raise refusal(failed, costs, part, file=file, how=how, pruned=pruned)


def refusal(
    falls: Sequence[Fall],
    costs: Sequence[Cost],
    part: str,
    *,
    file: str = "",
    how: str = EIGHT_BITS,
    pruned: Sequence[Fall] = (),
) -> GateError:
    """The refusal of a model that is worse, with the layers that cost most and what to try.

    ``costs`` are of its layers, the dearest first. ``pruned`` are the falls of the same pruned
    network in float on the same cases: each fall is then told in two parts, and where the larger
    one is pruning's, that is what to change.
    """
    taken = {one.metric: one.fall for one in pruned}
    met = "; ".join(one.line() + _parts_text(one, taken) for one in falls)
    return GateError(
        "The smaller model is worse by more than is allowed: nothing was written.",
        where=f"{file}, {part}" if file else part,
        met=met + _layers_text(costs),
        wanted="a fall within the tolerance",
        how=FEWER_CHANNELS if _mostly_pruning(falls, taken) else how,
    )


def require_passes(
    passes: PassesBeside | None,
    *,
    costs: Sequence[Cost],
    part: str,
    file: str,
    how: str = EIGHT_BITS,
) -> None:
    """Raises GateError where Monte Carlo passes of ``file`` are not those of PyTorch."""
    if passes is not None and not passes.kept:
        raise refusal_of_passes(passes, costs, part, file=file, how=how)


def refusal_of_passes(
    passes: PassesBeside,
    costs: Sequence[Cost],
    part: str,
    *,
    file: str = "",
    how: str = EIGHT_BITS,
) -> GateError:
    """The refusal of a model whose uncertainty is another one; ``costs`` as in ``refusal``."""
    return GateError(
        "The uncertainty of the smaller model is not that of the original: nothing was written.",
        where=f"{file}, {part}" if file else part,
        met=passes.line() + _layers_text(costs),
        wanted=f"means within {passes.most_mean:g} and a rank correlation of at least "
        f"{passes.least_correlation:g}",
        how=how.replace(ON_PURPOSE, PASSES_ON_PURPOSE),
    )


def _layers_text(costs: Sequence[Cost]) -> str:
    dearest = ", ".join(f"{one.layer.name} ({one.error:.2%})" for one in costs[:LAYERS_SHOWN])
    return f"; the layers that cost most by themselves: {dearest}" if dearest else ""


def _parts_text(fall: Fall, taken: Mapping[str, float]) -> str:
    """What pruning took of a metric, and what fewer bits took beyond it."""
    own = taken.get(fall.metric)
    if own is None or not isfinite(fall.fall - own):
        return ""
    return (
        f", of which pruning (the pruned network in float) {change_text(own)} and fewer bits "
        f"beyond it {change_text(fall.fall - own)}"
    )


def _mostly_pruning(falls: Sequence[Fall], taken: Mapping[str, float]) -> bool:
    """Whether pruning took more than fewer bits did, each metric by what it may fall."""
    return sum(_more_by_pruning(falls, taken)) > 0


def _more_by_pruning(falls: Sequence[Fall], taken: Mapping[str, float]) -> Iterator[float]:
    for one in falls:
        own = taken.get(one.metric)
        if own is not None and isfinite(one.fall - own):
            yield (own - (one.fall - own)) / one.tolerance
