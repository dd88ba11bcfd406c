"""``infer`` with archives that are broken: rows of their own, and no study lost for their names."""

from __future__ import annotations

import csv
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_plugin import install_plugin
from tiny_task import TinySettings, TinyTask

from medtool.core.checkpoint import write_checkpoint
from medtool.core.errors import MachineError
from medtool.core.registry import load_task
from medtool.nets.state import raw_tensor
from medtool.verbs.infer import InferOptions, infer
from medtool.verbs.options import RunOptions


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """The tiny task installed, and a checkpoint of it."""
    monkeypatch.syspath_prepend(str(install_plugin(tmp_path / "site")))
    torch.manual_seed(0)
    state = TinyTask(TinySettings()).network().state_dict()
    document = {
        "task": "tiny",
        "preset": TinySettings().as_dict(),
        "threshold": 0.4,
        "synthetic": True,
        "training_range": {"manufacturer": {"tiny": 4}},
    }
    tensors = [raw_tensor(f"model.{name}", value) for name, value in state.items()]
    write_checkpoint(tmp_path / "model.safetensors", document, tensors)
    return tmp_path


def packed(file: Path, seed: int, *names: str, broken: bool = False) -> Path:
    """A zip of one scan a name; a broken one lost its end."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(file, "w") as archive:
        for number, name in enumerate(names or (file.stem,)):
            scan = np.random.default_rng((seed, number)).normal(0, 1, (3, 16, 16))
            with archive.open(f"{file.stem}/{name}.npy", "w") as entry:
                np.save(entry, scan.astype(np.float32))
    if broken:
        file.write_bytes(file.read_bytes()[:-40])
    return file


def answered(tiny: Path, *sources: Path, output: str = "out", **changes: object) -> dict[str, str]:
    """Case -> status of every row; no two rows have one name."""
    asked = InferOptions(
        sources=sources,
        checkpoint=tiny / "model.safetensors",
        output=tiny / output,
        run=RunOptions(device="cpu", workers=0),
        **changes,  # type: ignore[arg-type]
    )
    with infer(asked).table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len({row["case"] for row in rows}) == len(rows)
    return {row["case"]: row["status"] for row in rows}


def test_a_broken_archive_takes_no_answer_from_the_study_of_its_name(tiny) -> None:
    """From a fault: the study was taken for done, and stood in the table as refused, twice."""
    bad = packed(tiny / "exports" / "P001.zip", 1, broken=True)
    good = packed(tiny / "retry" / "P001.zip", 1)
    for number, sources in enumerate([(bad, good), (good, bad)]):
        found = answered(tiny, *sources, output=f"out-{number}")
        assert found == {"P001": "ok", "P001.zip": "refused"}


def test_broken_archives_of_one_name_are_rows_of_their_own(tiny) -> None:
    bad = [packed(tiny / place / "P001.zip", 1, broken=True) for place in ("a", "b")]
    found = answered(tiny, *bad, bad[0], packed(tiny / "c" / "P002.zip", 2))
    assert sorted(found.values()) == ["ok", "refused", "refused"]
    assert found["P002"] == "ok"


def test_studies_keep_the_names_that_they_have_without_it(tiny) -> None:
    """Marks of places held the number of the archive among the sources."""
    good = [packed(tiny / place / "P001.zip", n) for n, place in enumerate(("b", "c"))]
    bad = packed(tiny / "a" / "P001.zip", 1, broken=True)
    alone = answered(tiny, *good, output="alone")
    assert len(alone) == 2
    assert set(alone.values()) == {"ok"}
    beside = answered(tiny, bad, *reversed(good), output="beside")
    assert beside == alone | {"P001.zip": "refused"}
    # They are those of the same files in folders.
    for file in good:
        zipfile.ZipFile(file).extractall(file.with_suffix(""))
    folders = [file.with_suffix("") for file in good]
    assert set(answered(tiny, *folders, output="folders")) == set(alone)


def test_archives_in_folders_of_one_name_are_all_answered(tiny) -> None:
    good = [packed(tiny / place / "exports" / "P001.zip", n) for n, place in enumerate("ab")]
    found = answered(tiny, *good)
    assert list(found.values()) == ["ok", "ok"]
    assert set(answered(tiny, *reversed(good), output="other")) == set(found)


def test_what_was_cut_off_goes_on_beside_broken_archives(tiny, monkeypatch) -> None:
    """Also where one of them was packed again meanwhile."""
    bad = [packed(tiny / place / "P001.zip", 1, broken=True) for place in ("a", "b")]
    good = packed(tiny / "retry" / "P001.zip", 1, "P001", "P002")
    sources = (*bad, good)

    def full(self, prediction, case, folder) -> object:
        raise MachineError("The disk is full.")

    def cut_off(output: str) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(load_task("tiny"), "write", full)
            with pytest.raises(MachineError):
                answered(tiny, *sources, output=output)

    cut_off("out")
    cut_off("later")
    whole = answered(tiny, *sources, output="whole")
    assert answered(tiny, *reversed(sources), resume=True) == whole
    assert (tiny / "out/predictions.csv").read_bytes() != b""
    packed(bad[0], 9, "P009")
    later = answered(tiny, *sources, output="later", resume=True)
    assert {case for case, status in later.items() if status == "ok"} == {"P001", "P002", "P009"}
    assert sorted(later.values()).count("refused") == 1
