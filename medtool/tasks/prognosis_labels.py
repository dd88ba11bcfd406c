"""Names that the parts of a prognosis share: channels, labels, what stands beside the images."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from medtool.tasks.planar_planning import with_output_of_its_own, with_structure
from medtool.tasks.segmentation_labels import structures
from medtool.tasks.segmentation_planning import update, with_labels

if TYPE_CHECKING:
    from medtool.data.dicom_masks import MaskObject
    from medtool.tasks.prognosis_data_settings import PrognosisDataSection

# In this order in arrays: SUV first.
PET, CT = "pet", "ct"
CHANNELS = (PET, CT)
# Code of a study that lacks one.
LACKING: Mapping[str, str] = {PET: "no-pet", CT: "no-ct"}
# The prepared SUV on the grid of the answer, as it is measured.
SUV = "suv"
# Of a synthetic patient, the logarithm of the true hazard: never for learning.
TRUE_RISK = "true_risk"


def settled_labels(
    data: PrognosisDataSection, dataset: Mapping[str, Any] | None, structure: str
) -> PrognosisDataSection:
    """Labels all named: those of the preset, of the data set, or one ``structure``."""
    if not data.label_ids and data.structures:
        # The preset names labels by what they are called in DICOM objects.
        numbered = {name: [n] for n, name in enumerate(data.structures, start=1)}
        data = update(data, label_ids=numbered)
    if data.label_ids or dataset is None:
        return with_output_of_its_own(with_structure(data, structure))
    found = with_labels(data, {**dataset, "channels": list(CHANNELS)})
    return with_output_of_its_own(found)


def structure_ids(found: MaskObject, data: PrognosisDataSection) -> Mapping[str, int]:
    """Of the structures that the preset chooses in an object the id: by name, or ``#number``.

    Without a choice the only structure of an object is the first label.
    """
    ids = {name: numbers[0] for name, numbers in structures(data).items()}
    if not data.structures:
        return {f"#{found.numbers[0]}": next(iter(ids.values()))} if len(found.names) == 1 else {}
    chosen: dict[str, int] = {}
    for label, patterns in data.structures.items():
        for number, name in zip(found.numbers, found.names, strict=True):
            if any(_fits(name, number, pattern) for pattern in patterns):
                chosen[f"#{number}"] = ids[label]
    return chosen


def _fits(name: str, number: int, pattern: str) -> bool:
    return pattern == f"#{number}" or fnmatchcase(name.casefold(), pattern.casefold())
