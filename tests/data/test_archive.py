"""Zip files that mean harm are refused before they can do any."""

import stat
import zipfile

import pytest

from medtool.core.errors import CaseRefused
from medtool.data.archive import is_archive, unpack


def pack(path, entries):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return path


def test_a_good_archive_comes_out_whole(tmp_path) -> None:
    archive = pack(tmp_path / "a.zip", [("p1/s/1.dcm", b"x" * 10), ("p1/ü.dcm", b"")])
    assert is_archive(archive)
    unpack(archive, tmp_path / "out")
    assert (tmp_path / "out/p1/s/1.dcm").read_bytes() == b"x" * 10
    assert (tmp_path / "out/p1/ü.dcm").read_bytes() == b""


@pytest.mark.parametrize(
    "name", ["../evil", "a/../../evil", "/etc/evil", "C:/evil", "..\\evil", "\\\\host\\evil"]
)
def test_an_entry_that_climbs_is_refused(tmp_path, name) -> None:
    archive = pack(tmp_path / "a.zip", [("fine", b"1"), (name, b"evil")])
    with pytest.raises(CaseRefused) as refusal:
        unpack(archive, tmp_path / "inner" / "out")
    assert refusal.value.code == "archive-path"
    assert not list(tmp_path.rglob("evil"))


def test_a_link_is_refused(tmp_path) -> None:
    info = zipfile.ZipInfo("link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive = pack(tmp_path / "a.zip", [(info, b"/etc/passwd")])
    with pytest.raises(CaseRefused, match="leave its folder"):
        unpack(archive, tmp_path / "out")


def test_a_bomb_is_refused_before_anything_is_written(tmp_path) -> None:
    archive = pack(tmp_path / "a.zip", [("zeros", bytes(64 * 1024**2))])
    with pytest.raises(CaseRefused) as refusal:
        unpack(archive, tmp_path / "out")
    assert refusal.value.code == "archive-size"
    assert not (tmp_path / "out").exists()


def test_an_entry_larger_than_it_says_is_refused(tmp_path) -> None:
    archive = pack(tmp_path / "a.zip", [("f", b"0123456789")])
    data = archive.read_bytes()
    # Lower the uncompressed size (10) in the local header and in the directory.
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = data.index(signature) + offset
        assert data[at] == 10
        data = data[:at] + b"\x05" + data[at + 1 :]
    archive.write_bytes(data)
    with pytest.raises(CaseRefused) as refusal:
        unpack(archive, tmp_path / "out")
    assert refusal.value.code in {"archive-size", "archive-broken"}


def test_a_broken_and_an_encrypted_archive(tmp_path) -> None:
    whole = pack(tmp_path / "a.zip", [("f", b"0123456789" * 100)]).read_bytes()
    cut = tmp_path / "cut.zip"
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CaseRefused) as refusal:
        unpack(cut, tmp_path / "out")
    assert refusal.value.code == "archive-broken"
    locked = bytearray(whole)
    locked[whole.index(b"PK\x03\x04") + 6] |= 1
    locked[whole.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "locked.zip").write_bytes(bytes(locked))
    with pytest.raises(CaseRefused) as refusal:
        unpack(tmp_path / "locked.zip", tmp_path / "out")
    assert refusal.value.code == "archive-encrypted"


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    "names", [("s/1.dcm", "s/1.dcm"), ("a", "a/b"), ("a", "a/b/c"), ("a/b", "a")]
)
def test_two_entries_in_one_place_are_refused(tmp_path, names) -> None:
    """From a fault: the second replaced the first in silence, or ended the run as a bug."""
    archive = pack(tmp_path / "a.zip", [(name, b"slice") for name in names])
    with pytest.raises(CaseRefused, match="one place") as refusal:
        unpack(archive, tmp_path / "out")
    assert refusal.value.code == "archive-broken"


@pytest.mark.parametrize("packing", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2, zipfile.ZIP_DEFLATED])
def test_damage_is_refused_however_it_was_packed(tmp_path, packing) -> None:
    """From a fault: of LZMA and bzip2 it ended the run as a bug, and all other studies with it."""
    file = tmp_path / "a.zip"
    with zipfile.ZipFile(file, "w", packing) as archive:
        archive.writestr("f", bytes(range(256)) * 40)
    data = bytearray(file.read_bytes())
    # Behind the header of the entry, its name and the properties of LZMA.
    data[44:80] = b"\xff" * 36
    file.write_bytes(data)
    with pytest.raises(CaseRefused) as refusal:
        unpack(file, tmp_path / "out")
    assert refusal.value.code == "archive-broken"


def test_names_that_no_disk_takes_are_refused(tmp_path) -> None:
    archive = pack(tmp_path / "a.zip", [("x" * 300, b"slice")])
    with pytest.raises(CaseRefused) as refusal:
        unpack(archive, tmp_path / "out")
    assert refusal.value.code == "archive-broken"
