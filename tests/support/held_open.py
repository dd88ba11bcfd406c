"""Files that another program holds open, as on Windows: nobody can replace or remove them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


def held_open(monkeypatch: pytest.MonkeyPatch) -> set[Path]:
    """The files that are held; whoever adds one opens it, whoever takes one out closes it."""
    held: set[Path] = set()
    replace, unlink = Path.replace, Path.unlink

    def refuse(path: Path) -> None:
        if path.absolute() in held:
            raise PermissionError(13, "used by another process", str(path))

    def replaced(self: Path, target: Path) -> Path:
        refuse(Path(target))
        return replace(self, target)

    def unlinked(self: Path, **options: Any) -> None:
        refuse(self)
        unlink(self, **options)

    monkeypatch.setattr(Path, "replace", replaced)
    monkeypatch.setattr(Path, "unlink", unlinked)
    return held
