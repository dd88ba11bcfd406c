"""SUV by something else than body weight, brought back to body weight.

A PET in g/mL may be normalised to lean body mass, one in cm2/mL to body surface; SUVType
(0054,1006) says which. Their ratio to body-weight SUV is that of weight to the quantity, which the
scanner worked out by the formulas below from weight, height and sex of the same header.
"""

from __future__ import annotations

import math
from typing import NoReturn

from medtool.core.errors import CaseRefused
from medtool.dicom.suv_header import PetHeader

LEAST_WEIGHT_KG, LARGEST_WEIGHT_KG = 1.0, 500.0
LEAST_HEIGHT_M, LARGEST_HEIGHT_M = 0.3, 2.5
CM2_PER_M2 = 1e4


def body_weight_per(suv_type: str, header: PetHeader, where: str) -> tuple[float, str]:
    """What SUV of ``suv_type`` is multiplied by to be SUVbw, and the way in words.

    Raises CaseRefused: ``suv-normalisation`` (a type without a formula, or one that contradicts
    the unit; sex or height missing where they are needed), ``suv-weight``.
    """
    if suv_type == "BW" and header.units == "GML":
        return 1.0, "values that are SUV already"
    if suv_type in ("LBM", "LBMJAMES128", "LBMJANMA") and header.units == "GML":
        weight_kg, height_m = _weight_and_height(header, where)
        lean_kg = lean_body_mass_kg(suv_type, _sex(header, where), weight_kg, height_m)
        if not 0 < lean_kg <= weight_kg:
            met = f"a lean body mass of {lean_kg:.3g} kg, by weight and height"
            _refuse(
                "suv-normalisation",
                "Weight and height give no lean body mass.",
                where,
                met,
                "0 to the weight",
            )
        return weight_kg / lean_kg, f"SUV by lean body mass ({suv_type}, {lean_kg:.4g} kg)"
    if suv_type == "BSA" and header.units == "CM2ML":
        weight_kg, height_m = _weight_and_height(header, where)
        surface_m2 = body_surface_m2(weight_kg, height_m)
        ratio = 1000.0 * weight_kg / (surface_m2 * CM2_PER_M2)
        return ratio, f"SUV by body surface ({surface_m2:.4g} m2, Du Bois)"
    _refuse(
        "suv-normalisation",
        "SUV of this kind cannot be brought to body weight.",
        where,
        f"SUVType {suv_type} in {header.units}",
        "BW, LBM, LBMJAMES128 or LBMJANMA in GML, or BSA in CM2ML",
    )


def lean_body_mass_kg(suv_type: str, sex: str, weight_kg: float, height_m: float) -> float:
    """Lean body mass by the formula that an SUVType names (PS3.3 C.8.9.1.1.3); sex M or F.

    LBMJAMES128: James 1976, 1.10 W - 128 (W / H)^2 for men and 1.07 W - 148 (W / H)^2 for women,
    H in cm; LBM: the same with 120 for men, an old slip that the standard gave a name of its own;
    LBMJANMA: Janmahasatian 2005, by body mass index.
    """
    if suv_type == "LBMJANMA":
        index = weight_kg / height_m**2
        slope, start = (216.0, 6680.0) if sex == "M" else (244.0, 8780.0)
        return 9270.0 * weight_kg / (start + slope * index)
    men = 120.0 if suv_type == "LBM" else 128.0
    share, loss = (1.10, men) if sex == "M" else (1.07, 148.0)
    return share * weight_kg - loss * (weight_kg / (100.0 * height_m)) ** 2


def body_surface_m2(weight_kg: float, height_m: float) -> float:
    """Body surface by Du Bois 1916: 0.007184 W^0.425 H^0.725, H in cm."""
    return 0.007184 * math.pow(weight_kg, 0.425) * math.pow(100.0 * height_m, 0.725)


def checked_weight_kg(header: PetHeader, where: str) -> float:
    """The patient's weight; refuses (``suv-weight``) one that is missing or nobody's."""
    weight_kg = header.weight_kg
    if weight_kg is not None and LEAST_WEIGHT_KG <= weight_kg <= LARGEST_WEIGHT_KG:
        return weight_kg
    raise CaseRefused(
        "suv-weight",
        "The patient's weight is missing, or is none.",
        where=where,
        met="no PatientWeight" if weight_kg is None else f"PatientWeight {weight_kg:g}",
        wanted=f"{LEAST_WEIGHT_KG:g} to {LARGEST_WEIGHT_KG:g} kg",
        how="put the header right, or convert the PET to SUV where it was made.",
    )


def _weight_and_height(header: PetHeader, where: str) -> tuple[float, float]:
    weight_kg, height_m = checked_weight_kg(header, where), header.height_m
    if height_m is None or not LEAST_HEIGHT_M <= height_m <= LARGEST_HEIGHT_M:
        met = "no PatientSize" if height_m is None else f"PatientSize {height_m:g}"
        wanted = f"{LEAST_HEIGHT_M:g} to {LARGEST_HEIGHT_M:g} m"
        _refuse(
            "suv-normalisation", "The patient's height is missing, or is none.", where, met, wanted
        )
    return weight_kg, height_m


def _sex(header: PetHeader, where: str) -> str:
    if header.sex not in ("M", "F"):
        met = f"PatientSex {header.sex or 'not given'}"
        _refuse("suv-normalisation", "Lean body mass depends on sex.", where, met, "M or F")
    return header.sex


def _refuse(code: str, what: str, where: str, met: str, wanted: str) -> NoReturn:
    raise CaseRefused(
        code,
        what,
        where=where,
        met=met,
        wanted=wanted,
        how="export the PET in Bq/mL, or in SUV by body weight.",
    )
