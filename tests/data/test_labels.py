"""Tables of labels as people make them: read truly, or refused with everything that is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medtool.config.sections import DataSection
from medtool.core.errors import LabelsError
from medtool.core.records import Case
from medtool.data.foreign_table import read_foreign_table
from medtool.data.labels import find_labels, normal_value, read_labels
from medtool.data.matching import attach_labels, relaxed

DATA = DataSection()


def _table(tmp_path: Path, text: str | bytes, encoding: str = "utf-8") -> Path:
    path = tmp_path / "labels.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return path


def _labels(path: Path, data: DataSection = DATA) -> dict[str, float | None]:
    return {row.identifier: row.label for row in read_labels(path, data).rows}


def _case(number: int, **changes: str) -> Case:
    values = {
        "case_id": f"c{number}",
        "patient_id": f"p{number}",
        "study_uid": f"1.2.{number}",
        "accession": f"a{number}",
        "folder": f"f{number}",
    } | changes
    return Case(inputs={}, **values)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"]
)
def test_every_separator_and_encoding(tmp_path: Path, delimiter: str, encoding: str) -> None:
    rows = [("id", "größe", "label"), ("001", "ü,x" if delimiter != "," else "ü", "1"),
            ("002", "ß", "0")]  # fmt: skip
    text = "\r\n".join(delimiter.join(row) for row in rows)
    path = _table(tmp_path, text, encoding)
    assert _labels(path) == {"001": 1.0, "002": 0.0}
    assert "größe" in read_foreign_table(path).columns


def test_what_excel_does(tmp_path: Path) -> None:
    # A separator line, decimal commas, empty columns and rows at the end.
    text = "sep=;\r\nid;label;;\r\n7,0;1,0;;\r\n8,0;0,0;;\r\n;;;\r\n;;;\r\n"
    table = read_labels(_table(tmp_path, text, "utf-8-sig"), DATA)
    assert [(row.identifier, row.label) for row in table.rows] == [("7,0", 1.0), ("8,0", 0.0)]
    assert [row.line for row in table.rows] == [3, 4]
    cases = [_case(1, case_id="007"), _case(2, case_id="008")]
    labelled = attach_labels(cases, table)
    assert [case.label for case in labelled.cases] == [1.0, 0.0]
    assert [f.code for f in labelled.findings] == ["label-key", "id-relaxed"]


def test_quoted_cells_hold_separators_and_lines(tmp_path: Path) -> None:
    path = _table(tmp_path, 'id,note,label\n"a, b","two\nlines",yes\nc,"say ""x""",no\n')
    assert _labels(path) == {"a, b": 1.0, "c": 0.0}
    assert read_labels(path, DATA).rows[1].covariates == {"note": 'say "x"'}


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", "1"), ("1.0", "1"), ("1,0", "1"), ("01", "1"), ("0.00", "0"), (" Yes ", "yes"),
     ("1.5", "1.5"), ("POS", "pos"), ("-1", "-1"), ("", "")],
)  # fmt: skip
def test_values_are_compared_without_dress(text: str, value: str) -> None:
    assert normal_value(text) == value


@pytest.mark.parametrize(
    ("header", "id_column", "label_column"),
    [
        ("PatientID,Label", "PatientID", "Label"),
        ("case_id,patient,class", "case_id", "class"),
        ("Accession Number,ground truth", "Accession Number", "ground truth"),
        ("scan,metastasis", "scan", "metastasis"),
        ("anything,met", "anything", "met"),
    ],
)
def test_columns_are_recognised(
    tmp_path: Path, header: str, id_column: str, label_column: str
) -> None:
    width = header.count(",") + 1
    row = ["x7", "q", "1"] if width == 3 else ["x7", "1"]
    table = read_labels(_table(tmp_path, f"{header}\n{','.join(row)}\n"), DATA)
    assert (table.id_column, table.label_column) == (id_column, label_column)


def test_columns_of_the_preset_win(tmp_path: Path) -> None:
    path = _table(tmp_path, "id,mrn,label,edema\n1,a,0,1\n2,b,1,0\n")
    data = DataSection(id_column="MRN", label_column="edema")
    assert _labels(path, data) == {"a": 1.0, "b": 0.0}
    with pytest.raises(LabelsError) as caught:
        read_labels(path, DataSection(label_column="lable"))
    assert caught.value.nearest == "label"
    assert "id, mrn, label, edema" in caught.value.met


def test_columns_that_cannot_be_told_are_listed(tmp_path: Path) -> None:
    path = _table(tmp_path, "id,left,right\n1,0,1\n2,1,0\n")
    with pytest.raises(LabelsError, match="recognised as the label") as caught:
        read_labels(path, DATA)
    assert "id, left, right" in caught.value.met
    assert "left, right all hold such values" in caught.value.wanted
    path = _table(tmp_path, "alpha,beta,label\n1,0,1\n")
    with pytest.raises(LabelsError, match="recognised as the id"):
        read_labels(path, DATA)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"\xff\xfe", "is empty"),
        (b"id,label\n", "a header and no rows"),
        (b"id,label\na,\nb,\n", "has no label"),
        (b"id,id,label\na,b,1\n", "names a column twice"),
        (b"id,label\na,1,0,5\n", "more cells than the header"),
        (b"PK\x03\x04xxxx", "is no text"),
        (b"id,label\na,2\nb,1\nc,maybe\n", "neither of the two classes"),
        (b"id,label\na,1\nb,0\na,0\n", "contradict"),
    ],
)
def test_refusals(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(LabelsError, match=words) as caught:
        read_labels(_table(tmp_path, content), DATA)
    assert caught.value.exit_status == 2
    assert "labels.csv" in caught.value.where


def test_all_strange_values_are_named_with_their_lines(tmp_path: Path) -> None:
    path = _table(tmp_path, "id,label\na,2\nb,1\nc,maybe\n")
    with pytest.raises(LabelsError) as caught:
        read_labels(path, DATA)
    assert caught.value.met == "line 2: '2'; line 4: 'maybe'"


def test_other_words_for_the_classes(tmp_path: Path) -> None:
    path = _table(tmp_path, "id,label\na,Metastase\nb,keine\n")
    data = DataSection(positive_values=["metastase"], negative_values=["KEINE"])
    assert _labels(path, data) == {"a": 1.0, "b": 0.0}
    with pytest.raises(LabelsError, match="positive and negative at once"):
        read_labels(path, DataSection(positive_values=["1"], negative_values=["1.0"]))


def test_duplicates_are_said_and_empty_labels_too(tmp_path: Path) -> None:
    path = _table(tmp_path, "id,label\na,1\na,1\nb,\nc,0\n,1\n")
    table = read_labels(path, DATA)
    assert {row.identifier: row.label for row in table.rows} == {"a": 1.0, "b": None, "c": 0.0}
    assert [f.code for f in table.findings] == ["label-empty", "id-empty", "label-duplicate"]


def test_a_missing_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabelsError, match="was not found"):
        read_labels(tmp_path / "none.csv", DATA)


def test_the_table_beside_the_scans(tmp_path: Path) -> None:
    assert find_labels(tmp_path) is None
    (tmp_path / "Labels1.CSV").write_text("id,label\n")
    (tmp_path / "other.csv").write_text("id,label\n")
    assert find_labels(tmp_path) == tmp_path / "Labels1.CSV"
    (tmp_path / "labels2.csv").write_text("id,label\n")
    with pytest.raises(LabelsError, match="several tables"):
        find_labels(tmp_path)


@pytest.mark.parametrize(
    ("key", "prefix"),
    [("case", "c"), ("PatientID", "p"), ("accession", "a"), ("StudyInstanceUID", "1.2."),
     ("folder", "f")],
)  # fmt: skip
def test_the_key_that_fits_is_said(tmp_path: Path, key: str, prefix: str) -> None:
    table = read_labels(_table(tmp_path, f"id,label\n{prefix}1,1\n{prefix}2,0\n"), DATA)
    labelled = attach_labels([_case(1), _case(2)], table)
    assert labelled.key == key
    assert [case.label for case in labelled.cases] == [1.0, 0.0]
    assert f"matches the {key} of studies in 2 of 2 rows" in labelled.findings[0].message


def test_keys_are_never_mixed(tmp_path: Path) -> None:
    # Two rows are patients, one is a case: the patients win, the case's row fits nothing.
    table = read_labels(_table(tmp_path, "id,label\np1,1\np2,0\nc3,1\n"), DATA)
    labelled = attach_labels([_case(1), _case(2), _case(3)], table)
    assert labelled.key == "PatientID"
    assert [case.label for case in labelled.cases] == [1.0, 0.0, None]
    assert [row.identifier for row in labelled.unmatched_rows] == ["c3"]
    assert [f.code for f in labelled.findings] == [
        "label-key", "case-without-label", "label-without-case",
    ]  # fmt: skip
    assert [c.case_id for c in labelled.without_label] == ["c3"]


def test_a_patients_label_goes_to_all_studies(tmp_path: Path) -> None:
    table = read_labels(_table(tmp_path, "id,label,age\np1,1,60\np2,0,70\n"), DATA)
    cases = [_case(1), _case(3, patient_id="p1"), _case(2, case_id="p2")]
    labelled = attach_labels(cases, table)
    assert [case.label for case in labelled.cases] == [1.0, 1.0, 0.0]
    assert labelled.cases[1].covariates == {"age": "60"}


def test_leading_zeros_stay_where_they_matter(tmp_path: Path) -> None:
    # '7' and '007' are two patients: nothing is forgiven.
    table = read_labels(_table(tmp_path, "id,label\n7,1\n007,0\n"), DATA)
    cases = [_case(1, case_id="007"), _case(2, case_id="7")]
    assert [case.label for case in attach_labels(cases, table).cases] == [0.0, 1.0]
    table = read_labels(_table(tmp_path, "id,label\n7,1\nc3,1\n"), DATA)
    cases = [_case(1, case_id="007"), _case(2, case_id="07"), _case(3)]
    assert [case.label for case in attach_labels(cases, table).cases] == [None, None, 1.0]


def test_no_row_fits(tmp_path: Path) -> None:
    table = read_labels(_table(tmp_path, "id,label\nCASE-c1x,1\n"), DATA)
    with pytest.raises(LabelsError, match="fits any case") as caught:
        attach_labels([_case(1)], table)
    assert "CASE-c1x" in caught.value.met
    assert "PatientID 'p1'" in caught.value.wanted


def test_labels_that_came_with_the_cases_are_not_overwritten(tmp_path: Path) -> None:
    table = read_labels(_table(tmp_path, "id,label\nc1,1\nc2,\nc3,0\n"), DATA)
    cases = [replace(_case(1), label=1.0), replace(_case(2), label=0.0), _case(3)]
    assert [case.label for case in attach_labels(cases, table).cases] == [1.0, 0.0, 0.0]
    with pytest.raises(LabelsError, match="contradicts") as caught:
        attach_labels([replace(_case(1), label=0.0)], table)
    assert caught.value.met == "1 cases: c1 (0 there, 1 here)"


@given(st.integers(0, 10**9), st.integers(0, 5))
def test_numbers_with_zeros_are_one_id(number: int, zeros: int) -> None:
    assert relaxed("0" * zeros + str(number)) == relaxed(f"{number}.0") == str(number)


@given(st.lists(st.text("ab0", min_size=1, max_size=3), unique=True, min_size=1, max_size=6))
def test_exact_ids_always_match_themselves(
    tmp_path_factory: pytest.TempPathFactory, ids: list[str]
) -> None:
    path = tmp_path_factory.getbasetemp() / "labels.csv"
    path.write_text("id,label\n" + "".join(f"{i},{n % 2}\n" for n, i in enumerate(ids)))
    cases = [_case(n, case_id=i) for n, i in enumerate(ids)]
    labelled = attach_labels(cases, read_labels(path, DATA))
    assert [case.label for case in labelled.cases] == [float(n % 2) for n in range(len(ids))]


class Named(DataSection):
    """Classes with names of their own; ``classes`` may be left to the table."""

    names_classes: ClassVar[bool] = True
    classes: list[str] = []

    def class_values(self) -> Mapping[str, Sequence[str]]:
        return {name: (name,) for name in self.classes}


def test_every_value_is_a_class_where_classes_have_names(tmp_path: Path) -> None:
    table = _table(tmp_path, "case,subtype\na,Solid\nb,cystic\nc,SOLID\nd,\n")
    found = read_labels(table, Named())
    assert found.classes == ("cystic", "Solid")
    assert [row.label for row in found.rows] == [1.0, 0.0, 1.0, None]
    # Grades come in the order of numbers, not of letters.
    grades = _table(tmp_path, "case,class\na,10\nb,2\nc,1\n")
    assert read_labels(grades, Named()).classes == ("1", "2", "10")


def test_a_value_that_is_none_of_the_named_classes_is_refused(tmp_path: Path) -> None:
    table = _table(tmp_path, "case,class\na,solid\nb,solit\n")
    with pytest.raises(LabelsError, match="none of the classes") as caught:
        read_labels(table, Named(classes=["cystic", "solid"]))
    assert "line 3: 'solit'" in str(caught.value)
    assert caught.value.nearest == "solid"
    assert "data.classes" in caught.value.how


def test_a_column_of_numbers_is_no_column_of_classes(tmp_path: Path) -> None:
    rows = "".join(f"c{n},{n * 7}\n" for n in range(40))
    with pytest.raises(LabelsError, match="more values than classes"):
        read_labels(_table(tmp_path, f"case,class\n{rows}"), Named())


def test_a_case_has_its_class_as_number_and_as_name(tmp_path: Path) -> None:
    table = read_labels(_table(tmp_path, "case,class\nc0,solid\nc1,cystic\n"), Named())
    cases = attach_labels([_case(0), _case(1)], table).cases
    assert [(case.label, case.facts["class"]) for case in cases] == [
        (1.0, "solid"),
        (0.0, "cystic"),
    ]


def test_ids_as_formulas_of_a_text_are_what_is_quoted(tmp_path: Path) -> None:
    """From a fault: ="00123", which keeps the zeros from Excel, fitted no case."""
    text = '"=""id""",label\n="00123",1\n"=""00124""",="0"\n"=""a """"b""""""",1\n00125,0\n'
    path = _table(tmp_path, text)
    table = read_labels(path, DATA)
    assert table.id_column == "id"
    assert [(r.identifier, r.label) for r in table.rows] == [
        ("00123", 1.0), ("00124", 0.0), ('a "b"', 1.0), ("00125", 0.0),
    ]  # fmt: skip
    (said,) = table.findings
    assert said.code == "cell-unwrapped"
    assert said.message.startswith("labels.csv: 5 cells")
    cases = [_case(1, case_id="00123"), _case(2, case_id="00124")]
    assert [case.label for case in attach_labels(cases, table).cases] == [1.0, 0.0]


def test_only_a_text_in_quotes_is_taken_out_of_a_formula(tmp_path: Path) -> None:
    text = "id,label\n=00123,1\n" + '\'="00124",0\n' + '"=""a""&""b""",1\n=""""00126"""",0\n'
    table = read_labels(_table(tmp_path, text), DATA)
    wanted = ["=00123", '="00124"', '="a"&"b"', '=""""00126""""']
    assert [row.identifier for row in table.rows] == wanted
    assert table.findings == ()


def test_tables_that_are_ours_keep_what_stands_in_them(tmp_path: Path) -> None:
    path = _table(tmp_path, 'key,use\n="00123",1\n')
    table = read_foreign_table(path, kind="table of series")
    assert table.rows[0].cells["key"] == '="00123"'
    assert table.findings == ()
