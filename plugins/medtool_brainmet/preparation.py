"""Stages 1 to 4 in a row: from a scan to windowed slices of the brain, and what was dropped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medtool.core.errors import CaseRefused
from medtool.core.geometry import Grid
from medtool.core.records import Case, Finding, Prepared
from medtool_brainmet.asymmetry import MidSagittal
from medtool_brainmet.extraction import BrainMask, extract_brain
from medtool_brainmet.morphology import Mask
from medtool_brainmet.quality import SliceQuality, judge_slices
from medtool_brainmet.reading import Scan, why_not_hu
from medtool_brainmet.resizing import cut_square, square_around, to_patient_axes
from medtool_brainmet.windowing import apply_window

if TYPE_CHECKING:
    from medtool_brainmet.settings import PreparationSection

HU_QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


@dataclass(frozen=True)
class Stages:
    """What each stage gave; arrays are (z, y, x) in the patient's directions."""

    volume_hu: NDArray[np.float32]
    grid: Grid
    brain: BrainMask
    windowed: NDArray[np.float32]
    slices: NDArray[np.float32]
    masks: Mask
    slices_grid: Grid
    quality: tuple[SliceQuality, ...]
    mid_sagittal: MidSagittal

    @property
    def used(self) -> list[int]:
        """Indices of the slices that the network sees."""
        return [index for index, verdict in enumerate(self.quality) if verdict.used]


def run_stages(scan: Scan, settings: PreparationSection) -> Stages:
    """All stages of a scan. Raises CaseRefused ("not-hu", "not-axial", "no-brain")."""
    fault = why_not_hu(scan.volume_hu)
    if fault:
        raise CaseRefused("not-hu", "The pixels are not HU of a head.", met=fault, wanted="HU")
    volume_hu, grid = to_patient_axes(scan.volume_hu, scan.grid)
    brain = extract_brain(volume_hu, grid.spacing_mm, settings.extraction)
    for finding in brain.findings:
        if finding.severity == "refusal":
            raise CaseRefused(finding.code, finding.message[:1].upper() + finding.message[1:] + ".")
    windowed = apply_window(volume_hu, settings.window_level_hu, settings.window_width_hu)
    square = square_around(brain.mask, grid, settings.field_mm)
    slices, masks = cut_square(windowed, brain.mask, square, settings.size_px)
    slices_grid = square.grid_of(grid, settings.size_px)
    quality, line = judge_slices(slices, masks, slices_grid.spacing_mm[0], settings.quality)
    return Stages(
        volume_hu=volume_hu,
        grid=grid,
        brain=brain,
        windowed=windowed,
        slices=slices,
        masks=masks,
        slices_grid=slices_grid,
        quality=tuple(quality),
        mid_sagittal=line,
    )


def prepare_scan(case: Case, scan: Scan, settings: PreparationSection) -> Prepared:
    """The record for the cache. Raises CaseRefused, also with "too-few-brain-slices"."""
    stages = run_stages(scan, settings)
    used = stages.used
    if len(used) < settings.quality.least_slices:
        raise CaseRefused(
            "too-few-brain-slices",
            "Too few slices are left after the quality filter.",
            met=f"{len(used)} of {len(stages.quality)}: {_reasons(stages)}",
            wanted=f"at least {settings.quality.least_slices}",
        )
    return Prepared(
        case_id=case.case_id,
        # 16 bits keep a share of the window to 0.02 HU.
        arrays={
            "slices": stages.slices[used].astype(np.float16),
            "mask": stages.masks[used],
        },
        grids={"image": scan.grid, "slices": stages.slices_grid},
        elements=tuple(_elements(scan, stages)),
        facts=_facts(scan, stages),
        findings=(*scan.findings, *stages.brain.findings, *_dropped(stages)),
    )


def _elements(scan: Scan, stages: Stages) -> list[dict[str, Any]]:
    return [
        {
            "slice_index": index,
            "instance_number": source.instance_number,
            "position_mm": source.position_mm,
            "sop_instance_uid": source.sop_instance_uid,
            "brain_share": round(verdict.brain_share, 5),
            "noise": _rounded(verdict.noise),
            "correlation": _rounded(verdict.correlation),
            "asymmetry": round(verdict.asymmetry, 5),
            "used": verdict.used,
            "reason": verdict.reason,
        }
        for index, (source, verdict) in enumerate(zip(scan.sources, stages.quality, strict=True))
    ]


def _rounded(value: float) -> float | None:
    """None for NaN, which JSON does not have."""
    return None if np.isnan(value) else round(value, 5)


def _facts(scan: Scan, stages: Stages) -> dict[str, Any]:
    inside = stages.volume_hu[stages.brain.mask]
    return {
        "slice_hashes": list(scan.plane_hashes),
        "spacing_mm": [round(step, 5) for step in scan.grid.spacing_mm],
        "hu_quantiles": {
            f"{share:g}": round(float(value), 2)
            for share, value in zip(HU_QUANTILES, np.quantile(inside, HU_QUANTILES), strict=True)
        },
        "mean_hu": round(float(inside.mean(dtype=np.float64)), 3),
        "brain_volume_ml": round(stages.brain.volume_ml, 1),
        "brain_fallback": stages.brain.fallback,
        "slices_read": len(stages.quality),
        "slices_used": len(stages.used),
        "pixel_mm": round(stages.slices_grid.spacing_mm[0], 5),
        "mid_sagittal": {
            "shift_mm": stages.mid_sagittal.shift_mm,
            "angle_degrees": stages.mid_sagittal.angle_degrees,
        },
    }


def _dropped(stages: Stages) -> list[Finding]:
    dropped = len(stages.quality) - len(stages.used)
    if not dropped:
        return []
    text = f"{dropped} of {len(stages.quality)} slices are not used: {_reasons(stages)}"
    return [Finding("slices-dropped", text)]


def _reasons(stages: Stages) -> str:
    reasons = [verdict.reason for verdict in stages.quality if not verdict.used]
    return ", ".join(f"{reasons.count(code)} {code}" for code in sorted(set(reasons)))
