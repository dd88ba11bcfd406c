"""Reason codes that PET/CT studies and tables of outcomes add, and what each means."""

from __future__ import annotations

from collections.abc import Mapping

# Of a study; those of SUV and of pairs are among the codes of DICOM intake.
PET_CT_CODES: Mapping[str, str] = {
    "suv-implausible": "a PET of a NIfTI file with values that are no SUV, such as Bq/mL or "
    "counts; refused",
    "mask-regridded": "the mask lies on another grid than the answer, and was brought to it: the "
    "volume before and after is said",
    "structures-unchosen": "a DICOM object holds several structures, and the preset chooses none "
    "of them: the case has no mask",
    "files-several": "several files of a case show the same: which one was taken",
    "mask-elsewhere": "nothing of the mask lies where the images do; refused",
}

# Of a table of outcomes: findings, on the screen and in the run.
OUTCOME_CODES: Mapping[str, str] = {
    "outcome-columns": "which columns are the time, with its unit, and the event, and how many "
    "outcomes and events there are",
    "covariates-table": "a table beside the images whose columns are covariates",
    "outcome-empty": "rows without an outcome: their cases teach the segmentation alone",
    "outcome-duplicate": "ids that stand in the table more than once, with one outcome",
    "outcome-first-study": "patients of a table with several studies: the time is taken to count "
    "from the first one, and later ones have no outcome",
    "outcomes-censored": "no event was seen: nothing of survival can be learned or scored",
}
