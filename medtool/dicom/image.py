"""From a header to the images in it: one for a plain file, one for each frame of a multi-frame one.

An ``Image`` carries its ``Plane`` (what ``read`` needs) and what grouping and verdicts need; what
is wrong with it alone is in ``problems``. Sizes are checked against the file's length here, so
that nobody allocates or decodes on the word of a header.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from medtool.core.geometry import Triple
from medtool.core.records import Finding, Skipped
from medtool.dicom import tags
from medtool.dicom.classify import classes_of
from medtool.dicom.decode import DECODABLE
from medtool.dicom.header import Header, decimals, plain_text
from medtool.dicom.multiframe import Frame, frames_of
from medtool.dicom.series import PixelFormat, Plane
from medtool.dicom.stack import along, cached_axes

# More pixels in one plane than any scanner gives: a header that lies, or a decompression bomb.
MOST_PIXELS = 65_536 * 4_096
# More frames in one file than any scanner gives; over 100 MB of records.
MOST_FRAMES = 1 << 18
# Of a compressed frame the head of its fragment (PS3.5 A.4) and the least that any image has.
LEAST_BYTES_COMPRESSED = 16
# A file that was cut short is told of as such down to this share of its uncompressed pixels: with
# less in it, the number of its frames is no number.
LEAST_SHARE_LEFT = 1 / 64
NOWHERE: Triple = (math.nan, math.nan, math.nan)


@dataclass(frozen=True, slots=True)
class Kind:
    """What all images of one series have in common: one record for all of them."""

    patient_id: str
    study_uid: str
    series_uid: str
    frame_of_reference: str
    modality: str
    image_type: tuple[str, ...]
    classes: tuple[str, ...]
    kernel: str


@dataclass(slots=True)
class Image:
    """One image plane with what decides about it. Lengths in mm, times as in the header.

    ``position`` is () where the header has none; the other geometry is in ``frame``.
    """

    header: Header
    plane: Plane
    kind: Kind
    frame: Frame
    position: tuple[float, ...]
    problems: tuple[Finding, ...]


def images_of(header: Header) -> list[Image] | Skipped:
    """The images of one file, or why it holds none."""
    refusal = _no_image(header)
    if refusal is not None:
        return refusal
    # Some writers put 0 where there is one frame; pydicom reads them so, too.
    count = header.integer(tags.NUMBER_OF_FRAMES) or 1
    problems = _count_problems(header, count)
    # Where the number is not to be believed one image is there to say so.
    made = 1 if problems else count
    if header.dataset is not None and (
        count > 1 or header.text(tags.SOP_CLASS_UID) in tags.ENHANCED_CLASSES
    ):
        framed = frames_of(header.dataset, made)
        # Functional groups are large; nobody needs them any more.
        header.dataset = None
        return [
            _image(header, f, f.position, index, count, problems) for index, f in enumerate(framed)
        ]
    position = header.numbers(tags.IMAGE_POSITION)
    frame = _own_frame(tuple(map(header.raw.get, _FRAME_TAGS)))
    return [_image(header, frame, position, index, count, problems) for index in range(made)]


def _count_problems(header: Header, count: int) -> tuple[Finding, ...]:
    """What is wrong with a number of frames, before a record of each is made."""
    name = header.path.name
    if count < 1:
        return (_refusal("invalid-pixel-format", f"{name} says that it has {count} frames"),)
    if count == 1 or count <= (most := _most_frames(header, count)):
        return ()
    text = f"{name} says that it has {count} frames, and {header.size} bytes hold {most} at most"
    return (_refusal("too-large", text),)


def _most_frames(header: Header, count: int) -> int:
    """How many frames the file may have: generously, for files that were cut are told as such."""
    least_bytes, syntax = 1.0, header.transfer_syntax
    if syntax not in tags.NATIVE_SYNTAXES:
        least_bytes = LEAST_BYTES_COMPRESSED
    elif syntax != tags.DEFLATED_LITTLE:
        pixels = _pixel_format(header, count)
        bits = pixels.rows * pixels.columns * pixels.samples * pixels.bits_allocated
        least_bytes = max(least_bytes, bits / 8 * LEAST_SHARE_LEFT)
    return max(1, min(MOST_FRAMES, int(header.size / least_bytes)))


def _no_image(header: Header) -> Skipped | None:
    path, raw = header.path, header.raw
    sop_class = header.text(tags.SOP_CLASS_UID) or header.text(tags.MEDIA_STORAGE_SOP_CLASS_UID)
    if sop_class == tags.MEDIA_DIRECTORY or tags.DIRECTORY_RECORD_SEQUENCE in raw:
        return Skipped(path, "dicomdir", "a directory of DICOM files (DICOMDIR), not an image")
    other = _other_object(sop_class)
    if other:
        return Skipped(path, "not-an-image", f"{other}, not an image")
    whole = header.pixel_offset < 0 and header.walked_bytes >= header.size
    sized = header.word(tags.ROWS) and header.word(tags.COLUMNS)
    if tags.ENCRYPTED_ATTRIBUTES_SEQUENCE in raw and (whole or not sized):
        return Skipped(path, "encrypted", "what makes the image is encrypted")
    if not sized:
        return Skipped(path, "no-image", "has no rows and columns of pixels")
    if whole and tags.PIXEL_DATA not in raw:
        return Skipped(path, "no-pixel-data", "the header is there, the pixel data are not")
    return None


@lru_cache(maxsize=256)
def _other_object(sop_class: str) -> str:
    """What a SOP class stores instead of an image; "" for images."""
    found = (what for start, what in tags.NOT_IMAGES.items() if sop_class.startswith(start))
    return next(found, "")


_FRAME_TAGS = (
    tags.IMAGE_ORIENTATION,
    tags.PIXEL_SPACING,
    tags.SLICE_THICKNESS,
    tags.RESCALE_SLOPE,
    tags.RESCALE_INTERCEPT,
    tags.RESCALE_TYPE,
    tags.TEMPORAL_POSITION,
)


@lru_cache(maxsize=1024)
def _own_frame(raw: tuple[bytes | None, ...]) -> Frame:
    """What a plain header repeats from file to file, in the form of functional groups."""
    orientation, spacing, thickness, slope, intercept, rescale_type, temporal = raw
    return Frame(
        position=(),
        orientation=decimals(orientation or b""),
        spacing_mm=decimals(spacing or b""),
        thickness_mm=next(iter(decimals(thickness or b"")), None),
        slope=next(iter(decimals(slope or b"")), None),
        intercept=next(iter(decimals(intercept or b"")), None),
        rescale_type=plain_text(rescale_type or b""),
        image_type=(),
        stack="",
        temporal=plain_text(temporal or b""),
    )


def _image(
    header: Header,
    frame: Frame,
    position: tuple[float, ...],
    index: int,
    frames: int,
    problems: tuple[Finding, ...],
) -> Image:
    """One image; ``problems`` are those of its whole file."""
    pixels = _pixel_format(header, frames)
    kind = _kind(header, frame)
    low, high = _padding(header, pixels)
    axes = cached_axes(frame.orientation)
    place = (position[0], position[1], position[2]) if len(position) == 3 else NOWHERE
    plane = Plane(
        path=header.path,
        frame=index,
        sop_instance_uid=header.text(tags.SOP_INSTANCE_UID),
        instance_number=header.integer(tags.INSTANCE_NUMBER),
        position_mm=place,
        along_normal_mm=along(place, axes.normal) if axes is not None else math.nan,
        pixels=pixels,
        slope=1.0 if frame.slope is None else frame.slope,
        intercept=0.0 if frame.intercept is None else frame.intercept,
        padding_low=low,
        padding_high=high,
        has_modality_lut=tags.MODALITY_LUT_SEQUENCE in header.raw,
        fragments_start=header.fragments_start,
    )
    problems += _pixel_problems(header, pixels) + _rescale_problems(plane, kind.modality, frame)
    return Image(header, plane, kind, frame, position, problems)


_KIND_TAGS = (
    tags.PATIENT_ID,
    tags.STUDY_INSTANCE_UID,
    tags.SERIES_INSTANCE_UID,
    tags.FRAME_OF_REFERENCE_UID,
    tags.MODALITY,
    tags.SOP_CLASS_UID,
    tags.IMAGE_TYPE,
    tags.SERIES_DESCRIPTION,
    tags.CONVOLUTION_KERNEL,
)


def _kind(header: Header, frame: Frame) -> Kind:
    if header.decoded:
        texts = tuple(header.text(tag) for tag in _KIND_TAGS)
        return _kind_of_texts(texts, frame.image_type, frame.rescale_type)
    raw = tuple(map(header.raw.get, _KIND_TAGS))
    return _kind_of_bytes(raw, frame.image_type, frame.rescale_type)


@lru_cache(maxsize=1024)
def _kind_of_bytes(
    raw: tuple[bytes | None, ...], image_type: tuple[str, ...], rescale_type: str
) -> Kind:
    return _kind_of_texts(tuple(plain_text(v or b"") for v in raw), image_type, rescale_type)


def _kind_of_texts(texts: tuple[str, ...], image_type: tuple[str, ...], rescale_type: str) -> Kind:
    patient, study, series, reference, modality, sop_class, kinds, description, kernel = texts
    modality = modality.upper() or _modality_of(sop_class)
    own_type = tuple(part.strip().upper() for part in kinds.split("\\")) if kinds else ()
    shown_type = image_type or own_type
    return Kind(
        patient_id=patient,
        study_uid=study,
        series_uid=series,
        frame_of_reference=reference,
        modality=modality,
        image_type=shown_type,
        classes=classes_of(sop_class, modality, shown_type, description, rescale_type),
        kernel=kernel,
    )


def _modality_of(sop_class: str) -> str:
    for modality, classes in (
        ("CT", (tags.CT_IMAGE, tags.ENHANCED_CT, tags.LEGACY_ENHANCED_CT)),
        ("MR", (tags.MR_IMAGE, tags.ENHANCED_MR, tags.LEGACY_ENHANCED_MR)),
        ("PT", (tags.PET_IMAGE, tags.ENHANCED_PET, tags.LEGACY_ENHANCED_PET)),
    ):
        if sop_class in classes:
            return modality
    return ""


def _pixel_format(header: Header, frames: int) -> PixelFormat:
    # One record for all planes of a series, and no words taken apart twice.
    return _shared_format(
        header.transfer_syntax,
        header.text(tags.PHOTOMETRIC_INTERPRETATION),
        frames,
        tuple(map(header.raw.get, _FORMAT_WORDS)),
    )


_FORMAT_WORDS = (
    tags.ROWS,
    tags.COLUMNS,
    tags.BITS_ALLOCATED,
    tags.BITS_STORED,
    tags.HIGH_BIT,
    tags.PIXEL_REPRESENTATION,
    tags.SAMPLES_PER_PIXEL,
)


@lru_cache(maxsize=256)
def _shared_format(
    syntax: str, photometric: str, frames: int, raw: tuple[bytes | None, ...]
) -> PixelFormat:
    words = [int.from_bytes(value[:2], "little") if value else None for value in raw]
    rows, columns, allocated, stored, high, sign, samples = words
    stored = stored or allocated or 0
    return PixelFormat(
        transfer_syntax=syntax,
        rows=rows or 0,
        columns=columns or 0,
        bits_allocated=allocated or 0,
        bits_stored=stored,
        high_bit=stored - 1 if high is None else high,
        signed=sign == 1,
        samples=samples or 1,
        photometric=photometric or "MONOCHROME2",
        frames_in_file=frames,
    )


def _padding(header: Header, pixels: PixelFormat) -> tuple[int | None, int | None]:
    """Inclusive bounds of the padding in stored units.

    The bytes are read by PixelRepresentation, whatever VR the file gives them: -2000 written as
    US is 63536 and means -2000 in signed data.
    """
    values = []
    for tag in (tags.PIXEL_PADDING_VALUE, tags.PIXEL_PADDING_RANGE_LIMIT):
        raw = header.raw.get(tag, b"")
        if len(raw) < 2:
            break
        width = 4 if pixels.bits_allocated > 16 and len(raw) >= 4 else 2
        values.append(int.from_bytes(raw[:width], "little", signed=pixels.signed))
    return (min(values), max(values)) if values else (None, None)


def _pixel_problems(header: Header, pixels: PixelFormat) -> tuple[Finding, ...]:
    missing = _missing_bytes(header, pixels)
    problems = _format_problems(pixels)
    if missing <= 0:
        return problems
    text = f"{header.path.name} is {missing} bytes too short"
    return (*problems, _refusal("truncated-pixels", text))


@lru_cache(maxsize=256)
def _format_problems(pixels: PixelFormat) -> tuple[Finding, ...]:
    problems = []
    syntax = pixels.transfer_syntax
    if syntax and syntax not in DECODABLE:
        elsewhere = syntax in tags.JPIP_SYNTAXES or syntax in tags.VIDEO_SYNTAXES
        why = " (network, video)" if elsewhere else ""
        problems.append(_refusal("unsupported-syntax", f"pixels in transfer syntax {syntax}{why}"))
    if pixels.samples != 1 or not pixels.photometric.startswith("MONOCHROME"):
        problems.append(
            _refusal("colour-image", f"{pixels.samples} samples a pixel, {pixels.photometric}")
        )
    elif (
        pixels.bits_allocated not in (8, 16, 32)
        or not 0 < pixels.bits_stored <= pixels.bits_allocated
        or not pixels.bits_stored - 1 <= pixels.high_bit < pixels.bits_allocated
        or pixels.rows * pixels.columns > MOST_PIXELS
    ):
        problems.append(
            _refusal(
                "invalid-pixel-format",
                f"{pixels.rows} x {pixels.columns} pixels of {pixels.bits_stored} bits in "
                f"{pixels.bits_allocated}, high bit {pixels.high_bit}",
            )
        )
    return tuple(problems)


def _missing_bytes(header: Header, pixels: PixelFormat) -> int:
    """How many bytes of pixel data the file lacks at least; 0 when none or not known."""
    if pixels.transfer_syntax == tags.DEFLATED_LITTLE:
        return 0
    if pixels.transfer_syntax not in tags.NATIVE_SYNTAXES and header.pixel_length < 0:
        return max(0, header.first_fragment_end - header.size)
    bits = pixels.rows * pixels.columns * pixels.samples * pixels.bits_allocated
    expected = bits * max(1, pixels.frames_in_file) // 8
    begins = header.pixel_offset if header.pixel_offset >= 0 else header.walked_bytes
    there = header.size - begins
    if pixels.transfer_syntax not in tags.NATIVE_SYNTAXES:
        return max(0, header.pixel_length - there)
    declared = header.pixel_length if header.pixel_length >= 0 else expected
    return max(0, expected - min(there, declared))


def _rescale_problems(plane: Plane, modality: str, frame: Frame) -> tuple[Finding, ...]:
    if not (math.isfinite(plane.slope) and math.isfinite(plane.intercept)) or plane.slope == 0:
        met = f"slope {plane.slope:g}, intercept {plane.intercept:g}"
        return (_refusal("invalid-rescale", f"{plane.path.name} has rescale {met}"),)
    unsaid = frame.slope is None or frame.intercept is None
    if modality == "CT" and not plane.has_modality_lut and unsaid:
        return (_refusal("no-rescale", f"{plane.path.name} lacks rescale slope or intercept"),)
    return ()


def _refusal(code: str, message: str) -> Finding:
    return Finding(code, message, "refusal")
