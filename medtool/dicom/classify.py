"""What kind of image a header describes: a slice of a volume, or something that only looks so.

Judged on SOP class, ImageType (PS3.3 C.8.2.1.1.1 for CT), SeriesDescription and RescaleType:
localizers, Secondary Capture, CT marked SECONDARY, reformats, dose pages and maps are no volumes
of Hounsfield units. PET and MR may be DERIVED or SECONDARY.
"""

from __future__ import annotations

import re

from medtool.core.records import Finding
from medtool.dicom import tags

# Words of SeriesDescription and ImageType that vendors give to projection images.
PROJECTION_WORDS = r"SCOUT|TOPOGRAM|SURVIEW|SCANOGRAM"
LOCALIZER_WORDS = re.compile(rf"LOCALI[SZ]ER|{PROJECTION_WORDS}", re.IGNORECASE)
# Those of a description whose images call themselves AXIAL: the CT with a stereotactic frame on,
# from which radiosurgery is planned, is called a localizer too.
AXIAL_LOCALIZER_WORDS = re.compile(PROJECTION_WORDS, re.IGNORECASE)
DOSE_WORDS = re.compile(
    r"\bDOSE[ _]?(REPORT|INFO|PAGE|SUMMARY|RECORD)|PATIENT PROTOCOL", re.IGNORECASE
)
REFORMATS = frozenset(
    ["MPR", "REFORMATTED", "REFORMAT", "CPR", "MIP", "MAX_IP", "MINIP", "MIN_IP", "VRT", "VOLREND"]
    + ["PROJECTION", "RENDERED", "3D"]
)
# Values of functional maps: not Hounsfield units whatever their rescale says.
MAPS = frozenset(["PERFUSION", "CBF", "CBV", "RCBF", "RCBV", "MTT", "TTP", "TMAX", "PBP"])
HOUNSFIELD_TYPES = frozenset(["", "HU", "US", "HU_MOD"])


def classes_of(
    sop_class: str, modality: str, image_type: tuple[str, ...], description: str, rescale_type: str
) -> tuple[str, ...]:
    """Codes of what the image is beside a slice; () for a plain slice."""
    found = []
    secondary_capture = sop_class == tags.SECONDARY_CAPTURE or sop_class.startswith(
        tags.SECONDARY_CAPTURE + "."
    )
    if secondary_capture:
        found.append("secondary-capture")
    if "SCREEN SAVE" in image_type:
        found.append("screen-save")
    if any("DOSE" in part for part in image_type[2:]) or DOSE_WORDS.search(description):
        found.append("dose-report")
    words = " ".join(image_type[2:])
    telling = AXIAL_LOCALIZER_WORDS if image_type[2:3] == ("AXIAL",) else LOCALIZER_WORDS
    if modality in ("CT", "MR") and (LOCALIZER_WORDS.search(words) or telling.search(description)):
        found.append("localizer")
    if modality == "CT":
        parts = set(words.replace("_", " ").split()) | set(image_type[2:])
        if parts & REFORMATS:
            found.append("reformat")
        if parts & MAPS or rescale_type.upper() not in HOUNSFIELD_TYPES:
            found.append("not-hu")
        if image_type[1:2] == ("SECONDARY",):
            found.append("secondary-image")
    if image_type[:1] == ("DERIVED",) or (modality == "PT" and "SECONDARY" in image_type[1:2]):
        found.append("derived")
    return tuple(found)


_SENTENCES = {
    "secondary-capture": "a Secondary Capture object: a picture of a screen, not measured values",
    "screen-save": "a saved screen (ImageType SCREEN SAVE), not a volume",
    "dose-report": "a page of dose or protocol information, not a volume",
    "localizer": "a localizer (scout, topogram, surview): a projection, not a slice",
    "reformat": "a reformat or rendering made from another series (ImageType {type})",
    "not-hu": "values that are no Hounsfield units (ImageType {type})",
    "secondary-image": "CT with ImageType SECONDARY ({type}): made from another series",
    "derived": "ImageType says that the images were derived ({type}): kept",
}


def class_findings(classes: tuple[str, ...], image_type: tuple[str, ...]) -> list[Finding]:
    """What to say of images of these classes."""
    shown = "\\".join(image_type)
    return [
        Finding(
            code,
            _SENTENCES[code].format(type=shown),
            "warning" if code == "derived" else "refusal",
        )
        for code in classes
    ]
