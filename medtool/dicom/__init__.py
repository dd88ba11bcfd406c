"""DICOM intake: headers to series, series to an image in true geometry.

``scan(paths)`` gives an ``Intake``, ``read(series)`` an ``sitk.Image``, ``read_array(series)`` the
same as an array with its grid. They are imported when first used: importing this package is cheap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medtool.dicom.intake import scan
    from medtool.dicom.volume import read, read_array

__all__ = ["read", "read_array", "scan"]

_HOMES = {
    "scan": "medtool.dicom.intake",
    "read": "medtool.dicom.volume",
    "read_array": "medtool.dicom.volume",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
