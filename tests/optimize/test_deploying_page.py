"""The program on the page: the file alone gives the number that ``infer`` gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from documented import ROOT, python_blocks
from optimised import optimised, write_heart

from medtool.core.geometry import Grid
from medtool.data.nifti_writer import write_nifti
from medtool.data.predictions import read_predictions
from medtool.verbs.infer import InferOptions, infer
from medtool.verbs.options import RunOptions

PAGE = ROOT / "docs" / "deploying.md"


def test_the_program_on_the_page_gives_the_number_of_infer(
    tmp_path: Path, fresh_python: Callable[..., Any]
) -> None:
    settings = (
        "data.preparation.intensity=window",
        'data.channels=["CT"]',
        "data.preparation.size_px=[32, 32]",
    )
    checkpoint = write_heart(tmp_path / "heart.safetensors", *settings)
    optimised(checkpoint, tmp_path / "optimised")
    rng = np.random.default_rng(7)
    hu = np.repeat(np.repeat(rng.normal(40, 300, (4, 12, 10)), 5, axis=1), 6, axis=2)
    write_nifti(
        tmp_path / "scan.nii.gz",
        hu.astype(np.float32),
        Grid((60, 60, 4), (1.5, 1.25, 5.0), (0.0, 0.0, 0.0)),
    )
    infer(
        InferOptions(
            sources=(tmp_path / "scan.nii.gz",),
            checkpoint=tmp_path / "optimised",
            output=tmp_path / "answers",
            run=RunOptions(device="cpu", workers=0),
        )
    )
    (row,) = read_predictions(tmp_path / "answers" / "predictions.csv")
    wanted = float(row["volume_ml"])
    assert 5 < wanted < 130, "of 135 mL: neither nothing nor everything"
    (program,) = python_blocks(PAGE)
    assert "medtool" not in program.replace("medtool infer", "")
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    outcome = fresh_python(tmp_path / "program.py", folder=tmp_path)
    assert outcome.status == 0, outcome.err
    # Prepared slices are kept in 16 bits: a voxel on the border may change its side.
    assert float(outcome.out.split()[0]) == pytest.approx(wanted, rel=0.01)
