"""What a preset of a segmentation slice by slice leaves open, settled by the training data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from medtool.core.errors import CaseRefused, InputError
from medtool.core.progress import Reporter, Silent
from medtool.core.records import Case
from medtool.tasks.planar_reading import read_slices
from medtool.tasks.segmentation_labels import structures
from medtool.tasks.segmentation_planning import Data, update, with_labels

if TYPE_CHECKING:
    from medtool.tasks.planar_settings import PlanarDataSection, PlanarSettings

# So many cases, evenly over all of them, say what kind of pixels the images have.
CASES_ASKED = 32
SCALES: Mapping[str, tuple[str, str]] = {
    "8-bit": ("8-bit", "pixels have 8 bits: 0 to 255 become 0 to 1"),
    "hu": ("window", "images are CT: the window in HU becomes 0 to 1"),
    "other": ("percentiles", "values have no common scale: percentiles of each image become 0, 1"),
}


def with_structure(data: Data, structure: str) -> Data:
    """The labels as they are, or masks of one ``structure`` where nobody named any."""
    return data if data.label_ids else update(data, label_ids={structure: [1]})


def settled_data(
    data: PlanarDataSection, dataset: Mapping[str, Any] | None, structure: str
) -> PlanarDataSection:
    """Channels and labels all named, as the data set has them; one structure as a region.

    Raises UsageError where the preset and the data set have different channels.
    """
    if dataset is None:
        data = with_structure(data, structure)
        data = update(data, channels=data.channels or ["image"])
    else:
        data = with_labels(data, dataset)
    return with_output_of_its_own(data)


def with_output_of_its_own(data: Data) -> Data:
    """One structure has one output and its probability, as a region has: no background."""
    known = structures(data)
    if len(known) != 1 or data.regions_order:
        return data
    ((name, ids),) = known.items()
    return update(data, label_ids={name: list(ids)}, regions_order=[ids[0]])


def planned_slices(
    settings: PlanarSettings,
    cases: Sequence[Case],
    *,
    intake: Mapping[str, Any],
    structure: str,
    reporter: Reporter | None = None,
) -> tuple[PlanarSettings, tuple[Mapping[str, str], ...]]:
    """The settings with nothing left open, and what was decided, each with its reason."""
    data = settled_data(settings.data, intake.get("dataset"), structure)
    if data.preparation.intensity != "auto":
        return update(settings, data=data), ()
    kinds = _kinds(cases, data)
    kind = next(iter(kinds)) if len(kinds) == 1 else "other"
    scale, why = SCALES[kind]
    if len(kinds) > 1:
        why = f"images are of {len(kinds)} kinds: {why}"
    preparation = update(data.preparation, intensity=scale)
    (reporter or Silent()).say(f"Scale of the images: {scale}; {why}.")
    decided = {"what": "scale of the images", "value": scale, "why": why}
    return update(settings, data=update(data, preparation=preparation)), (decided,)


def _kinds(cases: Sequence[Case], data: PlanarDataSection) -> Counter[str]:
    """Kind of pixels -> cases that have it, of those that can be read."""
    step = max(1, len(cases) // CASES_ASKED)
    kinds: Counter[str] = Counter()
    for case in cases[::step]:
        try:
            kinds[read_slices(case, data).kind] += 1
        except CaseRefused:
            continue
    if not kinds:
        raise InputError(
            "No case can be read to plan from.",
            met=f"{len(cases)} cases with a mask",
            how="'medtool check' says of each case what is wrong.",
        )
    return kinds
