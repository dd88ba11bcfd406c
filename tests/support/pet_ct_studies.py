"""Studies of PET and CT that a test decides on: DICOM series of one examination, NIfTI pairs.

All lie in one place: a PET of 24 x 24 x 10 voxels of 4 mm and a CT of 48 x 48 x 20 of 2 mm over
the same 96 x 96 x 40 mm; in the middle of the PET a hot block, whose mask is known.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from dicom_builder import BuiltSeries, build_series
from numpy.typing import NDArray
from pet_builder import FACTOR, build_pet

from medtool.core.geometry import Grid
from medtool.data.nifti_writer import write_nifti

FRAME = "1.2.3.4"
PET_GRID = Grid((24, 24, 10), (4.0, 4.0, 4.0), (2.0, 2.0, 2.0))
CT_GRID = Grid((48, 48, 20), (2.0, 2.0, 2.0), (1.0, 1.0, 1.0))
HOT_SUV = 8.0
# Where the hot block is, as (z, y, x) of the PET.
HOT = (slice(4, 7), slice(8, 14), slice(10, 18))


def suv_values(seed: int = 0) -> NDArray[np.float32]:
    """SUV (z, y, x): a quiet body, a hot block."""
    values = np.random.default_rng(seed).gamma(4.0, 0.2, PET_GRID.size[::-1]).astype(np.float32)
    values[HOT] = HOT_SUV
    return values


def hot_mask() -> NDArray[np.uint8]:
    """1 (z, y, x) in the hot block of the PET."""
    mask = np.zeros(PET_GRID.size[::-1], np.uint8)
    mask[HOT] = 1
    return mask


def ct_values(seed: int = 0) -> NDArray[np.int16]:
    """HU (z, y, x): air outside, tissue inside."""
    values = np.random.default_rng(seed).normal(40.0, 20.0, CT_GRID.size[::-1])
    values[:, :6], values[:, -6:] = -1000.0, -1000.0
    values[:, :, :6] = -1000.0
    return values.astype(np.int16)


# --- DICOM --------------------------------------------------------------------------------
def write_pet(
    folder: Path,
    changes: Mapping[str, Any] | None = None,
    drug: Mapping[str, Any] | None = None,
    *,
    suv: NDArray[Any] | None = None,
    study_uid: str = "1.2.3",
    **options: Any,
) -> BuiltSeries:
    """A PET series in Bq/mL whose SUV is ``suv`` but for rounding, by pet_builder's factor."""
    stored = np.rint((suv_values() if suv is None else suv) / FACTOR / 2.0).astype(np.int16)
    own = {"FrameOfReferenceUID": FRAME, "RescaleSlope": "2", **(changes or {})}
    place = {"origin_mm": PET_GRID.origin_mm, "spacing_mm": (4.0, 4.0), "step_mm": 4.0}
    return build_pet(folder, stored, own, drug, study_uid=study_uid, **{**place, **options})


def write_ct(
    folder: Path,
    changes: Mapping[str, Any] | None = None,
    *,
    study_uid: str = "1.2.3",
    seed: int = 0,
    **options: Any,
) -> BuiltSeries:
    """A CT series in HU beside it."""
    own = {
        "FrameOfReferenceUID": FRAME,
        "RescaleSlope": "1",
        "RescaleIntercept": "-1024",
        **(changes or {}),
    }
    place = {"origin_mm": CT_GRID.origin_mm, "spacing_mm": (2.0, 2.0), "step_mm": 2.0}
    stored = (ct_values(seed) + 1024).astype(np.int16)
    return build_series(folder, stored, tags=own, study_uid=study_uid, **{**place, **options})


def write_study(folder: Path, patient: str = "patient-1", *, seed: int = 0, **pet: Any) -> None:
    """A DICOM study of both; ``seed`` makes other images."""
    uid = f"1.2.3.{int.from_bytes(patient.encode(), 'big')}"
    changes = {"PatientID": patient, **pet.pop("changes", {})}
    write_pet(folder / "pet", changes, suv=suv_values(seed), study_uid=uid, **pet)
    write_ct(folder / "ct", {"PatientID": patient}, study_uid=uid, seed=seed)


# --- files --------------------------------------------------------------------------------
def write_volume(path: Path, values: NDArray[Any], grid: Grid) -> Path:
    """A NIfTI file, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_nifti(path, values, grid)
    return path


def write_pair(pet: Path, ct: Path, mask: Path | None = None, *, seed: int = 0) -> None:
    """NIfTI files of one patient."""
    write_volume(pet, suv_values(seed), PET_GRID)
    write_volume(ct, ct_values(seed), CT_GRID)
    if mask is not None:
        write_volume(mask, hot_mask(), PET_GRID)


def write_table(path: Path, header: str, rows: Iterable[Sequence[object]]) -> Path:
    """A CSV with these columns, named in one line, and rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header.split(","))
        writer.writerows(rows)
    return path
