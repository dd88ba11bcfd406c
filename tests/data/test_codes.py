"""Every reason code that the data layer gives has its meaning in the table, and none is idle."""

from __future__ import annotations

import re
from pathlib import Path

import medtool.data
from medtool.data.codes import CACHE_CODES, CASE_CODES, COHORT_CODES, DATASET_CODES, IMAGE_CODES

SOURCES = "\n".join(
    file.read_text()
    for file in Path(medtool.data.__file__).parent.glob("*.py")
    if file.name != "codes.py"
)


def test_findings_are_in_the_table() -> None:
    given = set(re.findall(r'Finding\(\s*"([a-z-]+)"', SOURCES))
    given |= set(re.findall(r'_about_rows\("([a-z-]+)"', SOURCES))
    given |= set(re.findall(r'RefusedStudy\([^"]*"", "([a-z-]+)"', SOURCES))
    given |= {f"{what}-by-pattern" for what in ("patient", "label")}
    assert given <= {*COHORT_CODES, *DATASET_CODES, *IMAGE_CODES}
    assert given >= {*COHORT_CODES, *DATASET_CODES}


def test_codes_of_images_are_used() -> None:
    for code in IMAGE_CODES:
        assert f'"{code}"' in SOURCES, code


def test_codes_of_cases_and_cache_are_used() -> None:
    for code in (*CASE_CODES, *CACHE_CODES):
        assert re.search(rf'"{code}"|{code}=', SOURCES), code
