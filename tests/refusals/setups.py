"""What a golden case's working folder needs beyond text files."""

from __future__ import annotations

from pathlib import Path


def latin_preset(folder: Path) -> None:
    """A preset saved in the encoding of an old Windows."""
    (folder / "mine.toml").write_bytes(b"# Z\xfcrich\n[train]\nepochs = 3\n")


def large_preset(folder: Path) -> None:
    """Something that is called a preset and is none."""
    (folder / "mine.toml").write_bytes(b"#" * (5 * 1024 * 1024))
