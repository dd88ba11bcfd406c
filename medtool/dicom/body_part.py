"""What part of the body a series shows, by what its header calls it and by its field of view.

BodyPartExamined is often that of the protocol, the same for a head and a chest of one session, and
often empty: what an operator or a protocol wrote into the description counts first. Words are
those of PS3.16, annex L, and of habit in English, German, French, Spanish, Italian and Dutch.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from medtool.dicom.series import Series

_PARTS: dict[str, str] = {
    "head": "HEAD BRAIN SKULL CRANIUM CRANIAL CEREBRAL CEREBRUM NEURO CCT KOPF SCHAEDEL SCHADEL "
    "HIRN GEHIRN HIRNSCHAEDEL HIRNSCHADEL NEUROKRANIUM NEUROCRANIUM INTRACRANIAL NCCT ENCEPHALON "
    "ENCEPHALE KRANIUM CRANE CERVEAU CEREBRALE CEREBRO CRANEO CABEZA ENCEFALO TESTA CRANIO HOOFD "
    "HERSENEN SCHEDEL HEADNECK",
    "neck": "NECK HALS COU CUELLO COLLO CAROTID CAROTIS LARYNX",
    "spine": "SPINE CSPINE TSPINE LSPINE CTSPINE TLSPINE LSSPINE HWS BWS LWS RACHIS COLUMNA "
    "COLONNA WERVELKOLOM",
    "chest": "CHEST THORAX LUNG LUNGS LUNGE POUMON POUMONS TORAX TORACE HEART CARDIAC CORONARY "
    "HERZ COEUR AORTA CAP TAP",
    "abdomen": "ABDOMEN ABD ABDO BAUCH VENTRE LIVER LEBER FOIE PANCREAS KIDNEY NIERE ADDOME BUIK "
    "ABDOMENPELVIS CHESTABDPELVIS",
    "pelvis": "PELVIS BECKEN BASSIN PELVI BEKKEN PROSTATE BLADDER HIP",
    "limb": "KNEE SHOULDER ELBOW WRIST HAND ANKLE FOOT LEG ARM EXTREMITY",
}
_PART_OF = {word: part for part, words in _PARTS.items() for word in words.split()}
_WORD = re.compile(r"[A-Z]+")
# "C-SPINE" and "T SPINE" are one word.
_SPINE = re.compile(r"\b([CTL])[-_ ]+SPINE\b")


@dataclass(frozen=True)
class BodyPart:
    """Where a task looks: a part by name, and the width in mm of images that show it."""

    name: str
    field_mm: tuple[float, float]

    def __post_init__(self) -> None:
        """Raises ValueError for a part that has no words here."""
        if self.name not in _PARTS:
            raise ValueError(f"no body part '{self.name}'; there are: {', '.join(_PARTS)}")


# Heads are shown 200 to 250 mm wide, with a stereotactic frame up to 400.
HEAD = BodyPart("head", (160.0, 400.0))


def parts_in(text: str) -> frozenset[str]:
    """The parts that SeriesDescription or BodyPartExamined names; often none."""
    plain = unicodedata.normalize("NFKD", text.upper())
    plain = "".join(char for char in plain if not unicodedata.combining(char))
    words = _WORD.findall(_SPINE.sub(r"\1SPINE", plain.replace("_", " ")))
    return frozenset(_PART_OF[word] for word in words if word in _PART_OF)


def field_of_view_mm(series: Series) -> float | None:
    """Width of the images; None where positions make no stack."""
    geometry = series.geometry
    return None if geometry is None else geometry.columns * geometry.column_spacing_mm
