"""Rewrites the generated blocks of README.md and docs/: ``make docs``.

A block stands between two comments and is made from the program itself:

    <!-- generated: options check -->
    ...
    <!-- end -->

The first word after the colon names a function of ``BLOCKS``, the others are given to it. The
rules of the tests refuse a block that is stale.
"""

from __future__ import annotations

import json
import re
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from typer.main import get_command

from medtool.cli.table import GLOBAL_OPTIONS, VERBS
from medtool.config.schema import model_below
from medtool.core.errors import STATUS_MEANINGS
from medtool.core.registry import load_task, task_names
from medtool.data.codes import (
    ANSWER_CODES,
    ARCHIVE_CODES,
    CACHE_CODES,
    CASE_CODES,
    COHORT_CODES,
    DATASET_CODES,
    IMAGE_CODES,
)
from medtool.dicom.codes import CODES
from medtool.tasks.bag_codes import STUDY_CODES
from medtool.tasks.prognosis_codes import OUTCOME_CODES, PET_CT_CODES
from medtool.verbs import PUBLIC_NAMES
from medtool.verbs.presets import list_presets

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"<!-- generated: ([^>]+) -->\n(.*?)<!-- end -->", re.DOTALL)

# Units that names of keys end with, longest first.
UNITS = {
    "_epochs": "epochs",
    "_percentile": "percentile",
    "_degrees": "degrees",
    "_slices": "slices",
    "_share": "share",
    "_mm": "mm",
    "_ml": "ml",
    "_hu": "HU",
    "_px": "pixels",
    "_s": "s",
}
BOUNDS = (("ge", "at least"), ("gt", "over"), ("le", "at most"), ("lt", "under"))
TYPE_NAMES = {bool: "true, false", int: "whole number", float: "number", str: "text", Path: "path"}
# Options that are worth no row: Typer adds the last one to every verb.
NOT_SHOWN = ("--help",)
# What Typer calls a type, where an option does not name its value.
VALUE_NAMES = {"path": "PATH", "str": "NAME", "text": "NAME", "float range": "0 to 1"}
# Rows of benchmarks about optimised models.
TIMES_FASTER = ", times as fast as PyTorch"
TIMES_SMALLER = ", times as small as the weights in float32"
OPTIMISED_ROW = re.compile(
    r"(?P<network>U-Net|ResNet-50).*?, (?P<pruned>pruned, )?INT8 by (?P<engine>.+): "
    r"fall of (?P<metric>\w+), held out"
)
METRIC_NAMES = {"dice": "Dice", "auroc": "AUROC"}


def pages() -> list[Path]:
    """README and every page, in a fixed order."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def regenerated(text: str) -> str:
    """``text`` with every generated block made anew."""

    def block(match: re.Match[str]) -> str:
        name, *words = match[1].split()
        return f"<!-- generated: {match[1]} -->\n{BLOCKS[name](*words)}\n<!-- end -->"

    return BLOCK.sub(block, text)


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _sentence(text: str) -> str:
    """``text`` with a capital in front and a full stop behind."""
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", ")")) else ".")


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


# --- commands -----------------------------------------------------------------------------------
def verbs() -> str:
    """The table of verbs, each with a link to its page."""
    rows = [(f"[`{v.name}`](verbs/{v.name}.md)", v.summary) for v in VERBS]
    return table(("Command", "What it does"), rows)


def global_options() -> str:
    """Options of medtool itself."""
    return table(
        ("Option", "Meaning"), [(_code(option.names), option.summary) for option in GLOBAL_OPTIONS]
    )


def options(verb: str) -> str:
    """Arguments and options of a verb, as its help page has them."""
    rows = []
    for parameter in parameters(verb):
        names = ", ".join(parameter.opts + parameter.secondary_opts)
        if parameter.param_type_name == "argument":
            names = parameter.metavar or parameter.name.upper()
            value = ""
        elif parameter.is_flag:
            value = ""
        else:
            value = parameter.metavar or VALUE_NAMES[parameter.type.name]
        default = _option_default(parameter)
        meaning = parameter.help or ""
        if parameter.required:
            meaning += " Required."
        rows.append((_code(names), _code(value), default, meaning))
    return table(("Name", "Value", "Default", "Meaning"), rows)


def parameters(verb: str) -> list[Any]:
    """Arguments and options of a verb, from the command line's own description of them."""
    module = next(row.module for row in VERBS if row.name == verb)
    app = typer.Typer(add_completion=False)
    app.command(verb)(import_module(f"medtool.cli.{module}").command)
    found: list[Any] = list(get_command(app).params)
    return [parameter for parameter in found if parameter.opts[0] not in NOT_SHOWN]


def _option_default(parameter: Any) -> str:
    default = parameter.default
    if parameter.required or default in (None, False, "") or callable(default):
        return ""
    if parameter.is_flag:
        return "on"
    return _code(str(default))


def exit_statuses() -> str:
    """Every exit status and what it says."""
    rows = [(str(int(status)), meaning) for status, meaning in STATUS_MEANINGS.items()]
    return table(("Status", "Meaning"), rows)


def tasks(folder: str = "") -> str:
    """The tasks that come with medtool; ``folder`` is the way from the page to docs/."""
    rows = [(f"[`{name}`]({folder}{name}.md)", load_task(name).summary) for name in task_names()]
    return table(("Task", "What it answers"), rows)


def public_names() -> str:
    """The names that stay."""
    return "\n".join(f"- `{name}`" for name in PUBLIC_NAMES)


# --- presets ------------------------------------------------------------------------------------
def presets(task: str) -> str:
    """The presets that a task ships."""
    lines = [line for line in list_presets(task, folder=ROOT / "docs") if line.place == "shipped"]
    return table(
        ("Preset", "What it is for"),
        [(_code(line.name), _sentence(line.description)) for line in lines],
    )


def preset_keys(task: str) -> str:
    """Every key of a task's presets, a table for each section."""
    settings = load_task(task).settings_type
    parts = [_section("", settings, None)]
    for name, field in settings.model_fields.items():
        below = model_below(field.annotation)
        if below is not None:
            title = f"### [{name}]\n\n{field.description or ''}\n"
            parts.append(f"{title}\n{_section(name, below, field.default)}")
    return "\n\n".join(parts)


def _section(prefix: str, model: type[BaseModel], defaults: BaseModel | None) -> str:
    rows = list(_keys(prefix, model, defaults, top=not prefix))
    titles = ("Key", "Type", "Range", "Unit", "Default", "Meaning")
    return table(titles, rows) if rows else "It has no keys."


def _keys(
    prefix: str, model: type[BaseModel], defaults: BaseModel | None, *, top: bool = False
) -> Iterator[tuple[str, ...]]:
    """Rows of a section and what is below it; ``defaults`` is the instance that stands there."""
    for name, field in model.model_fields.items():
        below = model_below(field.annotation)
        dotted = f"{prefix}.{name}" if prefix else name
        default = field.default if defaults is None else getattr(defaults, name)
        if below is not None and get_origin(field.annotation) is not list:
            if not top:
                yield from _keys(dotted, below, default)
            continue
        yield (
            _code(dotted),
            "tables" if below is not None else type_name(field.annotation),
            value_range(field.annotation, field.metadata),
            next((word for end, word in UNITS.items() if name.endswith(end)), ""),
            "(required)" if default is PydanticUndefined else _toml(default),
            field.description or "",
        )
        if below is not None:
            yield from _keys(f"{dotted}[]", below, None)


def type_name(annotation: Any) -> str:
    """The type of a key in words."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_name(arguments[0])
    if origin is Literal:
        return ", ".join(f'`"{value}"`' for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(type_name(part) for part in arguments if part is not type(None))
    if origin is list:
        return f"list of {type_name(arguments[0])}"
    if origin is tuple:
        return f"[{', '.join(type_name(part) for part in arguments)}]"
    if origin is dict:
        return f"table of {type_name(arguments[1])}"
    return TYPE_NAMES[annotation]


def value_range(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """The range of a key in words: of the value, or of the elements of a list."""
    found = list(metadata)
    for part in _annotated(annotation):
        for extra in part.__metadata__:
            found.extend([extra, *getattr(extra, "metadata", ())])
    words = {
        f"{word} {bound:g}"
        for item in found
        for key, word in BOUNDS
        if (bound := getattr(item, key, None)) is not None
    }
    order = [word for _, word in BOUNDS]
    return ", ".join(sorted(words, key=lambda text: order.index(text.rsplit(" ", 1)[0])))


def _annotated(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) is Annotated:
        yield annotation
    for part in get_args(annotation):
        yield from _annotated(part)


def _toml(value: Any) -> str:
    """A default as it would stand in a preset."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, Path):
        value = value.as_posix()
        home = Path.home().as_posix()
        value = value.replace(home, "~")
    if isinstance(value, str):
        return f'`"{value}"`'
    if isinstance(value, list | tuple):
        return "`[" + ", ".join(_toml(item).strip("`") for item in value) + "]`"
    return f"`{value}`"


# --- codes and columns --------------------------------------------------------------------------
def codes(kind: str) -> str:
    """Reason codes of the intake of one kind (refusal, repair, warning, note, skip)."""
    rows = [(_code(name), code.meaning) for name, code in CODES.items() if code.kind == kind]
    return table(("Code", "Meaning"), rows)


def other_codes(name: str) -> str:
    """Reason codes of another table."""
    return table(
        ("Code", "Meaning"), [(_code(c), _sentence(m)) for c, m in CODE_TABLES[name].items()]
    )


def _task_codes(task: str, which: str) -> Mapping[str, str]:
    module = load_task(task).__module__.partition(".")[0]
    found: Mapping[str, str] = getattr(import_module(f"{module}.codes"), which)
    return found


CODE_TABLES: Mapping[str, Mapping[str, str]] = {
    "archive": ARCHIVE_CODES,
    "case": CASE_CODES,
    "answer": ANSWER_CODES,
    "cohort": COHORT_CODES,
    "dataset": DATASET_CODES,
    "image": IMAGE_CODES,
    "cache": CACHE_CODES,
    "study": STUDY_CODES,
    "pet-ct": PET_CT_CODES,
    "outcome": OUTCOME_CODES,
    "brainmet": _task_codes("brainmet", "STUDY_CODES"),
    "brainmet-slice": _task_codes("brainmet", "SLICE_CODES"),
}


def columns(task: str) -> str:
    """The columns of predictions.csv that a task adds, with the settings that it begins from."""
    task_class = load_task(task)
    rows = [
        (_code(name), kind, unit, _sentence(meaning))
        for name, (kind, unit, meaning) in task_class(task_class.settings_type()).columns.items()
    ]
    return table(("Column", "Type", "Unit", "Meaning"), rows)


# --- measured -----------------------------------------------------------------------------------
def optimised() -> str:
    """What each file of an optimised model gained and cost, from the results of two benchmarks."""
    values, changes = _measured("optimisation"), _changes()
    rows = []
    for what, times in values.items():
        network, _, rest = what.partition(", 1 image: ")
        way = rest.removesuffix(TIMES_FASTER)
        if way == rest:
            continue
        stays = values[f"{network}, pruned: share of the parameters that stays"]
        in_float = 1 / stays if "pruned" in way else 1.0
        smaller = values.get(f"{network}: {way}{TIMES_SMALLER}", in_float)
        row = (network, way, f"{times:.1f}", f"{smaller:.1f}", changes.get((network, way), "-"))
        rows.append(row)
    return table(("Network", "File", "Times as fast", "Times as small", "Held out"), rows)


def _changes() -> dict[tuple[str, str], str]:
    """By network and file how the metric of patients that nothing has seen changed."""
    found = {}
    for what, fall in _measured("optimised_accuracy").items():
        if match := OPTIMISED_ROW.match(what):
            file = f"{match['pruned'] or ''}{match['engine']} INT8"
            change = f"{0.0 - fall:+.4f} {METRIC_NAMES[match['metric']]}"
            found[match["network"], file] = change
    return found


def _measured(benchmark: str) -> dict[str, float]:
    """What each row of a benchmark's last whole run measured."""
    path = ROOT / "benchmarks" / "results" / f"{benchmark}.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    return {row["what"]: float(row["value"]) for row in document["rows"]}


BLOCKS: Mapping[str, Callable[..., str]] = {
    "verbs": verbs,
    "global-options": global_options,
    "options": options,
    "exit-statuses": exit_statuses,
    "tasks": tasks,
    "public-names": public_names,
    "presets": presets,
    "preset-keys": preset_keys,
    "codes": codes,
    "other-codes": other_codes,
    "columns": columns,
    "optimised": optimised,
}


def main() -> None:
    """Rewrite every page whose blocks are stale."""
    for page in pages():
        text = page.read_text(encoding="utf-8")
        if (new := regenerated(text)) != text:
            page.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
