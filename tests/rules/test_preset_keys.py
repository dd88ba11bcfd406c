"""Every key of every preset is read by the program: a key without effect would be a lie."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from medtool.config.sections import Section
from medtool.core.registry import load_task, task_names

ROOT = Path(__file__).resolve().parents[2]


def sections_of(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """``model`` and every section below it."""
    yield model
    for field in model.model_fields.values():
        for kind in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from sections_of(kind)


def keys_of(model: type[BaseModel]) -> set[str]:
    """Names of all keys that hold values, without those that hold tables."""
    return {
        name
        for section in sections_of(model)
        for name, field in section.model_fields.items()
        if not any(
            isinstance(kind, type) and issubclass(kind, BaseModel)
            for kind in (field.annotation, *getattr(field.annotation, "__args__", ()))
        )
    }


def names_read() -> set[str]:
    """Attributes that are read anywhere, and words that name one (``getattr``, layers of files).

    Declarations of keys are neither; docstrings are longer than a word.
    """
    read = set()
    for folder in ("medtool", "plugins"):
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                    read.add(node.attr)
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    read.add(node.value)
    return read


@pytest.mark.parametrize("task", task_names())
def test_every_key_is_read_somewhere(task: str) -> None:
    assert keys_of(load_task(task).settings_type) - names_read() == set()


def test_a_key_that_no_one_reads_would_be_found() -> None:
    class Idle(Section):
        """A section with a key that the program does not know."""

        read_by_nobody_mm: float = 0.0
        """Nothing."""

    class Whole(Section):
        """A table in a table."""

        idle: Idle = Idle()
        """Below."""
        seed: int = 0
        """Read in many places."""

    assert keys_of(Whole) - names_read() == {"read_by_nobody_mm"}
