"""Whether a smaller model is as good: the gate between ``optimize`` and its output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from medtool.core.errors import GateError
from medtool.score.falls import AUROC, DICE, HARRELL_C, JUDGED, MACRO_F1, Fall

if TYPE_CHECKING:
    from medtool.config.optimize_section import OptimizeSection
    from medtool.optimize.sensitivity import Cost

# By how much a metric may fall where the preset does not say.
TOLERANCES: Mapping[str, float] = {DICE: 0.005, AUROC: 0.005, MACRO_F1: 0.01, HARRELL_C: 0.01}
LAYERS_SHOWN = 5


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


def require_accepted(
    falls: Sequence[Fall], settings: OptimizeSection, *, costs: Sequence[Cost], part: str, file: str
) -> None:
    """Raises GateError where ``file`` is worse by more than is allowed, or cannot be judged."""
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
        raise refusal(failed, costs, part, file=file)


def refusal(
    falls: Sequence[Fall], costs: Sequence[Cost], part: str, *, file: str = ""
) -> GateError:
    """The refusal of a model that is worse, with the layers that cost most and what to try."""
    met = "; ".join(one.line() for one in falls)
    dearest = ", ".join(f"{one.layer.name} ({one.error:.2%})" for one in costs[:LAYERS_SHOWN])
    layers = f"; the layers that cost most by themselves: {dearest}" if dearest else ""
    return GateError(
        "The smaller model is worse by more than is allowed: nothing was written.",
        where=f"{file}, {part}" if file else part,
        met=met + layers,
        wanted="a fall within the tolerance",
        how="try more calibration (--set optimize.calibration_inputs=256), more layers in float "
        "(--set optimize.most_float_share=0.8, or optimize.float_layers), a lighter file "
        "(--format float16), or allow more on purpose: --tolerance.",
    )
