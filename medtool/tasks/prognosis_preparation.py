"""PET and CT on one grid for the network, and what leads back to the grid of the answer.

Arrays of a prepared case: ``image`` float16 (2, z, y, x) on the grid ``prepared``, of which the
first channel is SUV clipped to 0 and ``suv_maximum``, the second CT from -1 to 1 over
``ct_window_hu``; where a mask is known ``label`` uint8 (z, y, x) on the same grid; ``suv`` float32
(z, y, x) on the grid ``image``, the one that answers are given and measured on. The axes of the
prepared grid run as near to left, posterior and superior as those of the PET can.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from medtool.core.errors import CaseRefused
from medtool.core.fields import covered_shares
from medtool.core.geometry import Grid
from medtool.core.records import Case, Finding, Prepared
from medtool.data.case_checks import label_findings
from medtool.data.pet_ct import NO_UPTAKE_SUV, PetCt, on_grid
from medtool.data.regridding import axial, common_grid, labels_on, regridded, sliced_grid
from medtool.dicom.plausible import hu_findings
from medtool.tasks.prognosis_labels import SUV
from medtool.tasks.prognosis_reading import ReadPetCt, read_case
from medtool.tasks.segmentation_labels import scheme_of
from medtool.tasks.segmentation_reading import pixel_hash

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medtool.tasks.prognosis_data_settings import (
        PrognosisDataSection,
        PrognosisPreparationSection,
    )

# Under this a whole PET is cold: no patient's.
LEAST_MAXIMUM_SUV = 0.5


def prepare_pet_ct(case: Case, data: PrognosisDataSection) -> Prepared:
    """The case as the network will see it. Raises CaseRefused."""
    found = read_case(case, data)
    preparation = data.preparation
    grid = prepared_grid(found.pet.grid, found.ct.grid, preparation)
    arrays: dict[str, NDArray[Any]] = {
        "image": _scaled(on_grid(found.pet, found.ct, grid), preparation),
        SUV: regridded(found.pet.array, found.pet.grid, found.grid, outside=NO_UPTAKE_SUV),
    }
    facts: dict[str, Any] = {
        "slices": grid.size[2],
        "prepared_size_vox": list(grid.size[::-1]),
        "spacing_mm": list(found.grid.spacing_mm),
        "covered": list(covered_shares(found.pet.grid, found.ct.grid)),
        "slice_hashes": [pixel_hash(found.pet.array), pixel_hash(found.ct.array)],
    }
    if found.mask is not None:
        label = labels_on(found.mask.array, found.mask.grid, grid).astype(np.uint8)
        arrays["label"] = label
        facts["labelled_slices"] = [int(n) for n, plane in enumerate(label) if plane.any()]
    return Prepared(
        case.case_id,
        arrays,
        {"image": found.grid, "prepared": grid},
        facts=facts,
        findings=found.findings,
    )


def prepared_grid(pet: Grid, ct: Grid, preparation: PrognosisPreparationSection) -> Grid:
    """The grid of the network in the field of view that both share.

    Raises CaseRefused ``fields-apart``.
    """
    if preparation.spacing_mm:
        x, y, z = preparation.spacing_mm
        return common_grid(axial(pet), ct, (x, y, z))
    rows, columns = preparation.size_px
    return sliced_grid(axial(pet), ct, (rows, columns), preparation.slice_mm)


def _scaled(both: PetCt, preparation: PrognosisPreparationSection) -> NDArray[np.float16]:
    """Both channels (2, z, y, x) as they are kept; what was given is used up."""
    low, high = preparation.ct_window_hu
    image = np.empty((2, *both.suv.shape), np.float16)
    image[0] = np.clip(both.suv, 0.0, preparation.suv_maximum, out=both.suv)
    ct_hu = both.ct_hu
    ct_hu -= np.float32((low + high) / 2)
    ct_hu /= np.float32((high - low) / 2)
    image[1] = np.clip(ct_hu, -1.0, 1.0, out=ct_hu)
    return image


def check_pet_ct(case: Case, data: PrognosisDataSection) -> list[Finding]:
    """What only voxels show of a case; a refusal where it cannot be used."""
    try:
        found = read_case(case, data)
        prepared_grid(found.pet.grid, found.ct.grid, data.preparation)
    except CaseRefused as refusal:
        what = " ".join(part for part in (refusal.what, refusal.met) if part)
        return [Finding(refusal.code, what, "refusal")]
    return [*found.findings, *_odd_values(found, data)]


def _odd_values(found: ReadPetCt, data: PrognosisDataSection) -> list[Finding]:
    findings = []
    highest = float(found.pet.array.max())
    codes = {finding.code for finding in found.findings}
    if highest < LEAST_MAXIMUM_SUV and "suv-unusual" not in codes:
        text = f"the highest SUV is {highest:.4g}: perhaps the values are no SUV"
        findings.append(Finding("suv-unusual", text, "warning"))
    for name, volume in (("PET", found.pet), ("CT", found.ct)):
        if volume.array.min() == volume.array.max():
            text = f"the {name} holds one value only, {float(volume.array.flat[0]):g}"
            findings.append(Finding("image-constant", text, "warning"))
    findings += hu_findings(found.ct.array)
    if found.mask is not None:
        findings += label_findings(found.mask.array, scheme_of(data))
    return findings
