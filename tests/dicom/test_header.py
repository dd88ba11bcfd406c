"""The fast header reader says what pydicom says, or leaves the file to pydicom."""

from __future__ import annotations

import io
import os
import struct
import warnings
from pathlib import Path

import pydicom
import pytest
from dicom_builder import build_series, ct_dataset, ramp, write_dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
)

from medtool.core.records import Skipped
from medtool.dicom import header_reader, tags
from medtool.dicom.header import Header
from medtool.dicom.header_pydicom import read_with_pydicom
from medtool.dicom.header_reader import FIRST_BYTES, parse, read_header

TEXTS = tags.WANTED - tags.BINARY - tags.PRESENCE_ONLY - tags.PIXEL_ELEMENTS
# Beyond this the fast reader may stop before it has seen everything.
ALWAYS_READ = [tag for tag in tags.WANTED if 0x00080000 <= tag <= tags.MODALITY_LUT_SEQUENCE]


def with_pydicom(raw: bytes) -> Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pydicom.dcmread(io.BytesIO(raw), stop_before_pixels=True)


def assert_same_bytes(header: Header, dataset: Dataset) -> None:
    """Every wanted element is there or not in both, with the same bytes."""
    for tag in ALWAYS_READ:
        assert (tag in header.raw) == (tag in dataset), hex(tag)
        if tag in header.raw and tag not in tags.PRESENCE_ONLY:
            item = dataset.get_item(tag)
            value = item.value
            if not isinstance(value, bytes):
                # pydicom converts a few elements as soon as it sees them.
                parts = [value or ""] if isinstance(value, str | None) else value
                value = "\\".join(str(part) for part in parts).encode()
            assert header.raw[tag].strip(b" \0") == value.strip(b" \0"), hex(tag)


def assert_same_values(header: Header, dataset: Dataset) -> None:
    """What accessors give equals the values that pydicom converts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for tag in ALWAYS_READ:
            if tag not in dataset or tag in tags.PRESENCE_ONLY:
                continue
            element = dataset[tag]
            value = element.value
            if tag in (tags.PIXEL_PADDING_VALUE, tags.PIXEL_PADDING_RANGE_LIMIT):
                raw = int.from_bytes(header.raw[tag][:2], "little")
                assert raw == int(value) & 0xFFFF
            elif tag in tags.BINARY:
                assert header.word(tag) == (None if value in (None, "") else value)
            elif element.VR == "DS":
                parts = [] if value in (None, "") else [value] if element.VM == 1 else list(value)
                assert header.numbers(tag) == tuple(float(part) for part in parts)
            elif element.VR == "IS" and element.VM <= 1:
                assert header.integer(tag) == (None if value in (None, "") else int(value))
            elif element.VR not in ("SQ", "IS"):
                parts = [value] if isinstance(value, str) else list(value or [])
                single = [part.strip(" \0") for part in header.text(tag).split("\\")]
                assert single == ([str(part).strip(" \0") for part in parts] or [""])


@pytest.mark.real_data
def test_all_real_files(real_data: Path) -> None:
    fast = 0
    for path in sorted(real_data.rglob("*")):
        if not path.is_file():
            continue
        raw = path.read_bytes()
        header = read_header(path)
        if raw[128:132] != b"DICM":
            continue
        if isinstance(header, Skipped):
            pytest.fail(f"{path}: {header}")
        dataset = with_pydicom(raw)
        fast += header.reader == "fast"
        if header.transfer_syntax != ExplicitVRBigEndian:
            assert_same_bytes(header, dataset)
        assert_same_values(header, dataset)
        slow = read_with_pydicom(path, len(raw), raw[:FIRST_BYTES])
        assert isinstance(slow, Header)
        if header.pixel_offset >= 0:
            assert (header.pixel_offset, header.pixel_length) == (
                slow.pixel_offset,
                slow.pixel_length,
            )
        if header.transfer_syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian):
            full = pydicom.dcmread(io.BytesIO(raw))
            if "PixelData" in full:
                assert raw[slow.pixel_offset :][: slow.pixel_length] == full.PixelData
    assert fast > 250


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "syntax"),
    [
        ("CT_headless_no_meta_ACRNEMA.dcm", ImplicitVRLittleEndian),
        ("MR_small_bigendian.dcm", ExplicitVRBigEndian),
        (
            "CTImage_DeflatedExplicitVRLittleEndianTransferSyntax_1.2.840.10008.1.2.1.99.dcm",
            DeflatedExplicitVRLittleEndian,
        ),
    ],
)
def test_unusual_files_are_left_to_pydicom(real_data: Path, name: str, syntax: str) -> None:
    header = read_header(real_data / "ct_encodings" / name)
    assert isinstance(header, Header)
    assert header.reader == "pydicom"
    assert header.transfer_syntax == syntax
    assert header.word(tags.ROWS) in (64, 512)


plain_text = st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters="\\"))
any_text = st.characters(codec="utf-8", exclude_characters="\\")
decimals = st.floats(-1e4, 1e4, allow_nan=False).map(lambda value: f"{value:.6g}")


@st.composite
def datasets(draw: st.DrawFn) -> Dataset:
    """CT headers with odd texts, absent elements, private elements and nested sequences."""
    data = ct_dataset(ramp((4, 6)), draw(plain_text)[:20], "1.2.3", "1.2.4")
    data.ImagePositionPatient = [draw(decimals) for _ in range(3)]
    data.SliceThickness = draw(decimals)
    data.SeriesDescription = draw(st.text(any_text, max_size=20))
    data.SpecificCharacterSet = "ISO_IR 192"
    data.PixelPaddingValue = draw(st.integers(-32768, 32767))
    data["PixelPaddingValue"].VR = "SS"
    for keyword in ("ConvolutionKernel", "KVP", "SOPInstanceUID", "ImageType"):
        if draw(st.booleans()):
            delattr(data, keyword)
    for number in range(draw(st.integers(0, 3))):
        item, inner = Dataset(), Dataset()
        inner.CodeValue, inner.Rows = "x", 7
        item.PurposeOfReferenceCodeSequence = Sequence([inner] * number)
        item.ReferencedSOPInstanceUID = "1.2.3.4"
        sequence = Sequence([item] * draw(st.integers(0, 2)))
        tag = (0x00081140, 0x00082112, 0x00180012)[number]
        data.add_new(tag, "SQ", sequence)
        data[tag].is_undefined_length = draw(st.booleans())
        for one in sequence:
            one.is_undefined_length_sequence_item = draw(st.booleans())
    if draw(st.booleans()):
        block = data.private_block(0x0019, "TEST", create=True)
        block.add_new(1, "OB", b"\1\2" * draw(st.integers(0, 3000)))
    return data


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=datasets(), syntax=st.sampled_from([ExplicitVRLittleEndian, ImplicitVRLittleEndian]))
def test_generated_files(data: Dataset, syntax: str, tmp_path: Path) -> None:
    path = tmp_path / "one"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_dataset(path, data, syntax)
    header = read_header(path)
    assert isinstance(header, Header)
    dataset = with_pydicom(path.read_bytes())
    if header.reader == "fast":
        assert_same_bytes(header, dataset)
    assert_same_values(header, dataset)
    assert header.text(tags.SERIES_DESCRIPTION) == str(dataset.SeriesDescription).strip(" \0")


@pytest.fixture(scope="module")
def plain_files(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("plain")
    files = []
    for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless):
        built = build_series(folder / syntax, (1, 6, 6), transfer_syntax=syntax)
        files.append(built.files[0].read_bytes())
    return files


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    which=st.integers(0, 2),
    changes=st.lists(st.tuples(st.integers(132, 1200), st.integers(0, 255)), max_size=3),
    cut=st.one_of(st.none(), st.integers(132, 1200)),
)
def test_mutated_files(
    plain_files: list[bytes],
    which: int,
    changes: list[tuple[int, int]],
    cut: int | None,
) -> None:
    raw = bytearray(plain_files[which])
    for position, value in changes:
        if position < len(raw):
            raw[position] = value
    mutated = bytes(raw[:cut])
    header = parse(Path("mutated"), len(mutated), mutated[:FIRST_BYTES])
    if header is None:
        return
    assert_same_bytes(header, with_pydicom(mutated))


def test_every_single_byte_of_a_plain_header(plain_files: list[bytes]) -> None:
    """Each byte of an explicit header, replaced by three others."""
    for raw in plain_files[:2]:
        for position in range(132, min(len(raw), 1100)):
            for value in (0x00, 0xFF, raw[position] ^ 0x01):
                mutated = raw[:position] + bytes([value]) + raw[position + 1 :]
                header = parse(Path("mutated"), len(mutated), mutated[:FIRST_BYTES])
                if header is not None:
                    assert_same_bytes(header, with_pydicom(mutated))


def test_what_is_familiar_is_read_alike(
    plain_files: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A header says the same whatever was read before it, and not everything is remembered."""
    familiar: tuple[dict[bytes, tuple[int, int, bool]], ...] = ({}, {})
    monkeypatch.setattr(header_reader, "_familiar", familiar)
    path = Path("a.dcm")
    fresh = [parse(path, len(raw), raw) for raw in plain_files]
    assert all(familiar)
    assert [parse(path, len(raw), raw) for raw in plain_files] == fresh
    for kept in familiar:
        kept.clear()
    monkeypatch.setattr(header_reader, "MOST_FAMILIAR", 3)
    assert [parse(path, len(raw), raw) for raw in plain_files] == fresh
    assert max(map(len, familiar)) == 3
    assert None not in fresh


def test_long_headers_take_a_second_look(tmp_path: Path) -> None:
    data = ct_dataset(ramp((4, 6)), "p", "1.2", "1.3")
    block = data.private_block(0x0009, "TEST", create=True)
    block.add_new(1, "OB", b"\0" * 20_000)
    write_dataset(tmp_path / "one", data)
    header = read_header(tmp_path / "one")
    assert isinstance(header, Header)
    assert header.reader == "fast"
    assert header.word(tags.ROWS) == 4
    assert header.pixel_length == 48


def test_unknown_character_set_does_not_stop_reading(tmp_path: Path) -> None:
    data = ct_dataset(ramp((4, 6)), "p", "1.2", "1.3")
    write_dataset(tmp_path / "one", data)
    raw = (tmp_path / "one").read_bytes()
    raw = raw.replace(b"Head 2.0", b"K\xf6pfe\x1b$)")
    (tmp_path / "one").write_bytes(raw)
    header = read_header(tmp_path / "one")
    assert isinstance(header, Header)
    assert header.reader == "pydicom"
    assert header.text(tags.SERIES_DESCRIPTION).startswith("K")
    assert header.word(tags.ROWS) == 4


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "empty-file"),
        (b"hello, this is a text file\n" * 20, "not-dicom"),
        (os.urandom(64) + b"\0" * 500, "not-dicom"),
        (b"\0" * 128 + b"DICM" + b"\xff" * 300, "broken-header"),
        (bytes.fromhex("3082ffff06092a864886f70d010703") + b"\0" * 600, "encrypted"),
    ],
)
def test_files_that_are_no_images(tmp_path: Path, content: bytes, code: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    result = read_header(path)
    assert isinstance(result, Skipped)
    assert result.code == code


def test_headless_files_are_read_by_force(tmp_path: Path) -> None:
    built = build_series(tmp_path, (1, 6, 6), transfer_syntax=ImplicitVRLittleEndian)
    raw = built.files[0].read_bytes()
    (length,) = struct.unpack_from("<I", raw, 140)
    built.files[0].write_bytes(raw[144 + length :])
    header = read_header(built.files[0])
    assert isinstance(header, Header)
    assert header.transfer_syntax == ImplicitVRLittleEndian
    assert header.numbers(tags.IMAGE_POSITION) == (-10.0, -20.0, 30.0)


def test_missing_file_is_said(tmp_path: Path) -> None:
    result = read_header(tmp_path / "nothing")
    assert isinstance(result, Skipped)
    assert result.code == "unreadable"
