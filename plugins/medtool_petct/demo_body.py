"""A body that nobody has: organs in mm, what each takes up and how dense it is, drawn on any grid.

Shortened to 240 mm from the pelvis to the brain and otherwise in its proportions, so that small
volumes hold everything that a reader of PET/CT has to tell apart: brain, heart, kidneys and bladder
take up as much as tumours or more, brown fat does so where CT shows fat, and nodules are as dense
as tumours without taking up anything. Positions are (z, y, x) in mm of the body: z from the pelvis
up, y from the middle to the back, x from the middle to the patient's left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

LENGTH_MM = 240.0
AIR_HU, FAT_HU, LUNG_HU, MUSCLE_HU = -1000.0, -95.0, -780.0, 50.0
AIR_SUV, FAT_SUV, LUNG_SUV, MUSCLE_SUV = 0.02, 0.4, 0.5, 0.8
# Where the trunk ends, and the neck.
TRUNK_MM, NECK_MM = 178.0, 198.0
NECK_SEMI_MM = (42.0, 44.0)
SPINE_SEMI_MM, SPINE_MIDDLE_MM = (13.0, 13.0), 56.0
# Thickness of skin and fat, and of the muscles below, as shares of the trunk's half-width.
MUSCLE_SHARE, CAVITY_SHARE = 0.92, 0.8
# How far sizes and places of organs differ between people.
SIZE_SPREAD, PLACE_SPREAD_MM = 0.08, 3.0


@dataclass(frozen=True)
class Ellipsoid:
    """A body with uniform uptake and density; cylinders have an infinite semi-axis along z.

    ``middle_mm`` and ``semi_mm`` are (z, y, x); ``z_mm`` bounds it along z.
    """

    middle_mm: tuple[float, float, float]
    semi_mm: tuple[float, float, float]
    suv: float
    hu: float
    z_mm: tuple[float, float] = (-np.inf, np.inf)

    def scaled(self, share: float, suv: float, hu: float) -> Ellipsoid:
        """Of the same form and place, smaller or larger, of something else."""
        z, y, x = (share * semi for semi in self.semi_mm)
        return Ellipsoid(self.middle_mm, (z, y, x), suv, hu, self.z_mm)


@dataclass(frozen=True)
class Places:
    """Where the voxels of a grid lie in the body: mm along z, y and x."""

    z_mm: NDArray[np.float64]
    y_mm: NDArray[np.float64]
    x_mm: NDArray[np.float64]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels (z, y, x)."""
        return self.z_mm.size, self.y_mm.size, self.x_mm.size


def inside(shape: Ellipsoid, places: Places) -> tuple[tuple[slice, ...], NDArray[np.bool_]]:
    """The box of voxels around ``shape``, and which of them are in it."""
    axes = (places.z_mm, places.y_mm, places.x_mm)
    box, shares = [], []
    for axis, middle, semi in zip(axes, shape.middle_mm, shape.semi_mm, strict=True):
        near = np.flatnonzero(np.abs(axis - middle) <= semi)
        part = slice(near[0], near[-1] + 1) if near.size else slice(0, 0)
        box.append(part)
        shares.append(((axis[part] - middle) / semi) ** 2)
    z, y, x = shares
    within = z[:, None, None] + y[None, :, None] + x[None, None, :] <= 1.0
    low, high = shape.z_mm
    along = places.z_mm[box[0]]
    return tuple(box), within & ((along >= low) & (along <= high))[:, None, None]


def painted(
    shapes: Sequence[Ellipsoid], places: Places
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """SUV and HU (z, y, x); of shapes that overlap the last one counts."""
    suv, hu = np.full(places.shape, AIR_SUV), np.full(places.shape, AIR_HU)
    for shape in shapes:
        box, within = inside(shape, places)
        suv[box][within] = shape.suv
        hu[box][within] = shape.hu
    return suv, hu


def marked(shapes: Sequence[Ellipsoid], places: Places) -> NDArray[np.bool_]:
    """Which voxels (z, y, x) lie in one of ``shapes``."""
    taken = np.zeros(places.shape, dtype=bool)
    for shape in shapes:
        box, within = inside(shape, places)
        taken[box] |= within
    return taken


def draw_body(rng: np.random.Generator) -> tuple[list[Ellipsoid], list[Ellipsoid]]:
    """The tissues that hold organs, and the organs that no tumour touches; outermost first."""
    depth, width = rng.uniform(78.0, 88.0), rng.uniform(98.0, 110.0)
    trunk = Ellipsoid((0.0, 0.0, 0.0), (np.inf, depth, width), FAT_SUV, FAT_HU, (-np.inf, TRUNK_MM))
    neck = Ellipsoid(
        (0.0, 10.0, 0.0), (np.inf, *NECK_SEMI_MM), MUSCLE_SUV, MUSCLE_HU, (TRUNK_MM, NECK_MM)
    )
    tissues = [
        trunk,
        trunk.scaled(MUSCLE_SHARE, MUSCLE_SUV, MUSCLE_HU),
        trunk.scaled(CAVITY_SHARE, FAT_SUV, FAT_HU),
        neck,
        *(_organ(rng, (138, 0, side), (40, 54, 36), LUNG_SUV, LUNG_HU) for side in (-50, 50)),
    ]
    spine = Ellipsoid(
        (0.0, SPINE_MIDDLE_MM, 0.0), (np.inf, *SPINE_SEMI_MM), 1.3, 220.0, (-np.inf, NECK_MM)
    )
    heart = _organ(rng, (122, -20, 18), (20, 26, 26), rng.uniform(2.0, 12.0), 45)
    skull = _organ(rng, (214, 5, 0), (30, 56, 46), 0.6, 700)
    organs = [
        spine,
        _organ(rng, (140, 5, 0), (42, 36, 16), 1.3, 40),
        heart,
        heart.scaled(0.55, 1.7, 45.0),
        _organ(rng, (92, -5, -44), (24, 48, 42), 2.3, 58),
        _organ(rng, (92, 30, 58), (15, 20, 17), 1.9, 50),
        *(_organ(rng, (66, 34, s), (19, 14, 13), rng.uniform(5, 12), 32) for s in (-46, 46)),
        _organ(rng, (22, -20, 0), (15, 21, 23), rng.uniform(10, 30), 5),
        skull,
        skull.scaled(0.88, rng.uniform(7.0, 13.0), 35.0),
        *_scattered(rng, (3, 5), (30, 85), (8, 14), (0.8, 4.0), 30.0),
        *_scattered(rng, (2, 4), (20, 170), (6, 11), (4.0, 12.0), -85.0),
        *_scattered(rng, (2, 3), (30, 165), (5, 11), (0.7, 1.1), 55.0),
    ]
    return tissues, organs


def _organ(
    rng: np.random.Generator,
    middle_mm: tuple[float, float, float],
    semi_mm: tuple[float, float, float],
    suv: float,
    hu: float,
) -> Ellipsoid:
    z, y, x = (float(at + rng.normal(0.0, PLACE_SPREAD_MM)) for at in middle_mm)
    a, b, c = (float(semi * (1.0 + rng.normal(0.0, SIZE_SPREAD))) for semi in semi_mm)
    return Ellipsoid((z, y, x), (a, b, c), float(suv), float(hu))


def _scattered(
    rng: np.random.Generator,
    count: tuple[int, int],
    z_mm: tuple[float, float],
    semi_mm: tuple[float, float],
    suv: tuple[float, float],
    hu: float,
) -> list[Ellipsoid]:
    """Loops of bowel, brown fat, nodules: some of them, anywhere in the trunk's middle."""
    shapes = []
    for _ in range(int(rng.integers(count[0], count[1] + 1))):
        middle = (rng.uniform(*z_mm), rng.uniform(-45.0, 35.0), rng.uniform(-70.0, 70.0))
        a, b, c = rng.uniform(*semi_mm, size=3)
        semi = (float(a), float(b), float(c))
        shapes.append(Ellipsoid(middle, semi, float(rng.uniform(*suv)), hu))
    return shapes
