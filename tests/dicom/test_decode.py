"""Sign and precision of compressed streams, by cases worked out bit by bit."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from medtool.core.errors import CaseRefused
from medtool.dicom.decode import decode_frame
from medtool.dicom.series import PixelFormat

VALUES = np.array([[-2000, -1, 0, 1], [1896, 2047, -2048, 7]], dtype=np.int16)


def format_of(syntax: str, shape: tuple[int, ...], *, stored: int, signed: bool) -> PixelFormat:
    return PixelFormat(syntax, shape[0], shape[1], 16, stored, stored - 1, signed)


def decoded(
    encoded: bytes, values: np.ndarray, syntax: str, *, stored: int, signed: bool
) -> tuple[np.ndarray, list[str]]:
    pixels = format_of(syntax, values.shape, stored=stored, signed=signed)
    got, findings = decode_frame(bytes(encoded), pixels)
    return got, [f.code for f in findings]


def jpeg_2000(values: np.ndarray, bits: int) -> bytes:
    encoded: bytes = imagecodecs.jpeg2k_encode(
        values, level=0, codecformat="j2k", reversible=True, bitspersample=bits
    )
    return encoded


def jpeg_lossless(values: np.ndarray, bits: int) -> bytes:
    encoded: bytes = imagecodecs.jpeg8_encode(
        values, lossless=True, predictor=1, bitspersample=bits
    )
    return encoded


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEG2000])
def test_a_signed_stream_under_an_unsigned_header_stays_signed(syntax: str) -> None:
    got, codes = decoded(jpeg_2000(VALUES, 16), VALUES, syntax, stored=16, signed=False)
    np.testing.assert_array_equal(got, VALUES)
    assert codes == ["pixel-sign"]


def test_an_unsigned_stream_under_a_signed_header_is_extended_from_its_own_precision() -> None:
    # 13 bits of two's complement: -2000 is 6192. BitsStored says 16.
    cut = VALUES.view(np.uint16) & 0x1FFF
    assert cut[0, 0] == 6192
    got, codes = decoded(jpeg_2000(cut, 13), VALUES, JPEG2000Lossless, stored=16, signed=True)
    np.testing.assert_array_equal(got, VALUES)
    assert codes == ["pixel-sign"]


@pytest.mark.parametrize("syntax", [JPEGLossless, JPEGLosslessSV1])
def test_twelve_signed_bits_in_a_jpeg(syntax: str) -> None:
    cut = VALUES.view(np.uint16) & 0x0FFF
    got, codes = decoded(jpeg_lossless(cut, 12), VALUES, syntax, stored=12, signed=True)
    np.testing.assert_array_equal(got, VALUES)
    assert codes == []


def test_a_stream_wider_than_bits_stored_keeps_its_values() -> None:
    # Extended to 16 bits by the writer: values that 12 bits do not hold survive.
    wide = VALUES.copy()
    wide[0, 0] = -3024
    raw = wide.view(np.uint16)
    got, codes = decoded(jpeg_lossless(raw, 16), wide, JPEGLosslessSV1, stored=12, signed=True)
    np.testing.assert_array_equal(got, wide)
    assert codes == ["pixel-precision"]


def test_a_wider_stream_that_was_cut_to_bits_stored_is_extended_from_there() -> None:
    cut = VALUES.view(np.uint16) & 0x0FFF
    for syntax, encode in (
        (JPEGLosslessSV1, lambda a: jpeg_lossless(a, 16)),
        (JPEGLSLossless, imagecodecs.jpegls_encode),
    ):
        got, _ = decoded(encode(cut), VALUES, syntax, stored=12, signed=True)
        np.testing.assert_array_equal(got, VALUES)


def test_unsigned_values_stay_unsigned() -> None:
    values = np.array([[0, 40_000], [65_535, 1]], dtype=np.uint16)
    for syntax, encoded in (
        (JPEGLosslessSV1, jpeg_lossless(values, 16)),
        (JPEGLSLossless, imagecodecs.jpegls_encode(values)),
        (JPEG2000Lossless, jpeg_2000(values, 16)),
        (HTJ2KLossless, imagecodecs.htj2k_encode(values, reversible=True)),
    ):
        got, codes = decoded(encoded, values, syntax, stored=16, signed=False)
        np.testing.assert_array_equal(got, values)
        assert codes == []


@pytest.mark.parametrize("syntax", [HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16])
def test_htj2k_by_another_implementation(syntax: str, dtype: type[np.integer]) -> None:
    """OpenJPH beside OpenJPEG."""
    values = np.random.default_rng(0).integers(0, 200, (33, 47)).astype(dtype)
    encoded = imagecodecs.htj2k_encode(values, reversible=True)
    np.testing.assert_array_equal(imagecodecs.jpeg2k_decode(encoded), values)
    bits = values.dtype.itemsize * 8
    pixels = PixelFormat(syntax, 33, 47, bits, bits, bits - 1, values.dtype.kind == "i")
    np.testing.assert_array_equal(decode_frame(bytes(encoded), pixels)[0], values)


def test_a_jp2_file_inside_the_fragment_is_unwrapped() -> None:
    values = VALUES.view(np.uint16) & 0x0FFF
    wrapped = imagecodecs.jpeg2k_encode(values, level=0, codecformat="jp2", reversible=True)
    assert bytes(wrapped[4:8]) == b"jP  "
    got, _ = decoded(wrapped, values, JPEG2000Lossless, stored=12, signed=False)
    np.testing.assert_array_equal(got, values)


def test_uncompressed_values_may_be_encapsulated() -> None:
    syntax = "1.2.840.10008.1.2.1.98"
    got, _ = decoded(VALUES.tobytes(), VALUES, syntax, stored=16, signed=True)
    np.testing.assert_array_equal(got, VALUES)


def test_rle_by_hand() -> None:
    """PackBits, most significant bytes first (PS3.5, G.3): 0x0102 four times, then 3 others."""
    high, low = bytes([0xFD, 0x01]), bytes([0xFD, 0x02])
    header = struct.pack("<16I", 2, 64, 66, *[0] * 13)
    values = np.full((2, 2), 0x0102, dtype=np.uint16)
    got, _ = decoded(header + high + low, values, RLELossless, stored=16, signed=False)
    np.testing.assert_array_equal(got, values)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "damaged-pixels"),
        (struct.pack("<16I", 1, 64, *[0] * 14), "damaged-pixels"),
        (struct.pack("<16I", 2, 64, 66, *[0] * 13) + b"\xfe\x01\xfe\x02", "truncated-pixels"),
    ],
    ids=["nothing", "one segment for two bytes", "too few values"],
)
def test_rle_that_cannot_be_is_refused(data: bytes, code: str) -> None:
    with pytest.raises(CaseRefused) as caught:
        decoded(data, VALUES, RLELossless, stored=16, signed=True)
    assert caught.value.code == code


def encoders() -> dict[str, Callable[[np.ndarray], Any]]:
    return {
        JPEGLosslessSV1: lambda a: jpeg_lossless(a.view(np.uint16), 16),
        JPEGLSLossless: lambda a: imagecodecs.jpegls_encode(a.view(np.uint16)),
        JPEG2000Lossless: lambda a: jpeg_2000(a, 16),
        HTJ2KLossless: lambda a: imagecodecs.htj2k_encode(a, reversible=True),
    }


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    seed=st.integers(0, 10**6),
    syntax=st.sampled_from(sorted(encoders())),
)
def test_every_signed_value_survives_every_lossless_codec(
    shape: tuple[int, int], seed: int, syntax: str
) -> None:
    values = np.random.default_rng(seed).integers(-32768, 32768, shape).astype(np.int16)
    got, codes = decoded(encoders()[syntax](values), values, syntax, stored=16, signed=True)
    np.testing.assert_array_equal(got, values)
    assert codes == []
