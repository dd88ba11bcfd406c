"""What the page of petct shows of presets and says of names is what the program takes."""

from __future__ import annotations

import tomllib

from documented import ROOT, toml_blocks

from medtool.data.dicom_masks import MaskObject
from medtool.tasks.prognosis_data_settings import PrognosisDataSection
from medtool.tasks.prognosis_labels import settled_labels, structure_ids
from medtool.tasks.prognosis_outcomes import DAYS_IN, outcome_columns

PAGE = ROOT / "docs" / "petct.md"


def test_structures_that_are_shown_are_chosen() -> None:
    (block,) = [block for block in toml_blocks(PAGE) if "[data.structures]" in block]
    values = tomllib.loads(block)["data"]
    data = settled_labels(PrognosisDataSection(**values), None, "tumour")
    assert data.label_ids == {"primary": [1], "nodes": [2]}
    names = ("GTVp_1", "gtvn_left", "node", "node")
    found = MaskObject(PAGE, "SEG", frozenset(), names, (1, 2, 6, 7))
    assert structure_ids(found, data) == {"#1": 1, "#2": 2, "#7": 2}


def test_columns_that_are_named_are_recognised() -> None:
    text = PAGE.read_text(encoding="utf-8")
    asked = PrognosisDataSection(time_unit="days")
    for name in ("time", "os", "rfs", "pfs", "follow_up"):
        assert f"`{name}`" in text
        assert outcome_columns([name, "event"], asked, "here") is not None
    for name in ("event", "death", "relapse", "progression"):
        assert f"`{name}`" in text
        assert outcome_columns(["time_days", name], PrognosisDataSection(), "here") is not None
    for name in ("time_days", "OS (months)"):
        columns = outcome_columns([name, "event"], PrognosisDataSection(), "here")
        assert columns is not None and f"`{name}`" in text
    assert f"{DAYS_IN['months']:g} days, years {DAYS_IN['years']:g}" in text
