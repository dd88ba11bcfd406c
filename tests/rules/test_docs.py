"""README and docs/ agree with the program: complete, not stale, and what they show runs."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from documented import (
    ENDS_WITH,
    ROOT,
    RUNS_ON,
    SHOWN_ONLY,
    Command,
    commands_to_run,
    name_of,
    pages,
    python_blocks,
    shell_blocks,
    toml_blocks,
    write_playground,
)
from nnunet_folder import write_nnunet_place
from segmentation_places import PLACES, write_segmentation_place

from medtool.cli.table import VERBS
from medtool.core.checkpoint import read_header
from medtool.core.errors import STATUS_MEANINGS, ExitStatus
from medtool.core.registry import load_task, task_entries
from medtool.verbs import PUBLIC_NAMES

DOCS = ROOT / "docs"
PAGES = pages()
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)|src=\"([^\"]+)\"")
# Pages whose commands want a model that nnU-Net trained.
NNUNET_PAGES = ("import", "export", "from-nnunet")
# The programs of commands that install, or reach the network: no test may run them.
INSTALLERS = ("make", "pip", "pipx", "python3.11", "git")


def text_of(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def generate() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Its own types are looked up by the name of the module.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


# --- complete -----------------------------------------------------------------------------------
def test_every_command_has_a_page_with_every_option(generate: ModuleType) -> None:
    for verb in VERBS:
        page = text_of(f"verbs/{verb.name}.md")
        assert f"<!-- generated: options {verb.name} -->" in page
        for parameter in generate.parameters(verb.name):
            assert all(name in page for name in parameter.opts if name.startswith("-")), parameter
        assert f"(verbs/{verb.name}.md)" in text_of("commands.md")


def test_no_page_stands_for_a_command_that_does_not_exist() -> None:
    assert {page.stem for page in (DOCS / "verbs").glob("*.md")} == {verb.name for verb in VERBS}


def test_every_exit_status_is_explained() -> None:
    assert set(STATUS_MEANINGS) == set(ExitStatus)
    for status in ExitStatus:
        assert f"| {int(status)} |" in text_of("commands.md")


def own_tasks() -> list[str]:
    return [entry.name for entry in task_entries() if entry.distribution == "medtool"]


@pytest.mark.parametrize("task", own_tasks())
def test_every_task_has_a_page_with_its_presets_keys_and_columns(task: str) -> None:
    assert (DOCS / f"{task}.md").is_file()
    assert f"generated: presets {task} -->" in text_of(f"{task}.md")
    for name in load_task(task).columns:
        assert f"`{name}`" in text_of("outputs.md"), name
    page = text_of("presets.md")
    for key in load_task(task).settings_type().as_dict():
        assert f"`{key}`" in page or f"[{key}]" in page
    for key in _leaves(load_task(task).settings_type.model_json_schema()):
        assert re.search(rf"`[\w.\[\]]*\b{key}`", page), key


def _leaves(schema: dict[str, Any]) -> set[str]:
    """The last part of every key of a JSON Schema that is not a table itself."""
    tables = [schema, *schema["$defs"].values()]
    return {
        name
        for table in tables
        for name, value in table.get("properties", {}).items()
        if "$ref" not in value
    }


def test_every_reason_code_is_explained(generate: ModuleType) -> None:
    page = text_of("dicom-intake.md")
    for code in (*generate.CODES, *(c for table in generate.CODE_TABLES.values() for c in table)):
        assert f"| `{code}` |" in page, code


# Codes of a literal in the source that makes a refusal, finding or skipped file.
GIVEN_CODE = re.compile(
    r"\b(?:CaseRefused|Finding|RefusedStudy|Skipped|_refused|_skip)\(\s*\"([a-z]+(?:-[a-z]+)+)\""
)


def test_every_code_in_the_sources_is_in_a_table(generate: ModuleType) -> None:
    known = {*generate.CODES, *(c for table in generate.CODE_TABLES.values() for c in table)}
    for folder in ("medtool", "plugins"):
        for file in (ROOT / folder).rglob("*.py"):
            given = set(GIVEN_CODE.findall(file.read_text(encoding="utf-8")))
            assert given <= known, f"{file}: {given - known}"


def test_every_public_name_is_listed() -> None:
    page = text_of("python-api.md")
    assert all(f"`{name}`" in page for name in PUBLIC_NAMES)


# --- not stale ----------------------------------------------------------------------------------
@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_generated_blocks_are_what_the_program_says(page: Path, generate: ModuleType) -> None:
    text = page.read_text(encoding="utf-8")
    assert generate.regenerated(text) == text, "stale: run 'make docs'"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for match in LINK.finditer(page.read_text(encoding="utf-8")):
        target = match[1] or match[2]
        if target.startswith(("http:", "https:")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{name_of(page)} links to {target}"
        if anchor:
            assert anchor in _anchors(file), f"{name_of(page)} links to {target}"


def _anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as code hosts make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


def test_readme_names_the_commands_of_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shown = {
        command.words[1]
        for page in PAGES
        for _, commands in shell_blocks(page)
        for command in commands
        if command.words[0] == "make"
    }
    assert {"demo", "test"} <= shown <= targets


def test_the_size_of_the_demo_is_the_one_that_is_said() -> None:
    from medtool_brainmet.demo import DemoOptions

    for page in (ROOT / "README.md", DOCS / "verbs" / "demo.md"):
        assert f"{DemoOptions().patients} " in page.read_text(encoding="utf-8")


def test_the_picture_is_small() -> None:
    assert (DOCS / "images" / "report.png").stat().st_size < 300_000


def test_principles_fit_on_a_page_and_name_tests_that_exist() -> None:
    page = text_of("principles.md")
    assert len(page.splitlines()) <= 60
    for name in re.findall(r"`(tests/[^`]+)`", page):
        assert (ROOT / name).exists(), name


# --- what is shown, runs ------------------------------------------------------------------------
def test_only_what_installs_or_needs_the_network_is_not_run() -> None:
    for page in PAGES:
        for mark, commands in shell_blocks(page):
            if mark.startswith(SHOWN_ONLY):
                assert len(mark) > len(SHOWN_ONLY) + 10, "a block that is not run says why"
                for command in commands:
                    network = command.text.startswith("medtool fetch")
                    # tests/rules/test_plugin_page.py runs them where the plugin is installed.
                    plugin = page.name == "plugin.md"
                    # tests/train/test_nodes.py starts several nodes, of one machine.
                    nodes = command.words[0] in ("srun", "torchrun")
                    assert network or plugin or nodes or command.words[0] in INSTALLERS, command
            else:
                assert all(command.words[0] == "medtool" for command in commands), name_of(page)


@pytest.fixture(scope="session")
def playground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("playground")
    with contextlib.chdir(folder):
        return write_playground(folder)


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in PAGES if commands_to_run(p)], ids=name_of)
def test_commands_run(
    page: Path,
    playground: Path,
    tmp_path: Path,
    medtool: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The commands of a page, one after another, in a fresh copy of the playground."""
    from medtool_brainmet import demo

    # A demo's cohort is as small as the playground's; everything else of the demo is the real one.
    small = demo.DemoOptions(patients=12, size_px=64, workers=0)
    monkeypatch.setattr(demo, "DemoOptions", lambda: small)
    folder = shutil.copytree(playground, tmp_path / "work")
    if page.stem == "fetch":
        # Presets of the playground begin at random; weights go to a home of this test's own.
        (folder / "medtool.toml").unlink()
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("USERPROFILE", str(tmp_path))
    if page.stem in NNUNET_PAGES:
        (folder / "medtool.toml").unlink()
        write_nnunet_place(folder)
    if page.stem in PLACES:
        write_segmentation_place(PLACES[page.stem], folder)
    for command in commands_to_run(page):
        outcome = medtool(*_expanded(command, folder), folder=folder)
        assert outcome.status == command.status, f"$ {command.text}\n{outcome.out}\n{outcome.err}"


def _expanded(command: Command, folder: Path) -> list[str]:
    """The words behind ``medtool``, patterns of files expanded as a shell does."""
    words = []
    for word in command.words[1:]:
        found = sorted(folder.glob(word)) if "*" in word and "=" not in word else []
        words += [path.relative_to(folder).as_posix() for path in found] or [word]
    return words


@pytest.mark.slow
@pytest.mark.parametrize("page", ["python-api.md", "checkpoint.md"])
def test_programs_run(
    page: str, playground: Path, tmp_path: Path, fresh_python: Callable[..., Any]
) -> None:
    folder = shutil.copytree(playground, tmp_path / "work")
    for number, program in enumerate(python_blocks(DOCS / page)):
        file = folder / f"program_{number}.py"
        file.write_text(program, encoding="utf-8")
        outcome = fresh_python(file, folder=folder)
        assert outcome.status == 0, f"{program}\n{outcome.err}"


def test_presets_that_are_shown_resolve(tmp_path: Path, medtool: Callable[..., Any]) -> None:
    blocks = toml_blocks(DOCS / "presets.md")
    preset = next(block for block in blocks if block.startswith("# presets/brainmet/mine.toml"))
    project = next(block for block in blocks if block.startswith("[paths]"))
    (tmp_path / "presets" / "brainmet").mkdir(parents=True)
    (tmp_path / "presets" / "brainmet" / "mine.toml").write_text(preset, encoding="utf-8")
    (tmp_path / "medtool.toml").write_text(project, encoding="utf-8")
    outcome = medtool("presets", "brainmet", "mine", folder=tmp_path)
    assert outcome.status == 0, outcome.err
    assert re.search(r"gradient_clip = 0.5 .*mine.toml", outcome.out)
    assert re.search(r"seed = 7 .*medtool.toml", outcome.out)


@pytest.mark.slow
def test_every_column_that_is_written_is_explained(playground: Path) -> None:
    page = text_of("outputs.md")
    tables = [*playground.glob("runs/brainmet/first/**/*.csv"), *playground.glob("answers/*.csv")]
    assert {file.name for file in tables} >= {"cases.csv", "history.csv", "slices.csv"}
    for file in tables:
        header = file.read_text(encoding="utf-8").splitlines()[0].split(",")
        for name in header:
            pattern = re.sub(r"^(rate|selection)_\w+$", r"\1_", name)
            assert f"`{name}`" in page or (pattern != name and f"`{pattern}" in page), (file, name)


@pytest.mark.slow
def test_every_key_of_the_records_is_explained(playground: Path) -> None:
    pages_of = {
        "runs/brainmet/first/run.json": "outputs.md",
        "answers/run.json": "outputs.md",
        "runs/brainmet/first/scores.json": "outputs.md",
    }
    for name, page in pages_of.items():
        for key in json.loads((playground / name).read_text(encoding="utf-8")):
            assert re.search(rf"[`\"]{key}[`\"]", text_of(page)), (name, key)
    head = read_header(playground / "runs/brainmet/first/checkpoints/best.safetensors")
    for key in head.document:
        assert f"`{key}`" in text_of("checkpoint.md"), key


@pytest.mark.slow
def test_every_file_that_is_written_is_explained(playground: Path) -> None:
    page = text_of("outputs.md")
    for folder in (playground / "runs" / "brainmet" / "first", playground / "answers"):
        for path in folder.iterdir():
            assert f"`{path.name}" in page, path.name


def test_marks_are_ones_that_are_known() -> None:
    for page in PAGES:
        for mark, _ in shell_blocks(page):
            known = not mark or mark.startswith(SHOWN_ONLY) or ENDS_WITH.match(mark)
            assert known or RUNS_ON.match(mark) or mark == "end", f"{name_of(page)}: {mark}"


def test_what_runs_on_another_page_stands_there() -> None:
    for page in PAGES:
        for mark, commands in shell_blocks(page):
            if elsewhere := RUNS_ON.match(mark):
                assert set(commands) <= set(commands_to_run(ROOT / elsewhere[1])), name_of(page)
