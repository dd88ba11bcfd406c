"""Reason codes of brainmet and what each means; the intake's own codes stand in medtool.dicom."""

from __future__ import annotations

from collections.abc import Mapping

# Of a study.
STUDY_CODES: Mapping[str, str] = {
    "not-hu": "the pixels are not HU: no air near -1000, or nothing as dense as bone; refused",
    "not-axial": "the slices are not axial; refused",
    "no-brain": "no soft tissue inside a skull was found; refused",
    "brain-volume": "the brain that was found is too small for a whole head, or too large (open "
    "skull, metal, another part of the body); the whole head is used instead",
    "partial-head": "the scan shows less than 100 mm of a head: nothing is said of what lies "
    "outside it",
    "too-few-brain-slices": "fewer slices than needed are left after the quality filter; refused",
    "slices-dropped": "how many slices the quality filter left out, by reason",
    "undefined-values": "voxels of the NIfTI file hold no number (NaN, infinity): set to air",
    "not-a-volume": "the NIfTI file has not three dimensions; refused",
}

# Of a slice: column ``reason`` of slices.csv.
SLICE_CODES: Mapping[str, str] = {
    "little-brain": "less brain than the preset asks for; not used",
    "noise": "much noisier than the other slices of the series; not used",
    "motion": "correlates with its neighbours much less than the others do; not used",
    "asymmetric": "kept, though one of the others applied: left and right differ more than in "
    "nine of ten slices",
}
