"""The sections of a preset of a prognosis; tasks extend them."""

from __future__ import annotations

from medtool.tasks.planar_settings import PlanarSettings
from medtool.tasks.prognosis_data_settings import PrognosisDataSection


class PrognosisSettings(PlanarSettings):
    """A resolved preset of a prognosis."""

    # Channels, outcomes and the preparation are those of PET/CT.
    data: PrognosisDataSection = PrognosisDataSection()  # type: ignore[assignment]
    """Where PET/CT studies and outcomes are, and how they are prepared."""
