"""The columns of a prognosis, the files beside them, and how both are read back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medtool.core.names import case_file_stem
from medtool.core.records import Case, Prediction
from medtool.data.dataset_record import ImageReference
from medtool.data.nifti_writer import write_nifti
from medtool.data.volumes import read_volume, read_volume_header
from medtool.tasks.segmentation_labels import MASK, structures, volume_column
from medtool.tasks.segmentation_predict import PROBABILITIES, read_prediction, write_prediction

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medtool.tasks.prognosis_settings import PrognosisSettings

Column = tuple[str, str, str]

# Under this name the map stands in predictions, and its folder is called so.
UNCERTAINTY = "uncertainty"
UNCERTAINTY_MAP = "uncertainty_map"

OUTLINE_COLUMNS: Mapping[str, Column] = {
    "mask": ("file", "", "the mask on the answer's grid, below the folder of the predictions"),
    UNCERTAINTY_MAP: ("file", "", "entropy of the predicted probability in nats, on that grid"),
    PROBABILITIES: ("file", "", "the probability of each label, in four dimensions"),
    "volume_ml": ("float", "mL", "metabolic tumour volume (MTV): all labels together"),
    "volume_low_ml": ("float", "mL", "low end of the conformal interval of the volume"),
    "volume_high_ml": ("float", "mL", "its high end; empty where calibration had too few patients"),
    "suv_max": ("float", "g/mL", "highest SUV in the mask"),
    "suv_peak": (
        "float",
        "g/mL",
        "highest mean SUV of a sphere of 1 mL around a voxel of the mask",
    ),
    "tlg_g": ("float", "g", "total lesion glycolysis: mean SUV times volume"),
    "lesions": ("int", "", "connected pieces of the mask (26 neighbours)"),
    "lesion_probability": ("float", "", "highest probability of tumour in any voxel"),
    "lesion_set": ("text", "", "what the conformal set holds: present, absent, both or none"),
}
# These and the risk are what the screen says of a study.
FIRST_COLUMNS = ("mask", "volume_ml")
RISK_COLUMNS: Mapping[str, Column] = {
    "risk": (
        "float",
        "",
        "logarithm of the hazard beside the mean training patient: higher is worse",
    ),
    "risk_low": ("float", "", "percentile 2.5 of the risk over the passes"),
    "risk_high": ("float", "", "percentile 97.5 of the risk over the passes"),
}
DOUBT_COLUMNS: Mapping[str, Column] = {
    UNCERTAINTY: (
        "float",
        "nats",
        "sum of the uncertainty map within 5 mm of the mask, by the voxels of the mask",
    ),
    "uncertainty_mutual_information": (
        "float",
        "nats",
        "mean over the mask of what the passes disagree about",
    ),
    "uncertainty_variance": ("float", "", "mean over the mask of the variance over the passes"),
    "volume_spread": ("float", "", "standard deviation of the passes' volumes over their mean"),
}
REVIEW_COLUMNS: Mapping[str, Column] = {
    "review": ("text", "", "whether a person should look at the case: yes or no"),
    "review_why": ("text", "", "why"),
}
BASELINE_COLUMNS: Mapping[str, Column] = {
    "risk_volume": ("float", "", "risk by Cox regression on the volume alone: higher is worse"),
    "risk_covariates": (
        "float",
        "",
        "risk by Cox regression on the covariates alone: higher is worse",
    ),
}


def survival_column(days: float, end: str = "") -> str:
    """The column of the survival at so many days, or of an ``end`` of its interval."""
    return f"survival_{days:g}" + (f"_{end}" if end else "")


def prognosis_columns(settings: PrognosisSettings) -> dict[str, Column]:
    """All columns of predictions.csv that the task has, in order."""
    horizons: dict[str, Column] = {}
    for days in settings.metrics.horizons_days:
        text = f"share of such patients without event after {days:g} days"
        horizons |= {
            survival_column(days): ("float", "", text),
            survival_column(days, "low"): ("float", "", f"{text}, at the high end of the risk"),
            survival_column(days, "high"): ("float", "", f"{text}, at the low end of the risk"),
        }
    volumes: dict[str, Column] = {
        volume_column(name): ("float", "mL", f"volume of {name}")
        for name in structures(settings.data)
    }
    baselines = BASELINE_COLUMNS if settings.train.baselines else {}
    return {
        **{name: OUTLINE_COLUMNS[name] for name in FIRST_COLUMNS},
        **RISK_COLUMNS,
        **horizons,
        **OUTLINE_COLUMNS,
        **volumes,
        **DOUBT_COLUMNS,
        **REVIEW_COLUMNS,
        **baselines,
    }


def write_study(
    settings: PrognosisSettings, prediction: Prediction, case: Case, folder: Path
) -> dict[str, Any]:
    """Mask, map and probabilities below ``folder``, and the row of the case."""
    row: dict[str, Any] = dict.fromkeys(prognosis_columns(settings))
    if MASK in prediction.arrays:
        row |= write_prediction(settings.data, prediction, case, folder)
    if UNCERTAINTY in prediction.arrays:
        name = f"{UNCERTAINTY}/{case_file_stem(prediction.case_id)}.nii.gz"
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        values = prediction.arrays[UNCERTAINTY].astype(np.float32)
        write_nifti(path, values, prediction.grids[UNCERTAINTY])
        row[UNCERTAINTY_MAP] = name
    return row | dict(prediction.scalars)


def read_study(settings: PrognosisSettings, row: Mapping[str, Any], folder: Path) -> Prediction:
    """The prediction of a row with its numbers, mask and maps.

    Raises CaseRefused where a file is damaged.
    """
    scalars: dict[str, Any] = {}
    for name, (kind, _, _) in prognosis_columns(settings).items():
        value = row.get(name)
        empty = value is None or value == ""
        scalars[name] = None if empty else _read(value, kind)
    arrays: dict[str, Any] = {}
    grids: dict[str, Any] = {}
    if scalars["mask"]:
        found = read_prediction(settings.data, row, folder)
        arrays, grids = dict(found.arrays), dict(found.grids)
    if scalars[UNCERTAINTY_MAP]:
        image = read_volume(ImageReference(folder / scalars[UNCERTAINTY_MAP]))
        arrays[UNCERTAINTY], grids[UNCERTAINTY] = image.array, image.grid
    if scalars[PROBABILITIES]:
        arrays[PROBABILITIES] = _read_chances(folder / scalars[PROBABILITIES])
        grids[PROBABILITIES] = grids[MASK]
    return Prediction(str(row["case"]), str(row["patient"]), scalars, arrays, grids)


def _read_chances(path: Path) -> NDArray[np.float32]:
    """The probabilities (structures, z, y, x) of a file."""
    count = read_volume_header(ImageReference(path)).components
    return np.stack([read_volume(ImageReference(path, n)).array for n in range(count)])


def _read(value: Any, kind: str) -> Any:
    if kind == "float":
        return float(value)
    return int(float(value)) if kind == "int" else str(value)
