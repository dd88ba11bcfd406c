"""The document of check --json, and the table of reason codes."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import SimpleITK
from dicom_builder import build_series, oblique

import medtool.dicom
from medtool.core.records import Finding
from medtool.dicom import read, scan
from medtool.dicom.codes import CODES, is_repair
from medtool.dicom.document import intake_document

# What the design promises of every series.
KEYS = {
    "uid", "case", "patient", "description", "files", "verdict", "codes", "reasons", "repairs",
    "warnings", "score", "chosen", "size", "spacing_mm", "origin_mm", "direction", "findings",
}  # fmt: skip


def test_document_has_the_promised_shape_and_is_json(tmp_path: Path) -> None:
    build_series(tmp_path / "good", (12, 6, 5), tilt_degrees=10)
    build_series(tmp_path / "short", (2, 6, 5))
    (tmp_path / "notes.txt").write_text("words")
    intake = scan([tmp_path])
    good = next(one for one in intake.series if one.folder.name == "good")
    document = intake_document(
        intake,
        case_of={good.key: "case-1"},
        chosen={good.key},
        findings={good.key: [Finding("wrong-modality", "not a CT", "refusal")]},
    )
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert all(set(series) >= KEYS for series in document["series"])
    by_case = {series["case"]: series for series in document["series"]}
    first, second = by_case["case-1"], by_case[""]
    assert (first["verdict"], first["chosen"], first["files"]) == ("repaired", True, 12)
    assert first["repairs"] == [
        "gantry tilt of 10.00 degrees, measured from positions: sheared back"
    ]
    assert first["findings"] == [
        {"code": "wrong-modality", "message": "not a CT", "severity": "refusal"}
    ]
    assert (second["verdict"], second["chosen"], second["size"]) == ("refused", False, None)
    assert second["reasons"]
    assert document["skipped"] == [
        {"file": str(tmp_path / "notes.txt"), "code": "not-dicom", "why": "not a DICOM file"}
    ]


def test_grid_of_the_document_is_that_of_simpleitk(tmp_path: Path) -> None:
    built = build_series(
        tmp_path, (12, 6, 5), orientation=oblique(8), spacing_mm=(0.5, 0.75), step_mm=3.0
    )
    document = intake_document(scan([tmp_path]))["series"][0]
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames([str(path) for path in built.files])
    image = reader.Execute()
    for key, value in (
        ("size", image.GetSize()),
        ("spacing_mm", image.GetSpacing()),
        ("origin_mm", image.GetOrigin()),
        ("direction", image.GetDirection()),
    ):
        assert len(document[key]) == len(value)
        assert all(abs(a - b) < 1e-4 for a, b in zip(document[key], value, strict=True)), key


def test_grid_of_the_document_is_that_of_read(tmp_path: Path) -> None:
    build_series(tmp_path, (12, 20, 16), orientation=oblique(9), tilt_degrees=14)
    (series,) = scan([tmp_path]).series
    document = intake_document(scan([tmp_path]))["series"][0]
    image = read(series)
    for key, value in (
        ("size", image.GetSize()),
        ("spacing_mm", image.GetSpacing()),
        ("origin_mm", image.GetOrigin()),
        ("direction", image.GetDirection()),
    ):
        assert all(abs(a - b) < 1e-6 for a, b in zip(document[key], value, strict=True)), key


def _codes_in_source() -> dict[str, str]:
    """Every literal code that medtool.dicom gives to a finding, a refusal or a skipped file."""
    found = {}
    folder = Path(medtool.dicom.__file__).parent
    for path in sorted(folder.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            position = {"Finding": 0, "CaseRefused": 0, "_refusal": 0, "_refuse": 0, "Skipped": 1}
            index = position.get(node.func.id)
            if index is not None and len(node.args) > index:
                code = node.args[index]
                if isinstance(code, ast.Constant) and isinstance(code.value, str):
                    found[code.value] = path.name
    return found


def test_every_code_has_a_meaning_and_the_kind_it_is_used_as() -> None:
    used = _codes_in_source()
    assert len(used) > 40
    assert {code: where for code, where in used.items() if code not in CODES} == {}
    assert all(code.meaning.endswith(".") for code in CODES.values())
    assert is_repair("gantry-tilt")
    assert not is_repair("few-slices")
    assert not is_repair("no-such-code")
