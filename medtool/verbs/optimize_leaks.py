"""That nobody judges an optimised model by whom it was calibrated, taught or chosen: by names, and
by pixels, for one scan can lie in two folders, or stand under two patients, by other names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medtool.core.errors import GateError
from medtool.core.names import counted
from medtool.core.progress import Reporter
from medtool.core.records import Case
from medtool.data.cache import Cache, read_prepared
from medtool.verbs.evaluate_subjects import IDS_SHOWN

if TYPE_CHECKING:
    from medtool.verbs.optimize_data import OptimizeData


class SliceHashes:
    """Hashes of the pixels of prepared cases; of each case its file is read once."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._known: dict[Path, tuple[str, ...]] = {}

    def of(self, case: Case) -> tuple[str, ...]:
        """Those of ``case``; constant slices have none."""
        file = self._cache.path(case)
        if file not in self._known:
            facts = read_prepared(file, names=()).facts
            self._known[file] = tuple(facts.get("slice_hashes", ()))
        return self._known[file]


def require_other_names(calibration: Sequence[Case], judging: Sequence[Case]) -> None:
    """Raises GateError where patients or cases of --calibration are among those that judge."""
    judges = {case.patient_id for case in judging}
    both = sorted({case.patient_id for case in calibration} & judges)
    if both:
        raise _would_judge(f"{counted(len(both), 'patient')}: {_some(both)}")
    # Two folders can call one scan by the same name and its patient otherwise.
    names = {case.case_id for case in judging}
    alike = sorted({case.case_id for case in calibration} & names)
    if alike:
        raise _would_judge(f"{len(alike)} cases of the same name: {_some(alike)}")


def require_other_pixels(
    found: OptimizeData, hashes: SliceHashes, *, calibration: Path | None, reporter: Reporter
) -> None:
    """Raises GateError where a scan of those that judge also stands in another group.

    Of a run the gate of its training let nothing through but what a person allowed by name: that
    is said again, and refuses nothing.
    """
    judges = {digest: case.case_id for case in found.judging for digest in hashes.of(case)}
    if calibration is not None:
        pairs = _pairs(found.calibration, judges, hashes)
        if pairs:
            raise _would_judge(_told(pairs))
    # Of a run without a test part those that choose also judge, which its numbers say.
    judging = {id(case) for case in found.judging}
    others = [*found.calibration, *found.training, *found.choosing]
    pairs = _pairs([case for case in others if id(case) not in judging], judges, hashes)
    if not pairs:
        return
    if not found.splits:
        raise _under_two_names(_told(pairs))
    reporter.warn(
        f"The run was trained with --allow-leak: {_told(pairs)}. They calibrate, teach or choose, "
        "and judge as well."
    )


def _pairs(cases: Sequence[Case], judges: Mapping[str, str], hashes: SliceHashes) -> dict[str, str]:
    """Of ``cases`` those with the pixels of one that judges, and which that is."""
    return {
        case.case_id: judges[digest]
        for case in cases
        for digest in hashes.of(case)
        if digest in judges
    }


def _told(pairs: Mapping[str, str]) -> str:
    told = [f"{one} is {other}" for one, other in sorted(pairs.items())]
    return f"{counted(len(pairs), 'case')} with identical pixels: {_some(told)}"


def _would_judge(met: str) -> GateError:
    return GateError(
        "Patients that are to calibrate the model would also judge it.",
        met=met,
        wanted="calibration patients that are not in the part that judges",
        how="leave them out of the folder of --calibration, or leave --calibration out.",
    )


def _under_two_names(met: str) -> GateError:
    return GateError(
        "Scans that calibrate, teach or choose would also judge the model, under another patient.",
        met=met,
        wanted="every scan under one patient",
        how="one of the two ids is wrong: correct it, or leave one of the two out of --data.",
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:IDS_SHOWN]) + (", ..." if len(names) > IDS_SHOWN else "")
