"""A synthetic PET/CT cohort: tumours among organs that take up as much, and what became of people.

Everything of a patient is drawn from (seed, number). Tumours are 0.03 to 0.5 % of the voxels; a few
patients have none. The hazard of a patient depends on the tumours' volume and uptake and a little
on age; ``true_risk.csv`` keeps it, so that the best C that anybody could reach is known. Nothing
learns from that file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from medtool.core.files import replace_text
from medtool.core.geometry import Grid, Triple
from medtool.core.progress import Reporter, Silent
from medtool.core.randomness import generator
from medtool.data.nifti_writer import write_nifti
from medtool_petct.demo_body import (
    CAVITY_SHARE,
    LENGTH_MM,
    Ellipsoid,
    Places,
    draw_body,
    marked,
    painted,
)
from medtool_petct.demo_dicom import write_study
from medtool_petct.demo_outcomes import DemoPatient, draw_patient

if TYPE_CHECKING:
    from numpy.typing import NDArray

CASES = 100
# Voxels (z, y, x) and spacing (z, y, x) in mm of both images; their slices are the same.
PET_VOX, PET_SPACING_MM = (48, 64, 64), (5.0, 4.0, 4.0)
CT_VOX, CT_SPACING_MM = (48, 80, 80), (5.0, 3.4, 3.4)
# Of every twelve patients one has no tumour.
HEALTHY_EVERY, HEALTHY_AT = 12, 7
# Share of the voxels that the tumours of a patient are to fill, and how many they are.
TUMOUR_SHARE, TUMOURS = (0.0004, 0.0045), (1, 3)
# Uptake of the tumours of a patient, spread between them, HU.
UPTAKE_SUV, UPTAKE_SPREAD, TUMOUR_HU = (3.5, 13.0), 0.12, (55.0, 6.0)
# Semi-axes beside those of a ball of the same volume.
FORM = (0.85, 1.2)
# A tumour stays this far from what it could be confused with.
APART_MM = 7.0
# The scanners: blur (standard deviation), noise of PET as a share and as a floor, noise of CT.
PET_BLUR_MM, PET_NOISE, PET_FLOOR_SUV = 2.6, 0.06, 0.05
CT_BLUR_MM, CT_NOISE_HU = 1.5, 14.0
# SUV is stored in steps, as scanners store it.
SUV_STEP = 1.0 / 64.0
DESCRIPTION = "synthetic: made by medtool demo"
MANIFEST, TRUE_RISK = "manifest.csv", "true_risk.csv"


@dataclass(frozen=True)
class DemoCase:
    """SUV and mask (z, y, x) on ``pet_grid``, HU on ``ct_grid``, and what became of the patient."""

    suv: NDArray[np.float32]
    hu: NDArray[np.int16]
    mask: NDArray[np.uint8]
    pet_grid: Grid
    ct_grid: Grid
    patient: DemoPatient


def write_cohort(
    folder: Path, seed: int, cases: int = CASES, reporter: Reporter | None = None
) -> None:
    """Write ``pet``, ``ct``, ``masks``, ``manifest.csv`` and ``true_risk.csv`` into ``folder``.

    One further patient, in no table, is a study of DICOM slices in ``dicom``.
    """
    for name in ("pet", "ct", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    rows = ["case,patient,image_pet,image_ct,mask,age,sex,stage,time_days,event"]
    risks = ["case,true_log_hazard"]
    with (reporter or Silent()).progress("Writing", cases) as advance:
        for number in range(cases):
            made, name = draw_case(seed, number), f"demo_{number:03d}"
            files = [f"{kind}/{name}.nii.gz" for kind in ("pet", "ct", "masks")]
            write_nifti(folder / files[0], made.suv, made.pet_grid, description=DESCRIPTION)
            write_nifti(folder / files[1], made.hu, made.ct_grid, description=DESCRIPTION)
            write_nifti(folder / files[2], made.mask, made.pet_grid, description=DESCRIPTION)
            patient = made.patient
            cells = [name, f"person_{number:03d}", *files, patient.age, patient.sex, patient.stage]
            rows.append(",".join([*cells, str(patient.time_days), str(int(patient.event))]))
            risks.append(f"{name},{patient.log_hazard:.6f}")
            advance()
    write_study(folder / "dicom", draw_case(seed, cases), f"person_{cases:03d}", SUV_STEP)
    replace_text(folder / MANIFEST, "\n".join(rows) + "\n")
    replace_text(folder / TRUE_RISK, "\n".join(risks) + "\n")


def draw_case(seed: int, number: int) -> DemoCase:
    """One patient: body, tumours, images of both scanners, outcome."""
    rng = generator("petct-demo", seed, number)
    origin_mm = rng.uniform(-60.0, 60.0, 3)
    pet_grid, pet = _grid(PET_VOX, PET_SPACING_MM, origin_mm)
    ct_grid, ct = _grid(CT_VOX, CT_SPACING_MM, origin_mm)
    tissues, organs = draw_body(rng)
    uptake_suv = float(np.exp(rng.uniform(*np.log(UPTAKE_SUV))))
    tumours: list[Ellipsoid] = []
    if number % HEALTHY_EVERY != HEALTHY_AT:
        tumours = _draw_tumours(rng, tissues, organs, pet, uptake_suv)
    everything = [*tissues, *organs, *tumours]
    mask = marked(tumours, pet)
    voxel_ml = float(np.prod(PET_SPACING_MM)) / 1000.0
    patient = draw_patient(rng, float(mask.sum()) * voxel_ml, uptake_suv, len(tumours))
    return DemoCase(
        suv=_scanned_suv(rng, painted(everything, pet)[0]),
        hu=_scanned_hu(rng, painted(everything, ct)[1]),
        mask=mask.astype(np.uint8),
        pet_grid=pet_grid,
        ct_grid=ct_grid,
        patient=patient,
    )


def _grid(
    size_vox: tuple[int, int, int], spacing_mm: Triple, middle_mm: NDArray[np.float64]
) -> tuple[Grid, Places]:
    """A grid around ``middle_mm`` (x, y, z) of the patient, and its voxels' places in the body."""
    z, y, x = (
        np.asarray((np.arange(count) - (count - 1) / 2.0) * step, dtype=np.float64)
        for count, step in zip(size_vox, spacing_mm, strict=True)
    )
    first = middle_mm + [x[0], y[0], z[0]]
    origin = (float(first[0]), float(first[1]), float(first[2]))
    grid = Grid(size_vox[::-1], spacing_mm[::-1], origin)
    return grid, Places(z + LENGTH_MM / 2.0, y, x)


def _draw_tumours(
    rng: np.random.Generator,
    tissues: list[Ellipsoid],
    organs: list[Ellipsoid],
    places: Places,
    uptake_suv: float,
) -> list[Ellipsoid]:
    """One to three ellipsoids of a drawn volume together, each where it touches no organ."""
    total_mm3 = np.exp(rng.uniform(*np.log(TUMOUR_SHARE))) * np.prod([*PET_VOX, *PET_SPACING_MM])
    shares = rng.dirichlet(np.full(int(rng.integers(TUMOURS[0], TUMOURS[1] + 1)), 3.0))
    lungs = tissues[-2:]
    room = marked([tissues[0].scaled(CAVITY_SHARE, 0.0, 0.0), *lungs], places)
    tumours: list[Ellipsoid] = []
    for volume_mm3 in sorted((total_mm3 * shares).tolist(), reverse=True):
        free = room & ~marked([*organs, *tumours], places)
        reach_mm = ndimage.distance_transform_edt(free, sampling=PET_SPACING_MM)
        form = rng.uniform(*FORM, size=3)
        semi_mm = form / np.prod(form) ** (1 / 3) * (3.0 * volume_mm3 / (4.0 * np.pi)) ** (1 / 3)
        needed_mm = float(semi_mm.max()) + APART_MM
        if reach_mm.max() < needed_mm:
            semi_mm *= (reach_mm.max() - APART_MM) / semi_mm.max()
            needed_mm = float(reach_mm.max())
        candidates = np.argwhere(reach_mm >= needed_mm)
        at = candidates[int(rng.integers(len(candidates)))]
        axes = (places.z_mm, places.y_mm, places.x_mm)
        z, y, x = (float(axis[place]) for axis, place in zip(axes, at, strict=True))
        a, b, c = (float(semi) for semi in semi_mm)
        suv = uptake_suv * float(np.exp(rng.normal(0.0, UPTAKE_SPREAD)))
        tumours.append(Ellipsoid((z, y, x), (a, b, c), suv, float(rng.normal(*TUMOUR_HU))))
    return tumours


def _scanned_suv(rng: np.random.Generator, suv: NDArray[np.float64]) -> NDArray[np.float32]:
    """What the scanner makes of it: blurred, noisy, never below 0, in steps."""
    sigma_vox = [PET_BLUR_MM / step for step in PET_SPACING_MM]
    seen = ndimage.gaussian_filter(suv, sigma_vox)
    seen += rng.normal(size=suv.shape) * (PET_NOISE * seen + PET_FLOOR_SUV)
    stored: NDArray[np.float32] = (np.rint(np.maximum(seen, 0.0) / SUV_STEP) * SUV_STEP).astype(
        "f4"
    )
    return stored


def _scanned_hu(rng: np.random.Generator, hu: NDArray[np.float64]) -> NDArray[np.int16]:
    sigma_vox = [CT_BLUR_MM / step for step in CT_SPACING_MM]
    seen = ndimage.gaussian_filter(hu, sigma_vox) + rng.normal(0.0, CT_NOISE_HU, hu.shape)
    stored: NDArray[np.int16] = np.rint(np.clip(seen, -1024.0, 3000.0)).astype(np.int16)
    return stored
