"""Streams that were cut and closed with an end marker; whole ones that only look like it."""

import struct
from pathlib import Path

import imagecodecs
import numpy as np
import pytest

from medtool.core.errors import CaseRefused
from medtool.dicom.cut_streams import codestream_is_cut
from medtool.dicom.decode import decode_frame
from medtool.dicom.frames import open_frames
from medtool.dicom.intake import read_images
from medtool.dicom.series import PixelFormat

END = b"\xff\xd9"
JPEG, LOSSLESS = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.70"
# Of the whole stream; the last row alone may be lost unseen.
SHARES = (0.02, 0.3, 0.5, 0.8, 0.95, 0.99)


def _format(image, syntax: str) -> PixelFormat:
    bits = image.dtype.itemsize * 8
    return PixelFormat(syntax, *image.shape, bits, bits, bits - 1, signed=False)


@pytest.mark.real_data
def test_every_compressed_file_of_ct_is_refused_when_cut(real_data: Path) -> None:
    tried = []
    for path in sorted((real_data / "ct_encodings").iterdir()):
        images = read_images(path) if path.suffix not in (".md", ".json") else None
        if not isinstance(images, list) or ".1.2.4." not in images[0].plane.pixels.transfer_syntax:
            continue
        pixels = images[0].plane.pixels
        try:
            whole = open_frames(path, pixels).frame(0)
            decode_frame(whole, pixels)
        except CaseRefused:
            continue
        for share in SHARES:
            with pytest.raises(CaseRefused) as caught:
                decode_frame(whole[: int(share * len(whole))] + END, pixels)
            assert caught.value.code in {"truncated-pixels", "damaged-pixels"}, (path.name, share)
        tried.append(pixels.transfer_syntax)
    assert {syntax.rsplit(".", 1)[1] for syntax in tried} >= {
        "50", "51", "53", "55", "57", "70", "80", "81", "90", "91", "202",
    }  # fmt: skip


@pytest.mark.parametrize("syntax", [JPEG, LOSSLESS])
def test_an_image_of_middle_grey_is_not_taken_for_a_cut_one(syntax: str) -> None:
    # What libjpeg fills up with, here measured: 2 to the power of (bits - 1).
    image = np.full((24, 24), 128, np.uint8)
    stream = imagecodecs.jpeg8_encode(image, lossless=syntax == LOSSLESS, level=95)
    np.testing.assert_array_equal(decode_frame(stream, _format(image, syntax))[0], image)
    # The same with half of the picture lost: unseen only where nothing is missing to see.
    image[:12] = np.random.default_rng(0).integers(0, 256, (12, 24), dtype=np.uint8)
    stream = imagecodecs.jpeg8_encode(image, lossless=syntax == LOSSLESS, level=95)
    decode_frame(stream, _format(image, syntax))
    with pytest.raises(CaseRefused, match="cannot be decoded"):
        decode_frame(stream[: len(stream) // 2] + END, _format(image, syntax))


def _codestream(*parts: tuple[int, int, int], stated: int | None = None) -> bytes:
    """SOC, one segment of the main header with SOT's bytes inside, and (tile, number, count)."""
    head = b"\xff\x4f" + b"\xff\x64\x00\x06\xff\x90ab"
    body = b"".join(
        struct.pack(">2sHHIBB", b"\xff\x90", 10, tile, 20 if stated is None else stated, *which)
        + b"12345678"
        for tile, *which in parts
    )
    return head + body + END


def test_tile_parts_that_are_all_there() -> None:
    assert not codestream_is_cut(_codestream((0, 0, 1)))
    assert not codestream_is_cut(_codestream((0, 0, 0), (0, 1, 2), (1, 0, 1)))
    # Length 0: it reaches to the end, wherever that is.
    assert not codestream_is_cut(_codestream((0, 0, 1), stated=0))


def test_tile_parts_that_are_missing() -> None:
    assert codestream_is_cut(_codestream((0, 0, 1))[:-6] + END)
    # Cut between two parts: the second of three is the last one there.
    assert codestream_is_cut(_codestream((0, 0, 3), (0, 1, 3)))
