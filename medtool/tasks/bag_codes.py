"""Reason codes that finding studies adds to those of the intake, and what each means."""

from __future__ import annotations

from collections.abc import Mapping

# Of a study; "refused" says that the study has a row, but no answer.
STUDY_CODES: Mapping[str, str] = {
    "wrong-modality": "no series of the study is of a modality that the task reads; refused",
    "no-usable-series": "no series of the study can be read, and none says why; refused",
    "cannot-be-overruled": "a person says to use the series (column use of series.csv), but it "
    "cannot be read truly: it stays refused",
    "left-out-by-person": "a person left the series out (column use of series.csv); the study is "
    "refused where nothing else is left",
    "chosen-by-person": "a person chose the series (column use of series.csv)",
    "not-chosen": "another series of the study has a better score, or as good a one and comes "
    "first; the message gives both",
    "patient-id-missing": "there is no PatientID; the name of the folder below the data stands "
    "for the patient",
    "patients-by-place": "NIfTI files name no patient: the folder below the data stands for one, "
    "and a file directly in it is a patient of its own",
    "layout": "where below the given folder the scans were taken from",
    "unreadable-nifti": "the NIfTI file has no readable header, or not three dimensions; refused",
    "nifti-units": "NIfTI does not say its units; values are taken as they are (HU for CT)",
    "no-slices": "no slice of the study is left to show the network; refused",
    "undefined-answer": "the network's answer is no number (broken weights, or too little "
    "precision for them); failed",
}
