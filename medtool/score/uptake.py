"""What a PET says of its lesions: volume, uptake and their product, lesion by lesion and in all.

Volumes are those of the mask's voxels. SUVpeak is IBSI's global intensity peak (feature 0F91 of
the reference manual, arXiv 1612.07003): the highest mean over a sphere of 1 mL around a voxel of
the lesion. The sphere holds every voxel of the image whose centre is within 6.2 mm, in the lesion
or not, so that small lesions are averaged with what surrounds them; at the border of the image it
is what lies inside. A voxel of over 12 mm stands in its sphere alone, and the peak is the maximum.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from math import floor, isfinite, nan, pi, prod, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medtool.core.errors import UsageError
from medtool.score.lesions import Connectivity, components
from medtool.score.overlap import Mask

MM3_PER_ML = 1000.0
PEAK_SPHERE_ML = 1.0
PEAK_RADIUS_MM = (3.0 / (4.0 * pi) * PEAK_SPHERE_ML * MM3_PER_ML) ** (1.0 / 3.0)
# What is this little outside the sphere is inside: distances of decimal spacings are rounded.
_ROUNDING_MM = 1e-9

SuvArray = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Uptake:
    """The numbers of one lesion, or of all of a case.

    ``mtv_ml`` is the metabolic tumour volume, ``tlg_g`` the total lesion glycolysis, SUVmean times
    MTV (SUV is in g/mL, so grams). Without a voxel volumes are 0 and every SUV is NaN.
    """

    voxels: int
    mtv_ml: float
    suv_max: float
    suv_mean: float
    suv_peak: float
    tlg_g: float

    def as_row(self) -> dict[str, float]:
        """Plain values by column."""
        return asdict(self)


NO_UPTAKE = Uptake(0, 0.0, nan, nan, nan, 0.0)


def lesion_uptakes(
    suv: SuvArray, mask: Mask, spacing_mm: Sequence[float], *, connectivity: Connectivity = 26
) -> tuple[Uptake, ...]:
    """The numbers of each connected component of ``mask``, in the order of ``lesions.components``.

    ``suv`` and ``mask`` are (z, y, x) on one grid, ``spacing_mm`` in that order. Raises UsageError
    where shapes or spacing do not fit, or where SUV holds no numbers.
    """
    _check(suv, mask, spacing_mm)
    labelled, _ = components(mask, connectivity)
    boxes = ndimage.find_objects(labelled)
    return tuple(
        _measured(suv, labelled[box] == number, box, spacing_mm)
        for number, box in enumerate(boxes, 1)
    )


def case_uptake(lesions: Sequence[Uptake]) -> Uptake:
    """The numbers of all lesions of a case together; of an empty mask where there are none.

    Volumes and glycolysis add up, SUVmax and SUVpeak are those of the hottest lesion, SUVmean is
    that of all voxels.
    """
    if not lesions:
        return NO_UPTAKE
    volume_ml = sum(lesion.mtv_ml for lesion in lesions)
    glycolysis_g = sum(lesion.tlg_g for lesion in lesions)
    return Uptake(
        voxels=sum(lesion.voxels for lesion in lesions),
        mtv_ml=volume_ml,
        suv_max=max(lesion.suv_max for lesion in lesions),
        suv_mean=glycolysis_g / volume_ml,
        suv_peak=max(lesion.suv_peak for lesion in lesions),
        tlg_g=glycolysis_g,
    )


def _measured(
    suv: SuvArray, lesion: Mask, box: tuple[slice, ...], spacing_mm: Sequence[float]
) -> Uptake:
    """The numbers of the component ``lesion``, which lies in ``box`` of the volume."""
    values = suv[box][lesion].astype(np.float64)
    volume_ml = len(values) * prod(spacing_mm) / MM3_PER_ML
    mean = float(values.mean())
    return Uptake(
        voxels=len(values),
        mtv_ml=volume_ml,
        suv_max=float(values.max()),
        suv_mean=mean,
        suv_peak=_peak(suv, lesion, box, spacing_mm),
        tlg_g=mean * volume_ml,
    )


def _peak(
    suv: SuvArray, lesion: Mask, box: tuple[slice, ...], spacing_mm: Sequence[float]
) -> float:
    """The highest mean over the sphere, of all spheres around a voxel of the lesion."""
    reach = [floor(PEAK_RADIUS_MM / step) for step in spacing_mm]
    around = tuple(
        slice(max(part.start - far, 0), min(part.stop + far, size))
        for part, far, size in zip(box, reach, suv.shape, strict=True)
    )
    wider = suv[around].astype(np.float64)
    margins = [
        (far - (part.start - wide.start), far - (wide.stop - part.stop))
        for part, wide, far in zip(box, around, reach, strict=True)
    ]
    # Outside the image there is nothing: no value, and no voxel to divide by.
    sums = _sphere_sums(np.pad(wider, margins), reach, spacing_mm)
    counts = _sphere_sums(np.pad(np.ones_like(wider), margins), reach, spacing_mm)
    return float((sums[lesion] / counts[lesion]).max())


def _sphere_sums(
    values: NDArray[np.float64], reach: Sequence[int], spacing_mm: Sequence[float]
) -> NDArray[np.float64]:
    """Sum over the sphere around every voxel that is ``reach`` voxels from each border.

    Each row of the sphere is the difference of two running sums.
    """
    running = np.zeros((*values.shape[:2], values.shape[2] + 1))
    np.cumsum(values, axis=2, out=running[:, :, 1:])
    depth, height, width = (n - 2 * far for n, far in zip(values.shape, reach, strict=True))
    total = np.zeros((depth, height, width))
    for down, across, half in _sphere_rows(reach, spacing_mm):
        rows = running[
            reach[0] + down : reach[0] + down + depth,
            reach[1] + across : reach[1] + across + height,
        ]
        first = reach[2] - half
        after = reach[2] + half + 1
        total += rows[:, :, after : after + width] - rows[:, :, first : first + width]
    return total


def _sphere_rows(
    reach: Sequence[int], spacing_mm: Sequence[float]
) -> Iterator[tuple[int, int, int]]:
    """Rows of the sphere: offset along z and y, and how many voxels it goes to either side."""
    for down in range(-reach[0], reach[0] + 1):
        for across in range(-reach[1], reach[1] + 1):
            left = (
                (PEAK_RADIUS_MM + _ROUNDING_MM) ** 2
                - (down * spacing_mm[0]) ** 2
                - (across * spacing_mm[1]) ** 2
            )
            if left >= 0:
                yield down, across, floor(sqrt(left) / spacing_mm[2])


def _check(suv: SuvArray, mask: Mask, spacing_mm: Sequence[float]) -> None:
    if suv.shape != mask.shape or suv.ndim != 3 or len(spacing_mm) != 3:
        raise UsageError(
            "SUV and mask do not lie on one grid.",
            met=f"{suv.shape} and {mask.shape} voxels, a spacing of {len(spacing_mm)}",
            wanted="two volumes (z, y, x) of one shape, and three spacings",
        )
    if not all(isfinite(step) and step > 0 for step in spacing_mm):
        raise UsageError(
            "A spacing is no length.",
            met=", ".join(f"{step:g}" for step in spacing_mm) + " mm",
            wanted="more than 0 mm along each axis",
        )
    undefined = suv.size - int(np.count_nonzero(np.isfinite(suv)))
    if undefined:
        raise UsageError(
            "SUV holds values that are no numbers.",
            met=f"{undefined} voxels of {suv.size} are NaN or infinite",
            wanted="a number in every voxel",
        )
