"""Zip archives from strangers: nothing outside the folder, nothing without end."""

from __future__ import annotations

import errno
import lzma
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from medtool.core.errors import CaseRefused
from medtool.core.names import counted

# A day's CT is about 1 GiB; an archive that claims more than this is not one study's or ward's.
LARGEST_TOTAL_BYTES = 200 * 1024**3
LARGEST_FILE_BYTES = 4 * 1024**3
MOST_FILES = 500_000
# DICOM files hardly shrink; deflate reaches 1032:1 only on long runs of one byte (RFC 1951).
LARGEST_RATIO = 200
# Small files of one value (a blank mask) may shrink more, and cannot fill a disk.
RATIO_COUNTS_FROM_BYTES = 16 * 1024**2
ZIP_START = b"PK"
COPY_CHUNK_BYTES = 1024**2
# What zipfile and its decompressors raise for damage; for a name that is no UTF-8 a ValueError.
DAMAGED = (
    zipfile.BadZipFile, EOFError, NotImplementedError, zlib.error, lzma.LZMAError, ValueError,
)  # fmt: skip
# Of errors of the system those that the archive is to blame for: bz2 gives damage no number.
BLAMED_ON_ARCHIVE = (None, errno.EINVAL, errno.ENAMETOOLONG)


def is_archive(path: Path) -> bool:
    """Whether ``path`` is a zip file, by its name and its beginning: also one that broke off."""
    if not path.is_file() or path.suffix.lower() != ".zip":
        return False
    with path.open("rb") as file:
        return file.read(len(ZIP_START)) == ZIP_START or zipfile.is_zipfile(path)


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack a zip below ``folder``; gives ``folder``.

    Raises CaseRefused: ``archive-path`` (an entry would lie outside), ``archive-size`` (too many
    files, too large, or it unpacks without end), ``archive-broken``, ``archive-encrypted``.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = [entry for entry in opened.infolist() if not entry.is_dir()]
            _check(archive, entries)
            for entry in entries:
                _extract(archive, opened, entry, folder)
    except DAMAGED as error:
        raise _broken(archive, str(error)) from error
    except OSError as error:
        if error.errno not in BLAMED_ON_ARCHIVE:
            raise
        raise _broken(archive, error.strerror or str(error)) from error
    return folder


def _broken(archive: Path, met: str) -> CaseRefused:
    return CaseRefused(
        "archive-broken",
        "The archive cannot be unpacked.",
        where=str(archive),
        met=met,
        wanted="a whole zip file",
        how="copy or pack it again.",
    )


def _check(archive: Path, entries: list[zipfile.ZipInfo]) -> None:
    total_bytes = sum(entry.file_size for entry in entries)
    packed_bytes = sum(entry.compress_size for entry in entries)
    without_end = total_bytes > RATIO_COUNTS_FROM_BYTES and (
        total_bytes > LARGEST_RATIO * max(packed_bytes, 1)
    )
    if len(entries) > MOST_FILES or total_bytes > LARGEST_TOTAL_BYTES or without_end:
        raise CaseRefused(
            "archive-size",
            "The archive would unpack without reasonable end.",
            where=str(archive),
            met=f"{counted(len(entries), 'file')}, {packed_bytes} bytes "
            f"that claim to become {total_bytes}",
            wanted=f"at most {MOST_FILES} files, {LARGEST_TOTAL_BYTES} bytes, "
            f"{LARGEST_RATIO} times the packed size",
            how="unpack it yourself if you trust it, and give the folder.",
        )
    for entry in entries:
        if entry.flag_bits & 0x1:
            raise CaseRefused(
                "archive-encrypted",
                "The archive is protected by a password.",
                where=str(archive),
                how="unpack it yourself and give the folder.",
            )


def _target(archive: Path, entry: zipfile.ZipInfo, folder: Path) -> Path:
    name = entry.filename
    parts = PurePosixPath(name.replace("\\", "/")).parts
    is_link = stat.S_ISLNK(entry.external_attr >> 16)
    outside = (
        not parts
        or ".." in parts
        or PurePosixPath(name).is_absolute()
        or bool(PureWindowsPath(name).drive)
        or name.startswith("\\")
        or ":" in name
    )
    if outside or is_link:
        raise CaseRefused(
            "archive-path",
            "The archive holds an entry that would leave its folder.",
            where=str(archive),
            met="a link" if is_link else repr(name),
            wanted="plain relative paths",
            how="do not trust this archive; if you do, unpack it yourself and give the folder.",
        )
    return folder.joinpath(*parts)


def _extract(archive: Path, opened: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path) -> None:
    target = _target(archive, entry, folder)
    written_bytes = 0
    # The header's size is a claim; count what really comes out.
    limit_bytes = min(entry.file_size, LARGEST_FILE_BYTES)
    with opened.open(entry) as source, _created(archive, entry, target) as file:
        while chunk := source.read(COPY_CHUNK_BYTES):
            written_bytes += len(chunk)
            if written_bytes > limit_bytes:
                raise CaseRefused(
                    "archive-size",
                    "A file in the archive is larger than it says, or than any image.",
                    where=f"{archive}: {entry.filename}",
                    met=f"more than {limit_bytes} bytes",
                    how="do not trust this archive.",
                )
            file.write(chunk)


def _created(archive: Path, entry: zipfile.ZipInfo, target: Path) -> IO[bytes]:
    """The new file of an entry: one that replaced another would be a slice lost."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        return target.open("xb")
    except (FileExistsError, NotADirectoryError) as error:
        raise CaseRefused(
            "archive-broken",
            "Two entries of the archive would lie in one place.",
            where=f"{archive}: {entry.filename}",
            met="a name that another entry has, perhaps in other letter case or as a folder",
            wanted="a name of its own for each file",
            how="pack it again, or unpack it yourself and give the folder.",
        ) from error
