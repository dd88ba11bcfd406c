"""Rules of the house about the sources themselves: sizes, names, words, who may do what."""

from __future__ import annotations

import ast
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LONGEST_FILE = 600
LONGEST_FUNCTION = 80
LONGEST_DOOR = 150
# Lines of a function's body, its docstring apart: half of them, and nine in ten, are no longer.
USUAL_BODY = 12
LONG_BODY = 35
DRAWERS = {"utils", "util", "helpers", "helper", "common", "misc"}

# Names of a machine or of a place where packages come from have no business in the project.
BANNED_WORDS = re.compile(
    r"(?<![\w.])/(?:work|home|root|Users)/\w|shared/design|pypi-mirror|artifactory|\bissue #?\d+\b",
    re.IGNORECASE,
)

SOURCES = sorted((ROOT / "medtool").rglob("*.py")) + sorted((ROOT / "plugins").rglob("*.py"))
CORE = sorted((ROOT / "medtool").rglob("*.py"))
ALL_PYTHON = SOURCES + sorted(
    file
    for folder in ("tests", "benchmarks")
    for file in (ROOT / folder).rglob("*.py")
    # What a benchmark leaves in its own folder is no source of ours; a checkout below such a
    # folder is.
    if not any(part.startswith(".venv") or part == "work" for part in file.relative_to(ROOT).parts)
)


def relative(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


@cache
def text_of(file: Path) -> str:
    return file.read_text(encoding="utf-8")


@cache
def parsed(file: Path) -> ast.Module:
    """Every rule looks at the same tree."""
    return ast.parse(text_of(file))


def tracked_files() -> list[str]:
    done = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip("no git checkout: the list of the project's files is not known")
    return [name for name in done.stdout.split("\0") if name]


@pytest.mark.parametrize("file", ALL_PYTHON, ids=relative)
def test_size_and_docstring(file):
    text, tree = text_of(file), parsed(file)
    assert len(text.splitlines()) <= LONGEST_FILE
    assert ast.get_docstring(tree), "every module says what lives there"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= LONGEST_FUNCTION, f"{node.name} has {length} lines"


def test_most_functions_are_seen_whole():
    lines = []
    for file in SOURCES:
        for node in ast.walk(parsed(file)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                lines.append((body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0)
    lines.sort()
    assert lines[len(lines) // 2] <= USUAL_BODY
    assert lines[len(lines) * 9 // 10] <= LONG_BODY


def test_the_rules_look_at_the_whole_house():
    """A folder that moved would leave rules that hold because they see nothing."""
    layers = {file.relative_to(ROOT / "medtool").parts[0] for file in CORE}
    named = {"cli", "verbs", "report", "tasks", "train", "predict", "score", "nets", "data"}
    assert named | {"dicom", "config", "core"} <= layers
    assert any(file.is_relative_to(ROOT / "plugins") for file in SOURCES)
    assert any(file.is_relative_to(ROOT / "benchmarks") for file in ALL_PYTHON)
    assert Path(__file__) in ALL_PYTHON


@pytest.mark.parametrize("file", sorted((ROOT / "medtool" / "cli").glob("*.py")), ids=relative)
def test_a_door_is_thin(file):
    """A verb's file has 150 lines at most and imports only what turns words into values."""
    text = text_of(file)
    frame = ("app", "bug", "console", "flags", "help_page", "parse", "table", "__init__")
    if file.stem in frame:
        return
    assert len(text.splitlines()) <= LONGEST_DOOR
    allowed = ("medtool.cli", "medtool.core.errors", "typer")
    for node in parsed(file).body:
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            if name.partition(".")[0] in ("medtool", "typer") or not is_standard(name):
                assert name.startswith(allowed), f"{name} belongs inside the command"


def is_standard(module: str) -> bool:
    import sys

    return module.partition(".")[0] in sys.stdlib_module_names


def test_every_verb_has_a_plain_function():
    """Each row of the table has a door in cli/ and its twin in verbs/."""
    from medtool.cli.table import VERBS

    verbs = {file.stem for file in (ROOT / "medtool" / "verbs").glob("*.py")}
    doors = {file.stem for file in (ROOT / "medtool" / "cli").glob("*.py")}
    for verb in VERBS:
        assert verb.module in doors
        assert verb.module in verbs
    assert len({verb.name for verb in VERBS}) == len(VERBS)


@pytest.mark.parametrize("file", CORE, ids=relative)
def test_no_task_is_named_in_the_core(file):
    from medtool.core.registry import task_names

    text = file.read_text(encoding="utf-8").lower()
    assert task_names()
    for name in task_names():
        # As a value, a plugin or a folder of presets: a name may be a word of the field as well.
        assert not re.search(rf"[\"'`]{name}[\"'`]|medtool_{name}|presets/{name}", text), name


@pytest.mark.parametrize("file", SOURCES, ids=relative)
def test_who_may_print_and_who_may_read_the_environment(file):
    name = relative(file)
    for node in ast.walk(parsed(file)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "print" or name == "medtool/cli/console.py"
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "putenv"):
            assert name == "medtool/core/environment.py"
        if isinstance(node, ast.ImportFrom) and node.module == "os":
            assert not {alias.name for alias in node.names} & {"environ", "getenv"}


@pytest.mark.parametrize("file", SOURCES, ids=relative)
def test_nothing_draws_from_a_global_stream(file):
    """Randomness comes from (seed, epoch, case); a global stream would change with the order."""
    text = text_of(file)
    for node in ast.walk(parsed(file)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            called = ast.unparse(node.func)
            legacy = re.fullmatch(
                # RandomState is of old, yet a generator of its own: nnU-Net's folds are its draws.
                r"np\.random\.(?!default_rng|Generator|SeedSequence|PCG|Phi|RandomState\b)\w+",
                called,
            )
            assert not legacy, called
            assert not re.fullmatch(r"random\.(random|seed|shuffle|choice|sample|uniform)", called)
            # A stranger's network may draw from torch's stream: that is reseeded from a key.
            if called == "torch.manual_seed":
                assert "key64(" in ast.unparse(node) or "fork_rng()" in text, called


def test_one_except_of_all_our_errors_in_the_command_line():
    found = [
        relative(file)
        for file in (ROOT / "medtool" / "cli").glob("*.py")
        for node in ast.walk(parsed(file))
        if isinstance(node, ast.ExceptHandler) and node.type is not None
        if "MedtoolError" in ast.unparse(node.type)
    ]
    assert found == ["medtool/cli/app.py"]


def test_who_imports_albumentations_keeps_it_offline():
    """It asks for updates on import unless told not to."""
    for file in SOURCES:
        text = text_of(file)
        if re.search(r"^\s*(from|import) albumentations", text, re.MULTILINE):
            assert "keep_imports_offline()" in text, relative(file)


def test_no_asserts_check_input():
    for file in SOURCES:
        asserts = [n for n in ast.walk(parsed(file)) if isinstance(n, ast.Assert)]
        assert not asserts, relative(file)


def test_nobody_imports_click():
    for file in ALL_PYTHON:
        for node in ast.walk(parsed(file)):
            if isinstance(node, ast.Import):
                assert "click" not in {alias.name.partition(".")[0] for alias in node.names}
            if isinstance(node, ast.ImportFrom):
                assert (node.module or "").partition(".")[0] != "click"


def test_names_of_files():
    """No drawers; nothing that Windows cannot check out."""
    from medtool.core.names import RESERVED_FILE_NAMES

    for name in tracked_files():
        path = Path(name)
        assert not re.search(r'[<>:"\\|?*]', name), name
        assert path.stem.lower() not in RESERVED_FILE_NAMES, name
        assert not {part.partition(".")[0].lower() for part in path.parts} & DRAWERS, name
    lowered = [name.lower() for name in tracked_files()]
    assert len(set(lowered)) == len(lowered), "two names that differ only in case"


def test_every_package_is_typed():
    for package in ("medtool", *(p.parent.name for p in (ROOT / "plugins").glob("*/__init__.py"))):
        folder = ROOT / package if package == "medtool" else ROOT / "plugins" / package
        assert (folder / "py.typed").is_file()


def test_no_words_of_another_place():
    for name in tracked_files():
        file = ROOT / name
        if not file.is_file() or file == Path(__file__) or name == ".ci/run":
            continue
        try:
            text = text_of(file)
        except UnicodeDecodeError:
            continue
        found = BANNED_WORDS.search(text)
        assert not found, f"{name}: {found.group(0) if found else ''}"


def test_suppressions_carry_their_code():
    for file in ALL_PYTHON:
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            where = f"{relative(file)}:{number}"
            if file != Path(__file__):
                assert not re.search(r"#\s*noqa(?!:)", line), where
                assert not re.search(r"#\s*type:\s*ignore(?!\[)", line), where
