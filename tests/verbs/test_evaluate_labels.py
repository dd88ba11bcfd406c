"""Labels are read by ``evaluate`` as its model learned them, and found where medtool.toml says."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from golden_scores import LABELS, MODEL_A
from run_builder import build_run
from tiny_plugin import install_plugin
from tiny_task import TinyData, TinySettings, TinyTask, write_tiny_cohort

from medtool.config.sections import DataSection
from medtool.core.checkpoint import write_checkpoint
from medtool.core.errors import LabelsError, LeakageError, PresetError, UsageError
from medtool.data.patient_hashes import hash_patients
from medtool.data.run_folder import read_rows
from medtool.nets.state import raw_tensor
from medtool.verbs.evaluate import EvaluateOptions, evaluate
from medtool.verbs.infer import InferOptions, infer
from medtool.verbs.options import RunOptions

CASES = [f"C{number:02d}" for number in range(20)]
AUROC = 0.88020833
# By name, ``label`` would be taken for the label.
OTHER = [number % 2 for number in range(20)]


def predictions(folder: Path, data: Mapping[str, Any] | None = None) -> Path:
    """Answers of a published model; their record, where there is ``data``, keeps it."""
    folder.mkdir()
    with (folder / "predictions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow("case patient study_uid status code message probability threshold".split())
        for number, (case, score) in enumerate(zip(CASES, MODEL_A, strict=True)):
            writer.writerow([case, f"P{number:02d}", "", "ok", "", "", score, 0.5])
    if data is not None:
        record = {"task": "brainmet", "checkpoint": {"preset": {"data": data}}}
        (folder / "run.json").write_text(json.dumps(record))
    return folder


def checkpoint(path: Path, data: Mapping[str, Any], task: str = "brainmet") -> Path:
    document = {"task": task, "preset": {"data": dict(data)}, "threshold": 0.5}
    write_checkpoint(path, document | {"patients": hash_patients(["P99"])}, [])
    return path


def table(path: Path, **columns: list[Any]) -> Path:
    rows = zip(CASES, *columns.values(), strict=True)
    lines = [",".join(["case", *columns]), *(",".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def auroc(options: EvaluateOptions) -> float:
    return float(evaluate(options).evaluated[0].scores.metrics["auroc"].value)


LEARNED = (
    # Once scored against another column, which has the better name.
    ({"label_column": "mets"}, {"label": OTHER, "mets": LABELS}),
    # Once scored as if 1 were positive: every number was that of the opposite answer.
    (
        {"positive_values": ["0"], "negative_values": ["1"]},
        {"label": [1 - label for label in LABELS]},
    ),
    # Once refused, with advice that evaluate has no option for.
    (
        {"positive_values": ["met"], "negative_values": ["none"]},
        {"label": ["met" if label else "none" for label in LABELS]},
    ),
)


@pytest.mark.parametrize(("data", "columns"), LEARNED)
class TestLabelsAreReadAsTheModelLearnedThem:
    def test_as_its_checkpoint_says(self, tmp_path, data, columns):
        options = EvaluateOptions(
            subjects=(predictions(tmp_path / "a"),),
            checkpoints=(checkpoint(tmp_path / "model.safetensors", data),),
            labels=table(tmp_path / "truth.csv", **columns),
        )
        assert auroc(options) == pytest.approx(AUROC, abs=5e-9)

    def test_as_the_record_of_its_answers_says(self, tmp_path, data, columns):
        labels = table(tmp_path / "truth.csv", **columns)
        options = EvaluateOptions(subjects=(predictions(tmp_path / "a", data),), labels=labels)
        assert auroc(options) == pytest.approx(AUROC, abs=5e-9)

    def test_of_a_task_that_is_not_installed(self, tmp_path, data, columns):
        options = EvaluateOptions(
            subjects=(predictions(tmp_path / "a"),),
            checkpoints=(checkpoint(tmp_path / "m.safetensors", data, task="gone"),),
            labels=table(tmp_path / "truth.csv", **columns),
        )
        assert auroc(options) == pytest.approx(AUROC, abs=5e-9)

    def test_of_two_where_only_one_says_it(self, tmp_path, data, columns):
        options = EvaluateOptions(
            subjects=(predictions(tmp_path / "a"), predictions(tmp_path / "b", data)),
            labels=table(tmp_path / "truth.csv", **columns),
        )
        found = evaluate(options)
        values = [one.scores.metrics["auroc"].value for one in found.evaluated]
        assert values == pytest.approx([AUROC, AUROC], abs=5e-9)


def test_a_part_of_a_run_is_read_as_the_run_says(tmp_path):
    run = build_run(tmp_path / "run")
    words = run.preset_file.read_text(encoding="utf-8")
    run.preset_file.write_text(words + '[data]\nlabel_column = "mets"\n')
    lines = ["case,label,mets"]
    lines += [f"{row['case']},{n % 2},{row['label']}" for n, row in enumerate(run.read_cases())]
    (tmp_path / "truth.csv").write_text("\n".join(lines) + "\n")
    test = run.predictions_folder / "test"
    wanted = run.read_scores()["test"]["metrics"]["auroc"]["value"]
    options = EvaluateOptions(subjects=(test,), labels=tmp_path / "truth.csv")
    assert auroc(options) == pytest.approx(wanted)
    assert auroc(replace(options, subjects=(run.path,))) == pytest.approx(wanted)


def test_a_column_that_the_table_lacks_is_refused_and_the_options_stand_above_it(tmp_path):
    options = EvaluateOptions(
        subjects=(predictions(tmp_path / "a", {"label_column": "mets", "id_column": "study"}),),
        labels=table(tmp_path / "truth.csv", label=OTHER, met=LABELS),
    )
    with pytest.raises(LabelsError, match="no column 'mets'") as refusal:
        evaluate(options)
    assert (refusal.value.nearest, refusal.value.how) == ("met", "--label-column NAME.")
    with pytest.raises(LabelsError, match="no column 'study'") as refusal:
        evaluate(replace(options, columns=DataSection(label_column="met")))
    assert refusal.value.how == "--id-column NAME."
    named = replace(options, columns=DataSection(label_column="met", id_column="case"))
    assert auroc(named) == pytest.approx(AUROC, abs=5e-9)


def test_no_refusal_names_an_option_that_evaluate_has_not(tmp_path):
    folder = predictions(tmp_path / "a", {"positive_values": ["met"], "negative_values": ["none"]})
    refused = (
        (table(tmp_path / "values.csv", label=LABELS), "the model was trained with"),
        (table(tmp_path / "columns.csv", one=LABELS, two=LABELS), "--label-column NAME."),
    )
    (tmp_path / "ids.csv").write_text("number,label\n7,met\n8,none\n")
    for labels, way in (*refused, (tmp_path / "ids.csv", "--id-column NAME.")):
        with pytest.raises(LabelsError) as refusal:
            evaluate(EvaluateOptions(subjects=(folder,), labels=labels))
        assert way in refusal.value.how
        assert "--set" not in refusal.value.how


def test_two_that_learned_different_columns_are_not_compared(tmp_path):
    labels = table(tmp_path / "truth.csv", label=OTHER, mets=LABELS)
    first = predictions(tmp_path / "a", {"label_column": "label"})
    options = EvaluateOptions(
        subjects=(first, predictions(tmp_path / "b", {"label_column": "mets"})), labels=labels
    )
    with pytest.raises(UsageError, match="disagree") as refusal:
        evaluate(options)
    assert "--label-column" in refusal.value.how


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny task installed, a cohort, and a model that learned the column ``mets``."""
    monkeypatch.syspath_prepend(str(install_plugin(tmp_path / "site")))
    torch.manual_seed(0)
    network = TinyTask(TinySettings()).network()
    tensors = [raw_tensor(f"model.{name}", value) for name, value in network.state_dict().items()]
    document = {
        "task": "tiny",
        "preset": TinySettings(data=TinyData(label_column="mets")).as_dict(),
        "threshold": 0.4,
        "synthetic": True,
        "patients": hash_patients(["P002"]),
    }
    write_checkpoint(tmp_path / "model.safetensors", document, tensors)
    write_tiny_cohort(tmp_path / "data", 3, patients=8)
    rows = read_rows(tmp_path / "data" / "labels.csv")
    lines = [f"{row['case']},{n % 2},{row['label']}" for n, row in enumerate(rows)]
    # The patient that was seen has no label there, and is in no number.
    lines = [line[:-1] if line.startswith("P002") else line for line in lines]
    (tmp_path / "truth.csv").write_text("\n".join(["case,label,mets", *lines]) + "\n")
    (tmp_path / "data" / "labels.csv").unlink()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def labelled_as(found: Any) -> dict[str, int]:
    return {row["case"]: int(row["label"]) for row in found.evaluated[0].scores.per_case}


def positives(folder: Path) -> dict[str, int]:
    rows = read_rows(folder / "truth.csv")
    return {row["case"]: int(row["mets"]) for row in rows if row["mets"]}


RUN = RunOptions(device="cpu", workers=0)


def test_a_checkpoint_that_answers_first_is_scored_by_its_own_column(tiny):
    options = EvaluateOptions(
        (), checkpoints=(Path("model.safetensors"),), data=Path("data"), run=RUN
    )
    named = replace(options, labels=Path("truth.csv"))
    assert labelled_as(evaluate(named)) == positives(tiny)
    # By the column that its name speaks for, the patient of the training would be scored.
    with pytest.raises(LeakageError):
        evaluate(replace(named, columns=DataSection(label_column="label")))


def test_infer_records_how_labels_are_read_and_no_place(tiny):
    answers = tiny / "answers"
    infer(InferOptions((tiny / "data",), tiny / "model.safetensors", answers, run=RUN))
    kept = json.loads((answers / "run.json").read_text("utf-8"))["checkpoint"]["preset"]["data"]
    assert kept["label_column"] == "mets"
    assert set(kept) <= {"id_column", "label_column", "positive_values", "negative_values"}
    found = evaluate(EvaluateOptions(subjects=(answers,), labels=tiny / "truth.csv"))
    assert labelled_as(found) == positives(tiny)


class TestDataThatAreNotNamed:
    def test_a_model_answers_for_those_of_medtool_toml(self, tiny, medtool):
        (tiny / "medtool.toml").write_text('[data]\nfolder = "data"\nlabels = "truth.csv"\n')
        words = ("--device", "cpu", "--workers", "0", "--json")
        for model in (("model.safetensors",), ("-c", "model.safetensors")):
            outcome = medtool("evaluate", *model, *words)
            assert outcome.status == 0, outcome.err
            assert f"Data: {tiny / 'data'}" in outcome.err
            per_case = json.loads(outcome.out)["evaluated"][0]["scores"]["per_case"]
            assert {row["case"]: row["label"] for row in per_case} == positives(tiny)

    def test_else_for_those_of_this_folder(self, tiny, monkeypatch):
        (tiny / "truth.csv").rename(tiny / "data" / "labels.csv")
        monkeypatch.chdir(tiny / "data")
        found = evaluate(EvaluateOptions(subjects=(tiny / "model.safetensors",), run=RUN))
        assert len(labelled_as(found)) == 8

    def test_the_table_of_medtool_toml_is_not_that_of_other_data(self, tiny):
        (tiny / "medtool.toml").write_text('[data]\nfolder = "home"\nlabels = "truth.csv"\n')
        options = EvaluateOptions(
            (), checkpoints=(Path("model.safetensors"),), data=Path("data"), run=RUN, seen="report"
        )
        with pytest.raises(UsageError, match="no labels"):
            evaluate(options)

    def test_faults_of_a_project_that_is_not_asked_end_nothing(self, tiny):
        (tiny / "medtool.toml").write_text("[data]\nno_such_key = 1\n")
        (tiny / "truth.csv").rename(tiny / "data" / "labels.csv")
        options = EvaluateOptions(
            (), checkpoints=(Path("model.safetensors"),), data=Path("data"), run=RUN, seen="report"
        )
        assert len(labelled_as(evaluate(options))) == 8
        with pytest.raises(PresetError, match="no_such_key"):
            evaluate(replace(options, data=None, subjects=(Path("model.safetensors"),)))

    def test_answers_are_compared_with_the_labels_there(self, tmp_path, monkeypatch):
        answers = predictions(tmp_path / "a", {"label_column": "mets"})
        monkeypatch.chdir(tmp_path)
        table(tmp_path / "labels.csv", label=OTHER, mets=LABELS)
        assert auroc(EvaluateOptions(subjects=(answers,))) == pytest.approx(AUROC, abs=5e-9)
        table(tmp_path / "labels-too.csv", mets=OTHER)
        with pytest.raises(LabelsError, match="several tables"):
            evaluate(EvaluateOptions(subjects=(answers,)))
        (tmp_path / "medtool.toml").write_text('[data]\nlabels = "labels.csv"\n')
        assert auroc(EvaluateOptions(subjects=(answers,))) == pytest.approx(AUROC, abs=5e-9)
