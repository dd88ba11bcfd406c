"""The section [data] of a preset of a prognosis: where PET/CT studies, masks and outcomes are."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from medtool.config.sections import Section
from medtool.tasks.segmentation_settings import Count, Positive, SegmentationDataSection

TimeUnit = Literal["days", "weeks", "months", "years"]
Pixels = Annotated[list[Count], Field(max_length=2)]
Millimetres = Annotated[list[Positive], Field(max_length=3)]


class PrognosisPreparationSection(Section):
    """How PET and CT are brought to one grid, as SUV and as a window of HU."""

    size_px: Pixels = [256, 256]
    """Rows and columns of the field of view that PET and CT share; [] where spacing_mm is set."""
    slice_mm: Annotated[float, Field(ge=0)] = 0.0
    """Step from slice to slice; 0 keeps the slices of the PET."""
    spacing_mm: Millimetres = []
    """Voxels along x, y, z of the shared field of view, for volumes; [] where size_px is set."""
    answer_grid: Literal["pet", "ct"] = "pet"
    """Whose grid masks are written on, and volumes and SUV are measured on."""
    suv_maximum: Positive = 30.0
    """SUV that the network sees at most; what is measured is not clipped."""
    ct_window_hu: Annotated[list[float], Field(min_length=2, max_length=2)] = [-1024.0, 1024.0]
    """HU that become -1 and 1; what lies beyond is clipped."""

    @model_validator(mode="after")
    def _one_geometry(self) -> PrognosisPreparationSection:
        if len(self.size_px) not in (0, 2) or len(self.spacing_mm) not in (0, 3):
            raise ValueError("size_px has two numbers, spacing_mm three; [] for none")
        if bool(self.size_px) == bool(self.spacing_mm):
            raise ValueError("either size_px or spacing_mm says how voxels lie; the other is []")
        if self.ct_window_hu[0] >= self.ct_window_hu[1]:
            raise ValueError("ct_window_hu is its lower end, then its upper one")
        return self


class PrognosisDataSection(SegmentationDataSection):
    """Where PET/CT studies are, what masks mean, and which columns hold the outcome."""

    channels: list[str] = ["pet", "ct"]
    """The PET in SUV and the CT in HU; no others, and in this order."""
    structures: dict[str, list[str]] = {}
    """Of each label the names of structures in RTSTRUCT and SEG objects, * for any letters, or
    #NUMBER where several have one name; {} takes the only structure of an object."""
    time_column: str | None = None
    """Column of the time to the event or to the end of follow-up; by default recognised."""
    time_unit: TimeUnit | None = None
    """Unit of that column where its name has none; months have 30.4375 days, years 365.25."""
    event_column: str | None = None
    """Column that says whether the event was seen, 0 or 1; by default recognised."""
    stratum_column: str | None = None
    """Column of the group, such as a centre, within which patients are compared; "" for none."""
    # PET and CT have a preparation of their own.
    preparation: PrognosisPreparationSection = PrognosisPreparationSection()  # type: ignore[assignment]
    """How PET and CT are prepared; the cache depends on this table."""

    @model_validator(mode="after")
    def _fits_pet_ct(self) -> PrognosisDataSection:
        if self.channels != ["pet", "ct"]:
            raise ValueError('data.channels is ["pet", "ct"]')
        strange = set(self.structures) - set(self.label_ids)
        if self.label_ids and strange:
            raise ValueError(f"data.structures names no label: {', '.join(sorted(strange))}")
        return self
