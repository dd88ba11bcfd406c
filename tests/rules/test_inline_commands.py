"""Commands and options within a line of the pages: parsed by the command line, presets resolved.

What stands in blocks is run (``test_docs``); what stands in a sentence or a table may have
placeholders, and need not be whole.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from documented import ROOT, STANDS_FOR, inline_code, name_of, pages

from medtool.cli.parse import parse
from medtool.cli.table import GLOBAL_OPTIONS, VERBS
from medtool.config import resolve
from medtool.core.registry import load_task, task_entries, task_names

VERB_NAMES = {verb.name: verb for verb in VERBS}
# The task that is meant where neither the command nor the page names one.
TASK_OF_PAGE = {"from-nnunet": "segment", "optimisation": "heart", "pruning": "heart"}
# Options of other programs that pages speak of.
FOREIGN = {"--disable_tta", "--node-rank"}
OTHER_PROGRAMS = ("nnUNetv2", "python ")
OPTION = re.compile(r"(?:^|\s)(--[a-z][\w-]*)")
PAGES = pages()


@pytest.fixture(scope="module")
def options() -> Iterator[dict[str, set[str]]]:
    """The options of each verb, from the command line's own description of them."""
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None and spec.loader is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    every = {"--help", "-h", *(n for one in GLOBAL_OPTIONS for n in one.names.split(", "))}
    yield {
        verb: every
        | {name for one in module.parameters(verb) for name in (*one.opts, *one.secondary_opts)}
        for verb in VERB_NAMES
    }
    del sys.modules[spec.name]


def commands(page: Path) -> list[list[str]]:
    """The words behind ``medtool`` of each command within a line."""
    found = [code for code in inline_code(page) if code.startswith("medtool ")]
    return [shlex.split(code.partition(" 2> ")[0])[1:] for code in found]


def whole(words: list[str]) -> bool:
    """Whether a command could be typed so: a verb alone is a name, not a call."""
    return len(words) > 1 and "..." not in words and not words[1].startswith("-")


def test_commands_within_lines_are_found() -> None:
    every = [words for page in PAGES for words in commands(page)]
    assert sum(whole(words) for words in every) > 12
    assert ["train", "segment", "--data", "DATA", "--folds", "5", "--fold", "0"] in every


@pytest.mark.parametrize("page", [p for p in PAGES if commands(p)], ids=name_of)
def test_commands_within_lines_are_those_of_the_program(
    page: Path, options: dict[str, set[str]]
) -> None:
    for words in commands(page):
        name = words[0]
        if STANDS_FOR.fullmatch(name):
            continue
        assert name in VERB_NAMES, words
        given = {word.partition("=")[0] for word in words[1:] if word.startswith("-")}
        assert given <= options[name], words
        if whole(words):
            # What comes out is the call, not made: a fault in the words is refused here.
            assert callable(parse(words, VERB_NAMES[name])), words
        if name in ("train", "check", "preprocess", "demo", "fetch") and whole(words):
            task = words[1]
            assert STANDS_FOR.fullmatch(task) or task in task_names(), words


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_options_within_lines_exist(page: Path, options: dict[str, set[str]]) -> None:
    known = {name for names in options.values() for name in names} | FOREIGN
    for code in inline_code(page):
        if not code.startswith(OTHER_PROGRAMS):
            assert set(OPTION.findall(code)) <= known, f"{name_of(page)}: {code}"


def given_settings(page: Path) -> list[tuple[str, str | None, list[str]]]:
    """Task, preset and assignments of each piece of code that names some."""
    found = []
    for code in inline_code(page):
        words = code.split()
        placeholders = STANDS_FOR.search(code) or "key.sub=" in code
        if placeholders or not {"--set", "--preset"} & set(words[:-1]):
            continue
        pairs = list(zip(words, words[1:], strict=False))
        task = next((word for word in words if word in task_names()), "")
        if not task:
            task = page.stem if page.stem in task_names() else TASK_OF_PAGE.get(page.stem, "")
        presets = [value for option, value in pairs if option == "--preset"]
        # A key alone is a name, not a call.
        assigned = [value for option, value in pairs if option == "--set" and "=" in value]
        found.append((task or "brainmet", presets[0] if presets else None, assigned))
    return found


def test_presets_and_settings_within_lines_are_found() -> None:
    every = [one for page in PAGES for one in given_settings(page)]
    assert ("segment", None, ["data.preparation.configuration=2d"]) in every
    assert ("segment", "nnunet", []) in every
    assert ("brainmet", "laptop", []) in every


@pytest.mark.parametrize("page", [p for p in PAGES if given_settings(p)], ids=name_of)
def test_presets_and_settings_within_lines_resolve(page: Path, tmp_path: Path) -> None:
    for task, preset, assignments in given_settings(page):
        found = resolve(load_task(task), preset, folder=tmp_path, assignments=assignments)
        assert preset in (None, found.preset_name)


def test_the_page_of_demo_names_the_demo_of_every_task() -> None:
    text = (ROOT / "docs" / "verbs" / "demo.md").read_text(encoding="utf-8")
    for entry in task_entries():
        if entry.distribution == "medtool":
            assert f"medtool demo {entry.name} " in text, entry.name
