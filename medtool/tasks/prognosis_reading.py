"""PET, CT and mask of a case as they are measured: SUV and HU, each on its own grid.

SUV is worked out from the header before anything is resampled (``medtool.dicom.suv``); a file that
is no DICOM holds SUV already, which its values have to bear out. A mask may lie on any grid of the
patient; it is brought to the one that the answer is given on, which is said.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medtool.core.clock import READING, spent_on
from medtool.core.errors import CaseRefused
from medtool.core.geometry import Grid
from medtool.core.records import Case, Finding, Truth
from medtool.data.dataset_record import ImageReference
from medtool.data.dicom_masks import mask_objects, read_dicom_mask
from medtool.data.grids import same_grid
from medtool.data.regridding import labels_on
from medtool.data.volumes import Volume, read_mask, read_volume, read_volume_header
from medtool.dicom.series import Series
from medtool.dicom.suv import LARGEST_MAXIMUM_SUV, read_suv
from medtool.dicom.volume import series_grid
from medtool.tasks.prognosis_labels import CHANNELS, CT, PET, TRUE_RISK, structure_ids
from medtool.tasks.segmentation_labels import MASK
from medtool.tasks.segmentation_reading import read_series, reference_to, require_declared

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medtool.tasks.prognosis_data_settings import PrognosisDataSection

# Resampling by splines leaves a little below 0 beside a hot lesion; nothing measured is far below.
LEAST_SUV = -1.0
MM3_PER_ML = 1000.0


@dataclass(frozen=True)
class ReadPetCt:
    """A case as it was read: SUV, HU and ids of labels, each (z, y, x) on its own grid.

    ``grid`` is the one that answers are given on. ``findings`` are those of all that was read.
    """

    pet: Volume
    ct: Volume
    mask: Volume | None
    grid: Grid
    findings: tuple[Finding, ...]


def read_case(case: Case, data: PrognosisDataSection) -> ReadPetCt:
    """PET in SUV, CT in HU and the mask of a case. Raises CaseRefused with a reason code."""
    require_channels(case)
    with spent_on(READING):
        pet, ct = _read_pet(case.inputs[PET]), _read_ct(case.inputs[CT])
        mask = _read_mask(case, data)
    grid = pet.grid if data.preparation.answer_grid == PET else ct.grid
    own = () if mask is None else (*mask.findings, *_moved(mask, grid, data))
    return ReadPetCt(pet, ct, mask, grid, (*pet.findings, *ct.findings, *own))


def require_channels(case: Case) -> None:
    """Raises CaseRefused where the PET or the CT of a case is not there."""
    if set(case.inputs) != set(CHANNELS):
        raise CaseRefused(
            "channels-differ",
            "The case has other images than a PET and a CT.",
            met=", ".join(case.inputs) or "none",
            wanted=" and ".join(CHANNELS),
        )


def _read_pet(source: Any) -> Volume:
    """SUV by body weight. Raises CaseRefused: ``suv-implausible``, the codes of ``read_suv``."""
    if isinstance(source, Series):
        found = read_suv(source)
        return Volume(found.array, found.grid, found.findings)
    volume = read_volume(reference_to(source))
    lowest, highest = float(volume.array.min()), float(volume.array.max())
    if not (lowest >= LEAST_SUV and highest <= LARGEST_MAXIMUM_SUV):
        raise CaseRefused(
            "suv-implausible",
            "The PET holds values that are no SUV.",
            where=str(source),
            met=f"values from {lowest:.4g} to {highest:.4g}",
            wanted=f"SUV by body weight, up to {LARGEST_MAXIMUM_SUV:g}",
            how="NIfTI says neither unit, weight nor dose: convert Bq/mL to SUV where they are "
            "known, or give the DICOM series.",
        )
    return volume


def _read_ct(source: Any) -> Volume:
    return read_series(source) if isinstance(source, Series) else read_volume(reference_to(source))


# --- masks --------------------------------------------------------------------------------
def _read_mask(case: Case, data: PrognosisDataSection) -> Volume | None:
    """The mask on the grid that it was drawn on. Raises CaseRefused."""
    if MASK not in case.references:
        return None
    path = Path(case.references[MASK])
    mask = _mask_at(path, case, data)
    require_declared(mask.array, data, str(path))
    return mask


def _mask_at(path: Path, case: Case, data: PrognosisDataSection) -> Volume:
    """The mask in a file of its own, or in a DICOM object, on the series that it was drawn on."""
    pair = [one for one in case.inputs.values() if isinstance(one, Series)]
    (found,) = (mask_objects([path]) if pair else []) or (None,)
    if found is None:
        return read_mask(ImageReference(path))
    answer = case.inputs[data.preparation.answer_grid]
    series = next((one for one in pair if one.uid in found.series_uids), answer)
    ids = structure_ids(found, data)
    array, findings = read_dicom_mask(path, series, ids, whole=True)
    return Volume(array, series_grid(series), findings)


def _moved(mask: Volume, grid: Grid, data: PrognosisDataSection) -> tuple[Finding, ...]:
    """What is said of a mask on another grid than the answer's, with the volume before and after.

    Raises CaseRefused ``mask-elsewhere`` where nothing of a mask is left on the other grid.
    """
    if same_grid(mask.grid, grid) is None:
        return ()
    before_ml = _volume_ml(mask.array, mask.grid)
    after_ml = _volume_ml(labels_on(mask.array, mask.grid, grid), grid)
    if before_ml and not after_ml:
        raise CaseRefused(
            "mask-elsewhere",
            "Nothing of the mask lies where the images do.",
            met=f"{before_ml:.4g} mL elsewhere",
            wanted="a mask of this study",
        )
    kind = data.preparation.answer_grid.upper()
    text = f"the mask lies on another grid than the {kind}, and was brought to it: "
    text += f"{before_ml:.4g} mL became {after_ml:.4g} mL"
    return (Finding("mask-regridded", text, "warning"),)


def _volume_ml(label: NDArray[Any], grid: Grid) -> float:
    voxel_mm3 = float(np.prod(grid.spacing_mm))
    return float(np.count_nonzero(label)) * voxel_mm3 / MM3_PER_ML


# --- truth --------------------------------------------------------------------------------
def read_pet_ct_truth(case: Case, data: PrognosisDataSection) -> Truth:
    """Outcome and mask of a case, the mask on the grid of the answer. Raises CaseRefused.

    Of a synthetic case ``TRUE_RISK`` among the arrays is the logarithm of its true hazard.
    """
    arrays: dict[str, NDArray[Any]] = {}
    if TRUE_RISK in case.references:
        arrays[TRUE_RISK] = np.asarray(float(case.references[TRUE_RISK]))
    mask = _read_mask(case, data)
    grids: dict[str, Grid] = {}
    if mask is not None:
        grid = _answer_grid(case, data)
        _moved(mask, grid, data)
        arrays[MASK], grids[MASK] = labels_on(mask.array, mask.grid, grid), grid
    return Truth(case.case_id, case.patient_id, outcome=case.outcome, arrays=arrays, grids=grids)


def _answer_grid(case: Case, data: PrognosisDataSection) -> Grid:
    require_channels(case)
    source = case.inputs[data.preparation.answer_grid]
    if isinstance(source, Series):
        return series_grid(source)
    return read_volume_header(reference_to(source)).grid
