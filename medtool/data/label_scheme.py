"""Labels of ``dataset.json``: name -> id (nnU-Net), id -> name (MSD), or both in one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medtool.core.errors import LabelsError
from medtool.core.records import Finding
from medtool.data.dataset_record import BACKGROUND, IGNORE, LabelScheme

# Masks are kept in 16 bits; and no atlas comes near.
HIGHEST_ID = 32_767


def label_scheme(
    table: object, regions_order: object, path: Path
) -> tuple[LabelScheme, tuple[Finding, ...]]:
    """The labels that ``table`` declares. Raises LabelsError with every fault of it."""
    if not isinstance(table, Mapping) or not table:
        raise _refusal(path, ["there is no table 'labels' with a name and an id a label"])
    ids: dict[str, tuple[int, ...]] = {}
    faults: list[str] = []
    inverted: list[str] = []
    for key, value in table.items():
        try:
            name, numbers, is_inverted = _entry(str(key), value)
        except ValueError as error:
            faults.append(str(error))
            continue
        if is_inverted:
            inverted.append(name)
        if name in ids:
            faults.append(f"'{name}' is declared twice")
        ids[name] = numbers
    ignore = ids.pop(IGNORE, None)
    if ignore is not None and len(ignore) != 1:
        faults.append(f"'{IGNORE}' has to be one id")
    findings = _directions(inverted, len(table), path)
    ids, more = _with_background(ids, faults, path)
    faults += _double_ids(ids, ignore)
    order = _regions_order(ids, regions_order, faults)
    if faults:
        raise _refusal(path, faults)
    scheme = LabelScheme(ids, order, None if ignore is None else ignore[0])
    return scheme, (*findings, *more, *_gaps(scheme, path))


def _entry(key: str, value: Any) -> tuple[str, tuple[int, ...], bool]:
    """Name, ids, and whether the entry stood the other way round (id -> name)."""
    key_id, value_id = _id(key), _id(value)
    if isinstance(value, list | tuple):
        numbers = [_id(entry) for entry in value]
        known = tuple(number for number in numbers if number is not None)
        if not known or len(known) != len(numbers) or len(set(known)) != len(known):
            raise ValueError(f"'{key}': {value} is no list of different ids")
        return key, known, False
    if value_id is not None and key_id is not None and key_id != value_id:
        raise ValueError(f"'{key}': {value}: which of the two is the name?")
    if value_id is not None:
        return key, (value_id,), False
    if key_id is not None and isinstance(value, str) and value.strip():
        return value.strip(), (key_id,), True
    raise ValueError(f"'{key}': {value!r} is neither an id (0 to {HIGHEST_ID}) nor a name")


def _id(value: Any) -> int | None:
    """The id that ``value`` is, also as text; None where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    text = str(value).strip()
    if not (text.isascii() and text.isdigit()):
        return None
    return int(text) if int(text) <= HIGHEST_ID else None


def _directions(inverted: Sequence[str], total: int, path: Path) -> list[Finding]:
    if not inverted:
        return []
    if len(inverted) == total:
        return [Finding("labels-by-id", f"{path.name} lists labels as id -> name")]
    message = (
        f"{path.name} mixes labels as name -> id and as id -> name; the latter are "
        + ", ".join(inverted)
    )
    return [Finding("labels-by-id", message, "warning")]


def _with_background(
    ids: Mapping[str, tuple[int, ...]], faults: list[str], path: Path
) -> tuple[dict[str, tuple[int, ...]], list[Finding]]:
    """The labels with the background, id 0, as the first of them under its own name."""
    zero = [name for name, numbers in ids.items() if 0 in numbers]
    if not zero:
        message = f"{path.name} declares no id 0; it is taken for the background"
        finding = Finding("labels-background", message, "warning")
        return {BACKGROUND: (0,), **ids}, [finding]
    for name in zero:
        if ids[name] != (0,):
            faults.append(f"'{name}' holds the id 0, which is the background")
    rest = {name: numbers for name, numbers in ids.items() if name != zero[0]}
    if zero[0].casefold() == BACKGROUND:
        return {BACKGROUND: (0,), **rest}, []
    message = f"{path.name} calls the id 0 '{zero[0]}'; it is taken for the background"
    return {BACKGROUND: (0,), **rest}, [Finding("labels-background", message, "warning")]


def _double_ids(ids: Mapping[str, tuple[int, ...]], ignore: tuple[int, ...] | None) -> list[str]:
    """Faults of ids with two names; regions may share theirs."""
    faults = []
    alone = [(name, numbers[0]) for name, numbers in ids.items() if len(numbers) == 1]
    names: dict[int, str] = {}
    for name, number in alone:
        if number in names:
            faults.append(f"'{names[number]}' and '{name}' are both {number}")
        names[number] = name
    if ignore is not None and any(ignore[0] in numbers for numbers in ids.values()):
        faults.append(f"the id {ignore[0]} is a label and '{IGNORE}'")
    if not any(name != BACKGROUND for name in ids):
        faults.append("no label but the background")
    return faults


def _regions_order(
    ids: Mapping[str, tuple[int, ...]], given: object, faults: list[str]
) -> tuple[int, ...]:
    """``regions_class_order``: needed, and used, only where a label is a region."""
    regions = [name for name in ids if name != BACKGROUND]
    if not any(len(ids[name]) > 1 for name in regions):
        return ()
    if not isinstance(given, list | tuple):
        faults.append(
            "labels are regions (lists of ids), so that 'regions_class_order' is needed: the id "
            "to write for each of " + ", ".join(regions)
        )
        return ()
    numbers = [_id(entry) for entry in given]
    order = tuple(number for number in numbers if number is not None)
    if len(order) != len(numbers) or len(order) != len(regions):
        faults.append(
            f"'regions_class_order' is {list(given)}; wanted are {len(regions)} ids, one for each "
            "of " + ", ".join(regions)
        )
    return order


def _gaps(scheme: LabelScheme, path: Path) -> tuple[Finding, ...]:
    """nnU-Net wants ids without gaps; we do not, but a gap is often a slip."""
    missing = sorted(set(range(max(scheme.declared))) - scheme.declared)
    if not missing:
        return ()
    shown = ", ".join(str(number) for number in missing[:8]) + (", ..." if len(missing) > 8 else "")
    message = f"{path.name} leaves out the ids {shown} below {max(scheme.declared)}"
    return (Finding("labels-with-gaps", message, "warning"),)


def _refusal(path: Path, faults: Sequence[str]) -> LabelsError:
    return LabelsError(
        "The labels of the data set cannot be used.",
        where=str(path),
        met="; ".join(faults),
        wanted='"labels": {"background": 0, "name": 1, ...}',
    )
