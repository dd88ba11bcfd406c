"""Strangers under one PatientID, as anonymisers write it, are not pooled into one patient."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_plugin import install_plugin
from tiny_task import TinySettings, TinyTask, write_tiny_cohort

from medtool.core.checkpoint import write_checkpoint
from medtool.core.registry import load_task
from medtool.data.predictions import read_predictions
from medtool.nets.state import raw_tensor
from medtool.verbs.evaluate import EvaluateOptions, evaluate
from medtool.verbs.infer import InferOptions, infer
from medtool.verbs.options import RunOptions

CODE = "patient-id-shared"
STRANGERS = ["S1_0", "S2_0", "S3_0", "S4_0"]


class Heard:
    """A reporter that keeps what it is warned of."""

    def __init__(self) -> None:
        self.warned: list[str] = []

    def say(self, text: str) -> None:
        """Notes are of no interest."""

    def warn(self, text: str) -> None:
        self.warned.append(text)

    def progress(self, description: str, total: int | None):
        return nullcontext(lambda steps=1, note="": None)


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two patients, one with two studies; four strangers called ANON, one of them unreadable."""
    monkeypatch.syspath_prepend(str(install_plugin(tmp_path / "site")))
    monkeypatch.setattr(
        load_task("tiny"),
        "pool",
        lambda self, found: max(found, key=lambda one: one.scalars["logit"]),
    )
    torch.manual_seed(0)
    network = TinyTask(TinySettings()).network()
    tensors = [raw_tensor(f"model.{name}", value) for name, value in network.state_dict().items()]
    preset = TinySettings().as_dict()
    document = {"task": "tiny", "preset": preset, "threshold": 0.4, "synthetic": True}
    write_checkpoint(tmp_path / "model.safetensors", document, tensors)
    write_tiny_cohort(tmp_path / "data", 3, patients=2)
    draw = np.random.default_rng(1)
    (tmp_path / "data/scans/ANON").mkdir()
    for name in STRANGERS:
        scan = draw.normal(0, 1, (3, 16, 16)).astype(np.float32)
        np.save(tmp_path / "data/scans/ANON" / f"{name}.npy", scan if name != "S4_0" else scan[0])
    lines = [f"{name},{number % 2}" for number, name in enumerate(STRANGERS)]
    with (tmp_path / "data/labels.csv").open("a") as file:
        file.write("\n".join(lines) + "\n")
    return tmp_path


def options(tiny: Path, **changes: Any) -> InferOptions:
    run = RunOptions(device="cpu", workers=0)
    given = {"sources": (tiny / "data",), "checkpoint": tiny / "model.safetensors"}
    return InferOptions(**{**given, "output": tiny / "out", "run": run, **changes})


def test_infer_keeps_strangers_apart_and_says_so(tiny: Path) -> None:
    """From a fault: one row, the highest answer of all who are called ANON."""
    by_case = {row["case"]: row for row in infer(options(tiny, output=tiny / "cases")).rows}
    heard = Heard()
    result = infer(options(tiny, by="patient"), heard)
    rows = {row["case"]: row for row in result.rows}
    assert list(rows) == [*STRANGERS, "P000", "P001"]
    for name in STRANGERS[:3]:
        row = rows[name]
        assert (row["patient"], row["status"], row["code"], row["studies"]) == (
            "ANON",
            "ok",
            CODE,
            1,
        )
        assert row["logit"] == by_case[name]["logit"]
        assert row["message"].startswith("Not pooled by patient, 'ANON': no patient's own id")
    # Not told as one that another stranger's answer goes without.
    assert (rows["S4_0"]["status"], rows["S4_0"]["studies"]) == ("refused", 0)
    assert rows["S4_0"]["code"] == f"wrong-size;{CODE}"
    assert (rows["P000"]["studies"], rows["P000"]["code"]) == (2, "")
    (warning,) = [text for text in heard.warned if text.startswith("Not pooled")]
    assert "4 studies share it. Each study has a row of its own." in warning
    record = json.loads((tiny / "out" / "run.json").read_text("utf-8"))
    assert record["patients_shared"] == {"ANON": "no patient's own id, and 4 studies share it"}


def test_infer_does_so_under_pseudonyms(tiny: Path) -> None:
    heard = Heard()
    result = infer(options(tiny, by="patient", pseudonymise=tiny / "key"), heard)
    alone = [row for row in result.rows if CODE in row["code"]]
    assert len(result.rows) == 6
    assert len(alone) == 4 and len({row["patient"] for row in alone}) == 1
    assert all(row["case"].startswith("case-") and row["message"] == "" for row in alone)
    for path in (tiny / "out").rglob("*"):
        assert not path.is_file() or b"ANON" not in path.read_bytes()
    assert not any("ANON" in text for text in heard.warned)


def test_a_run_of_answers_by_study_warns_of_nothing(tiny: Path) -> None:
    heard = Heard()
    result = infer(options(tiny), heard)
    assert not any(CODE in row["code"] for row in result.rows)
    assert not any("pooled" in text for text in heard.warned)


@pytest.mark.parametrize("hidden", [False, True])
def test_evaluate_keeps_strangers_apart_and_says_so(tiny: Path, hidden: bool) -> None:
    """From a fault: one patient with the highest answer, positive as soon as any of them was."""
    key = {"pseudonymise": tiny / "key"} if hidden else {}
    infer(options(tiny, **key))
    answers = tiny / "out"
    rows = read_predictions(answers)
    names = {row["case"]: row["case"] for row in rows}
    labels = tiny / "data" / "labels.csv"
    if hidden:
        # Whoever holds the key can name them; here they are told by their order.
        real = [line.split(",") for line in sorted(labels.read_text().splitlines()[1:])]
        plain = sorted(STRANGERS) + ["P000_0", "P000_1", "P001_0"]
        names = dict(zip(plain, [row["case"] for row in rows], strict=True))
        lines = [f"{names[case]},{label}" for case, label in real]
        labels = tiny / "pseudonyms.csv"
        labels.write_text("\n".join(["case,label", *lines]) + "\n")
    found = evaluate(EvaluateOptions(subjects=(answers,), labels=labels, by="patient"))
    scores = found.evaluated[0].scores
    by_case = {row["case"]: row for row in rows}
    per_case = {row["case"]: row for row in scores.per_case}
    assert len(per_case) == 5
    for number, name in enumerate(STRANGERS[:3]):
        assert per_case[names[name]]["label"] == number % 2
        wanted = float(by_case[names[name]]["probability"])
        assert per_case[names[name]]["probability"] == pytest.approx(wanted)
    # Each is a patient of its own in the bootstrap as well.
    assert scores.tables["bootstrap"]["patients"] == 5
    (note,) = [note for note in scores.notes if note.startswith("Not pooled by patient")]
    assert ("'ANON'" in note) != hidden
    assert "4 studies share it" in note


def test_evaluate_does_so_without_a_record(tiny: Path) -> None:
    infer(options(tiny))
    (tiny / "out" / "run.json").write_text(json.dumps({"task": "tiny"}))
    asked = EvaluateOptions(
        (tiny / "out",), labels=tiny / "data/labels.csv", by="patient", threshold=0.5
    )
    assert len(evaluate(asked).evaluated[0].scores.per_case) == 5
