"""What labels are called in DICOM: by the presets that ship, by a user, and where neither says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from listening import Listening
from medtool_heart import Heart
from medtool_pancreas import Pancreas
from medtool_petct import Petct
from pydicom.sr.codedict import codes

from medtool.config import resolve
from medtool.config.find import shipped_presets
from medtool.core.errors import UsageError
from medtool.core.task import Task
from medtool.dicom.segmentation import ANATOMICAL_STRUCTURE, TISSUE, Code
from medtool.tasks.segmentation_codes import CODE_KEYS, dicom_segments, tell_of_codes

LABELS = {
    "heart": "data.label_ids={heart=[1]}",
    "pancreas": "data.label_ids={pancreas=[1], lesion=[2]}",
    "petct": "data.label_ids={tumour=[1]}",
}
SHIPPED = [
    (task, one.name)
    for task in (Heart, Pancreas, Petct)
    for one in shipped_presets(task.name, task.__module__)
]
ABNORMAL = Code("49755003", "SCT", "Morphologically Abnormal Structure")
PANCREAS = Code("15776009", "SCT", "Pancreas")


def settings(task: type[Task], preset: str | None, folder: Path, *given: str) -> Any:
    return resolve(task, preset, folder=folder, assignments=given).settings


@pytest.mark.parametrize(("task", "preset"), SHIPPED)
def test_every_preset_that_ships_names_what_its_task_outlines(
    tmp_path: Path, task: type[Task], preset: str
) -> None:
    found = dicom_segments(settings(task, preset, tmp_path, LABELS[task.name]))
    assert [(one.name, one.category, one.kind, one.region) for one in found] == {
        "heart": [("heart", ANATOMICAL_STRUCTURE, Code("80891009", "SCT", "Heart"), None)],
        "pancreas": [
            ("pancreas", ANATOMICAL_STRUCTURE, PANCREAS, None),
            ("lesion", ABNORMAL, Code("52988006", "SCT", "Lesion"), PANCREAS),
        ],
        "petct": [("tumour", ABNORMAL, Code("108369006", "SCT", "Neoplasm"), None)],
    }[task.name]


@pytest.mark.parametrize(("task", "preset"), SHIPPED)
def test_shipped_codes_are_those_of_snomed(tmp_path: Path, task: type[Task], preset: str) -> None:
    infer = settings(task, preset, tmp_path).infer
    given = [code for key in CODE_KEYS for code in getattr(infer, key).values()]
    assert given
    for value, scheme, meaning in given:
        known = getattr(codes, scheme)
        assert getattr(known, meaning.replace(" ", "")).value == value


def test_shipped_codes_of_labels_that_the_data_do_not_have_are_told(tmp_path: Path) -> None:
    labels = "data.label_ids={organ=[1], lesion=[2]}"
    task = Pancreas(settings(Pancreas, None, tmp_path, labels))
    heard = Listening()
    tell_of_codes(task, heard)
    (line,) = heard.lines
    assert "codes of labels that the data do not have: pancreas;" in line
    assert "DICOM SEG calls organ tissue" in line
    organ, lesion = dicom_segments(task.settings)
    assert organ.kind == TISSUE
    assert lesion.category == ABNORMAL


def test_of_labels_that_fit_nothing_is_told(tmp_path: Path) -> None:
    heard = Listening()
    tell_of_codes(Pancreas(settings(Pancreas, None, tmp_path, LABELS["pancreas"])), heard)
    assert heard.lines == []


def test_a_code_that_nobody_ships_is_refused_for_a_label_that_there_is_not(tmp_path: Path) -> None:
    code = 'infer.dicom_type.lesions=["52988006", "SCT", "Lesion"]'
    with pytest.raises(UsageError, match="a label that there is not") as refused:
        Pancreas(settings(Pancreas, None, tmp_path, LABELS["pancreas"], code))
    assert refused.value.where == "infer.dicom_type"
    assert refused.value.nearest == "lesion"


def test_a_preset_of_the_working_folder_ships_nothing(tmp_path: Path) -> None:
    mine = tmp_path / "presets" / "pancreas" / "default.toml"
    mine.parent.mkdir(parents=True)
    mine.write_text('[infer.dicom_type]\ncyst = ["52988006", "SCT", "Lesion"]\n')
    with pytest.raises(UsageError, match="a label that there is not") as refused:
        Pancreas(settings(Pancreas, None, tmp_path, LABELS["pancreas"]))
    assert refused.value.met == "cyst"
