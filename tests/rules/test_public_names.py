"""The public names: one sorted list, all there, all documented, changed only on purpose."""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from medtool.cli.table import VERBS
from medtool.verbs import PUBLIC_NAMES

PINNED = Path(__file__).with_name("public_names.txt")


def thing(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    return getattr(import_module(module), attribute)


def test_the_list_is_sorted_and_pinned():
    assert list(PUBLIC_NAMES) == sorted(set(PUBLIC_NAMES))
    assert PINNED.read_text(encoding="utf-8").split() == list(PUBLIC_NAMES)


@pytest.mark.parametrize("name", PUBLIC_NAMES)
def test_a_public_name_is_there_and_documented(name):
    found = thing(name)
    doc = inspect.getdoc(found)
    # A data class without a docstring gets its signature as one.
    assert doc, name
    assert not doc.startswith(f"{found.__name__}("), name
    if inspect.isfunction(found):
        assert_annotated(found)


def assert_annotated(function: Any) -> None:
    signature = inspect.signature(function)
    assert signature.return_annotation is not inspect.Signature.empty
    for parameter in signature.parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty, parameter


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_a_verb_can_be_called_from_python(verb):
    functions = [
        name
        for name in PUBLIC_NAMES
        if name.startswith(f"medtool.verbs.{verb.module}.") and inspect.isfunction(thing(name))
    ]
    assert functions, f"medtool/verbs/__init__.py lists no function of '{verb.name}'"
