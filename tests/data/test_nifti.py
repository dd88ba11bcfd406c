"""NaN and infinity in NIfTI files, which SimpleITK reads as 0. Files are written byte by byte."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from medtool.data.nifti import undefined_voxels

SHAPE = (2, 3, 4)
VALUES = np.arange(24, dtype=float).reshape(SHAPE)


def nifti(path: Path, values: np.ndarray, *, version: int = 1, order: str = "<") -> Path:
    """A NIfTI file of (z, y, x) values, by the layout of the format's documents."""
    kind = {"f4": 16, "f8": 64, "i2": 4}[values.dtype.str[1:]]
    z, y, x = values.shape
    if version == 1:
        header = bytearray(352)
        struct.pack_into(f"{order}i", header, 0, 348)
        struct.pack_into(f"{order}8h", header, 40, 3, x, y, z, 1, 1, 1, 1)
        struct.pack_into(f"{order}2h", header, 70, kind, values.dtype.itemsize * 8)
        struct.pack_into(f"{order}f", header, 108, 352.0)
        header[344:348] = b"n+1\0"
    else:
        header = bytearray(544)
        struct.pack_into(f"{order}i", header, 0, 540)
        header[4:12] = b"n+2\0\r\n\x1a\n"
        struct.pack_into(f"{order}2h", header, 12, kind, values.dtype.itemsize * 8)
        struct.pack_into(f"{order}8q", header, 16, 3, x, y, z, 1, 1, 1, 1)
        struct.pack_into(f"{order}q", header, 168, 544)
    data = bytes(header) + values.astype(values.dtype.newbyteorder(order)).tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("kind", ["f4", "f8"])
def test_voxels_without_a_number_are_found(
    tmp_path: Path, name: str, order: str, version: int, kind: str
) -> None:
    values = VALUES.astype(kind)
    path = nifti(tmp_path / name, values, version=version, order=order)
    assert undefined_voxels(path, SHAPE) is None
    values[1, 2, 3], values[0, 1, 0] = np.nan, np.inf
    found = undefined_voxels(nifti(path, values, version=version, order=order), SHAPE)
    assert found is not None
    assert np.argwhere(found).tolist() == [[0, 1, 0], [1, 2, 3]]


def test_other_files_have_none(tmp_path: Path) -> None:
    assert undefined_voxels(nifti(tmp_path / "i.nii", VALUES.astype("i2")), SHAPE) is None
    short = nifti(tmp_path / "s.nii", np.full(SHAPE, np.nan, dtype="f4"))
    short.write_bytes(short.read_bytes()[:-4])
    (tmp_path / "w.nii.gz").write_bytes(b"words")
    for name in ("s.nii", "w.nii.gz", "not-there.nii"):
        assert undefined_voxels(tmp_path / name, SHAPE) is None
