"""The line of every key, against positions counted by hand and by construction."""

from __future__ import annotations

import tomllib

import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from medtool.config.toml_lines import key_lines

HARD = '''# a comment with a = "1"
title = "with = and # and [x]"
"quoted.key" = 1
a.b.'c d' = """
not.a.key = 1
""\\"quotes\\""""
literal = \'\'\'
x = 1'\'\'\'
list = [ # comment ]
  1,
  [2, 3], { inner = "]", other = [4] },
]
[table."sub".deep] # comment
when = 1979-05-27 07:32:00
[[many]]
key = 1
[many.below]
key = 2
[[many]]
[[many.nested]]
key = 3
last = true'''


def test_positions_counted_by_hand():
    tomllib.loads(HARD)
    lines = key_lines(HARD)
    assert lines[("title",)] == 2
    assert lines[("quoted.key",)] == 3
    assert lines[("a", "b", "c d")] == 4
    assert ("not", "a", "key") not in lines
    assert lines[("literal",)] == 7
    assert lines[("list", 0)] == 10
    assert lines[("list", 1, 1)] == 11
    assert lines[("list", 2, "inner")] == 11
    assert lines[("list", 2, "other", 0)] == 11
    assert lines[("table", "sub", "deep", "when")] == 14
    assert lines[("many", 0, "key")] == 16
    assert lines[("many", 0, "below", "key")] == 18
    assert lines[("many", 1)] == 19
    assert lines[("many", 1, "nested", 0, "key")] == 21
    assert lines[("many", 1, "nested", 0, "last")] == 22


def test_line_ends_of_windows():
    assert key_lines("a = 1\r\n[b]\r\nc = 2\r\n") == {("a",): 1, ("b",): 2, ("b", "c"): 3}


scalars = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(),
    st.dates(),
    st.datetimes(),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)
    ),
    max_leaves=8,
)


def all_paths(value, path=()):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*path, key)
            yield from all_paths(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield (*path, index)
            yield from all_paths(inner, (*path, index))


@given(st.dictionaries(st.text(), values, max_size=4), st.booleans())
def test_every_key_of_any_document_has_a_line(document, multiline):
    text = tomli_w.dumps(document, multiline_strings=multiline)
    tomllib.loads(text)
    lines = key_lines(text)
    wanted = set(all_paths(tomllib.loads(text)))
    assert wanted == set(lines)
    count = text.count("\n") + 1
    assert all(1 <= line <= count for line in lines.values())
