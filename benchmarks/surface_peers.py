"""surface-distance, MONAI and MedPy on pairs of masks, asked by surface_metrics.py line by line.

Runs in an environment of its own (requirements-metrics.txt) and imports nothing of medtool. Each
line of its input is a JSON object: ``{"load": PATH}`` reads a pair, ``{"numbers": TOLERANCE_MM}``
gives every number of it, ``{"time": SIDE}`` computes what SIDE is timed for. Each answer is a line.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np

# What the three are asked with old NumPy and SciPy is deprecated there.
warnings.simplefilter("ignore")
PACKAGES = ("surface-distance", "monai", "MedPy", "torch", "numpy", "scipy")


def surface_distance_timed(pair: Any, tolerance_mm: float) -> tuple[float, float]:
    """HD95 and surface Dice."""
    import surface_distance

    distances = surface_distance.compute_surface_distances(
        pair["reference"], pair["prediction"], pair["spacing_mm"]
    )
    return (
        surface_distance.compute_robust_hausdorff(distances, 95),
        surface_distance.compute_surface_dice_at_tolerance(distances, tolerance_mm),
    )


def monai_timed(pair: Any, tolerance_mm: float) -> tuple[float, float]:
    """The same two by MONAI's definition: edge voxels, interpolated percentile."""
    from monai.metrics import compute_hausdorff_distance, compute_surface_dice

    one, two = (_channel(pair[name]) for name in ("prediction", "reference"))
    words = {"include_background": True, "spacing": list(pair["spacing_mm"])}
    return (
        float(compute_hausdorff_distance(one, two, percentile=95, **words)),
        float(compute_surface_dice(one, two, class_thresholds=[tolerance_mm], **words)),
    )


def numbers(pair: Any, tolerance_mm: float) -> dict[str, float]:
    """Every number that ours are compared with, by the package that says it."""
    import surface_distance
    from medpy.metric import binary
    from monai.metrics import compute_average_surface_distance, compute_surface_dice

    distances = surface_distance.compute_surface_distances(
        pair["reference"], pair["prediction"], pair["spacing_mm"]
    )
    means = surface_distance.compute_average_surface_distance(distances)
    hd95, nsd = surface_distance_timed(pair, tolerance_mm)
    one, two = (_channel(pair[name]) for name in ("prediction", "reference"))
    words = {"include_background": True, "spacing": list(pair["spacing_mm"])}
    return {
        "surface-distance hd_mm": surface_distance.compute_robust_hausdorff(distances, 100),
        "surface-distance hd95_mm": hd95,
        "surface-distance nsd": nsd,
        "surface-distance reference_to_prediction_mm": means[0],
        "surface-distance prediction_to_reference_mm": means[1],
        "MONAI nsd": float(
            compute_surface_dice(
                one, two, class_thresholds=[tolerance_mm], use_subvoxels=True, **words
            )
        ),
        "MONAI assd_mm": float(compute_average_surface_distance(one, two, symmetric=True, **words)),
        "MedPy assd_mm": binary.assd(
            pair["prediction"], pair["reference"], voxelspacing=pair["spacing_mm"]
        ),
    }


def _channel(mask: np.ndarray) -> Any:
    """Batch and channel of one, as MONAI wants it."""
    import torch

    return torch.from_numpy(mask)[None, None]


TIMED: dict[str, Callable[[Any, float], tuple[float, float]]] = {
    "surface-distance": surface_distance_timed,
    "MONAI": monai_timed,
}


def main() -> None:
    """Answer until the input ends."""
    pair: dict[str, Any] = {}
    print(json.dumps({package: version(package) for package in PACKAGES}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        if "load" in asked:
            with np.load(asked["load"]) as stored:
                pair = {name: stored[name] for name in ("prediction", "reference")}
                pair["spacing_mm"] = tuple(float(s) for s in stored["spacing_mm"])
            answer: object = "loaded"
        elif "time" in asked:
            answer = TIMED[asked["time"]](pair, asked["tolerance_mm"])
        else:
            answer = numbers(pair, asked["numbers"])
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
