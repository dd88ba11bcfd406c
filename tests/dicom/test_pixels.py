"""From stored values to HU: bits, padding, rescale, LUT. Expected values are worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import dicom_builder as build
import numpy as np
import pytest
import series_by_hand
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, RLELossless

from medtool.core.errors import CaseRefused
from medtool.dicom.decode import unpacked
from medtool.dicom.pixels import AIR_HU, measure, padding_range, stored_values
from medtool.dicom.series import PixelFormat, Plane
from medtool.dicom.volume import read_volume


def format_of(**changes: Any) -> PixelFormat:
    return replace(PixelFormat(ExplicitVRLittleEndian, 1, 4, 16, 16, 15, True), **changes)


def plane_of(path: Path = Path("none.dcm"), **changes: Any) -> Plane:
    return replace(Plane(path, 0, "1.2", 1, (0.0, 0.0, 0.0), 0.0, format_of()), **changes)


def hu_of(stored: list[list[int]], dtype: str = "i2", *, is_ct: bool = True, **changes: Any) -> Any:
    values = np.array(stored, dtype=dtype)
    pixels = format_of(
        rows=values.shape[0],
        columns=values.shape[1],
        signed=dtype.startswith("i"),
        bits_allocated=values.dtype.itemsize * 8,
        bits_stored=values.dtype.itemsize * 8,
        high_bit=values.dtype.itemsize * 8 - 1,
    )
    out = np.empty(values.shape, dtype=np.float32)
    measured = measure(plane_of(pixels=pixels, **changes), values, out, is_ct=is_ct)
    return out, [f.code for f in measured.findings]


def test_overlay_bits_above_the_value_are_dropped() -> None:
    # 12 bits stored, an overlay in bit 12: 0x1FFF is 0xFFF with the overlay on.
    words = np.array([[0x0000, 0x0FFF, 0x1FFF, 0x1001]], dtype=np.uint16)
    pixels = format_of(bits_stored=12, high_bit=11, signed=False)
    assert unpacked(words, pixels).tolist() == [[0, 4095, 4095, 1]]


def test_the_sign_is_extended_from_the_high_bit() -> None:
    # 12 bits, two's complement, upper bits clear or set: 0xFFF is -1, 0x800 is -2048.
    words = np.array([[0x0FFF, 0x0800, 0x07FF, 0xFFFF]], dtype=np.uint16).view(np.int16)
    assert unpacked(words, format_of(bits_stored=12, high_bit=11)).tolist() == [
        [-1, -2048, 2047, -1]
    ]


def test_values_in_the_upper_bits_of_a_word_are_moved_down() -> None:
    # HighBit 15 with 12 bits stored: the value begins at bit 4.
    words = np.array([[0x0010, 0xFFF0, 0x8000, 0x001F]], dtype=np.uint16)
    unsigned = format_of(bits_stored=12, high_bit=15, signed=False)
    assert unpacked(words, unsigned).tolist() == [[1, 4095, 2048, 1]]
    signed = format_of(bits_stored=12, high_bit=15)
    assert unpacked(words.view(np.int16), signed).tolist() == [[1, -1, -2048, 1]]


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16])
def test_stored_values_of_files_with_fewer_bits_than_words(
    tmp_path: Path, syntax: str, dtype: type[np.integer]
) -> None:
    bits = np.dtype(dtype).itemsize * 8
    stored_bits = bits - 4
    low, high = (-(1 << stored_bits - 1), (1 << stored_bits - 1) - 1)
    if np.dtype(dtype).kind == "u":
        low, high = 0, (1 << stored_bits) - 1
    values = np.random.default_rng(0).integers(low, high + 1, (6, 7)).astype(dtype)
    overlay = np.random.default_rng(1).integers(0, 16, (6, 7)).astype(f"u{bits // 8}")
    raw = values.view(f"u{bits // 8}") & ((1 << stored_bits) - 1) | overlay << stored_bits
    data = build.ct_dataset(raw.view(dtype), "p", "1.2", "1.3")
    data.BitsStored, data.HighBit = stored_bits, stored_bits - 1
    if bits == 8:
        # As bytes, not as words, whose halves would be swapped in a big-endian file.
        data["PixelData"].VR = "OB"
    path = tmp_path / "a.dcm"
    build.write_dataset(path, data, syntax)
    np.testing.assert_array_equal(stored_values(series_by_hand.plane(path)), values)


def test_thirty_two_bits(tmp_path: Path) -> None:
    values = np.array([[-100_000, 7], [100_000, -1]], dtype=np.int32)
    data = build.ct_dataset(np.zeros((2, 2), dtype=np.int16), "p", "1.2", "1.3")
    data.BitsAllocated, data.BitsStored, data.HighBit = 32, 32, 31
    data.PixelData = values.astype("<i4").tobytes()
    path = tmp_path / "a.dcm"
    build.write_dataset(path, data)
    np.testing.assert_array_equal(stored_values(series_by_hand.plane(path)), values)


def test_monochrome1_changes_no_measurement(tmp_path: Path) -> None:
    stored = np.arange(12, dtype=np.int16).reshape(3, 4)
    data = build.ct_dataset(stored, "p", "1.2", "1.3")
    data.PhotometricInterpretation = "MONOCHROME1"
    path = tmp_path / "a.dcm"
    build.write_dataset(path, data)
    np.testing.assert_array_equal(stored_values(series_by_hand.plane(path)), stored)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"photometric": "RGB", "samples": 3}, "unsupported-pixels"),
        ({"photometric": "PALETTE COLOR"}, "unsupported-pixels"),
        ({"bits_allocated": 12}, "unsupported-pixels"),
        ({"bits_stored": 17}, "unsupported-pixels"),
        ({"high_bit": 3}, "unsupported-pixels"),
        ({"rows": 0}, "unsupported-pixels"),
        ({"transfer_syntax": "1.2.840.10008.1.2.4.100"}, "unsupported-syntax"),
        ({"transfer_syntax": "1.2.840.10008.1.2.4.94"}, "unsupported-syntax"),
    ],
)
def test_what_is_no_plane_of_measurements_is_refused(changes: dict[str, Any], code: str) -> None:
    with pytest.raises(CaseRefused) as caught:
        stored_values(plane_of(pixels=format_of(**changes)))
    assert caught.value.code == code


def test_slope_and_intercept_are_those_of_the_plane() -> None:
    assert hu_of([[0, 1, 10, -5]], slope=2.0, intercept=-100.0)[0].tolist() == [
        [-100.0, -98.0, -80.0, -110.0]
    ]
    assert hu_of([[0, 1024, 2000, 1]], "u2", intercept=-1024.0)[0].tolist() == [
        [-1024.0, 0.0, 976.0, -1023.0]
    ]


@given(
    st.floats(1e-3, 50.0),
    st.floats(-5000.0, 5000.0),
    st.lists(st.integers(-2000, 30_000), min_size=1, max_size=20),
)
def test_hu_are_rounded_once(slope: float, intercept: float, stored: list[int]) -> None:
    """Not slope and intercept rounded first: the nearest float32 of the exact value."""
    wanted = [np.float32(float(v) * slope + intercept) for v in stored]
    got = hu_of([stored], slope=slope, intercept=intercept, is_ct=False)[0]
    assert got[0].tolist() == [float(v) for v in wanted]


@pytest.mark.parametrize(
    ("slope", "intercept"),
    [(float("nan"), 0.0), (1.0, float("nan")), (float("inf"), 0.0), (0.0, -1024.0)],
)
def test_a_rescale_that_gives_no_values_is_refused(slope: float, intercept: float) -> None:
    with pytest.raises(CaseRefused) as caught:
        hu_of([[0, 1]], slope=slope, intercept=intercept)
    assert caught.value.code == "invalid-rescale"


def test_padding_is_found_before_rescale_and_becomes_air() -> None:
    # GE: -2000 stored, intercept -1024, would be -3024 HU.
    hu, codes = hu_of(
        [[-2000, 1064, -2000, 0]], intercept=-1024.0, padding_low=-2000, padding_high=-2000
    )
    assert hu.tolist() == [[AIR_HU, 40.0, AIR_HU, -1024.0]]
    assert codes == []


@pytest.mark.parametrize("ends", [(-2000, -1500), (-1500, -2000)])
def test_a_padding_range_counts_in_either_order(ends: tuple[int, int]) -> None:
    hu, _ = hu_of([[-1999, -1500, -1499, 50]], padding_low=ends[0], padding_high=ends[1])
    assert hu.tolist() == [[AIR_HU, AIR_HU, -1499.0, 50.0]]


def test_padding_is_zero_where_values_are_no_hu() -> None:
    hu, _ = hu_of([[7, 100]], is_ct=False, padding_low=7, padding_high=7, slope=3.0)
    assert hu.tolist() == [[0.0, 300.0]]


def test_the_sign_of_padding_is_that_of_the_pixels() -> None:
    # 63536 = 65536 - 2000: what implicit VR makes of -2000.
    assert padding_range(plane_of(padding_low=63536, padding_high=63536)) == (-2000, -2000)
    unsigned = format_of(signed=False)
    assert padding_range(plane_of(pixels=unsigned, padding_low=-2000)) == (63536, 63536)
    assert padding_range(plane_of(padding_low=None)) is None
    hu, _ = hu_of([[-2000, 1064]], intercept=-1024.0, padding_low=63536, padding_high=63536)
    assert hu.tolist() == [[AIR_HU, 40.0]]


def test_padding_that_is_air_anyway_is_harmless() -> None:
    hu, codes = hu_of([[0, 1064]], "u2", intercept=-1024.0, padding_low=0, padding_high=0)
    assert (hu.tolist(), codes) == ([[-1024.0, 40.0]], [])


def test_a_padding_value_inside_the_body_is_left_there() -> None:
    # Padding 0 with intercept 0 is water as well: only what reaches the border is outside.
    stored = [
        [0, 0, 0, 0, 0],
        [0, 40, 40, 40, 0],
        [0, 40, 0, 40, 0],
        [0, 40, 40, 40, 0],
        [0, 0, 0, 0, 0],
    ]
    hu, codes = hu_of(stored, padding_low=0, padding_high=0)
    assert codes == ["padding-in-tissue"]
    assert hu[2].tolist() == [AIR_HU, 40.0, 0.0, 40.0, AIR_HU]
    assert (hu == AIR_HU).sum() == 16


def test_values_that_no_measurement_gives_are_padding_and_said() -> None:
    # -2000 stored, intercept -1024, but the tag declares -32768 (seen in ct_encodings).
    hu, codes = hu_of([[-2000, 1064]], intercept=-1024.0, padding_low=-32768)
    assert (hu.tolist(), codes) == ([[AIR_HU, 40.0]], ["undeclared-padding"])
    hu, codes = hu_of([[3000, -40]], slope=-1.0)
    assert (hu.tolist(), codes) == ([[AIR_HU, 40.0]], ["undeclared-padding"])
    # Noise in air may fall below -1024 HU: it stays.
    assert hu_of([[-1300, 0]])[0].tolist() == [[-1300.0, 0.0]]


def test_a_modality_lut_replaces_slope_and_intercept(tmp_path: Path) -> None:
    data = build.ct_dataset(np.array([[-3, -2, -1, 5]], dtype=np.int16), "p", "1.2", "1.3")
    lut = Dataset()
    # Three entries; -2 is the first one; values below and above take the ends (PS3.3 C.11.1.1.1).
    lut.add_new("LUTDescriptor", "SS", [3, -2, 16])
    lut.ModalityLUTType = "HU"
    lut.add_new("LUTData", "US", [100, 200, 300])
    data.ModalityLUTSequence = [lut]
    data.RescaleSlope, data.RescaleIntercept = "7", "7"
    path = tmp_path / "a.dcm"
    build.write_dataset(path, data)
    plane = series_by_hand.plane(path)
    assert plane.has_modality_lut
    out = np.empty((1, 4), dtype=np.float32)
    measure(plane, stored_values(plane), out, is_ct=True)
    assert out.tolist() == [[100.0, 100.0, 200.0, 300.0]]


def test_a_modality_lut_that_is_none_is_refused(tmp_path: Path) -> None:
    data = build.ct_dataset(np.zeros((1, 4), dtype=np.int16), "p", "1.2", "1.3")
    lut = Dataset()
    lut.add_new("LUTDescriptor", "SS", [3, -2, 16])
    data.ModalityLUTSequence = [lut]
    path = tmp_path / "a.dcm"
    build.write_dataset(path, data)
    plane = series_by_hand.plane(path)
    with pytest.raises(CaseRefused) as caught:
        measure(plane, stored_values(plane), np.empty((1, 4), dtype=np.float32), is_ct=True)
    assert caught.value.code == "invalid-rescale"


def test_padding_written_into_whole_words_of_fewer_stored_bits_becomes_air(tmp_path: Path) -> None:
    # 12 of 16 bits stored, padding 63536 = 0xF830: masked to 12 bits it is 0x830 = 2096, which
    # would be bone of 1072 HU. The same value inside the body is a measurement and stays.
    words = np.full((3, 12, 12), 1064, dtype=np.uint16)
    words[:, :2] = 63536
    words[:, 6, 6] = 2096
    tags = {"BitsStored": 12, "HighBit": 11, "PixelPaddingValue": 63536}
    series = series_by_hand.series(build.build_series(tmp_path, words, tags=tags).files)
    volume = read_volume(series)
    assert np.unique(volume.array[:, :2]).tolist() == [AIR_HU]
    assert volume.array[:, 6, 6].tolist() == [1072.0] * 3
    assert np.unique(volume.array[:, 7:]).tolist() == [40.0]
    assert "padding-in-tissue" in [finding.code for finding in volume.findings]
