"""A synthetic short-axis MR cohort: slices as NIfTI, masks as PNG, a manifest that joins them.

Each slice shows a bright ventricle with dark papillary spots inside a dark ring of muscle. Beside
it lie a crescent (the other ventricle), vessels and fat of the same brightness, without such a
ring: no threshold on brightness tells them apart, a network has to look at what lies around. All of
a patient is drawn from (seed, patient), what differs from slice to slice from (seed, patient,
slice).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from medtool.core.files import replace_text
from medtool.core.geometry import Grid
from medtool.core.progress import Reporter, Silent
from medtool.core.randomness import generator
from medtool.data.masks import write_mask_picture
from medtool.data.nifti_writer import write_nifti

if TYPE_CHECKING:
    from numpy.typing import NDArray

PATIENTS, SLICES = 32, 4
SIDE_PX = 96
PIXEL_MM, SLICE_MM = (1.5, 2.0), 8.0
# Radii of the ventricle and of what looks like it, thickness of the ring, in mm.
CAVITY_MM, RING_MM, OTHER_MM = (15.0, 24.0), (6.0, 10.0), (9.0, 16.0)
OTHERS = 5
# How far from the middle of the picture the ventricle lies at most.
ASIDE_MM = 20.0
# Brightness in arbitrary units, as MR has: blood and fat, muscle, lung, the rest; and noise.
BRIGHT, MUSCLE, LUNG, BODY, NOISE = 200.0, 60.0, 20.0, 100.0, 9.0
BLUR_PX = 0.7
MASK_VALUE = 255
DESCRIPTION = "synthetic: made by medtool demo"


@dataclass(frozen=True)
class Ellipse:
    """Centre (row, column) and semi-axes in mm, and how far it is turned."""

    centre_mm: tuple[float, float]
    semi_axes_mm: tuple[float, float]
    angle: float = 0.0

    def inside(self, places_mm: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Where ``places_mm`` (2, rows, columns) lie inside."""
        down, across = (p - c for p, c in zip(places_mm, self.centre_mm, strict=True))
        first = np.cos(self.angle) * down + np.sin(self.angle) * across
        second = np.cos(self.angle) * across - np.sin(self.angle) * down
        a, b = self.semi_axes_mm
        within: NDArray[np.bool_] = (first / a) ** 2 + (second / b) ** 2 <= 1.0
        return within

    def grown(self, by_mm: float) -> Ellipse:
        """The ellipse with semi-axes longer by ``by_mm``."""
        a, b = self.semi_axes_mm
        return Ellipse(self.centre_mm, (a + by_mm, b + by_mm), self.angle)


def write_cohort(
    folder: Path, seed: int, patients: int = PATIENTS, reporter: Reporter | None = None
) -> None:
    """Write ``images``, ``masks`` and ``manifest.csv`` into ``folder``."""
    rows = ["case,patient,image,mask"]
    with (reporter or Silent()).progress("Writing", patients) as advance:
        for number in range(patients):
            patient = f"DEMO-{number:03d}"
            for index in range(SLICES):
                image, mask, grid = draw_slice(seed, number, index)
                case = f"{patient}_{index}"
                image_file = Path("images") / patient / f"{index}.nii.gz"
                mask_file = Path("masks") / patient / f"{index}.png"
                for file in (image_file, mask_file):
                    (folder / file).parent.mkdir(parents=True, exist_ok=True)
                write_nifti(folder / image_file, image[None], grid, description=DESCRIPTION)
                write_mask_picture(folder / mask_file, mask[None] * np.uint8(MASK_VALUE))
                rows.append(f"{case},{patient},{image_file.as_posix()},{mask_file.as_posix()}")
            advance()
    replace_text(folder / "manifest.csv", "\n".join(rows) + "\n")


def draw_slice(
    seed: int, patient: int, index: int
) -> tuple[NDArray[np.float32], NDArray[np.uint8], Grid]:
    """Image and mask (rows, columns) of one slice, and where it lies."""
    own = generator("heart-demo", seed, patient)
    pixel_mm = float(own.uniform(*PIXEL_MM))
    middle_mm = SIDE_PX * pixel_mm / 2
    centre = own.uniform(middle_mm - ASIDE_MM, middle_mm + ASIDE_MM, size=2)
    semi = own.uniform(*CAVITY_MM, size=2)
    ring_mm, angle = float(own.uniform(*RING_MM)), float(own.uniform(0, np.pi))
    # Scanners have no common scale.
    scale = float(own.uniform(0.5, 2.0))
    rng = generator("heart-demo-slice", seed, patient, index)
    # The ventricle narrows from slice to slice, and shifts a little.
    shrunk = semi * (1.0 - 0.08 * index)
    down, across = centre + rng.normal(0.0, 1.0, size=2)
    cavity = Ellipse((down, across), (shrunk[0], shrunk[1]), angle)
    places = np.indices((SIDE_PX, SIDE_PX)).astype(np.float64) * pixel_mm
    image = BODY + 12.0 * _texture(rng)
    muscle = cavity.grown(ring_mm).inside(places)
    for lung in _lungs(rng, middle_mm):
        image[lung.inside(places)] = LUNG
    for other in _others(rng, cavity.grown(ring_mm), 2 * middle_mm):
        image[other.inside(places)] = BRIGHT
    image[_crescent(rng, cavity.grown(ring_mm), places)] = BRIGHT
    inside = cavity.inside(places)
    image[muscle] = MUSCLE
    image[inside] = BRIGHT
    for spot in _papillary(rng, cavity):
        image[spot.inside(places) & inside] = MUSCLE
    image = ndimage.gaussian_filter(image, BLUR_PX) + rng.normal(0.0, NOISE, image.shape)
    grid = Grid((SIDE_PX, SIDE_PX, 1), (pixel_mm, pixel_mm, SLICE_MM), (0.0, 0.0, SLICE_MM * index))
    return (image * scale).astype(np.float32), inside.astype(np.uint8), grid


def _lungs(rng: np.random.Generator, middle_mm: float) -> list[Ellipse]:
    """A dark one on either side."""
    return [
        Ellipse((middle_mm * rng.uniform(0.8, 1.2), middle_mm * at), (45.0, 22.0))
        for at in (rng.uniform(0.0, 0.2), rng.uniform(1.8, 2.0))
    ]


def _others(rng: np.random.Generator, heart: Ellipse, side_mm: float) -> list[Ellipse]:
    """Vessels and fat, none of them in the heart."""
    found: list[Ellipse] = []
    reach = max(heart.semi_axes_mm)
    while len(found) < OTHERS:
        semi = rng.uniform(*OTHER_MM, size=2)
        down, across = rng.uniform(0.0, side_mm, size=2)
        apart = np.hypot(down - heart.centre_mm[0], across - heart.centre_mm[1])
        if apart > reach + semi.max():
            turned = float(rng.uniform(0, np.pi))
            found.append(Ellipse((down, across), (semi[0], semi[1]), turned))
    return found


def _crescent(
    rng: np.random.Generator, heart: Ellipse, places_mm: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """The other ventricle: what an ellipse beside the heart has outside of it."""
    towards = rng.uniform(0, 2 * np.pi)
    a, b = heart.semi_axes_mm
    down, across = heart.centre_mm
    beside = (down + 0.9 * a * np.sin(towards), across + 0.9 * b * np.cos(towards))
    return Ellipse(beside, (a * 0.9, b * 0.9), heart.angle).inside(places_mm)


def _papillary(rng: np.random.Generator, cavity: Ellipse) -> list[Ellipse]:
    """Two dark spots inside the ventricle."""
    a, b = cavity.semi_axes_mm
    down, across = cavity.centre_mm
    return [
        Ellipse((down + 0.5 * a * np.sin(at), across + 0.5 * b * np.cos(at)), (2.5, 2.5))
        for at in rng.uniform(0, 2 * np.pi, size=2)
    ]


def _texture(rng: np.random.Generator) -> NDArray[np.float64]:
    """Smooth noise of deviation 1."""
    smooth: NDArray[np.float64] = ndimage.gaussian_filter(rng.normal(size=(SIDE_PX, SIDE_PX)), 3.0)
    smooth /= smooth.std()
    return smooth
