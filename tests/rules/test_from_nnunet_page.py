"""What docs/from-nnunet.md and docs/segment.md offer in their tables runs, not only parses."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from documented import INLINE, ROOT
from medtool_segment.demo import write_dataset
from nnunet_folder import write_nnunet_place
from segmentation_places import TINY_VOLUMES
from untrained_segment import write_model

# What the words in capitals stand for in the folder of this test.
MODEL = "nnUNet_results/Dataset001_Made/nnUNetTrainer__nnUNetPlans__3d_fullres"
MEANT = {
    "DATA": "dataset",
    "IN": "later/imagesTr",
    "OUT": "answers",
    "REFERENCES": "later",
    "M": "1",
    "MODEL_FOLDER": MODEL,
    "FOLDER": "given-back",
}
RUN, FOLD = "runs/segment/first", "runs/segment/first/fold_0"
# What a preset plans shows in its plan; what trains is as small as that of other pages.
PLANNING = '[model]\nbudget = "cpu"\n'
TRAINING = TINY_VOLUMES.replace("epochs = 2", "epochs = 1")


def table(page: str, heading: str, column: int) -> list[str]:
    """What stands in one column of the table below ``heading``, a cell a row."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8").partition(f"## {heading}\n")[2]
    rows = [line for line in text.partition("\n## ")[0].splitlines() if line.startswith("|")]
    return [row.split("|")[column] for row in rows[2:]]


def offered() -> list[list[str]]:
    """The words behind ``medtool`` of each command; an option alone is the training with it."""
    found: list[list[str]] = []
    training: list[str] = []
    for cell in table("from-nnunet.md", "Their command, ours", 2):
        for code in INLINE.findall(cell):
            words = shlex.split(code.replace("...", "segment"))
            if words[0] == "medtool":
                found.append(words[1:])
            elif words[0].startswith("--"):
                found.append([*training, *words])
            if words[:2] == ["medtool", "train"] and "--resume" not in words:
                training = words[1:]
    return found


def meant(words: list[str]) -> list[str]:
    """The words with what they stand for."""
    run = RUN if words[0] == "infer" else FOLD
    return [{**MEANT, "RUN": run}.get(word, word) for word in words]


def write_later(folder: Path) -> None:
    """A data set of two patients whom no model saw."""
    write_dataset(folder, seed=8, cases=2)
    for path in folder.rglob("demo_*"):
        path.rename(path.with_name(path.name.replace("demo", "later")))


def test_the_table_offers_what_it_should() -> None:
    verbs = [words[0] for words in offered()]
    assert set(verbs) == {"check", "preprocess", "train", "infer", "evaluate", "import", "export"}
    assert verbs.count("train") == 6
    assert ["train", "segment", "--data", "DATA", "--folds", "5", "--fold", "0"] in offered()


@pytest.mark.slow
def test_every_command_beside_one_of_nnunet_runs(
    tmp_path: Path, medtool: Callable[..., Any]
) -> None:
    write_dataset(tmp_path / "dataset", seed=7, cases=8)
    write_later(tmp_path / "later")
    write_nnunet_place(tmp_path)
    for words in map(meant, offered()):
        planned = bool({"--set", "--preset"} & set(words))
        settings = PLANNING if planned else TRAINING
        (tmp_path / "medtool.toml").write_text(settings, encoding="utf-8")
        if planned:
            words += ["--until", "plan"]
        elif words[0] == "train" and "--resume" not in words:
            words += ["--run", "timed" if "--minutes" in words else "first"]
        outcome = medtool(*words, folder=tmp_path)
        assert outcome.status == 0, f"$ {words}\n{outcome.out}\n{outcome.err}"
    for case in ("later_000", "later_001"):
        assert (tmp_path / "answers" / "masks" / f"{case}.nii.gz").is_file()
    assert (tmp_path / "given-back").is_dir()
    configurations = {
        re.findall(r'configuration = "(\w+)"', preset.read_text(encoding="utf-8"))[0]
        for preset in tmp_path.rglob("plans/*/preset.toml")
    }
    assert configurations == {"2d", "3d_fullres"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """New scans, and models with random weights of a fine and of a coarse grid."""
    folder = tmp_path_factory.mktemp("answering")
    write_dataset(folder / "data", seed=4, cases=1)
    for name, spacing in (("fine", "[1.5, 1.1, 1.1]"), ("coarse", "[3.0, 3.0, 3.0]")):
        write_model(folder / f"{name}.safetensors", spacing, "augment.mirror=true")
    return folder


# The options of the table, with a value where they have one.
OPTIONS = {
    "--step": ["1"],
    "--mirror": [],
    "--probabilities": [],
    "--region": ["coarse.safetensors"],
}
KEYS = {"--step": "step=1", "--mirror": "mirror=true", "--probabilities": "probabilities=true"}


def test_the_page_has_these_options() -> None:
    cells = table("segment.md", "How it answers", 1)
    assert [code for cell in cells for code in INLINE.findall(cell)] == list(OPTIONS)


@pytest.mark.parametrize("option", OPTIONS)
def test_options_of_how_it_answers_do_what_their_keys_do(
    place: Path, medtool: Callable[..., Any], option: str
) -> None:
    words = ["infer", "data/imagesTr", "--checkpoint", "fine.safetensors", "--workers", "0"]
    key = KEYS.get(option, "region_checkpoint=coarse.safetensors")
    masks = []
    for number, asked in enumerate(([option, *OPTIONS[option]], ["--set", f"infer.{key}"])):
        out = f"{option[2:]}-{number}"
        outcome = medtool(*words, "-o", out, *asked, folder=place)
        assert outcome.status == 0, outcome.err
        image = nibabel.load(place / out / "masks" / "demo_000.nii.gz")
        masks.append(np.asarray(image.dataobj))
    assert np.array_equal(*masks)
