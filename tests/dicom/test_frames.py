"""Where frames lie: offset tables, fragments, odd data sets, and what must be refused."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace
from pathlib import Path

import dicom_builder as build
import imagecodecs
import numpy as np
import pydicom
import pytest
import series_by_hand
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from medtool.core.errors import CaseRefused
from medtool.dicom import frames, scan
from medtool.dicom.decode import decode_frame
from medtool.dicom.frames import open_frames
from medtool.dicom.header import Header
from medtool.dicom.header_reader import read_header
from medtool.dicom.pixels import PlaneReader, stored_values
from medtool.dicom.plain import plain_frame

SHAPE = (3, 9, 11)
EVERY_SYNTAX = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
    RLELossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEG2000Lossless,
    HTJ2KLossless,
)


def noise(shape: tuple[int, ...] = SHAPE, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1000, 2000, shape).astype(np.int16)


def frames_of(path: Path) -> np.ndarray:
    pixels = series_by_hand.plane(path).pixels
    reader = PlaneReader(bytearray())
    return np.stack(
        [
            reader.stored(series_by_hand.plane(path, k))[0].copy()
            for k in range(pixels.frames_in_file)
        ]
    )


def write_encapsulated(path: Path, stored: np.ndarray, pixel_data: bytes, syntax: str) -> None:
    """A file whose encapsulated bytes are given."""
    data = build.ct_dataset(stored, "p", "1.2", "1.3")
    build.write_dataset(path, data, ExplicitVRLittleEndian)
    data = pydicom.dcmread(path)
    data.PixelData = pixel_data
    data["PixelData"].VR = "OB"
    data["PixelData"].is_undefined_length = True
    data.file_meta.TransferSyntaxUID = syntax
    data.save_as(path)


@pytest.mark.parametrize("syntax", EVERY_SYNTAX, ids=lambda uid: uid.name)
@pytest.mark.parametrize("shape", [SHAPE, (1, 16, 16), (1, 7, 13)], ids=str)
def test_every_syntax_gives_back_what_was_written(
    tmp_path: Path, syntax: str, shape: tuple[int, int, int]
) -> None:
    stored = noise(shape)
    path = tmp_path / "a.dcm"
    values = stored if shape[0] > 1 else stored[0]
    build.write_dataset(path, build.ct_dataset(values, "p", "1.2", "1.3"), syntax)
    np.testing.assert_array_equal(frames_of(path), stored)


@pytest.mark.parametrize("table", [True, False], ids=["offset table", "empty table"])
@pytest.mark.parametrize("fragments", [1, 4])
def test_frames_of_several_fragments(tmp_path: Path, table: bool, fragments: int) -> None:
    stored = noise((3, 32, 32))
    encoded = [imagecodecs.jpegls_encode(np.ascontiguousarray(f.view(np.uint16))) for f in stored]
    path = tmp_path / "a.dcm"
    data = encapsulate(encoded, fragments_per_frame=fragments, has_bot=table)
    write_encapsulated(path, stored, data, JPEGLSLossless)
    np.testing.assert_array_equal(frames_of(path), stored)


def test_extended_offset_table(tmp_path: Path) -> None:
    stored = noise((3, 16, 16))
    encoded = [bytes(imagecodecs.jpegls_encode(f.view(np.uint16))) for f in stored]
    value, offsets, lengths = encapsulate_extended(encoded)
    path = tmp_path / "a.dcm"
    write_encapsulated(path, stored, value, JPEGLSLossless)
    data = pydicom.dcmread(path)
    data.ExtendedOffsetTable, data.ExtendedOffsetTableLengths = offsets, lengths
    data.save_as(path)
    np.testing.assert_array_equal(frames_of(path), stored)


def start_seen(path: Path) -> int:
    """Where the header reader saw fragments begin."""
    header = read_header(path)
    assert isinstance(header, Header)
    return header.fragments_start


def test_one_frame_where_the_header_reader_saw_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = noise((16, 16))
    path = tmp_path / "a.dcm"
    value = encapsulate([bytes(imagecodecs.jpegls_encode(stored.view(np.uint16)))])
    write_encapsulated(path, stored, value, JPEGLSLossless)
    pixels = series_by_hand.pixel_format(series_by_hand.read_header(path))
    whole = open_frames(path, pixels)
    start = start_seen(path)
    assert start == path.read_bytes().index(value)
    # A file that is another one by now is searched.
    for wrong in (start - 2, start + 2, 1, 10**9, -1):
        assert open_frames(path, pixels, wrong).spans == whole.spans
    (series,) = scan([path]).series
    assert series.planes[0].fragments_start == start

    def searched(*_: object, **__: object) -> None:
        raise AssertionError("the file was searched")

    monkeypatch.setattr(frames, "find_pixel_data", searched)
    assert open_frames(path, pixels, start).spans == whole.spans
    found, _ = PlaneReader(bytearray()).stored(series.planes[0])
    np.testing.assert_array_equal(found, stored)
    with pytest.raises(AssertionError, match="searched"):
        open_frames(path, pixels, start - 2)


@pytest.mark.parametrize(
    "tables",
    [
        {"ExtendedOffsetTable": 0, "ExtendedOffsetTableLengths": -1},
        {"ExtendedOffsetTable": 0},
        {"ExtendedOffsetTable": 6},
    ],
    ids=["both", "offsets alone", "an offset to nowhere"],
)
def test_a_table_of_frames_is_looked_at_before_the_fragments(
    tmp_path: Path, tables: dict[str, int]
) -> None:
    """What is wrong with one is found, and a length in it cuts off what pads the fragment."""
    stored = noise((16, 16))
    path = tmp_path / "a.dcm"
    encoded = bytes(imagecodecs.jpegls_encode(stored.view(np.uint16)))
    encoded += b"\0" * (len(encoded) % 2)
    write_encapsulated(path, stored, encapsulate([encoded], has_bot=False), JPEGLSLossless)
    assert start_seen(path) > 0
    data = pydicom.dcmread(path)
    for name, number in tables.items():
        setattr(data, name, struct.pack("<Q", number if number >= 0 else len(encoded) + number))
    data.save_as(path)
    assert start_seen(path) == -1
    pixels = series_by_hand.pixel_format(series_by_hand.read_header(path))
    if tables["ExtendedOffsetTable"]:
        with pytest.raises(CaseRefused) as caught:
            open_frames(path, pixels, start_seen(path))
        assert caught.value.code == "damaged-pixels"
        return
    cut = len(tables) - 1
    assert len(open_frames(path, pixels, start_seen(path)).frame(0)) == len(encoded) - cut


def test_fragments_are_looked_for_in_what_pydicom_had_to_read(tmp_path: Path) -> None:
    stored = noise((16, 16))
    path = tmp_path / "a.dcm"
    value = encapsulate([bytes(imagecodecs.jpegls_encode(stored.view(np.uint16)))])
    write_encapsulated(path, stored, value, JPEGLSLossless)
    raw = path.read_bytes()
    # An element out of order: behind it the file may hold other pixel data.
    first = raw.index(b"\x08\x00\x60\x00CS")
    header = raw[first : first + 10]
    at = raw.index(b"\x28\x00\x02\x00US")
    path.write_bytes(raw[:at] + header + raw[at:])
    read = read_header(path)
    assert isinstance(read, Header)
    assert (read.reader, read.fragments_start) == ("pydicom", -1)


def test_frames_that_cannot_be_told_apart_are_refused(tmp_path: Path) -> None:
    # RLE has no end marker, and one frame may not have several fragments (PS3.5, A.4.2).
    stored = noise((2, 16, 16))
    path = tmp_path / "a.dcm"
    build.write_dataset(path, build.ct_dataset(stored, "p", "1.2", "1.3"), RLELossless)
    encoded = list(
        pydicom.encaps.generate_frames(pydicom.dcmread(path).PixelData, number_of_frames=2)
    )
    write_encapsulated(
        path, stored, encapsulate(encoded, fragments_per_frame=2, has_bot=False), RLELossless
    )
    with pytest.raises(CaseRefused) as caught:
        frames_of(path)
    assert caught.value.code == "damaged-pixels"


def test_pixels_of_an_icon_are_not_taken_for_the_image(tmp_path: Path) -> None:
    stored = noise((8, 8))
    data = build.ct_dataset(stored, "p", "1.2", "1.3")
    icon = Dataset()
    build.set_pixels(icon, noise((8, 8), seed=9))
    data.IconImageSequence = [icon]
    for undefined in (False, True):
        for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGLSLossless):
            data = build.ct_dataset(stored, "p", "1.2", "1.3")
            data.IconImageSequence = [icon]
            data["IconImageSequence"].is_undefined_length = undefined
            path = tmp_path / f"{undefined}{syntax}.dcm"
            build.write_dataset(path, data, syntax)
            np.testing.assert_array_equal(frames_of(path)[0], stored)


def test_what_follows_the_pixels_does_no_harm(tmp_path: Path) -> None:
    stored = noise((8, 8))
    path = tmp_path / "a.dcm"
    build.write_dataset(path, build.ct_dataset(stored, "p", "1.2", "1.3"))
    padding = struct.pack("<HH2sHI", 0xFFFC, 0xFFFC, b"OB", 0, 10) + bytes(10)
    path.write_bytes(path.read_bytes() + padding)
    plane = series_by_hand.plane(path)
    assert plain_frame(path, plane.pixels, bytearray()) is None
    np.testing.assert_array_equal(stored_values(plane), stored)


def test_the_fast_path_takes_plain_files_only(tmp_path: Path) -> None:
    stored = noise((8, 8))
    taken = {}
    for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian):
        path = tmp_path / "a.dcm"
        build.write_dataset(path, build.ct_dataset(stored, "p", "1.2", "1.3"), syntax)
        pixels = series_by_hand.plane(path).pixels
        taken[syntax] = plain_frame(path, pixels, bytearray()) is not None
        # A header that says fewer rows than there are pixels is no plain file.
        assert plain_frame(path, replace(pixels, rows=7), bytearray()) is None
    assert list(taken.values()) == [True, True, False]


def test_a_headless_file_is_read_as_implicit(tmp_path: Path) -> None:
    stored = noise((8, 8))
    path = tmp_path / "a.dcm"
    data = build.ct_dataset(stored, "p", "1.2", "1.3")
    build.write_dataset(path, data, ImplicitVRLittleEndian)
    raw = path.read_bytes()
    start = raw.index(b"\x08\x00\x08\x00")
    path.write_bytes(raw[start:])
    for syntax in (ImplicitVRLittleEndian, ""):
        plane = series_by_hand.plane(path)
        plane = replace(plane, pixels=replace(plane.pixels, transfer_syntax=syntax))
        np.testing.assert_array_equal(stored_values(plane), stored)


def test_a_data_set_that_belies_its_syntax_goes_to_pydicom(tmp_path: Path) -> None:
    # Seen in archives: the file meta says explicit, the data set is implicit.
    stored = noise((8, 8))
    explicit, implicit = tmp_path / "e.dcm", tmp_path / "i.dcm"
    data = build.ct_dataset(stored, "p", "1.2", "1.3")
    build.write_dataset(explicit, data, ExplicitVRLittleEndian)
    build.write_dataset(implicit, data, ImplicitVRLittleEndian)
    head = explicit.read_bytes()
    body = implicit.read_bytes()
    first = b"\x08\x00\x08\x00"
    wrong = tmp_path / "wrong.dcm"
    # Something behind the pixels keeps the fast path away.
    tail = struct.pack("<HHI", 0xFFFC, 0xFFFC, 4) + bytes(4)
    wrong.write_bytes(head[: head.index(first)] + body[body.index(first) :] + tail)
    pixels = replace(series_by_hand.plane(implicit).pixels, transfer_syntax=ExplicitVRLittleEndian)
    plane = replace(series_by_hand.plane(implicit), path=wrong, pixels=pixels)
    np.testing.assert_array_equal(stored_values(plane), stored)


@pytest.mark.parametrize("odd", [False, True])
def test_eight_bit_big_endian_words_are_put_in_order(tmp_path: Path, odd: bool) -> None:
    stored = np.arange(5 * (7 if odd else 6), dtype=np.uint8).reshape(5, -1)
    data = build.ct_dataset(stored, "p", "1.2", "1.3")
    raw = np.frombuffer(data.PixelData, dtype=np.uint8)
    data.PixelData = raw.reshape(-1, 2)[:, ::-1].tobytes()
    path = tmp_path / "a.dcm"
    build.write_dataset(path, data, ExplicitVRBigEndian)
    np.testing.assert_array_equal(frames_of(path)[0], stored)


@pytest.mark.parametrize("syntax", EVERY_SYNTAX, ids=lambda uid: uid.name)
def test_a_file_cut_anywhere_in_its_pixels_is_refused(tmp_path: Path, syntax: str) -> None:
    stored = noise((1, 24, 24))[0]
    whole = tmp_path / "whole.dcm"
    build.write_dataset(whole, build.ct_dataset(stored, "p", "1.2", "1.3"), syntax)
    plane = series_by_hand.plane(whole)
    raw = whole.read_bytes()
    cut = tmp_path / "cut.dcm"
    lengths = range(len(raw) - 900, len(raw) - 16, 37) if len(raw) > 1500 else ()
    for length in lengths:
        cut.write_bytes(raw[:length])
        with pytest.raises(CaseRefused) as caught:
            stored_values(replace(plane, path=cut))
        assert caught.value.code in {"truncated-pixels", "damaged-pixels", "no-pixel-data"}
        assert caught.value.where == str(cut)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("syntax", "end"),
    [
        (JPEGLosslessSV1, b""),
        (HTJ2KLossless, b""),
        (JPEGLSLossless, b""),
        (JPEG2000Lossless, b""),
        # An end marker where the stream was cut: two decoders notice, for two we look ourselves.
        (JPEGLosslessSV1, b"\xff\xd9"),
        (HTJ2KLossless, b"\xff\xd9"),
        (JPEGLSLossless, b"\xff\xd9"),
        (JPEG2000Lossless, b"\xff\xd9"),
    ],
)
def test_a_stream_cut_inside_a_whole_file_is_refused(
    tmp_path: Path, syntax: str, end: bytes
) -> None:
    # Decoders fill what is missing with grey and say nothing.
    stored = noise((1, 32, 32))
    path = tmp_path / "a.dcm"
    build.write_dataset(path, build.ct_dataset(stored[0], "p", "1.2", "1.3"), syntax)
    frame = next(pydicom.encaps.generate_frames(pydicom.dcmread(path).PixelData))
    write_encapsulated(path, stored[0], encapsulate([frame[: len(frame) * 2 // 3] + end]), syntax)
    with pytest.raises(CaseRefused) as caught:
        frames_of(path)
    assert caught.value.code in {"truncated-pixels", "damaged-pixels"}


def test_a_stream_larger_than_its_header_says_is_refused(tmp_path: Path) -> None:
    small, large = noise((1, 8, 8)), np.zeros((512, 512), dtype=np.int16)
    for syntax, encoded in (
        (JPEG2000Lossless, imagecodecs.jpeg2k_encode(large, level=0, codecformat="j2k")),
        (JPEGLSLossless, imagecodecs.jpegls_encode(large.view(np.uint16))),
        (JPEGLosslessSV1, imagecodecs.ljpeg_encode(large.view(np.uint16), bitspersample=16)),
    ):
        path = tmp_path / f"{syntax}.dcm"
        write_encapsulated(path, small[0], encapsulate([bytes(encoded)]), syntax)
        with pytest.raises(CaseRefused, match="not the one that the header announces"):
            frames_of(path)


def test_a_plane_beyond_every_scanner_is_refused_before_memory_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    build.write_dataset(path, build.ct_dataset(noise((8, 8)), "p", "1.2", "1.3"))
    plane = series_by_hand.plane(path)
    huge = replace(plane, pixels=replace(plane.pixels, rows=65535, columns=65535))
    with pytest.raises(CaseRefused) as caught:
        stored_values(huge)
    assert caught.value.code == "too-large"


def test_a_data_set_that_inflates_without_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medtool.dicom.frames.MAX_HEADER_BYTES", 2**16)
    path = tmp_path / "a.dcm"
    data = build.ct_dataset(noise((8, 8)), "p", "1.2", "1.3")
    build.write_dataset(path, data, DeflatedExplicitVRLittleEndian)
    plane = series_by_hand.plane(path)
    raw = path.read_bytes()
    meta_length = struct.unpack_from("<I", raw, 140)[0]
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    bomb = compressor.compress(bytes(2**22)) + compressor.flush()
    path.write_bytes(raw[: 144 + meta_length] + bomb)
    with pytest.raises(CaseRefused) as caught:
        stored_values(plane)
    assert caught.value.code == "too-large"


def test_files_without_pixels_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    data = build.ct_dataset(noise((8, 8)), "p", "1.2", "1.3")
    build.write_dataset(path, data)
    plane = series_by_hand.plane(path)
    del data.PixelData
    build.write_dataset(path, data)
    with pytest.raises(CaseRefused) as caught:
        stored_values(plane)
    assert caught.value.code == "no-pixel-data"
    path.write_bytes(b"")
    with pytest.raises(CaseRefused) as caught:
        stored_values(plane)
    assert caught.value.code == "truncated-pixels"
    path.unlink()
    with pytest.raises(CaseRefused) as caught:
        stored_values(plane)
    assert (caught.value.code, caught.value.where) == ("unreadable", str(path))


# imagecodecs prints errors of OpenJPH that it cannot raise.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    position=st.integers(0, 10_000),
    value=st.integers(0, 255),
    syntax=st.sampled_from(EVERY_SYNTAX),
)
def test_a_damaged_file_gives_values_or_a_refusal(
    tmp_path: Path, position: int, value: int, syntax: str
) -> None:
    """One byte changed anywhere: never an exception that is no refusal."""
    path = tmp_path / f"{syntax}.dcm"
    if not path.exists():
        build.write_dataset(path, build.ct_dataset(noise((16, 16)), "p", "1.2", "1.3"), syntax)
    plane = series_by_hand.plane(path)
    raw = bytearray(path.read_bytes())
    raw[position % len(raw)] = value
    damaged = tmp_path / "damaged.dcm"
    damaged.write_bytes(raw)
    try:
        values = stored_values(replace(plane, path=damaged))
    except CaseRefused:
        return
    assert values.shape == (16, 16)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    shape=st.tuples(st.integers(1, 2), st.integers(1, 9), st.integers(1, 9)),
    dtype=st.sampled_from([np.uint8, np.int16, np.uint16]),
    syntax=st.sampled_from([s for s in EVERY_SYNTAX if s in build.NATIVE or s == RLELossless]),
    comment=st.text("abc ", max_size=9),
    private=st.binary(max_size=9),
    nested=st.booleans(),
)
def test_pydicom_reads_the_same(
    tmp_path: Path,
    shape: tuple[int, int, int],
    dtype: type[np.integer],
    syntax: str,
    comment: str,
    private: bytes,
    nested: bool,
) -> None:
    """Differential: our walker and codecs beside pydicom's own, on data sets made at random."""
    stored = np.random.default_rng(1).integers(0, 255, shape).astype(dtype)
    data = build.ct_dataset(stored if shape[0] > 1 else stored[0], "p", "1.2", "1.3")
    if shape[0] == 1:
        data.NumberOfFrames = 1
    data.ImageComments = comment
    block = data.private_block(0x0029, "TEST", create=True)
    block.add_new(0x10, "UN", private)
    if nested:
        inner = Dataset()
        inner.ReferencedSOPInstanceUID = "1.2.3"
        outer = Dataset()
        outer.ReferencedImageSequence = [inner, inner]
        data.SourceImageSequence = [outer]
        data["SourceImageSequence"].is_undefined_length = True
    path = tmp_path / "a.dcm"
    build.write_dataset(path, data, syntax)
    np.testing.assert_array_equal(frames_of(path), pydicom.dcmread(path).pixel_array.reshape(shape))


# Real headers hold what pydicom warns of; here only their pixels count.
@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@pytest.mark.real_data
def test_pydicom_or_simpleitk_read_the_same_of_every_real_file(real_data: Path) -> None:
    """The fast and the own path beside pydicom, where it has a decoder, else beside SimpleITK."""
    import SimpleITK

    by_pydicom = by_sitk = by_hint = 0
    lossy = {f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 53, 55)}
    for path in sorted(real_data.rglob("*")):
        if not path.is_file() or path.suffix in {".json", ".md", ".gz", ".csv", ".txt", ".LICENSE"}:
            continue
        header = series_by_hand.read_header(path)
        if "PixelRepresentation" not in header or header.Modality not in {"CT", "MR", "PT", "NM"}:
            continue
        if path.name in {"MR_truncated.dcm", "CT_headless_no_meta_ACRNEMA.dcm"}:
            continue
        pixels = series_by_hand.pixel_format(header)
        table = open_frames(path, pixels)
        seen = read_header(path)
        if isinstance(seen, Header) and seen.fragments_start > 0:
            assert open_frames(path, pixels, seen.fragments_start).spans == table.spans
            by_hint += 1
        ours = np.stack(
            [decode_frame(table.frame(k), pixels)[0] for k in range(pixels.frames_in_file)]
        )
        assert np.array_equal(stored_values(series_by_hand.plane(path)), ours[0])
        if pixels.transfer_syntax in build.NATIVE or pixels.transfer_syntax == RLELossless:
            theirs = pydicom.dcmread(path).pixel_array
            by_pydicom += 1
            tolerance = 0.0
        else:
            theirs = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))
            slope = float(header.get("RescaleSlope", 1.0))
            intercept = float(header.get("RescaleIntercept", 0.0))
            if pixels.frames_in_file > 1:
                intercept = -1024.0
            ours = ours * slope + intercept
            by_sitk += 1
            tolerance = 2 * slope + 1e-6 if pixels.transfer_syntax in lossy else 1e-6
        assert np.abs(ours - theirs.reshape(ours.shape).astype(float)).max() <= tolerance, path
    assert by_pydicom > 100
    assert by_sitk > 30
    assert by_hint > 20
