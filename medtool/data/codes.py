"""Reason codes of labels, cohorts, data sets, splits, cache and preparation, and their meaning."""

from __future__ import annotations

from collections.abc import Mapping

# What became of a case that could not be prepared: column ``code`` of every table.
CASE_CODES: Mapping[str, str] = {
    "case-timeout": "reading and preparing took longer than --case-timeout; given up",
    "worker-died": "the worker process was killed, perhaps for want of memory; the case is lost",
    "out-of-memory": "the memory was not enough for this case",
    "unforeseen": "an error that medtool did not foresee; for a preparation the ledger of the "
    "cache has the details",
}

# Of the table of labels, the cohort and the split: findings, on the screen and in the run.
COHORT_CODES: Mapping[str, str] = {
    "label-key": "which kind of id the table holds, and how many of its rows fit",
    "label-empty": "rows without a label: their cases are not used for training",
    "label-duplicate": "ids that stand in the table more than once, with one label",
    "id-empty": "rows without an id: left out",
    "id-relaxed": "ids that fit only when leading zeros, '.0' and letter case are forgiven",
    "cell-unwrapped": 'cells written as ="00123", which keeps zeros from Excel: read as 00123',
    "column-unnamed": "a column of the table without a name: left out",
    "case-without-label": "cases that the table does not name",
    "label-without-case": "labels whose id no case has",
    "patient-id-shared": "one patient id that implausibly many studies share; not pooled by "
    "patient, and not split until the user says what tells patients apart",
    "split-given": "the parts are those of the split file",
    "not-in-split": "cases that the split file does not name: in no part",
    "selection-taken": "the split file has no selection part: taken from its training patients",
    "class-missing": "the test part of a fold lacks a class",
    "event-missing": "a part of the split has outcomes and no event: nothing of survival is "
    "learned or said there",
    "classes-none": "no case has a class: masks alone are learned and scored",
    "names-shared": "cases of one name: each takes a mark of its place behind it",
    "overruled-not-found": "the table of series overrules a series that is not among the data",
    "leak-allowed": "a patient in two parts, or a study, a series or pixels under two patients, "
    "that a person allowed",
    "uid-of-nobody": "a UID of a study or series that more than three patients have: it tells "
    "nothing apart, and pixels alone are compared",
    "patients-alike": "patient ids that differ in leading zeros, '.0' or letter case alone and "
    "stand in different parts: perhaps one patient",
}

# Of a segmentation data set: what its description and its file names say.
DATASET_CODES: Mapping[str, str] = {
    "dataset-layout": "which layout was recognised, with its channels, labels and cases",
    "json-repaired": "a line of the description that is no JSON (a comment, a comma before a "
    "closing bracket) and was read over",
    "labels-by-id": "labels stand as id -> name, all or some of them",
    "labels-background": "the id 0 has no name, or another one, and is taken for the background",
    "labels-with-gaps": "the ids of the labels have gaps, which is often a slip",
    "labels-assumed": "the data set names no labels: 0 is background, 1 foreground",
    "manifest-columns": "how the manifest was read, and which further columns it has",
    "pairs-rule": "the rule by which a mask was found for each image",
    "patient-by-pattern": "the patient is taken from the case's name, and where that failed",
    "label-by-pattern": "the class is taken from the case's name, and where that failed",
    "patients-by-folder": "each folder of pairs is taken for a patient",
    "patients-by-case": "patients are not known: every case is taken for a patient of its own",
    "frames-alone": "DICOM images that belong to no stack: each is a case of its own",
    "mask-missing": "images without a mask",
    "masks-several": "a DICOM series with several objects that hold masks: the first is taken",
    "mask-of-other-series": "a DICOM mask of the study that was drawn on another series, or other "
    "images of the series, than the one that was chosen: left out",
    "structures-overlap": "structures of a DICOM mask that overlap: the label that is named later "
    "stands",
    "structures-left-out": "structures of a DICOM mask that are no label",
    "structures-missing": "labels that a DICOM mask has no structure of: nothing is there",
    "file-unmatched": "images and masks that belong to no case",
    "count-differs": "another number of training cases than the description declares",
    "case-twice": "images with the name of another case: left out, or refused",
    "channels-by-order": "the channels have other names than those that are wanted, and are taken "
    "for them in their order",
    "channels-differ": "a case with other channels than the data set declares; refused",
    "image-missing": "the description names an image that is not there; the case is refused",
}

# Of one image or mask of a data set: a refusal of its case, or a finding.
IMAGE_CODES: Mapping[str, str] = {
    "broken-header": "the header of the file is broken, or it is no such file; refused",
    "truncated-file": "the file ends before its voxels do; refused",
    "damaged-file": "the voxels cannot be decoded; refused",
    "unreadable": "the system does not let the file be read; refused",
    "unsupported-type": "the voxels are no plain numbers (colours, complex numbers); refused",
    "not-a-volume": "2D, or several volumes in one file, where one volume is needed; refused",
    "invalid-spacing": "a spacing that no scan has, such as 0 or 999 mm; refused",
    "invalid-origin": "the origin is no number; refused",
    "skewed-axes": "the axes are not at right angles; refused",
    "forms-conflict": "sform and qform of a NIfTI header place the image in two ways; refused",
    "no-orientation": "the file does not say how it lies in the patient: its axes are taken for "
    "LPS, as SimpleITK does",
    "undefined-values": "voxels that are NaN or infinite: refused, or set to a value that is said",
    "grids-differ": "image and mask, or two channels, lie on different grids; refused, never "
    "resampled",
    "not-labels": "a mask with values between whole numbers, below 0, or none; refused",
    "series-chosen": "a folder holds several series that can be read: which one was taken",
    "not-a-picture": "a volume, or a file of several pages or frames, where one 2D image is "
    "needed, or more channels than colour has; refused",
    "transparent": "a picture that is partly transparent; refused",
    "alpha-dropped": "an opaque alpha channel of a picture was dropped",
    "mask-colour": "a mask in colour, whose channels differ; refused",
    "mask-binarised": "a mask with grey values: cut at half of 255, or of its largest value",
    "broken-contour": "a text file that is no outline of points; refused",
    "mask-without-image": "the mask cannot be compared, since its image cannot be read; refused",
    "mask-empty": "a mask that is all background",
    "label-undeclared": "a mask with ids that the data set does not declare; refused",
    "image-constant": "a channel that holds one value only",
    "one-slice": "a volume of one slice",
    "spacing-unknown": "the picture does not say how large a pixel is: no mL and no mm are given; "
    "voxels of a TIFF of several pages are taken for 1 mm",
    "scale-differs": "pixels of another kind than the model learned from (8 bits, HU); refused",
    "image-duplicate": "the same pixels in several cases",
    "kinds-differ": "pictures, of pixels of an unknown size, and scans in one data set: those that "
    "the plan is not made for are refused",
    "orientations-differ": "axes of the volumes run differently; each is read by its own header",
    "mask-rounded": "a mask in floating point whose values are a little off whole numbers",
}

# Of the cache: said while preparing, kept in the ledger.
CACHE_CODES: Mapping[str, str] = {
    "done": "prepared",
    "repaired": "prepared from a series that the intake repaired",
    "rebuilt": "the file in the cache was damaged and was made again",
    "refused": "the task cannot use the case, and why; remembered until its files change",
    "failed": "the case could not be prepared this time, and why; tried again next time",
}

# Of an answer: beside those of the case in column ``code`` of predictions.csv.
ANSWER_CODES: Mapping[str, str] = {
    "prediction": "the network was not given what it needs, and why",
    "writing": "the answer could not be written, and why",
    "region-whole-volume": "a coarse look found too little: the whole volume was looked at closely",
    "not-finite": "the network's answer holds NaN or infinite values: none is given",
    "unlike-training": "scanner, kernel, thickness or spacing of which no training study had the "
    "like; answered all the same",
}

# Of a zip archive that is not unpacked.
ARCHIVE_CODES: Mapping[str, str] = {
    "archive-path": "an entry would lie outside the folder it is unpacked into, or is a link",
    "archive-size": "it would unpack without reasonable end: too many files, or too large",
    "archive-broken": "it cannot be unpacked",
    "archive-encrypted": "it is protected by a password",
}
