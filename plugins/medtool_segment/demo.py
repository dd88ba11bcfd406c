"""A synthetic MR data set in nnU-Net's layout: an organ with a nodule among look-alikes.

The organ is an ellipsoid with fine stripes and a darker nodule inside; three smooth ellipsoids of
the same brightness lie around it. No threshold on brightness tells them apart: a network has to
look at texture. Everything of a case is drawn from (seed, case).
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

CASES = 28
# Voxels (z, y, x), and what each case's spacing is drawn from, in mm.
SIZE_VOX = (36, 44, 44)
SPACING_MM = ((1.4, 1.7), (1.0, 1.2), (1.0, 1.2))
ORGAN, NODULE = 1, 2
LABELS = {"background": 0, "organ": ORGAN, "nodule": NODULE}
DISTRACTORS = 3
# Semi-axes of the ellipsoids in mm, and of the nodule.
SEMI_AXES_MM = (8.0, 11.0)
NODULE_MM = (3.5, 4.5)
# Brightness in arbitrary units, as MR has: background, bodies, nodule; stripes; noise.
BACKGROUND, BODY, DARK = 100.0, 160.0, 125.0
STRIPES, STRIPE_MM, NOISE = 18.0, 3.2, 9.0
DESCRIPTION = "synthetic: made by medtool demo"
TRIES = 400


@dataclass(frozen=True)
class Body:
    """An ellipsoid: centre and semi-axes in mm, array order."""

    centre_mm: NDArray[np.float64]
    semi_axes_mm: NDArray[np.float64]

    def inside(self, places_mm: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Where ``places_mm`` (3, z, y, x) lie inside."""
        apart = places_mm - self.centre_mm[:, None, None, None]
        shares = apart / self.semi_axes_mm[:, None, None, None]
        within: NDArray[np.bool_] = (shares**2).sum(axis=0) <= 1.0
        return within


def write_dataset(
    folder: Path, seed: int, cases: int = CASES, reporter: Reporter | None = None
) -> None:
    """Write ``imagesTr``, ``labelsTr`` and ``dataset.json`` into ``folder``."""
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    with (reporter or Silent()).progress("Writing", cases) as advance:
        for number in range(cases):
            _write_case(folder, f"demo_{number:03d}", *draw_case(seed, number))
            advance()
    document = {
        "channel_names": {"0": "MR"},
        "labels": LABELS,
        "numTraining": cases,
        "file_ending": ".nii.gz",
        "name": "Demo",
        "description": "An organ with a nodule among look-alikes; nobody was scanned.",
        "synthetic": True,
    }
    replace_text(folder / "dataset.json", json.dumps(document, indent=1) + "\n")


def _write_case(
    folder: Path, case: str, image: NDArray[np.float32], mask: NDArray[np.uint8], grid: Grid
) -> None:
    write_nifti(folder / "imagesTr" / f"{case}_0000.nii.gz", image, grid, description=DESCRIPTION)
    write_nifti(folder / "labelsTr" / f"{case}.nii.gz", mask, grid, description=DESCRIPTION)


def draw_case(seed: int, number: int) -> tuple[NDArray[np.float32], NDArray[np.uint8], Grid]:
    """Image and mask (z, y, x) of one case, and where they lie."""
    rng = generator("segment-demo", seed, number)
    spacing = np.array([rng.uniform(*ends) for ends in SPACING_MM])
    index = np.indices(SIZE_VOX).astype(np.float64)
    places = index * spacing[:, None, None, None]
    organ, *others = _bodies(rng, spacing)
    image = np.full(SIZE_VOX, BACKGROUND) + 12.0 * _texture(rng)
    for body in others:
        image[body.inside(places)] = BODY
    inside = organ.inside(places)
    nodule = _nodule(rng, organ).inside(places) & inside
    phase = rng.uniform(0, 2 * np.pi)
    stripes = STRIPES * np.sin(2 * np.pi * (places[1] + places[2]) / STRIPE_MM + phase)
    image[inside] = BODY + stripes[inside]
    image[nodule] = DARK
    image += rng.normal(0.0, NOISE, SIZE_VOX)
    # Scanners have no common scale.
    image *= rng.uniform(0.5, 2.0)
    mask = np.zeros(SIZE_VOX, dtype=np.uint8)
    mask[inside], mask[nodule] = ORGAN, NODULE
    z, y, x = SIZE_VOX
    dz, dy, dx = (float(step) for step in spacing)
    origin = tuple(float(value) for value in rng.uniform(-60, 60, 3))
    grid = Grid((x, y, z), (dx, dy, dz), (origin[0], origin[1], origin[2]))
    return image.astype(np.float32), mask, grid


def _bodies(rng: np.random.Generator, spacing_mm: NDArray[np.float64]) -> list[Body]:
    """The organ and its look-alikes, none touching another."""
    extent = np.asarray(SIZE_VOX) * spacing_mm
    bodies: list[Body] = []
    for _ in range(TRIES):
        semi = rng.uniform(*SEMI_AXES_MM, size=3)
        centre = rng.uniform(semi + 1.0, extent - semi - 1.0)
        far = all(
            np.linalg.norm(centre - other.centre_mm) > semi.max() + other.semi_axes_mm.max()
            for other in bodies
        )
        if far:
            bodies.append(Body(centre, semi))
        if len(bodies) == DISTRACTORS + 1:
            break
    return bodies


def _nodule(rng: np.random.Generator, organ: Body) -> Body:
    semi = rng.uniform(*NODULE_MM, size=3)
    room = organ.semi_axes_mm - semi
    return Body(organ.centre_mm + 0.5 * room * rng.uniform(-1, 1, size=3), semi)


def _texture(rng: np.random.Generator) -> NDArray[np.float64]:
    """Smooth noise of deviation 1."""
    smooth: NDArray[np.float64] = ndimage.gaussian_filter(rng.normal(size=SIZE_VOX), 3.0)
    smooth /= smooth.std()
    return smooth
