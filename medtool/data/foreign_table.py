"""Tables that people made: any usual separator and encoding, and the habits of Excel.

Separators ``, ; tab |``; encodings UTF-8 (with or without BOM), UTF-16, and else Windows-1252; a
first line ``sep=;``; trailing empty columns and rows; quoted cells. Cells stay text: what is a
number is the reader's business.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from medtool.core.errors import LabelsError
from medtool.core.files import nearest_path
from medtool.core.names import counted
from medtool.core.records import Finding
from medtool.data.predictions import ESCAPE, FORMULA_STARTS

DELIMITERS = (",", ";", "\t", "|")
DELIMITER_NAMES = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
# How people write, in small letters, that something is not known.
NO_VALUE = frozenset(("", "na", "n/a", "nan", "none", "null", "unknown", ".", "-", "?"))
# A table of labels of a million patients has some 50 MB: more is no table of labels.
LARGEST_TABLE_BYTES = 1 << 28
# Rows that are looked at to find the separator.
SAMPLE_ROWS = 50
# How much of a file without BOM must be zero bytes at odd or even places to be UTF-16.
ZERO_SHARE = 0.3

# The formula of a text, by which exports keep the zeros before an id from Excel.
WRAPPED = re.compile(r'="((?:[^"]|"")*)"')

# Zero, "end of text" and "escape" stand in pictures and programs, never in a table.
NEVER_IN_TEXT = "\0\x03\x1b"

# Beginnings of files that are no text, and what to say of them.
FOREIGN_KINDS = (
    (b"PK\x03\x04", "an Excel workbook (.xlsx) or a zip archive"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook (.xls)"),
    (b"%PDF", "a PDF"),
    (b"PAR1", "a Parquet file"),
)


@dataclass(frozen=True)
class ForeignRow:
    """One row: its line in the file (the header's is 1, or 2 after ``sep=``) and its cells."""

    line: int
    cells: dict[str, str]


@dataclass(frozen=True)
class ForeignTable:
    """A table as text, and how it had to be read."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[ForeignRow, ...]
    encoding: str
    delimiter: str
    findings: tuple[Finding, ...] = ()

    def how_read(self) -> str:
        """Separator and encoding in words."""
        return f"{DELIMITER_NAMES[self.delimiter]}-separated, {self.encoding}"


def read_foreign_table(
    path: Path, *, kind: str = "table of labels", unwrap: bool = False
) -> ForeignTable:
    """Read any usual CSV; ``kind`` is how refusals call it. Raises LabelsError.

    ``unwrap``: a cell ``="007"`` holds 007, which is said. Not of tables that we write: in them
    it stands for itself, with our mark before it.
    """
    content = _content(path, kind)
    text, encoding = _decode(content)
    if any(character in text for character in NEVER_IN_TEXT):
        raise _no_text(path, kind, "bytes that no text holds")
    if not text.strip():
        raise LabelsError(f"The {kind} is empty.", where=str(path), wanted="a header and rows")
    text, delimiter, first_line = _without_sep_line(text)
    delimiter = delimiter or _delimiter(text)
    return _parse(path, text, delimiter, encoding, first_line, kind, _Cells(unwrap))


def _content(path: Path, kind: str) -> bytes:
    if not path.is_file():
        raise LabelsError(
            f"The {kind} was not found.",
            where=str(path),
            met="a folder" if path.is_dir() else "no such file",
            wanted="a CSV file",
            nearest="" if path.exists() else nearest_path(path),
        )
    try:
        if path.stat().st_size > LARGEST_TABLE_BYTES:
            raise LabelsError(
                f"The {kind} is far too large for one.",
                where=str(path),
                met=f"{path.stat().st_size / 1e6:.0f} MB",
                wanted=f"at most {LARGEST_TABLE_BYTES / 1e6:.0f} MB",
            )
        content = path.read_bytes()
    except OSError as error:
        raise LabelsError(
            f"The {kind} cannot be read.",
            where=str(path),
            met=error.strerror or type(error).__name__,
            how="if it is open in another program, close it there.",
        ) from error
    for start, name in FOREIGN_KINDS:
        if content.startswith(start):
            raise _no_text(path, kind, name)
    return content


def _no_text(path: Path, kind: str, met: str) -> LabelsError:
    return LabelsError(
        f"The {kind} is no text.",
        where=str(path),
        met=met,
        wanted="a CSV file",
        how="in Excel: File, Save as, 'CSV UTF-8'.",
    )


def _decode(content: bytes) -> tuple[str, str]:
    """Text and the name of its encoding."""
    if content.startswith(codecs.BOM_UTF8):
        return content.decode("utf-8-sig", errors="replace"), "UTF-8 with BOM"
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16", errors="replace"), "UTF-16"
    half = max(1, len(content) // 2)
    if content[1::2].count(0) > ZERO_SHARE * half:
        return content.decode("utf-16-le", errors="replace"), "UTF-16 without BOM"
    if content[0::2].count(0) > ZERO_SHARE * half:
        return content.decode("utf-16-be", errors="replace"), "UTF-16 without BOM"
    try:
        return content.decode("utf-8"), "UTF-8"
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace"), "Windows-1252"


def _without_sep_line(text: str) -> tuple[str, str, int]:
    """Text after Excel's ``sep=`` line, the separator it names ("" for none), lines taken off."""
    first, newline, rest = text.lstrip("\ufeff").partition("\n")
    line = first.strip("\r ").strip('"')
    if newline and line.lower().startswith("sep=") and len(line) == 5 and line[4] in DELIMITERS:
        return rest, line[4], 1
    return text.lstrip("\ufeff"), "", 0


def _delimiter(text: str) -> str:
    """The separator that gives the most rows of one width above 1; the comma for one column."""
    best, best_value = ",", (0.0, 0)
    for candidate in DELIMITERS:
        rows = [row for row in _records(text, candidate, SAMPLE_ROWS) if any(row)]
        if not rows or len(rows[0]) < 2:
            continue
        width = len(rows[0])
        alike = sum(len(row) == width for row in rows) / len(rows)
        if (alike, width) > best_value:
            best, best_value = candidate, (alike, width)
    return best


def _records(text: str, delimiter: str, limit: int | None = None) -> list[list[str]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    records = []
    try:
        for record in reader:
            records.append([cell.strip() for cell in record])
            if limit is not None and len(records) >= limit:
                break
    except csv.Error:
        return []
    return records


def _parse(
    path: Path,
    text: str,
    delimiter: str,
    encoding: str,
    first_line: int,
    kind: str,
    understood: _Cells,
) -> ForeignTable:
    findings: list[Finding] = []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    header: list[str] = []
    rows: list[ForeignRow] = []
    try:
        for record in reader:
            cells = [cell.strip() for cell in record]
            if not any(cells):
                continue
            line = reader.line_num + first_line
            if not header:
                header = _header([*map(understood.title, cells)], path, kind, findings)
                continue
            if any(cells[len(header) :]):
                raise LabelsError(
                    f"A row of the {kind} has more cells than the header.",
                    where=f"{path}, line {line}",
                    met=f"{len(cells)} cells",
                    wanted=f"{len(header)}: {', '.join(header)}",
                    how="quote cells that hold the separator.",
                )
            padded = [*map(understood.value, cells)] + [""] * (len(header) - len(cells))
            pairs = zip(header, padded, strict=False)
            rows.append(ForeignRow(line, {name: cell for name, cell in pairs if name}))
    except csv.Error as error:
        raise LabelsError(f"The {kind} cannot be read.", where=str(path), met=str(error)) from error
    if not rows:
        raise LabelsError(
            f"The {kind} has a header and no rows.", where=str(path), met=", ".join(header)
        )
    if understood.unwrapped:
        text = f"{path.name}: {counted(understood.unwrapped, 'cell')} written as "
        findings.append(Finding("cell-unwrapped", f'{text}="..." were read as what is quoted'))
    columns = tuple(name for name in header if name)
    return ForeignTable(path, columns, tuple(rows), encoding, delimiter, tuple(findings))


def _header(cells: list[str], path: Path, kind: str, findings: list[Finding]) -> list[str]:
    """Names of the columns, without the empty ones that Excel leaves at the end."""
    while cells and not cells[-1]:
        cells.pop()
    twice = [name for name, count in Counter(c for c in cells if c).items() if count > 1]
    if twice:
        raise LabelsError(
            f"The {kind} names a column twice.", where=str(path), met=", ".join(twice)
        )
    if "" in cells:
        findings.append(
            Finding("column-unnamed", f"{path.name}: a column without a name was left out")
        )
    return cells


@dataclass
class _Cells:
    """What cells mean; ``unwrapped`` counts those that stood as a formula of a quoted text."""

    unwrap: bool
    unwrapped: int = 0

    def title(self, cell: str) -> str:
        """The name of a column."""
        wrapped = WRAPPED.fullmatch(cell) if self.unwrap else None
        if wrapped is None:
            return cell
        self.unwrapped += 1
        # Within the quotes a quote stands twice.
        return wrapped[1].replace('""', '"').strip()

    def value(self, cell: str) -> str:
        """A cell below; of a formula that our own mark protects the text is meant."""
        marked = cell.startswith(ESCAPE) and cell[1:].startswith((*FORMULA_STARTS, ESCAPE))
        return cell[1:] if marked else self.title(cell)
