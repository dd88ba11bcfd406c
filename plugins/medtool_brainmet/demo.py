"""A synthetic cohort of head CT: ``CTs/<patient>/...`` and ``labels1.csv``.

Patients come in pairs, one of each class, that share everything which is not disease: scanner
model, kernel, number of slices, spacing, noise and the mean HU of the brain. So nothing but the
image tells the classes apart. Four patients have what real folders have: a tilted gantry, a scout,
a broken file, a second study.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from medtool.core.processes import begin_worker
from medtool.core.progress import Reporter, Silent
from medtool.data.machine import usable_cores
from medtool_brainmet.demo_dicom import (
    Acquisition,
    StudyHeader,
    pixel_points,
    slice_planes,
    write_slice,
)
from medtool_brainmet.demo_head import Head, draw_head, hu_at

MODELS = ("Phantom One", "Phantom Duo", "Phantom Max")
KERNELS = ("soft", "brain")
STEPS_MM = (7.0, 7.5, 8.0)
PIXEL_MM = 1.9
TILT_DEGREES = 15.0
# A slice is the mean of the head over its thickness, taken at these shares of it.
THROUGH_SLICE = (-0.25, 0.25)
# Deviation of the in-plane point spread, in pixels.
BLUR_PX = 0.55


@dataclass(frozen=True)
class DemoOptions:
    """Size and kind of the cohort.

    ``lesions=False`` leaves every lesion out and keeps the labels: what then still predicts the
    label is a fault of the generator or of the pipeline. ``workers`` None takes all usable cores.
    """

    patients: int = 120
    size_px: int = 128
    slices: tuple[int, ...] = (17, 18, 19, 20)
    lesions: bool = True
    oddities: bool = True
    workers: int | None = None


@dataclass(frozen=True)
class DemoStudy:
    """One study to write."""

    header: StudyHeader
    head: Head
    acquisition: Acquisition
    mean_hu: float
    noise_seed: int
    scout: bool = False
    broken_file: bool = False


def write_cohort(
    folder: Path,
    seed: int,
    options: DemoOptions | None = None,
    reporter: Reporter | None = None,
) -> None:
    """Write the cohort into ``folder`` (made if missing); the same seed gives the same files."""
    options = options or DemoOptions()
    studies, labels = plan_cohort(seed, options)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "labels1.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["patient_id", "label"])
        writer.writerows(sorted(labels.items()))
    write = partial(write_study, folder)
    workers = usable_cores() if options.workers is None else options.workers
    if workers > 1:
        # Spawned: the caller may hold threads, which a fork would leave behind locked.
        with ProcessPoolExecutor(
            workers, mp_context=get_context("spawn"), initializer=begin_worker
        ) as pool:
            _count(pool.map(write, studies, chunksize=4), len(studies), reporter)
    else:
        _count(map(write, studies), len(studies), reporter)


def _count(written: Iterable[None], studies: int, reporter: Reporter | None) -> None:
    """Wait for every study, under a bar."""
    with (reporter or Silent()).progress("Writing", studies) as advance:
        for _ in written:
            advance()


def plan_cohort(seed: int, options: DemoOptions) -> tuple[list[DemoStudy], dict[str, int]]:
    """What to write, and the label of each patient; everything random is drawn here."""
    rng = np.random.default_rng((seed, 17))
    order = rng.permutation(options.patients)
    studies: list[DemoStudy] = []
    labels: dict[str, int] = {}
    for index in range(options.patients):
        if index % 2 == 0:
            acquisition = _draw_acquisition(rng, options)
            mean_hu = float(rng.normal(33.0, 1.2))
        label = index % 2
        number = int(order[index]) + 1
        patient = f"P{number:04d}"
        labels[patient] = label
        head_seed, noise_seed = (int(value) for value in rng.integers(0, 2**31, 2))
        studies.append(
            DemoStudy(
                header=_header(seed, patient, 1),
                head=draw_head(head_seed, lesions=bool(label) and options.lesions),
                acquisition=acquisition,
                # The partners' means differ by a tenth of the spread between pairs.
                mean_hu=mean_hu + float(rng.normal(0.0, 0.12)),
                noise_seed=noise_seed,
            )
        )
    if options.oddities:
        studies = _with_oddities(seed, studies)
    return studies, labels


def _draw_acquisition(rng: np.random.Generator, options: DemoOptions) -> Acquisition:
    return Acquisition(
        model=MODELS[int(rng.integers(len(MODELS)))],
        kernel=KERNELS[int(rng.integers(len(KERNELS)))],
        slices=options.slices[int(rng.integers(len(options.slices)))],
        step_mm=STEPS_MM[int(rng.integers(len(STEPS_MM)))],
        pixel_mm=PIXEL_MM * 128 / options.size_px,
        size_px=options.size_px,
        noise_hu=float(rng.uniform(2.5, 4.0)),
    )


def _header(seed: int, patient: str, visit: int) -> StudyHeader:
    return StudyHeader(
        name=f"medtool-demo/{seed}/{patient}/{visit}",
        patient_id=patient,
        accession=f"A{patient[1:]}{visit}",
        study_date=f"2020{visit:02d}{int(patient[1:]) % 27 + 1:02d}",
    )


def _with_oddities(seed: int, studies: list[DemoStudy]) -> list[DemoStudy]:
    """The same studies; four (at most) changed or added to, two of each class."""
    changed = list(studies)
    tilted = replace(changed[0].acquisition, tilt_degrees=TILT_DEGREES)
    changed[0] = replace(changed[0], acquisition=tilted)
    if len(changed) > 1:
        changed[1] = replace(changed[1], scout=True)
    if len(changed) > 2:
        changed[2] = replace(changed[2], broken_file=True)
    if len(changed) > 3:
        first = changed[3]
        again = _header(seed, first.header.patient_id, 2)
        changed.append(replace(first, header=again, noise_seed=first.noise_seed + 1))
    return changed


def write_study(folder: Path, study: DemoStudy) -> None:
    """One study's files below ``folder``/CTs/<patient>/<date>."""
    target = folder / "CTs" / study.header.patient_id / study.header.study_date
    target.mkdir(parents=True, exist_ok=True)
    volume = render(study)
    positions, orientation = slice_planes(study.acquisition)
    for index, (hu, position) in enumerate(zip(volume, positions, strict=True)):
        write_slice(
            target / f"IM{index + 1:04d}.dcm",
            hu,
            header=study.header,
            acquisition=study.acquisition,
            series=2,
            number=index + 1,
            position_mm=position.tolist(),
            orientation=orientation,
        )
    if study.scout:
        _write_scout(target / "SCOUT.dcm", study)
    if study.broken_file:
        # A copy that broke off inside the header.
        whole = (target / "IM0001.dcm").read_bytes()
        (target / "IM0001_copy.dcm").write_bytes(whole[:400])


def render(study: DemoStudy) -> NDArray[np.float64]:
    """The study's slices (z, y, x) in HU, lowest first, with the scanner's blur and noise."""
    acquisition = study.acquisition
    positions, orientation = slice_planes(acquisition)
    normal = np.cross(orientation[:3], orientation[3:])
    rng = np.random.default_rng((study.noise_seed, 23))
    slices, masks = [], []
    for position in positions:
        samples = [
            hu_at(
                study.head,
                pixel_points(
                    acquisition, position + share * acquisition.step_mm * normal, orientation
                ),
            )
            for share in THROUGH_SLICE
        ]
        slices.append(np.mean([hu for hu, _ in samples], axis=0))
        masks.append(np.all([brain for _, brain in samples], axis=0))
    volume = np.stack(slices)
    brain = np.stack(masks)
    volume[brain] += study.mean_hu - np.clip(volume[brain], 0, 80).mean()
    for index in range(len(volume)):
        noise = cv2.GaussianBlur(rng.normal(size=volume[index].shape), (0, 0), 0.7)
        smooth = cv2.GaussianBlur(volume[index], (0, 0), BLUR_PX)
        volume[index] = smooth + acquisition.noise_hu * noise / noise.std()
    return volume


def _write_scout(path: Path, study: DemoStudy) -> None:
    """A sagittal localizer: one projection of the same head."""
    acquisition = study.acquisition
    orientation = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
    half_mm = acquisition.pixel_mm * (acquisition.size_px - 1) / 2
    corner = np.array([0.0, -half_mm, half_mm])
    depths_mm = np.linspace(-70, 70, 15)
    views = [
        hu_at(
            study.head,
            pixel_points(acquisition, corner + np.array([depth, 0.0, 0.0]), orientation),
        )[0]
        for depth in depths_mm
    ]
    write_slice(
        path,
        np.mean(views, axis=0),
        header=study.header,
        acquisition=acquisition,
        series=1,
        number=1,
        position_mm=corner.tolist(),
        orientation=orientation,
        image_type=("ORIGINAL", "PRIMARY", "LOCALIZER"),
    )
