"""Which files to look into: everything below the given paths, in a stable order.

Names say nothing about content, so every file is looked into. What medtool itself wrote (runs,
predictions, caches) is not data and is left out as a whole, with one line each.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from medtool.core.errors import InputError
from medtool.core.files import IN_USE
from medtool.core.records import Skipped

# The record that runs and predictions hold, and what stands near its beginning: a patients'
# folder with a file of the same name is data all the same.
OWN_FILE = "run.json"
OWN_WORD = b'"medtool"'
OWN_WORD_WITHIN_BYTES = 1 << 16
OWN_FOLDERS = frozenset([".medtool"])
# Folders of version control and of other tools never hold scans.
HIDDEN_PREFIX = "."


def find_files(paths: Iterable[Path]) -> tuple[list[Path], list[Skipped]]:
    """All files below ``paths`` (files stand for themselves), each once; and what was left out.

    Raises InputError for a path that does not exist.
    """
    files: list[Path] = []
    skipped: list[Skipped] = []
    given = list(paths)
    for path in given:
        if path.is_file():
            files.append(path)
        elif path.is_dir():
            files.extend(_below(path, skipped, set()))
        else:
            raise InputError(
                "There is no such file or folder.",
                where=str(path),
                how="check the path, and that the drive is connected.",
            )
    # Only paths that were given one beside another can name a file twice.
    return (list(dict.fromkeys(files)) if len(given) > 1 else files), skipped


def _below(folder: Path, skipped: list[Skipped], seen: set[tuple[int, int]]) -> Iterator[Path]:
    try:
        status = folder.stat()
        with os.scandir(folder) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        skipped.append(Skipped(folder, "unreadable", f"cannot be listed: {error.strerror}"))
        return
    # Links may lead in circles (on systems without inode numbers links are not followed twice).
    identity = (status.st_dev, status.st_ino)
    if status.st_ino and identity in seen:
        return
    seen.add(identity)
    if any(entry.name == OWN_FILE and _is_own(entry) for entry in listed):
        skipped.append(Skipped(folder, "own-output", "a folder that medtool wrote"))
        return
    for entry in listed:
        path = folder / entry.name
        try:
            is_folder, is_file = entry.is_dir(), entry.is_file()
        except OSError as error:
            # A link that leads to itself, or into a folder that may not be looked into.
            skipped.append(Skipped(path, "unreadable", f"leads nowhere: {error.strerror}"))
            continue
        if is_folder:
            if entry.name in OWN_FOLDERS:
                continue
            if entry.name.startswith(HIDDEN_PREFIX):
                skipped.append(Skipped(path, "hidden-folder", "a hidden folder"))
            else:
                yield from _below(path, skipped, seen)
        elif is_file:
            if entry.name != IN_USE:
                yield path
        else:
            skipped.append(Skipped(path, "unreadable", "neither a file nor a folder"))


def _is_own(entry: os.DirEntry[str]) -> bool:
    """Whether this is a record that medtool wrote."""
    try:
        with Path(entry.path).open("rb") as file:
            return OWN_WORD in file.read(OWN_WORD_WITHIN_BYTES)
    except OSError:
        return False
