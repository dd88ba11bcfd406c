"""Every reason code that the data layer gives has its meaning in the table, and none is idle."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import medtool.data
import medtool.tasks
from medtool.data.codes import CACHE_CODES, CASE_CODES, COHORT_CODES, DATASET_CODES, IMAGE_CODES
from medtool.dicom.codes import CODES as DICOM_CODES


def sources_of(layer: ModuleType) -> str:
    folder = Path(str(layer.__file__)).parent
    return "\n".join(f.read_text() for f in folder.glob("*.py") if f.name != "codes.py")


def findings_in(sources: str) -> set[str]:
    given = set(re.findall(r'Finding\(\s*"([a-z-]+)"', sources))
    given |= set(re.findall(r'_about_rows\("([a-z-]+)"', sources))
    # A code that other files ask for has a name: Finding(NAMES_SHARED, ...).
    named = dict(re.findall(r'^([A-Z_]+) = "([a-z-]+)"$', sources, re.MULTILINE))
    given |= {named[name] for name in re.findall(r"Finding\(\s*([A-Z_]+)", sources)}
    return given | set(re.findall(r'RefusedStudy\([^"]*"", "([a-z-]+)"', sources))


OWN = sources_of(medtool.data)
# What tasks say of the same data, they say in the words of the same tables.
SOURCES = OWN + sources_of(medtool.tasks)


def test_findings_are_in_the_table() -> None:
    given = findings_in(OWN) | {f"{what}-by-pattern" for what in ("patient", "label")}
    # What is said of a DICOM object is explained among DICOM's own codes.
    assert given <= {*COHORT_CODES, *DATASET_CODES, *IMAGE_CODES, *DICOM_CODES}
    assert given | findings_in(SOURCES) >= {*COHORT_CODES, *DATASET_CODES}


def test_codes_of_images_are_used() -> None:
    for code in IMAGE_CODES:
        assert f'"{code}"' in SOURCES, code


def test_codes_of_cases_and_cache_are_used() -> None:
    for code in (*CASE_CODES, *CACHE_CODES):
        assert re.search(rf'"{code}"|{code}=', SOURCES), code
