"""Files are whole or not there: interrupted, on a full disk, in the place of something else."""

import errno
import os
import stat
from pathlib import Path

import pytest

from medtool.core.errors import MachineError, UsageError
from medtool.core.files import (
    cannot_write,
    nearest_path,
    replace_text,
    replacing,
    require_writable,
)

# What may write anywhere sees no read-only folder.
IS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


def names(folder: Path) -> list[str]:
    return sorted(child.name for child in folder.iterdir())


def test_a_text_is_written_as_utf_8_with_unix_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.txt"
    replace_text(path, "Größe\n")
    assert path.read_bytes() == b"Gr\xc3\xb6\xc3\x9fe\n"
    replace_text(path, "")
    assert path.read_bytes() == b""
    assert names(path.parent) == ["a.txt"]


def test_a_reader_sees_the_old_file_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with replacing(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("fault", [ValueError, KeyboardInterrupt])
def test_what_breaks_off_leaves_the_old_file_alone(
    tmp_path: Path, fault: type[BaseException]
) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with pytest.raises(fault), replacing(path) as file:
        file.write(b"half")
        raise fault
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_files_may_be_read_as_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        replace_text(tmp_path / "a", "")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_a_full_disk_is_said_to_be_full(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with pytest.raises(MachineError, match="disk is full"), replacing(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert names(tmp_path) == []
    other = cannot_write(path, OSError(errno.EIO, "input/output error"))
    assert (other.what, other.met) == ("A file cannot be written.", "input/output error")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_the_device_that_is_always_full_is_not_replaced() -> None:
    with pytest.raises(UsageError) as error:
        replace_text(Path("/dev/full"), "text")
    assert error.value.met == "a device"


def test_a_folder_in_the_place_of_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        replace_text(tmp_path, "text")
    assert error.value.met == "a folder"


def test_a_file_in_the_place_of_a_folder_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError) as error:
        require_writable(tmp_path / "file" / "deep" / "table.csv")
    assert error.value.where == str(tmp_path / "file")
    require_writable(tmp_path / "new" / "deep" / "table.csv")
    assert names(tmp_path) == ["file"]


@pytest.mark.skipif(IS_ROOT, reason="root may write anywhere")
def test_a_read_only_folder_is_refused_before_the_work(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(MachineError, match="cannot be written to"):
            require_writable(tmp_path / "table.csv")
    finally:
        tmp_path.chmod(0o700)


def test_a_misspelt_path_has_a_nearest_one(tmp_path: Path) -> None:
    (tmp_path / "labels1.csv").touch()
    (tmp_path / "CTs").mkdir()
    assert nearest_path(tmp_path / "labels.csv") == str(tmp_path / "labels1.csv")
    # Of a path whose folder is missing, the folder is what is misspelt.
    assert nearest_path(tmp_path / "CT" / "P1") == str(tmp_path / "CTs")
    assert nearest_path(tmp_path / "nothing-like-it-at-all") == ""
