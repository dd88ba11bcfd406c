"""Property: whatever stands in a preset, it gives settings or a refusal, never another error."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

import tomli_w
from hypothesis import given
from hypothesis import strategies as st
from tiny_task import TinyTask

from medtool.config import resolve, settings_from_document
from medtool.core.errors import MedtoolError

scalars = st.one_of(
    st.booleans(), st.integers(-5, 5), st.floats(), st.text(max_size=5), st.dates(), st.times()
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


def keys_of(table, path=()):
    for key, value in table.items():
        yield (*path, key)
        if isinstance(value, dict):
            yield from keys_of(value, (*path, key))


KEYS = [*keys_of(TinyTask.settings_type().as_dict()), ("extends",), ("train", "stages")]


@st.composite
def documents(draw):
    """Real keys with any value, and any keys beside them."""
    document = draw(st.dictionaries(st.text(max_size=4), anything, max_size=2))
    for path in draw(st.lists(st.sampled_from(KEYS), max_size=4)):
        here = document
        for part in path[:-1]:
            here = here.setdefault(part, {}) if isinstance(here.get(part, {}), dict) else {}
        here[path[-1]] = draw(anything)
    return document


@given(documents())
def test_any_document(document):
    with contextlib.suppress(MedtoolError):
        settings_from_document(TinyTask, document)


@given(documents(), documents())
def test_any_files(preset, project):
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        Path("mine.toml").write_text(tomli_w.dumps(preset), encoding="utf-8")
        Path("medtool.toml").write_text(tomli_w.dumps(project), encoding="utf-8")
        try:
            resolve(TinyTask, "mine.toml")
        except MedtoolError as error:
            assert error.exit_status == 2
            assert str(error)


@given(st.text(), st.text())
def test_any_bytes_and_any_assignment(text, assignment):
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        Path("mine.toml").write_text(text, encoding="utf-8")
        with contextlib.suppress(MedtoolError):
            resolve(TinyTask, "mine.toml", assignments=[assignment])


@given(st.sampled_from(KEYS), anything)
def test_any_value_of_a_known_key(path, value):
    text = tomli_w.dumps({"x": value}).removeprefix("x = ").strip()
    with contextlib.suppress(MedtoolError):
        resolve(TinyTask, None, assignments=[f"{'.'.join(path)}={text}"])
