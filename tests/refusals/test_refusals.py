"""Every refusal reads as its golden text says, with its status and nothing on stdout.

``python tests/refusals/rewrite.py`` writes the texts anew; read the difference before you keep it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import golden  # noqa: E402 - stands beside this file, which is no package
import setups  # noqa: E402 - likewise

CASES = sorted((HERE / "texts").glob("*.txt"))


def test_there_are_about_twenty():
    assert len(CASES) >= 20


@pytest.mark.parametrize("file", CASES, ids=lambda file: file.stem)
def test_refusal(file, tmp_path, medtool):
    case = golden.read_golden(file)
    case.fill(tmp_path)
    if case.setup:
        getattr(setups, case.setup)(tmp_path)
    outcome = medtool(*case.words(), folder=tmp_path)
    assert golden.normalised(outcome.err, tmp_path) == case.stderr
    assert outcome.status == case.status
    assert outcome.out == ""
    assert file.read_text(encoding="utf-8") == case.text(), "not in the form that rewrite.py writes"
