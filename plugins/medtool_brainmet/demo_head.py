"""A synthetic head: what HU stands at any point in mm, with or without metastases.

The head is made of ellipsoids in its own frame (x to the patient's Left, y to Posterior, z to
Superior, origin in the middle of the brain) and of two smooth random fields. It is evaluated at
points, so any slice orientation or gantry tilt shows the same head. What stands for disease
(``Lesion``) is drawn from a stream of its own: a head with and without lesions is otherwise the
same to the last bit of noise.

Healthy heads carry everything that fools a threshold: calcifications of pineal gland and choroid
plexus, dense vessels, dark old infarcts, dark ventricles. Only the pattern (a nodule or ring with
oedema around it) tells the classes apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

Floats = NDArray[np.float64]
LesionKind = Literal["solid", "ring", "dark"]

# HU of tissues on a scan without contrast medium: textbook ranges, rounded.
AIR_HU, SCALP_HU, BONE_HU, TABLE_HU = -1000.0, 30.0, 950.0, 120.0
GREY_HU, WHITE_HU, CSF_HU, FALX_HU, NUCLEI_HU = 39.0, 30.0, 8.0, 52.0, 42.0

# Semi-axes of an adult brain (x, y, z): 4/3 pi abc is 1,449 mL.
BRAIN_SEMI_AXES_MM = (66.0, 82.0, 64.0)
SKULL_MM, SCALP_MM = 7.0, 6.0
FIELD_HALF_WIDTH_MM = 120.0


@dataclass(frozen=True)
class Lesion:
    """One metastasis: centre in the head's frame, radius of the nodule, oedema around it."""

    kind: LesionKind
    centre_mm: tuple[float, float, float]
    radius_mm: float
    contrast_hu: float
    oedema_factor: float
    oedema_hu: float


@dataclass(frozen=True)
class Blob:
    """A healthy or old finding that both classes carry: a small ellipsoid of another density."""

    centre_mm: tuple[float, float, float]
    radii_mm: tuple[float, float, float]
    hu: float


@dataclass(frozen=True)
class Head:
    """One patient's anatomy; angles in radians, about z (yaw) and y (roll)."""

    seed: int
    scale: tuple[float, float, float]
    yaw: float
    roll: float
    centre_mm: tuple[float, float, float]
    ventricle_scale: float
    blobs: tuple[Blob, ...]
    lesions: tuple[Lesion, ...]


def draw_head(seed: int, *, lesions: bool) -> Head:
    """A head from its seed; with ``lesions`` the same head has one to four metastases."""
    rng = np.random.default_rng((seed, 0))
    scale = tuple(float(1 + d) for d in rng.uniform(-0.05, 0.05, 3))
    head = Head(
        seed=seed,
        scale=(scale[0], scale[1], scale[2]),
        yaw=float(np.radians(rng.uniform(-8, 8))),
        roll=float(np.radians(rng.uniform(-3, 3))),
        centre_mm=(float(rng.uniform(-6, 6)), float(rng.uniform(-6, 6)), float(rng.uniform(-3, 3))),
        ventricle_scale=float(rng.uniform(0.8, 1.3)),
        blobs=tuple(_healthy_blobs(rng)),
        lesions=(),
    )
    if not lesions:
        return head
    return replace(head, lesions=_draw_lesions(np.random.default_rng((seed, 1))))


def _healthy_blobs(rng: np.random.Generator) -> list[Blob]:
    """Calcifications, vessels and old infarcts, at the same rates in both classes."""
    blobs: list[Blob] = []
    if rng.random() < 0.6:
        radius = float(rng.uniform(1.5, 3.0))
        blobs.append(Blob((0.0, 18.0, -4.0), (radius,) * 3, float(rng.uniform(100, 250))))
    if rng.random() < 0.5:
        for side in (-1.0, 1.0):
            length_mm, density = float(rng.uniform(3, 5)), float(rng.uniform(90, 220))
            blobs.append(Blob((side * 17.0, 30.0, 2.0), (2.0, length_mm, 3.0), density))
    for _ in range(int(rng.integers(3, 8))):
        radius = float(rng.uniform(1.8, 4.0))
        centre = _inside_brain(rng, 0.25, 0.9)
        blobs.append(Blob(centre, (radius, radius, 2.5 * radius), float(rng.uniform(55, 75))))
    for _ in range(int(rng.integers(0, 4))):
        x_mm, y_mm, z_mm = (float(r) for r in rng.uniform(4, 11, 3))
        centre = _inside_brain(rng, 0.4, 0.85)
        blobs.append(Blob(centre, (x_mm, y_mm, z_mm), float(rng.uniform(14, 24))))
    return blobs


def _draw_lesions(rng: np.random.Generator) -> tuple[Lesion, ...]:
    """One to four; the first is a nodule or ring large enough to be seen on two slices."""
    kinds: tuple[LesionKind, ...] = ("solid", "ring", "dark")
    lesions = []
    for index in range(int(rng.integers(1, 5))):
        kind = kinds[int(rng.integers(0, 2 if index == 0 else 3))]
        lesions.append(
            Lesion(
                kind=kind,
                centre_mm=_inside_brain(rng, 0.35, 0.75),
                radius_mm=float(rng.uniform(7.0, 12.0) if index == 0 else rng.uniform(3.5, 8.0)),
                contrast_hu=float(rng.uniform(20, 34)),
                oedema_factor=float(rng.uniform(1.8, 2.5)),
                oedema_hu=float(rng.uniform(-15, -10)),
            )
        )
    return tuple(lesions)


def _inside_brain(
    rng: np.random.Generator, inner: float, outer: float
) -> tuple[float, float, float]:
    """A point between two shares of the brain's radius, not in its lowest and highest tenth."""
    direction = rng.normal(size=3)
    direction[2] *= 0.7
    direction /= np.linalg.norm(direction)
    point = direction * rng.uniform(inner, outer) * np.asarray(BRAIN_SEMI_AXES_MM)
    return float(point[0]), float(point[1]), float(point[2])


def hu_at(head: Head, points_mm: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """HU, and whether it is brain, at points (..., 3) in mm LPS; without noise of the scanner."""
    inside_mm = _to_head_frame(head, points_mm)
    axes = np.asarray(BRAIN_SEMI_AXES_MM) * np.asarray(head.scale)
    coarse = _random_field(head.seed, 2, inside_mm, spacing_mm=14.0)
    fine = _random_field(head.seed, 3, inside_mm, spacing_mm=5.0)
    radius = _relative_radius(inside_mm, axes)
    brain = radius < 1.0
    hu = np.full(radius.shape, AIR_HU)
    hu[_table(points_mm, head)] = TABLE_HU
    hu[_relative_radius(inside_mm, axes + SKULL_MM + SCALP_MM) < 1.0] = SCALP_HU
    hu[_relative_radius(inside_mm, axes + SKULL_MM) < 1.0] = BONE_HU
    tissue = _brain_tissue(head, inside_mm[brain], radius[brain], coarse[brain], fine[brain])
    hu[brain] = tissue
    return hu, brain


def _brain_tissue(
    head: Head, points_mm: Floats, radius: Floats, coarse: Floats, fine: Floats
) -> Floats:
    """HU of points (n, 3) inside the brain."""
    x_mm, y_mm, z_mm = points_mm.T
    hu = np.where(radius + 0.05 * coarse < 0.82, WHITE_HU, GREY_HU)
    for side in (-1.0, 1.0):
        hu[_near(points_mm, (side * 20, -5, 2), (9, 16, 10))] = NUCLEI_HU
    hu[(radius > 0.93) & (fine + coarse > 1.5)] = CSF_HU
    hu += 1.6 * coarse + 1.2 * fine
    for blob in head.blobs:
        hu[_near(points_mm, blob.centre_mm, blob.radii_mm)] = blob.hu
    for lesion in head.lesions:
        _add_lesion(hu, points_mm, fine, lesion)
    size = head.ventricle_scale
    for side in (-1.0, 1.0):
        frontal = _near(points_mm, (side * 9 * size, -8, 12), (5 * size, 24, 9 * size))
        dorsal = _near(points_mm, (side * 17 * size, 26, 6), (6 * size, 17, 10 * size))
        hu[(frontal | dorsal) & (hu < 80)] = CSF_HU
    hu[_near(points_mm, (0, 0, -4), (2.0 * size, 13, 9))] = CSF_HU
    hu[(np.abs(x_mm) < 1.3) & (radius > 0.55) & (z_mm > 5)] = FALX_HU
    hu[(np.abs(x_mm) < 3.0) & (radius > 0.95) & (y_mm > 20)] = FALX_HU + 12
    return hu


def _add_lesion(hu: Floats, points_mm: Floats, fine: Floats, lesion: Lesion) -> None:
    """Put oedema, then the nodule, into ``hu`` (changed in place)."""
    distance_mm = np.linalg.norm(points_mm - np.asarray(lesion.centre_mm), axis=1)
    edge_mm = lesion.radius_mm * lesion.oedema_factor * (1 + 0.12 * fine)
    hu[distance_mm < edge_mm] += lesion.oedema_hu
    nodule = distance_mm < lesion.radius_mm
    if lesion.kind == "solid":
        hu[nodule] = WHITE_HU + lesion.contrast_hu
    elif lesion.kind == "ring":
        hu[nodule] = WHITE_HU - 10.0
        rim = nodule & (distance_mm > lesion.radius_mm - max(2.2, 0.3 * lesion.radius_mm))
        hu[rim] = WHITE_HU + lesion.contrast_hu
    else:
        hu[nodule] = WHITE_HU - 16.0


def _to_head_frame(head: Head, points_mm: Floats) -> Floats:
    """Points in mm LPS to the head's own frame (roll about y, then yaw about z, undone)."""
    cos_yaw, sin_yaw = np.cos(head.yaw), np.sin(head.yaw)
    cos_roll, sin_roll = np.cos(head.roll), np.sin(head.roll)
    yaw = np.array([[cos_yaw, -sin_yaw, 0], [sin_yaw, cos_yaw, 0], [0, 0, 1]])
    roll = np.array([[cos_roll, 0, sin_roll], [0, 1, 0], [-sin_roll, 0, cos_roll]])
    moved: Floats = (points_mm - np.asarray(head.centre_mm)) @ (yaw @ roll)
    return moved


def _relative_radius(points_mm: Floats, semi_axes_mm: Floats) -> Floats:
    radius: Floats = np.sqrt(np.sum((points_mm / semi_axes_mm) ** 2, axis=-1))
    return radius


def _near(
    points_mm: Floats, centre_mm: Sequence[float], radii_mm: Sequence[float]
) -> NDArray[np.bool_]:
    """Whether points (n, 3) lie in an ellipsoid along the head's axes."""
    moved = (points_mm - np.asarray(centre_mm)) / np.asarray(radii_mm)
    inside: NDArray[np.bool_] = np.sum(moved**2, axis=-1) < 1.0
    return inside


def _random_field(seed: int, stream: int, points_mm: Floats, *, spacing_mm: float) -> Floats:
    """A smooth random field of about unit deviation, linear between knots ``spacing_mm`` apart."""
    knots = int(np.ceil(2 * FIELD_HALF_WIDTH_MM / spacing_mm)) + 1
    values = np.random.default_rng((seed, stream)).normal(size=(knots, knots, knots))
    places = (points_mm + FIELD_HALF_WIDTH_MM) / spacing_mm
    field: Floats = map_coordinates(
        values, places.reshape(-1, 3).T, order=1, mode="nearest", prefilter=False
    ).reshape(points_mm.shape[:-1])
    # Linear interpolation of unit normals has a mean variance of (2/3) per axis.
    field /= (2 / 3) ** 1.5
    return field


def _table(points_mm: Floats, head: Head) -> NDArray[np.bool_]:
    """A curved head rest behind the head, separated from it by air."""
    x_mm, y_mm = points_mm[..., 0], points_mm[..., 1]
    behind_mm = head.centre_mm[1] + BRAIN_SEMI_AXES_MM[1] * head.scale[1] + SKULL_MM + SCALP_MM
    surface_mm = behind_mm + 7.0 - 0.002 * x_mm**2
    table: NDArray[np.bool_] = (y_mm > surface_mm) & (y_mm < surface_mm + 5.0)
    return table & (np.abs(x_mm) < 100.0)
