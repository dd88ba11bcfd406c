"""Which files hold a text somewhere in their bytes."""

from __future__ import annotations

from pathlib import Path


def files_naming(folder: Path, *texts: str) -> list[str]:
    """Files below ``folder`` in whose raw bytes one of ``texts`` stands; there must be files."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    assert files, f"nothing in {folder}"
    needles = [text.encode() for text in texts]
    return [
        file.relative_to(folder).as_posix()
        for file in files
        if any(needle in file.read_bytes() for needle in needles)
    ]
