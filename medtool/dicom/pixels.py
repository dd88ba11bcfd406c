"""From one plane to stored values, and from stored values to HU.

The order is fixed (PS3.3 C.7.5.1.1.2 and C.11.1): padding is found on stored values, then the
modality transformation (a LUT, else slope and intercept of this very plane) is applied, then
padding becomes air. VOI and presentation LUTs and MONOCHROME1 concern display: not applied.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medtool.core.errors import CaseRefused
from medtool.core.records import Finding
from medtool.dicom.decode import Room, check_pixel_format, decode_frame, native_values
from medtool.dicom.frames import FrameTable, open_frames
from medtool.dicom.plain import plain_frame
from medtool.dicom.series import PixelFormat, Plane

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Stored = NDArray[np.integer]

# What lies outside the field of view of a CT.
AIR_HU = -1024.0
# Padding that would be brighter than this in a CT may be tissue too: only what hangs together
# with the border of the plane is taken for padding.
TISSUE_HU = -500.0
# Air is -1000 HU and no noise goes this far below it: such values are padding that no tag declares.
LEAST_HU = -2000.0
# Integers up to here are exact in float32.
_EXACT_FLOAT32 = 2**24


@dataclass(slots=True)
class PlaneReader:
    """Reads planes one after the other; one reader a thread, since it reuses its memory.

    The frame table of the last file is kept, so that the frames of one file are located once.
    """

    buffer: bytearray
    room: Room = field(default_factory=Room)
    path: Path | None = None
    table: FrameTable | None = None

    def stored(self, plane: Plane) -> tuple[Stored, tuple[Finding, ...]]:
        """Stored values (rows, columns), valid until the next call, and findings.

        Raises CaseRefused: ``truncated-pixels``, ``damaged-pixels``, ``no-pixel-data``,
        ``unsupported-syntax``, ``unsupported-pixels``, ``too-large``, ``unreadable``.
        """
        pixels = plane.pixels
        check_pixel_format(pixels)
        try:
            plain = plain_frame(plane.path, pixels, self.buffer)
            if plain is not None:
                return native_values(plain, pixels), ()
            return decode_frame(self._bytes(plane), pixels, self.room)
        except CaseRefused as refusal:
            if not refusal.where:
                refusal.where = str(plane.path)
            raise
        except OSError as error:
            raise CaseRefused(
                "unreadable",
                "The file cannot be read.",
                where=str(plane.path),
                met=error.strerror or type(error).__name__,
            ) from error

    def _bytes(self, plane: Plane) -> bytes:
        if self.table is None or self.path != plane.path:
            self.table = open_frames(plane.path, plane.pixels, plane.fragments_start)
            self.path = plane.path
        if not 0 <= plane.frame < len(self.table.spans):
            raise CaseRefused(
                "truncated-pixels",
                "The file holds fewer frames than its header describes.",
                met=f"{len(self.table.spans)} frames",
                wanted=f"frame {plane.frame + 1}",
            )
        return self.table.frame(plane.frame)


def stored_values(plane: Plane) -> Stored:
    """Integers (rows, columns) as stored: sign-extended from HighBit, before any rescale.

    Raises CaseRefused as ``PlaneReader.stored`` does.
    """
    return PlaneReader(bytearray()).stored(plane)[0]


def padding_range(plane: Plane) -> tuple[int, int] | None:
    """Lowest and highest stored value that means "no measurement", or None.

    PixelPaddingValue has the sign of the pixels, yet writers and implicit VR make -2000 into 63536
    (and the other way round): what the pixels cannot hold is read with the other sign.
    """
    ends = [v for v in (plane.padding_low, plane.padding_high) if v is not None]
    if not ends:
        return None
    whole = 1 << plane.pixels.bits_allocated
    if plane.pixels.signed:
        ends = [v - whole if v >= whole // 2 else v for v in ends]
    else:
        ends = [v + whole if v < 0 else v for v in ends]
    return min(ends), max(ends)


def check_rescale(plane: Plane) -> None:
    """Refuse (``invalid-rescale``) a transformation that gives no numbers."""
    if math.isfinite(plane.slope) and math.isfinite(plane.intercept) and plane.slope != 0.0:
        return
    raise CaseRefused(
        "invalid-rescale",
        "Rescale slope and intercept do not give values.",
        where=str(plane.path),
        met=f"slope {plane.slope}, intercept {plane.intercept}",
        wanted="finite numbers, and a slope that is not zero",
    )


@dataclass(frozen=True, slots=True)
class Measured:
    """What became of one plane: where it holds no measurement (None: nowhere), and findings."""

    padding: NDArray[np.bool_] | None
    findings: tuple[Finding, ...] = ()


def measure(plane: Plane, stored: Stored, out: NDArray[np.float32], *, is_ct: bool) -> Measured:
    """Write the values of a plane (HU for CT) into ``out`` (rows, columns), padding as air.

    Values are those of exact arithmetic, rounded once to float32. Air is -1024 HU in CT, else 0.
    """
    padding = _declared_padding(plane, stored)
    findings: list[Finding] = []
    _transform(plane, stored, out)
    if padding is not None and is_ct:
        padding, found = _spare_tissue(padding, out)
        findings += found
    if is_ct and _lowest(plane, stored, out) < LEAST_HU:
        undeclared = out < LEAST_HU
        if padding is not None:
            undeclared &= ~padding
        if undeclared.any():
            findings.append(
                Finding(
                    "undeclared-padding",
                    f"values below {LEAST_HU:.0f} HU, which no tag declares as padding, "
                    f"were set to air ({AIR_HU:.0f} HU)",
                )
            )
            padding = undeclared if padding is None else padding | undeclared
    if padding is not None:
        out[padding] = AIR_HU if is_ct else 0.0
    return Measured(padding, tuple(findings))


def _lowest(plane: Plane, stored: Stored, out: NDArray[np.float32]) -> float:
    """The lowest value of a plane; the integers are looked through faster than the floats."""
    if plane.has_modality_lut or plane.slope < 0:
        return float(out.min())
    return int(stored.min()) * plane.slope + plane.intercept


def _declared_padding(plane: Plane, stored: Stored) -> NDArray[np.bool_] | None:
    bounds = padding_range(plane)
    if bounds is None:
        return None
    low, high = bounds
    mask: NDArray[np.bool_] = stored == low if low == high else (stored >= low) & (stored <= high)
    if low == high and not mask.any() and (inside := _within_stored_bits(low, plane.pixels)) != low:
        # Some write 63536 (-2000) into whole words although BitsStored is 12: the bits above went
        # with those of overlays, and what is left of the value is the padding.
        mask = stored == inside
    return mask if mask.any() else None


def _within_stored_bits(value: int, pixels: PixelFormat) -> int:
    """What masking (and sign extension) to BitsStored leaves of a stored word."""
    low_bits = (value >> (pixels.high_bit + 1 - pixels.bits_stored)) & (
        (1 << pixels.bits_stored) - 1
    )
    negative = pixels.signed and low_bits >> (pixels.bits_stored - 1)
    return low_bits - (1 << pixels.bits_stored) if negative else low_bits


def _transform(plane: Plane, stored: Stored, out: NDArray[np.float32]) -> None:
    """Modality LUT, else slope and intercept."""
    if plane.has_modality_lut:
        out[...] = _through_lut(plane, stored)
        return
    check_rescale(plane)
    slope, intercept = plane.slope, plane.intercept
    largest = abs(slope) * 2.0**plane.pixels.bits_allocated + abs(intercept)
    if slope.is_integer() and intercept.is_integer() and largest < _EXACT_FLOAT32:
        np.copyto(out, stored, casting="same_kind")
        if slope != 1.0:
            out *= np.float32(slope)
        if intercept != 0.0:
            out += np.float32(intercept)
        return
    out[...] = stored.astype(np.float64) * slope + intercept


def _through_lut(plane: Plane, stored: Stored) -> NDArray[np.float32]:
    """Values by the Modality LUT Sequence, which replaces slope and intercept."""
    import pydicom
    from pydicom.pixels.processing import apply_modality_lut

    try:
        dataset = pydicom.dcmread(plane.path, stop_before_pixels=True, force=True)
        # Wider than stored, since the first mapped value is subtracted from it.
        values = apply_modality_lut(stored.astype(np.int64), dataset)
    # pydicom raises many kinds of error on a LUT that is none; all mean the same here.
    except (KeyError, ValueError, TypeError, AttributeError, IndexError, struct.error) as error:
        raise CaseRefused(
            "invalid-rescale",
            "The modality LUT cannot be used.",
            where=str(plane.path),
            met=f"{type(error).__name__}: {error}",
        ) from error
    return np.asarray(values, dtype=np.float32)


def _spare_tissue(
    padding: NDArray[np.bool_], out: NDArray[np.float32]
) -> tuple[NDArray[np.bool_] | None, tuple[Finding, ...]]:
    """Padding as bright as tissue counts only where it reaches the border of the plane."""
    if float(out[padding].max()) <= TISSUE_HU:
        return padding, ()
    from scipy import ndimage

    labels, _ = ndimage.label(padding)
    edges = (labels[0], labels[-1], labels[:, 0], labels[:, -1])
    touching = np.unique(np.concatenate(edges))
    outside = np.isin(labels, touching[touching > 0])
    if np.array_equal(outside, padding):
        return padding, ()
    finding = Finding(
        "padding-in-tissue",
        "the padding value occurs inside the body as well: only padding that reaches the border "
        "of a plane was set to air",
        "warning",
    )
    return (outside if outside.any() else None), (finding,)
