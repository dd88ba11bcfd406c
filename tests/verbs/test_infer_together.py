"""Several checkpoints that answer together: by name, as the folds of a run, from one file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from nnunet_folder import dataset_document, random_network, write_model_folder, write_nnunet_place

from medtool.core.checkpoint import read_header
from medtool.core.errors import UsageError
from medtool.verbs.import_model import ImportOptions, import_model
from medtool.verbs.infer import InferOptions, infer
from medtool.verbs.options import RunOptions


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folds as two checkpoints, as one, and as a run's folds; images."""
    folder = tmp_path_factory.mktemp("together")
    write_nnunet_place(folder)
    (model,) = (folder / "nnUNet_results").glob("*/*")
    import_model(ImportOptions("nnunet", model, folder / "both.safetensors"))
    for fold in (0, 1):
        file = folder / f"f{fold}.safetensors"
        import_model(ImportOptions("nnunet", model, file, folds=(str(fold),)))
        inner = folder / "run" / f"fold_{fold}" / "checkpoints"
        inner.mkdir(parents=True)
        shutil.copyfile(file, inner / "best.safetensors")
    return folder


def masks(place: Path, output: str, *checkpoints: str) -> list[Any]:
    first, *others = (place / name for name in checkpoints)
    result = infer(
        InferOptions(
            (place / "imagesTs",),
            first,
            place / output,
            more_checkpoints=tuple(others),
            run=RunOptions(workers=0, device="cpu"),
        )
    )
    assert result.ok == 2, result.rows
    files = [place / output / str(row["mask"]) for row in result.rows]
    return [sitk.GetArrayFromImage(sitk.ReadImage(str(file))) for file in files]


def test_named_as_a_run_and_from_one_file_they_answer_alike(place: Path) -> None:
    one = masks(place, "a", "both.safetensors")
    for output, names in (("b", ["f0.safetensors", "f1.safetensors"]), ("c", ["run"])):
        for mask, wanted in zip(masks(place, output, *names), one, strict=True):
            np.testing.assert_array_equal(mask, wanted)
    alone = masks(place, "d", "f0.safetensors")
    assert any(np.any(mask != both) for mask, both in zip(alone, one, strict=True))
    record = json.loads((place / "c" / "run.json").read_text())["checkpoint"]
    hashes = [read_header(place / f"f{n}.safetensors").document["hashes"]["model"] for n in (0, 1)]
    assert record["members"] == [{"name": f"fold_{n}", "model_sha256": hashes[n]} for n in (0, 1)]


def test_the_command_takes_several(place: Path, medtool: Callable[..., Any]) -> None:
    words = ("infer", "imagesTs", "-c", "f0.safetensors", "-c", "f1.safetensors", "-o", "e")
    outcome = medtool(*words, "--workers", "0", folder=place)
    assert outcome.status == 0, outcome.err
    assert "2 together" in outcome.err
    assert medtool(*words, "--continue", folder=place).status == 0


def test_what_does_not_go_together_is_refused(place: Path) -> None:
    with pytest.raises(UsageError, match="named twice"):
        masks(place, "f", "f0.safetensors", "run")
    others = {"background": 0, "liver": 1, "vessel": 2}
    folder = write_model_folder(
        place / "other", {"fold_0": random_network(seed=5)}, dataset=dataset_document(others)
    )
    import_model(ImportOptions("nnunet", folder, place / "other.safetensors"))
    with pytest.raises(UsageError, match="different labels cannot answer together"):
        masks(place, "g", "f0.safetensors", "other.safetensors")
