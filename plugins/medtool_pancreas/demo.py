"""A synthetic CT data set in nnU-Net's layout: a curved pancreas with a lesion of three subtypes.

The pancreas is a bent tube that narrows towards its tail, with the stripes of fat between lobules;
smooth bodies as bright as it is, a vessel, fluid and muscle lie around it. Each kind of lesion is
as bright as one of those, so that no threshold tells what belongs to the pancreas: a network has to
look at texture and surroundings. The subtype is what the lesion's brightness says (cystic as
fluid, solid as muscle, neuroendocrine as a filled vessel) and stands in ``labels.csv``. Everything
of a case is drawn from (seed, case).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from medtool.core.files import replace_text
from medtool.core.geometry import Grid
from medtool.core.progress import Reporter, Silent
from medtool.core.randomness import generator
from medtool.data.nifti_writer import write_nifti

if TYPE_CHECKING:
    from numpy.typing import NDArray

CASES = 36
# Voxels (z, y, x), and what each case's spacing is drawn from, in mm.
SIZE_VOX = (32, 52, 52)
SPACING_MM = ((2.0, 2.6), (1.4, 1.7), (1.4, 1.7))
PANCREAS, LESION = 1, 2
LABELS = {"background": 0, "pancreas": PANCREAS, "lesion": LESION}
# HU of fat, of parenchyma in the portal venous phase, and of each lesion.
FAT_HU, PARENCHYMA_HU = -90.0, 100.0
SUBTYPES_HU = {"cystic": 15.0, "neuroendocrine": 165.0, "solid": 60.0}
# Half of the lesions are of the commonest subtype, as subtypes of patients are not alike either.
ROUND = ("solid", "cystic", "neuroendocrine", "solid")
SPREAD_HU = 6.0
STRIPES_HU, STRIPE_MM, NOISE_HU, MOTTLE_HU = 28.0, 5.2, 12.0, 10.0
# The pancreas: half its thickness at head and tail, its bend, its slope, in mm.
HEAD_MM, TAIL_MM = (10.0, 12.0), (6.5, 8.0)
BEND_MM, SLOPE_MM = (6.0, 12.0), (4.0, 12.0)
CURVE_POINTS = 25
LESION_MM = (5.5, 8.0)
# What lies around: HU and the semi-axes (z, y, x) in mm from which each is drawn.
AROUND = (
    (PARENCHYMA_HU, ((14, 18), (14, 18), (14, 18))),
    (PARENCHYMA_HU, ((11, 15), (11, 15), (11, 15))),
    (PARENCHYMA_HU, ((8, 12), (8, 12), (8, 12))),
    (SUBTYPES_HU["neuroendocrine"], ((14, 18), (5, 7), (5, 7))),
    (SUBTYPES_HU["cystic"], ((7, 10), (7, 10), (7, 10))),
    (SUBTYPES_HU["solid"], ((8, 11), (8, 11), (8, 11))),
)
TRIES = 60
DESCRIPTION = "synthetic: made by medtool demo"
CLASSES_FILE = "labels.csv"


@dataclass(frozen=True)
class DemoCase:
    """Image in HU and mask (z, y, x) on ``grid``, and the subtype of the lesion."""

    image: NDArray[np.float32]
    mask: NDArray[np.uint8]
    grid: Grid
    subtype: str


def write_dataset(
    folder: Path, seed: int, cases: int = CASES, reporter: Reporter | None = None
) -> None:
    """Write ``imagesTr``, ``labelsTr``, ``dataset.json`` and ``labels.csv`` into ``folder``."""
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    rows = ["case,subtype"]
    with (reporter or Silent()).progress("Writing", cases) as advance:
        for number in range(cases):
            made, name = draw_case(seed, number), f"demo_{number:03d}"
            images = folder / "imagesTr" / f"{name}_0000.nii.gz"
            write_nifti(images, made.image, made.grid, description=DESCRIPTION)
            masks = folder / "labelsTr" / f"{name}.nii.gz"
            write_nifti(masks, made.mask, made.grid, description=DESCRIPTION)
            rows.append(f"{name},{made.subtype}")
            advance()
    document = {
        "channel_names": {"0": "CT"},
        "labels": LABELS,
        "numTraining": cases,
        "file_ending": ".nii.gz",
        "name": "Demo",
        "description": "A pancreas with a lesion among look-alikes; nobody was scanned.",
        "synthetic": True,
    }
    replace_text(folder / "dataset.json", json.dumps(document, indent=1) + "\n")
    replace_text(folder / CLASSES_FILE, "\n".join(rows) + "\n")


def draw_case(seed: int, number: int) -> DemoCase:
    """One case; its subtype goes round with its number, so that no class is missing by chance."""
    rng = generator("pancreas-demo", seed, number)
    spacing = np.array([rng.uniform(*ends) for ends in SPACING_MM])
    places = np.indices(SIZE_VOX).astype(np.float64) * spacing[:, None, None, None]
    curve, radii = _curve(rng, spacing)
    pancreas = _tube(places, curve, radii)
    subtype = ROUND[number % len(ROUND)]
    lesion = _lesion(rng, places, curve)
    image = np.full(SIZE_VOX, FAT_HU) + MOTTLE_HU * _mottle(rng)
    _add_surroundings(rng, image, places, spacing, pancreas | lesion)
    phase = rng.uniform(0, 2 * np.pi)
    stripes = STRIPES_HU * np.sin(2 * np.pi * (places[1] + places[2]) / STRIPE_MM + phase)
    image[pancreas] = PARENCHYMA_HU + stripes[pancreas]
    image[lesion] = SUBTYPES_HU[subtype] + rng.normal(0.0, SPREAD_HU)
    image += rng.normal(0.0, NOISE_HU, SIZE_VOX)
    mask = np.zeros(SIZE_VOX, dtype=np.uint8)
    mask[pancreas], mask[lesion] = PANCREAS, LESION
    z, y, x = SIZE_VOX
    dz, dy, dx = (float(step) for step in spacing)
    origin = tuple(float(value) for value in rng.uniform(-60, 60, 3))
    grid = Grid((x, y, z), (dx, dy, dz), (origin[0], origin[1], origin[2]))
    return DemoCase(image.astype(np.float32), mask, grid, subtype)


def _curve(
    rng: np.random.Generator, spacing_mm: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points (n, 3) along the middle of the pancreas in mm, head first, and its radius there."""
    extent = np.asarray(SIZE_VOX) * spacing_mm
    along = np.linspace(0.0, 1.0, CURVE_POINTS)
    arch = 1.0 - (2.0 * along - 1.0) ** 2
    shift = rng.uniform(-4.0, 4.0, 3)
    z = extent[0] / 2 + rng.uniform(*SLOPE_MM) * (along - 0.5) + shift[0]
    y = extent[1] / 2 - rng.uniform(*BEND_MM) * (arch - 0.5) + shift[1]
    x = extent[2] * (0.22 + 0.56 * along) + shift[2]
    head, tail = rng.uniform(*HEAD_MM), rng.uniform(*TAIL_MM)
    return np.stack([z, y, x], axis=1), head + (tail - head) * along


def _tube(
    places_mm: NDArray[np.float64], curve_mm: NDArray[np.float64], radii_mm: NDArray[np.float64]
) -> NDArray[np.bool_]:
    inside = np.zeros(places_mm.shape[1:], dtype=bool)
    for centre, radius in zip(curve_mm, radii_mm, strict=True):
        inside |= _ellipsoid(places_mm, centre, np.full(3, radius))
    return inside


def _ellipsoid(
    places_mm: NDArray[np.float64],
    centre_mm: NDArray[np.float64],
    semi_axes_mm: NDArray[np.float64],
) -> NDArray[np.bool_]:
    shares = (places_mm - centre_mm[:, None, None, None]) / semi_axes_mm[:, None, None, None]
    within: NDArray[np.bool_] = (shares**2).sum(axis=0) <= 1.0
    return within


def _lesion(
    rng: np.random.Generator, places_mm: NDArray[np.float64], curve_mm: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """An ellipsoid around a point near the middle line; it may bulge out of the pancreas."""
    centre = curve_mm[int(rng.integers(3, CURVE_POINTS - 3))] + rng.uniform(-3.0, 3.0, 3)
    return _ellipsoid(places_mm, centre, rng.uniform(*LESION_MM, size=3))


def _add_surroundings(
    rng: np.random.Generator,
    image: NDArray[np.float64],
    places_mm: NDArray[np.float64],
    spacing_mm: NDArray[np.float64],
    taken: NDArray[np.bool_],
) -> None:
    """Paint each body where it touches nothing; one that finds no room is left out."""
    extent = np.asarray(SIZE_VOX) * spacing_mm
    taken = ndimage.binary_dilation(taken)
    for value, ends in AROUND:
        semi = np.array([rng.uniform(*pair) for pair in ends])
        for _ in range(TRIES):
            body = _ellipsoid(places_mm, rng.uniform(0.0, extent), semi)
            if not (body & taken).any():
                image[body] = value
                taken |= ndimage.binary_dilation(body)
                break


def _mottle(rng: np.random.Generator) -> NDArray[np.float64]:
    """Smooth noise of deviation 1."""
    smooth: NDArray[np.float64] = ndimage.gaussian_filter(rng.normal(size=SIZE_VOX), 3.0)
    smooth /= smooth.std()
    return smooth
