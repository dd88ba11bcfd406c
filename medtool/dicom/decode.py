"""From the bytes of one frame to stored values: one codec per transfer syntax, all by imagecodecs.

Every compressed stream is asked for its own size, precision and sign before it is decoded: a size
that disagrees with the header is refused (it would allocate what the header never announced),
precision and sign that disagree are settled by the stream and said. The codecs release the
interpreter's lock, so that frames decode in threads.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from medtool.core.errors import CaseRefused
from medtool.core.records import Finding
from medtool.dicom.cut_streams import codestream_is_cut, jpeg_is_cut
from medtool.dicom.frames import ENCAPSULATED_NATIVE, EXPLICIT_BIG, NATIVE, RLE, frame_bytes
from medtool.dicom.series import PixelFormat

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Stored = NDArray[np.integer]

_JPEG = frozenset(f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 53, 55, 57, 70))
_JPEG_LS = frozenset(f"1.2.840.10008.1.2.4.{n}" for n in (80, 81))
_JPEG_2000 = frozenset(f"1.2.840.10008.1.2.4.{n}" for n in (90, 91))
_HTJ2K = frozenset(f"1.2.840.10008.1.2.4.{n}" for n in (201, 202, 203))
DECODABLE = NATIVE | {ENCAPSULATED_NATIVE, RLE} | _JPEG | _JPEG_LS | _JPEG_2000 | _HTJ2K

_END_OF_IMAGE = b"\xff\xd9"
# Markers without a length: TEM, RST0-7, SOI.
_BARE_MARKERS = frozenset({0x01, *range(0xD0, 0xD9)})
# Start of frame, but for DHT, JPG and DAC that lie among them (T.81, table B.1); FFF7 is JPEG-LS.
_START_OF_FRAME = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})
# Of these the progressive ones (T.81, table B.1).
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_START_OF_SCAN = 0xDA
_CODESTREAM = b"\xff\x4f\xff\x51"
_RLE_HEADER_BYTES = 64


@dataclass(frozen=True, slots=True)
class Stream:
    """What a compressed stream says of itself; ``signed`` is None where it cannot say."""

    rows: int
    columns: int
    precision: int
    components: int
    signed: bool | None = None
    progressive: bool = False


@dataclass(slots=True)
class Room:
    """Memory that a thread decodes one frame after the other into.

    Memory fresh from the system costs a page fault every 4 KB, a fifth of what fast codecs take.
    """

    memory: NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8))

    def words(self, stream: Stream) -> Stored:
        """Words (rows, columns) of the type that decoders give for ``stream``, not yet written."""
        size = 1 if stream.precision <= 8 else 2 if stream.precision <= 16 else 4
        wanted = stream.rows * stream.columns * size
        if len(self.memory) < wanted:
            self.memory = np.empty(wanted, np.uint8)
        words: Stored = self.memory[:wanted].view(f"{'i' if stream.signed else 'u'}{size}")
        return words.reshape(stream.rows, stream.columns)


Codec = Callable[[bytes, Stream, "Stored"], "Stored"]


def check_pixel_format(pixels: PixelFormat) -> None:
    """Refuse what cannot be one plane of integer measurements, before a byte is read."""
    if pixels.transfer_syntax and pixels.transfer_syntax not in DECODABLE:
        _refuse(
            "unsupported-syntax",
            "Pixel data in this transfer syntax cannot be read.",
            met=pixels.transfer_syntax,
        )
    if pixels.samples != 1 or pixels.photometric not in ("MONOCHROME1", "MONOCHROME2", ""):
        _refuse(
            "unsupported-pixels",
            "Pixels are colours, not measurements.",
            met=f"{pixels.samples} samples, {pixels.photometric}",
        )
    if (
        pixels.bits_allocated not in (8, 16, 32)
        or not 0 < pixels.bits_stored <= pixels.bits_allocated
        or not pixels.bits_stored - 1 <= pixels.high_bit < pixels.bits_allocated
        or pixels.rows <= 0
        or pixels.columns <= 0
        or pixels.frames_in_file <= 0
    ):
        _refuse(
            "unsupported-pixels",
            "The header's description of the pixels cannot be.",
            met=(
                f"{pixels.rows} x {pixels.columns} x {pixels.frames_in_file}, bits allocated "
                f"{pixels.bits_allocated}, stored {pixels.bits_stored}, high {pixels.high_bit}"
            ),
        )
    frame_bytes(pixels)


def decode_frame(
    data: bytes, pixels: PixelFormat, room: Room | None = None
) -> tuple[Stored, tuple[Finding, ...]]:
    """Stored values (rows, columns) of one frame, and where stream and header disagree.

    Values may lie in ``room``: they are valid until it is used again.
    """
    syntax, room = pixels.transfer_syntax, room or Room()
    if syntax in _JPEG:
        return _decode_stream(data, pixels, _jpeg_stream(data), _jpeg, room)
    if syntax in _JPEG_LS:
        return _decode_stream(data, pixels, _jpeg_stream(data), _jpeg_ls, room)
    if syntax in _JPEG_2000 or syntax in _HTJ2K:
        codestream = _codestream(data)
        stream = _jpeg_2000_stream(codestream)
        if codestream_is_cut(codestream):
            _refuse("truncated-pixels", "The compressed image is shorter than its parts announce.")
        codec = _htj2k if syntax in _HTJ2K else _jpeg_2000
        return _decode_stream(codestream, pixels, stream, codec, room)
    if syntax == RLE:
        data = _rle(data, pixels)
    return native_values(data, pixels, big=syntax == EXPLICIT_BIG), ()


def native_dtype(pixels: PixelFormat, *, big: bool = False) -> np.dtype[np.integer]:
    """The type of one stored word, before masking and sign extension."""
    kind = "i" if pixels.signed else "u"
    return np.dtype(f"{'>' if big else '<'}{kind}{pixels.bits_allocated // 8}")


def native_values(data: bytes | memoryview, pixels: PixelFormat, *, big: bool = False) -> Stored:
    """Words of one native frame as stored values, in this machine's byte order."""
    if len(data) < frame_bytes(pixels):
        _refuse("truncated-pixels", "A frame is shorter than its size demands.")
    count = pixels.rows * pixels.columns
    words = np.frombuffer(data, native_dtype(pixels, big=big), count=count)
    words = words.reshape(pixels.rows, pixels.columns)
    if not words.dtype.isnative:
        words = words.astype(words.dtype.newbyteorder("="))
    return unpacked(words, pixels)


def unpacked(words: Stored, pixels: PixelFormat) -> Stored:
    """Stored values from words whose other bits may hold overlays; sign-extended from HighBit.

    Gives the words themselves where every bit belongs to the value.
    """
    if pixels.bits_stored == pixels.bits_allocated:
        return words
    up = pixels.bits_allocated - 1 - pixels.high_bit
    # In place on a copy: a shift left drops the bits above, the shift right brings the sign.
    values = np.left_shift(words, up) if up else words.copy()
    values >>= pixels.bits_allocated - pixels.bits_stored
    return values


def _decode_stream(
    data: bytes, pixels: PixelFormat, stream: Stream, codec: Codec, room: Room
) -> tuple[Stored, tuple[Finding, ...]]:
    if (stream.rows, stream.columns) != (pixels.rows, pixels.columns) or stream.components != 1:
        _refuse(
            "damaged-pixels",
            "The compressed image is not the one that the header announces.",
            met=f"{stream.rows} x {stream.columns}, {stream.components} components",
            wanted=f"{pixels.rows} x {pixels.columns}, 1 component",
        )
    if _END_OF_IMAGE not in data[-16:]:
        # Decoders fill up what is missing with grey; a cut stream must not pass.
        _refuse("truncated-pixels", "The compressed image ends before its end marker.")
    try:
        values = codec(data, stream, room.words(stream))
    # Each codec has an error class of its own; all derive from these two.
    except (RuntimeError, ValueError) as error:
        _refuse("damaged-pixels", "The compressed image cannot be decoded.", met=str(error))
    if values.shape != (pixels.rows, pixels.columns):
        _refuse("damaged-pixels", "The decoded image has another shape.", met=str(values.shape))
    return _with_sign(values, pixels, stream)


def _with_sign(
    values: Stored, pixels: PixelFormat, stream: Stream
) -> tuple[Stored, tuple[Finding, ...]]:
    """Give the values the sign that header and stream agree on; say where they do not."""
    findings = []
    # Fewer bits than announced hold every value all the same.
    if stream.precision > pixels.bits_stored:
        findings.append(
            Finding(
                "pixel-precision",
                f"header says {pixels.bits_stored} bits, the compressed image has "
                f"{stream.precision}: the image is trusted",
                "warning",
            )
        )
    if stream.signed is not None and stream.signed != pixels.signed:
        findings.append(
            Finding(
                "pixel-sign",
                f"header says {'signed' if pixels.signed else 'unsigned'} pixels, the compressed "
                f"image {'signed' if stream.signed else 'unsigned'} ones: "
                "its bits are read as signed values",
                "warning",
            )
        )
    if pixels.signed and not stream.signed:
        bits = _signed_bits(values, pixels, stream)
        unused = values.dtype.itemsize * 8 - bits
        values = values.view(f"i{values.dtype.itemsize}")
        if unused > 0:
            values <<= unused
            values >>= unused
    return values, tuple(findings)


def _signed_bits(values: Stored, pixels: PixelFormat, stream: Stream) -> int:
    """The bits whose highest is the sign, for two's complement in a stream without signs.

    That is the stream's precision; but where the stream is wider than BitsStored and the bits
    above BitsStored are all clear, the writer cut them off and the sign is at BitsStored.
    """
    if stream.precision > pixels.bits_stored and int(values.max()) < 1 << pixels.bits_stored:
        return pixels.bits_stored
    return stream.precision


def _jpeg(data: bytes, stream: Stream, out: Stored) -> Stored:
    import imagecodecs

    values: Stored = imagecodecs.jpeg8_decode(data, out=out)
    if jpeg_is_cut(
        data,
        values,
        precision=stream.precision,
        progressive=stream.progressive,
        decode=imagecodecs.jpeg8_decode,
    ):
        raise ValueError("the compressed data end before the image does")
    return values


def _jpeg_ls(data: bytes, _stream: Stream, out: Stored) -> Stored:
    import imagecodecs

    values: Stored = imagecodecs.jpegls_decode(data, out=out)
    return values


def _jpeg_2000(data: bytes, _stream: Stream, out: Stored) -> Stored:
    import imagecodecs

    values: Stored = imagecodecs.jpeg2k_decode(data, numthreads=1, out=out)
    return values


def _htj2k(data: bytes, _stream: Stream, out: Stored) -> Stored:
    """Decoded by OpenJPH, twice as fast here as OpenJPEG.

    The codec's wrapper swallows errors in the middle of a stream and gives what it has, top rows
    first: a last row that was not written tells.
    """
    import imagecodecs

    unwritten = _unwritten_row(out[-1].nbytes).view(out.dtype)
    out[-1] = unwritten
    values: Stored = imagecodecs.htj2k_decode(data, out=out)
    if np.array_equal(out[-1], unwritten):
        raise ValueError("OpenJPH stopped before the last row")
    return values


@cache
def _unwritten_row(size: int) -> NDArray[np.uint8]:
    """Bytes that no scan ends in."""
    return np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)


def _rle(data: bytes, pixels: PixelFormat) -> bytes:
    """Words, little endian, of a frame in byte planes (PS3.5, annex G)."""
    import imagecodecs

    size = pixels.bits_allocated // 8
    if len(data) < _RLE_HEADER_BYTES or struct.unpack_from("<I", data)[0] != size:
        _refuse("damaged-pixels", "The RLE frame does not have one segment per byte of a pixel.")
    try:
        words = imagecodecs.dicomrle_decode(data, f"<u{size}")
    except (RuntimeError, ValueError) as error:
        _refuse("damaged-pixels", "The RLE frame cannot be decoded.", met=str(error))
    if len(words) < frame_bytes(pixels):
        _refuse(
            "truncated-pixels",
            "The RLE frame ends too early.",
            met=f"{len(words)} bytes",
            wanted=f"{frame_bytes(pixels)} bytes",
        )
    return bytes(words)


def _jpeg_stream(data: bytes) -> Stream:
    """Size and precision from the start-of-frame segment of JPEG or JPEG-LS."""
    position = 2
    while position + 10 <= len(data):
        if data[position] != 0xFF:
            break
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
        elif marker in _BARE_MARKERS:
            position += 2
        elif marker in _START_OF_FRAME:
            precision, rows, columns, components = struct.unpack_from(">BHHB", data, position + 4)
            progressive = marker in _PROGRESSIVE
            return Stream(rows, columns, precision, components, progressive=progressive)
        elif marker == _START_OF_SCAN:
            break
        else:
            position += 2 + struct.unpack_from(">H", data, position + 2)[0]
    return _refuse("damaged-pixels", "The compressed image has no start-of-frame segment.")


def _codestream(data: bytes) -> bytes:
    """The JPEG 2000 codestream, taken out of a JP2 file where a writer wrapped it in one."""
    start = 0 if data.startswith(_CODESTREAM) else data.find(b"jp2c" + _CODESTREAM) + 4
    if start and start < 8:
        _refuse("damaged-pixels", "The pixel data hold no JPEG 2000 codestream.")
    return data[start:]


def _jpeg_2000_stream(data: bytes) -> Stream:
    """Size, precision and sign from the SIZ segment (T.800, A.5.1)."""
    if len(data) < 45:
        _refuse("truncated-pixels", "The JPEG 2000 codestream ends in its header.")
    right, bottom, left, top = struct.unpack_from(">IIII", data, 8)
    components, depth = struct.unpack_from(">HB", data, 40)
    return Stream(bottom - top, right - left, (depth & 0x7F) + 1, components, bool(depth & 0x80))


def _refuse(code: str, what: str, *, met: str = "", wanted: str = "") -> NoReturn:
    raise CaseRefused(code, what, met=met, wanted=wanted)
