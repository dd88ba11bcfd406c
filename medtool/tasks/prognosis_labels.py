"""Names that the parts of a prognosis share: channels, labels, what stands beside the images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from medtool.tasks.planar_planning import with_output_of_its_own, with_structure
from medtool.tasks.segmentation_planning import with_labels

if TYPE_CHECKING:
    from medtool.tasks.prognosis_data_settings import PrognosisDataSection

# In this order in arrays: SUV first.
PET, CT = "pet", "ct"
CHANNELS = (PET, CT)
# The prepared SUV on the grid of the answer, as it is measured.
SUV = "suv"
# Of a synthetic patient, the logarithm of the true hazard: never for learning.
TRUE_RISK = "true_risk"


def settled_labels(
    data: PrognosisDataSection, dataset: Mapping[str, Any] | None, structure: str
) -> PrognosisDataSection:
    """Labels all named: those of the preset, of the data set, or one ``structure``."""
    if data.label_ids or dataset is None:
        return with_output_of_its_own(with_structure(data, structure))
    found = with_labels(data, {**dataset, "channels": list(CHANNELS)})
    return with_output_of_its_own(found)
