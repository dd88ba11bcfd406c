"""The page on SUV names every code of SUV and of pairs, and no code that there is not."""

from __future__ import annotations

import re

from documented import ROOT

from medtool.dicom.codes import CODES
from medtool.dicom.suv import HALF_LIVES_S
from medtool.tasks.prognosis_codes import OUTCOME_CODES, PET_CT_CODES

PAGE = (ROOT / "docs" / "suv.md").read_text(encoding="utf-8")


def test_every_code_is_explained() -> None:
    own = {code for code in CODES if code.startswith(("suv-", "pair-"))}
    own |= {"no-pet", "no-ct", "fields-apart", "frames-of-reference-differ", "suv-implausible"}
    assert not [code for code in sorted(own) if f"`{code}`" not in PAGE]


def test_no_code_stands_there_that_there_is_not() -> None:
    known = {*CODES, *PET_CT_CODES, *OUTCOME_CODES}
    named = set(re.findall(r"`([a-z]+(?:-[a-z]+)+)`", PAGE))
    assert named <= known


def test_half_lives_are_those_of_the_program() -> None:
    for name, seconds in HALF_LIVES_S.values():
        assert f"{name} {seconds:,.10g} s" in PAGE or f"{name} {seconds:.10g} s" in PAGE, name
