"""Every reason code of DICOM intake with its meaning: the one table that docs are made from.

``kind`` says what the code does: ``refusal`` refuses the series (or the case), ``repair`` names
what was changed to read it truly, ``warning`` what a person should look at, ``note`` what was
done, ``skip`` why a file belongs to no series.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["refusal", "repair", "warning", "note", "skip"]


@dataclass(frozen=True, slots=True)
class Code:
    """One reason code; a person can overrule the refusal where ``overrulable``."""

    kind: Kind
    meaning: str
    overrulable: bool = False


CODES: dict[str, Code] = {
    # --- repairs ----------------------------------------------------------------------------
    "gantry-tilt": Code(
        "repair",
        "The stack leans against its planes' normal (found from positions, not from the tilt "
        "element): slices are sheared back, so that a column of voxels runs along the normal.",
    ),
    "uneven-spacing": Code(
        "repair",
        "Steps between slices differ: slices are interpolated from their true positions to the "
        "usual step, or to the smaller one where the stack has two common steps.",
    ),
    "duplicate-dropped": Code(
        "repair",
        "Copies of a slice, equal in position and in every pixel, were dropped.",
    ),
    # --- notes and warnings -------------------------------------------------------------------
    "split-by-phase": Code(
        "note",
        "Several images at the same positions were told apart by a header element (phase, echo, "
        "acquisition, time) into stacks of their own.",
    ),
    "split-by-part": Code(
        "note",
        "Images of one series that cover the same stretch were told apart by kind of image, "
        "slice thickness or acquisition.",
    ),
    "unequal-phases": Code(
        "warning", "The stacks that were told apart have different numbers of slices."
    ),
    "phase-by-order": Code(
        "warning",
        "Other stacks of the same series (phases, acquisitions) are as good by the score: one was "
        "taken by its place in the list alone.",
    ),
    "series-goes-on": Code(
        "warning",
        "Another stack of the same series reaches more than 15 mm further than the one that is "
        "read: what lies there is not looked at.",
    ),
    "few-slices": Code("warning", "Under 10 slices: a volume, but hardly a whole scan."),
    "no-uid": Code(
        "warning",
        "Study, series or instance UIDs are empty: files of one folder that fit together are "
        "taken as one series.",
    ),
    "no-patient-id": Code("warning", "PatientID is empty."),
    "several-patients": Code("warning", "The folder holds images of several patients."),
    "derived": Code(
        "warning",
        "ImageType says DERIVED (for PET also SECONDARY): kept where the slices are axial "
        "reconstructions, since some scanners mark their own reconstructions so.",
    ),
    "lossy-compression": Code(
        "warning", "The images were compressed with losses at some time: values are approximate."
    ),
    "unplaced-images": Code(
        "warning", "Other images of this series have no position and are not part of the stack."
    ),
    "encrypted-attributes": Code(
        "warning", "Some identifying attributes are encrypted; the image itself is readable."
    ),
    # --- refusals: no volume by what the header claims, which a person can overrule -------------
    "localizer": Code(
        "refusal",
        "A projection (scout, topogram, surview), no slices, by ImageType or a word of "
        "SeriesDescription. The word localizer counts there only where the third value of "
        "ImageType is not AXIAL: a CT with a stereotactic frame is called so, too.",
        overrulable=True,
    ),
    "secondary-capture": Code(
        "refusal", "A Secondary Capture object: a picture of a screen.", overrulable=True
    ),
    "secondary-image": Code(
        "refusal", "CT whose ImageType says SECONDARY: made from another series.", overrulable=True
    ),
    "screen-save": Code("refusal", "A saved screen.", overrulable=True),
    "dose-report": Code("refusal", "A page of dose or protocol information.", overrulable=True),
    "reformat": Code(
        "refusal", "A reformat, projection or rendering made from another series.", overrulable=True
    ),
    "not-hu": Code(
        "refusal",
        "CT values that are no Hounsfield units (maps, another RescaleType).",
        overrulable=True,
    ),
    # --- refusals: geometry -------------------------------------------------------------------
    "too-few-slices": Code("refusal", "Fewer than 3 positions along the normal: not a volume."),
    "missing-slices": Code(
        "refusal",
        "A step over 2.5 times the usual one and over 10 mm, or a step alone near twice its "
        "neighbours or more: slices are missing.",
    ),
    "duplicate-positions": Code(
        "refusal",
        "Different images at the same position that no element tells apart: none may win.",
    ),
    "positions-off-line": Code(
        "refusal", "The positions do not lie on one straight line: not one stack."
    ),
    "no-position": Code(
        "refusal",
        "ImagePositionPatient, ImageOrientationPatient or PixelSpacing is missing. "
        "SliceLocation and InstanceNumber are no substitute.",
    ),
    "invalid-geometry": Code(
        "refusal", "Orientation, position or spacing hold values that make no geometry."
    ),
    # --- refusals: pixels ---------------------------------------------------------------------
    "truncated-pixels": Code("refusal", "A file is shorter than its pixels need."),
    "invalid-rescale": Code("refusal", "Rescale slope or intercept is no number, or slope is 0."),
    "no-rescale": Code("refusal", "CT without rescale slope and intercept: no Hounsfield units."),
    "invalid-pixel-format": Code("refusal", "Size or bits of the pixels contradict themselves."),
    "colour-image": Code("refusal", "Colour, not measured values."),
    "unsupported-syntax": Code(
        "refusal", "A transfer syntax that cannot be read here (network, video)."
    ),
    "damaged-pixels": Code("refusal", "Pixel data that cannot be found in the file or decoded."),
    "unsupported-pixels": Code("refusal", "Pixels of a kind that is no grey value image."),
    "mixed-sizes": Code("refusal", "Planes of one stack that decode to different sizes."),
    "too-large": Code(
        "refusal", "An image, or a number of frames, that its file or this machine cannot hold."
    ),
    "no-air": Code(
        "warning", "No voxel is near air: perhaps cropped, perhaps no Hounsfield units."
    ),
    "padding-in-tissue": Code(
        "warning", "The declared padding value also stands inside the body; it was left there."
    ),
    "undeclared-padding": Code(
        "repair", "Values far below air that the header does not declare as padding became air."
    ),
    "pixel-precision": Code(
        "warning", "The compressed image holds more or fewer bits than its header says."
    ),
    "pixel-sign": Code(
        "warning", "The compressed image and its header disagree about signed values."
    ),
    "segmentation-elsewhere": Code(
        "refusal", "A DICOM SEG object of which no frame lies on a slice of the series."
    ),
    "mask-incomplete": Code(
        "refusal",
        "Frames or contours of the chosen structure show something and were drawn on images that "
        "are not there: the mask would be cut off.",
    ),
    "contours-open": Code(
        "refusal", "An open contour of an RTSTRUCT: what it encloses is not known."
    ),
    "frames-without-slice": Code(
        "warning", "Frames of a DICOM SEG object that lie on no slice of the series: left out."
    ),
    # --- PET to SUV -----------------------------------------------------------------------------
    "suv-not-pet": Code("refusal", "Another modality than PET does not become SUV."),
    "suv-multiframe": Code("refusal", "A multi-frame (enhanced) PET: its SUV is not computed."),
    "suv-headers-differ": Code(
        "refusal", "Files of one PET series state different weights, doses, units or other."
    ),
    "suv-units": Code(
        "refusal",
        "PET in a unit that cannot become SUV (PROPCPS, counts without Philips' private factors).",
    ),
    "suv-uncorrected": Code(
        "refusal",
        "PET not corrected for attenuation, or of which it is not clear how it was corrected for "
        "decay.",
    ),
    "suv-weight": Code("refusal", "The patient's weight is missing, or is nobody's."),
    "suv-dose": Code(
        "refusal",
        "The injected dose is missing, is no dose in Bq or MBq, or is that of several injections.",
    ),
    "suv-half-life": Code(
        "refusal", "The half-life is missing with the nuclide, is none, or is another nuclide's."
    ),
    "suv-times": Code(
        "refusal",
        "Times of injection and scan are missing, or leave no plausible time between: injection "
        "after the scan, or over 2 half-lives before it (3 for nuclides of over 11.5 h).",
    ),
    "suv-normalisation": Code(
        "refusal",
        "SUV by something else than body weight that sex, weight and height do not bring back.",
    ),
    "suv-dose-mbq": Code("repair", "A dose below 10,000 is in MBq, although Bq is the rule."),
    "suv-injection-day": Code(
        "repair",
        "The day of the injection is missing or wrong; its time of day fits the day of the scan, "
        "or the one before.",
    ),
    "suv-reference-time": Code(
        "warning",
        "The moment that decay is corrected to is not plainly SeriesTime: which one was taken, "
        "and why.",
    ),
    "suv-assumed": Code(
        "warning", "Something that the header does not say was inferred from what it says."
    ),
    "suv-factors-differ": Code(
        "warning", "Philips' two ways to SUV disagree: perhaps the weight was edited."
    ),
    "suv-unusual": Code("warning", "The highest SUV of the volume is none that patients have."),
    "suv-factor": Code("note", "What SUV was worked out from."),
    "suv-converted": Code("note", "SUV by lean body mass or body surface became SUV by weight."),
    # --- PET and CT of one study ----------------------------------------------------------------
    "no-pet": Code("refusal", "A study without a PET, where PET and CT are needed."),
    "no-ct": Code("refusal", "A study without a CT, where PET and CT are needed."),
    "frames-of-reference-differ": Code(
        "refusal", "Every PET and CT of the study have positions in different coordinate systems."
    ),
    "fields-apart": Code(
        "refusal",
        "PET and CT show different parts of the patient: a fifth of the PET along each axis is "
        "the least that the CT has to cover.",
    ),
    "pair-chosen": Code("note", "Which PET and which CT of the study are taken as a pair."),
    "pair-not-chosen": Code("note", "A PET or CT of the study that is not taken, and why."),
    "pair-registered": Code(
        "note",
        "PET and CT share a frame of reference, and how much of the PET the CT covers. Whether "
        "the patient moved in between no header shows.",
    ),
    "pair-frame-unknown": Code(
        "warning", "PET or CT names no frame of reference: that they share one is taken for given."
    ),
    "pair-partly-covered": Code("warning", "The CT does not cover the whole length of the PET."),
    "pair-phase": Code("warning", "The PET is one of several phases or time frames."),
    # --- files that belong to no series ---------------------------------------------------------
    "not-dicom": Code("skip", "Not a DICOM file."),
    "empty-file": Code("skip", "A file of no bytes."),
    "unreadable": Code("skip", "The system does not let the file or folder be read."),
    "encrypted": Code("skip", "The file, or what makes it an image, is encrypted."),
    "broken-header": Code("skip", "The header breaks off or is garbled."),
    "dicomdir": Code("skip", "A directory of DICOM files (DICOMDIR)."),
    "not-an-image": Code("skip", "A DICOM object of another kind (report, structures, ...)."),
    "no-image": Code("skip", "DICOM, but without rows and columns of pixels."),
    "no-pixel-data": Code("skip", "A header without its pixel data."),
    "own-output": Code("skip", "A folder that medtool wrote (a run, predictions)."),
    "hidden-folder": Code("skip", "A folder whose name begins with a dot."),
}


def is_repair(code: str) -> bool:
    """Whether the code names something that was changed in order to read truly."""
    return code in CODES and CODES[code].kind == "repair"
