"""Nearest names and safe file names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medtool.core.names import RESERVED_FILE_NAMES, counted, nearest_name, safe_file_stem


@pytest.mark.parametrize(
    ("name", "known", "nearest"),
    [
        ("patch_size", ["batch_size", "patch_size_vox"], "patch_size_vox"),
        ("learning_rate_decay", ["learning_rate", "rates"], "learning_rate"),
        ("Gradient-Clip", ["gradient_clip"], "gradient_clip"),
        ("wieght_decay", ["weight_decay", "width"], "weight_decay"),
        ("precision", ["p", "blur"], ""),
        ("zzz", ["epochs"], ""),
        ("", ["epochs"], ""),
        ("epochs", [], ""),
    ],
)
def test_nearest_name(name, known, nearest):
    assert nearest_name(name, known) == nearest


def test_synonyms():
    assert nearest_name("lr", ["rates", "l"], {"lr": "rates"}) == "rates"
    assert nearest_name("lr", ["epochs"], {"lr": "rates"}) == ""


@given(st.text(), st.lists(st.text()))
def test_what_is_offered_is_known(name, known):
    assert nearest_name(name, known) in {"", *known}


@given(st.text())
def test_safe_stems_are_safe_on_every_system(text):
    stem = safe_file_stem(text)
    assert stem
    assert not set(stem) & set('<>:"/\\|?*\0\n')
    assert stem.lower() not in RESERVED_FILE_NAMES
    assert not stem.startswith(".")
    assert not stem.endswith((".", " "))
    assert len(stem.encode()) <= 255


def test_one_is_no_plural() -> None:
    assert [counted(number, "case") for number in (0, 1, 2)] == ["0 cases", "1 case", "2 cases"]
    assert counted(2, "study", "studies") == "2 studies"
