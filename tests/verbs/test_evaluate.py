"""``medtool evaluate`` on predictions whose right scores are known by hand or published."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
from golden_scores import LABELS, MODEL_A, MODEL_B
from run_builder import build_run
from tiny_plugin import install_plugin
from tiny_task import TinyData, TinySettings, write_tiny_cohort

from medtool.core.checkpoint import write_checkpoint
from medtool.core.errors import (
    CheckpointError,
    InputError,
    LabelsError,
    LeakageError,
    OutputExistsError,
    PresetError,
    UsageError,
)
from medtool.data.patient_hashes import hash_patients
from medtool.data.run_folder import read_rows, write_rows
from medtool.verbs.evaluate import EvaluateOptions, evaluate, evaluate_options

CASES = [f"C{number:02d}" for number in range(20)]


def _predictions(folder: Path, scores, *, threshold="0.5", silent=(), patients=None) -> Path:
    folder.mkdir(parents=True)
    ids = patients or [f"P{number:02d}" for number in range(20)]
    with (folder / "predictions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        head = "case patient study_uid status code message probability threshold logit".split()
        writer.writerow(head)
        for case, patient, score in zip(CASES, ids, scores, strict=True):
            if case in silent:
                writer.writerow(
                    [case, patient, f"1.{case[1:]}", "refused", "no-brain", "", "", "", ""]
                )
            else:
                writer.writerow([case, patient, f"1.{case[1:]}", "ok", "", "", score, threshold, 0])
    return folder


def _labels(folder: Path, labels=LABELS, extra=()) -> Path:
    file = folder / "truth.csv"
    lines = [
        f"{case},{label},{n % 2}" for n, (case, label) in enumerate(zip(CASES, labels, strict=True))
    ]
    file.write_text("\n".join(["case,label,site", *lines, *extra]) + "\n")
    return file


def _checkpoint(path: Path, patients, **more) -> Path:
    write_checkpoint(
        path,
        {"task": "brainmet", "preset": {}, "threshold": 0.5, "patients": hash_patients(patients)}
        | more,
        [],
    )
    return path


def test_predictions_and_labels_give_the_published_numbers(tmp_path):
    found = evaluate(
        EvaluateOptions(subjects=(_predictions(tmp_path / "a", MODEL_A),), labels=_labels(tmp_path))
    )
    metrics = found.evaluated[0].scores.metrics
    assert metrics["auroc"].value == pytest.approx(0.88020833, abs=5e-9)
    assert metrics["mcc"].value == pytest.approx(0.492366, abs=5e-7)
    assert metrics["brier"].value == pytest.approx(0.146750)
    assert any("not checked" in note for note in found.evaluated[0].scores.notes)


def test_two_models_are_compared_on_the_cases_that_both_answered(tmp_path):
    first = _predictions(tmp_path / "a", MODEL_A)
    second = _predictions(tmp_path / "b", MODEL_B)
    options = EvaluateOptions(subjects=(first, second), labels=_labels(tmp_path))
    found = evaluate(options).comparison
    assert found.delong.p == pytest.approx(0.35166089, abs=5e-9)
    assert found.interval == pytest.approx((-0.1000, 0.2976), abs=5e-5)
    third = _predictions(tmp_path / "c", MODEL_B, silent=("C00", "C19"))
    fewer = evaluate(replace(options, subjects=(first, third)))
    assert fewer.comparison.n == 18
    assert [one.scores.metrics["auroc"].n for one in fewer.evaluated] == [18, 18]
    assert fewer.evaluated[1].silent == {"C00": "no-brain", "C19": "no-brain"}


def test_the_threshold_is_the_stored_one_and_never_fitted(tmp_path):
    labels = _labels(tmp_path)
    stored = _predictions(tmp_path / "a", MODEL_A, threshold="0.65")
    found = evaluate(EvaluateOptions(subjects=(stored,), labels=labels))
    # Five of eight positives are at 0.65 or above, and no negative.
    assert found.evaluated[0].scores.metrics["sensitivity"].value == 0.625
    assert found.evaluated[0].scores.metrics["specificity"].value == 1.0
    without = _predictions(tmp_path / "b", MODEL_A, threshold="")
    with pytest.raises(UsageError, match="No decision threshold"):
        evaluate(EvaluateOptions(subjects=(without,), labels=labels))
    given = evaluate(EvaluateOptions(subjects=(without,), labels=labels, threshold=0.5))
    assert "The threshold 0.5 was given by hand." in given.evaluated[0].scores.notes
    named = _checkpoint(tmp_path / "model.safetensors", ["someone"])
    taken = evaluate(EvaluateOptions(subjects=(without,), labels=labels, checkpoints=(named,)))
    assert taken.evaluated[0].scores.tables["decision"]["threshold"] == 0.5


class TestPatientsSeenInTraining:
    def test_they_are_refused(self, tmp_path):
        folder = _predictions(tmp_path / "a", MODEL_A)
        model = _checkpoint(tmp_path / "model.safetensors", ["P03", "P15", "P99"])
        options = EvaluateOptions(
            subjects=(folder,), labels=_labels(tmp_path), checkpoints=(model,)
        )
        with pytest.raises(LeakageError, match="seen in training") as refusal:
            evaluate(options)
        assert "2 of 20 patients: P03, P15" in refusal.value.met
        assert refusal.value.exit_status == 4

    def test_they_can_be_left_out(self, tmp_path):
        model = _checkpoint(tmp_path / "model.safetensors", ["P03", "P15"])
        found = evaluate(
            EvaluateOptions(
                subjects=(_predictions(tmp_path / "a", MODEL_A),),
                labels=_labels(tmp_path),
                checkpoints=(model,),
                seen="leave-out",
            )
        )
        assert found.evaluated[0].scores.metrics["auroc"].n == 18
        assert found.evaluated[0].scores.optimistic == ""

    def test_or_reported_as_such(self, tmp_path):
        model = _checkpoint(tmp_path / "model.safetensors", ["P03", "P15"])
        found = evaluate(
            EvaluateOptions(
                subjects=(_predictions(tmp_path / "a", MODEL_A),),
                labels=_labels(tmp_path),
                checkpoints=(model,),
                seen="report",
                output=tmp_path / "out",
            )
        )
        label = "includes 2 patients seen in training, optimistic"
        assert found.evaluated[0].scores.optimistic == label
        assert found.report.read_text().count(label) >= 3

    def test_a_clean_cohort_is_said_to_be_clean(self, tmp_path):
        model = _checkpoint(tmp_path / "model.safetensors", ["P99"])
        found = evaluate(
            EvaluateOptions(
                subjects=(_predictions(tmp_path / "a", MODEL_A),),
                labels=_labels(tmp_path),
                checkpoints=(model,),
            )
        )
        notes = found.evaluated[0].scores.notes
        assert "None of 20 patients was seen in training." in notes

    def test_nothing_is_known_of_pseudonyms(self, tmp_path):
        """From a fault: none of them was said to be seen, and no hash could have fitted."""
        folder = _predictions(tmp_path / "a", MODEL_A)
        (folder / "run.json").write_text(json.dumps({"pseudonymised": True}), encoding="utf-8")
        model = _checkpoint(tmp_path / "model.safetensors", ["someone"])
        found = evaluate(
            EvaluateOptions(subjects=(folder,), labels=_labels(tmp_path), checkpoints=(model,))
        )
        notes = " ".join(found.evaluated[0].scores.notes)
        assert "not known: these predictions hold pseudonyms" in notes
        assert "None of" not in notes

    def test_they_are_looked_for_by_the_key_that_training_used(self, tmp_path, monkeypatch):
        """From a fault: patients told apart by folder or case were looked for by PatientID."""
        monkeypatch.syspath_prepend(str(install_plugin(tmp_path / "site")))
        write_tiny_cohort(tmp_path / "data", 3, patients=3)
        preset = TinySettings(data=TinyData(patient_key="case")).as_dict()
        patients = hash_patients(["P001_0"])
        document = {"task": "tiny", "preset": preset, "threshold": 0.5, "patients": patients}
        model = tmp_path / "model.safetensors"
        write_checkpoint(model, document, [])
        options = EvaluateOptions(
            (), checkpoints=(model,), data=tmp_path / "data", output=tmp_path / "out"
        )
        # Before anything answers, which this model without weights could not.
        with pytest.raises(LeakageError, match="seen in training") as refusal:
            evaluate(options)
        assert refusal.value.met == "1 of 4 patients: P001_0"


def test_a_checkpoint_that_did_not_make_the_predictions_is_refused(tmp_path):
    folder = _predictions(tmp_path / "a", MODEL_A)
    (folder / "run.json").write_text(json.dumps({"checkpoint": {"sha256": "0" * 64}}))
    model = _checkpoint(tmp_path / "model.safetensors", ["P99"])
    with pytest.raises(CheckpointError, match="did not make these predictions"):
        evaluate(
            EvaluateOptions(subjects=(folder,), labels=_labels(tmp_path), checkpoints=(model,))
        )


def test_patients_with_several_studies_count_once_in_the_bootstrap(tmp_path):
    patients = [f"P{number // 2:02d}" for number in range(20)]
    folder = _predictions(tmp_path / "a", MODEL_A, patients=patients)
    found = evaluate(EvaluateOptions(subjects=(folder,), labels=_labels(tmp_path)))
    table = found.evaluated[0].scores.tables["bootstrap"]
    assert (table["unit"], table["patients"]) == ("patient", 10)


def test_studies_are_pooled_by_patient_as_the_task_says(tmp_path):
    patients = [f"P{number // 2:02d}" for number in range(20)]
    folder = _predictions(tmp_path / "a", MODEL_A, patients=patients)
    rows = read_rows(folder / "predictions.csv")
    for row in rows:
        row.update(slices_read="1", slices_used="1")
    write_rows(folder / "predictions.csv", rows)
    (folder / "run.json").write_text(json.dumps({"task": "brainmet"}))
    options = EvaluateOptions(subjects=(folder,), labels=_labels(tmp_path), by="patient")
    with pytest.raises(UsageError, match=r"without their slices"):
        evaluate(options)
    # One slice a study with logits that are known: the maximum answers for the patient.
    logits = [{"case": case, "logit": (n % 5) - 2.0, "used": 1} for n, case in enumerate(CASES)]
    write_rows(folder / "slices.csv", logits)
    found = evaluate(options)
    per_case = found.evaluated[0].scores.per_case
    assert len(per_case) == 10
    # Studies C00 (-2) and C01 (-1): sigmoid(-1).
    assert per_case[0]["probability"] == pytest.approx(0.2689414214)
    assert per_case[0]["case"] == "P00"


PRESET = {"metrics": {"bootstrap_draws": 300, "confidence": 0.8, "subgroups": ["site"]}}


def _measured(found):
    tables = found.evaluated[0].scores.tables
    levels = {row["confidence"] for row in found.evaluated[0].confounders}
    drawn = tables["bootstrap"]
    return drawn["draws"], drawn["confidence"], levels, {row["by"] for row in tables["subgroups"]}


def test_a_checkpoint_is_measured_as_its_own_preset_says(tmp_path):
    options = EvaluateOptions(
        subjects=(_predictions(tmp_path / "a", MODEL_A), _predictions(tmp_path / "b", MODEL_B)),
        checkpoints=(_checkpoint(tmp_path / "c.safetensors", ["X"], preset=PRESET),),
        labels=_labels(tmp_path),
        output=tmp_path / "out",
    )
    found = evaluate(options)
    assert _measured(found) == (300, 0.8, {0.8}, {"site"})
    assert (found.comparison.draws, found.comparison.confidence) == (300, 0.8)
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    # The second model has no preset beside it: the defaults, and its table says so.
    assert page.count("80% interval") == 3
    assert found.evaluated[1].scores.tables["bootstrap"]["draws"] == 2000


def test_predictions_remember_the_preset_that_they_were_made_with(tmp_path):
    folder = _predictions(tmp_path / "a", MODEL_A)
    record = {"task": "brainmet", "checkpoint": {"preset": PRESET}}
    (folder / "run.json").write_text(json.dumps(record))
    options = EvaluateOptions(subjects=(folder,), labels=_labels(tmp_path))
    assert _measured(evaluate(options)) == (300, 0.8, {0.8}, {"site"})


def test_a_checkpoint_whose_preset_holds_no_measure_is_refused(tmp_path):
    strange = {"metrics": {"bootstrap_draws": 3}}
    options = EvaluateOptions(
        subjects=(_predictions(tmp_path / "a", MODEL_A),),
        checkpoints=(_checkpoint(tmp_path / "c.safetensors", ["X"], preset=strange),),
        labels=_labels(tmp_path),
    )
    with pytest.raises(PresetError, match="bootstrap_draws"):
        evaluate(options)


def test_subgroups_come_from_facts_and_from_columns_of_the_labels(tmp_path):
    options = EvaluateOptions(
        subjects=(_predictions(tmp_path / "a", MODEL_A),),
        labels=_labels(tmp_path),
        subgroups=("site",),
    )
    rows = evaluate(options).evaluated[0].scores.tables["subgroups"]
    assert [(row["group"], row["n"], row["positives"]) for row in rows] == [
        ("0", 10, 4),
        ("1", 10, 4),
    ]
    with pytest.raises(UsageError, match="no fact 'scanner'"):
        evaluate(replace(options, subgroups=("scanner",)))


class TestARun:
    def test_its_test_part_is_scored_with_its_own_labels(self, tmp_path):
        run = build_run(tmp_path / "run")
        found = evaluate(EvaluateOptions(subjects=(run.path,)))
        stored = run.read_scores()["test"]["metrics"]
        metrics = found.evaluated[0].scores.metrics
        for name in ("auroc", "sensitivity", "brier", "sensitivity_at_specificity_0.9"):
            assert metrics[name].value == pytest.approx(stored[name]["value"]), name
        assert found.evaluated[0].scores.optimistic == ""

    def test_without_one_the_selection_part_is_labelled(self, tmp_path):
        run = build_run(tmp_path / "run", parts=False)
        found = evaluate(EvaluateOptions(subjects=(run.path,)))
        assert found.evaluated[0].scores.optimistic == "selection set, optimistic"

    def test_folds_are_one_set_of_out_of_fold_answers(self, tmp_path):
        runs = [build_run(tmp_path / "run" / f"fold_{k}", cases=80, seed=k) for k in range(2)]
        for number, run in enumerate(runs):
            rows = run.read_cases()
            for row in rows:
                row["case"] = row["case"] + f"f{number}"
                row["patient"] = row["patient"] + f"f{number}"
            run.write_cases(rows)
            file = run.predictions_folder / "test" / "predictions.csv"
            rows = read_rows(file)
            for row in rows:
                row["case"], row["patient"] = (
                    row["case"] + f"f{number}",
                    row["patient"] + f"f{number}",
                )
                row["threshold"] = row["threshold"] and str(0.3 + 0.2 * number)
            write_rows(file, rows)
        found = evaluate(EvaluateOptions(subjects=(tmp_path / "run",), output=tmp_path / "out"))
        scores = found.evaluated[0].scores
        assert scores.metrics["auroc"].n == 32
        assert scores.tables["decision"]["thresholds"] == [0.3, 0.5]
        assert "each fold at its own threshold" in found.report.read_text()


class TestRefusals:
    def test_nothing_to_evaluate(self, medtool):
        assert medtool("evaluate").status == 2

    def test_no_labels(self, tmp_path):
        with pytest.raises(UsageError, match="no labels"):
            evaluate(EvaluateOptions(subjects=(_predictions(tmp_path / "a", MODEL_A),)))

    def test_labels_of_other_cases(self, tmp_path):
        other = tmp_path / "labels.csv"
        other.write_text("case,label\nX1,0\nX2,1\n")
        with pytest.raises(LabelsError, match="No row"):
            evaluate(
                EvaluateOptions(subjects=(_predictions(tmp_path / "a", MODEL_A),), labels=other)
            )

    def test_no_answer_at_all(self, tmp_path):
        folder = _predictions(tmp_path / "a", MODEL_A, silent=CASES)
        with pytest.raises(InputError, match="No labelled case"):
            evaluate(EvaluateOptions(subjects=(folder,), labels=_labels(tmp_path)))

    def test_an_output_that_exists(self, tmp_path):
        options = EvaluateOptions(
            subjects=(_predictions(tmp_path / "a", MODEL_A),),
            labels=_labels(tmp_path),
            output=tmp_path / "out",
        )
        evaluate(options)
        with pytest.raises(OutputExistsError):
            evaluate(options)
        evaluate(replace(options, force=True))

    def test_a_checkpoint_beside_predictions_without_data(self, tmp_path):
        model = _checkpoint(tmp_path / "model.safetensors", ["P99"])
        folder = _predictions(tmp_path / "a", MODEL_A)
        with pytest.raises(UsageError, match="alone"):
            evaluate(EvaluateOptions(subjects=(folder, model)))
        with pytest.raises(UsageError, match="without data"):
            evaluate(EvaluateOptions(subjects=(folder,), checkpoints=(model, model)))

    def test_a_word_that_is_no_choice(self):
        with pytest.raises(UsageError, match="--seen") as refusal:
            evaluate_options([], seen="leaveout")
        assert refusal.value.nearest == "leave-out"


def test_one_class_is_scored_as_far_as_it_can_be(tmp_path):
    found = evaluate(
        EvaluateOptions(
            subjects=(_predictions(tmp_path / "a", MODEL_A),),
            labels=_labels(tmp_path, labels=[0] * 20),
            output=tmp_path / "out",
        )
    )
    assert found.evaluated[0].scores.metrics["auroc"].convention == "undefined: one class only"
    assert found.report.is_file()


class TestTheCommand:
    def test_it_prints_a_table_and_the_path_of_the_page(self, tmp_path, medtool):
        folder = _predictions(tmp_path / "a", MODEL_A)
        out = medtool("evaluate", folder, "--labels", _labels(tmp_path), "-o", tmp_path / "out")
        assert out.status == 0, out.err
        assert "auroc" in out.out
        assert "0.880" in out.out
        assert out.out.rstrip().endswith("report.html")
        document = json.loads((tmp_path / "out" / "scores.json").read_text())
        assert document["evaluated"][0]["scores"]["metrics"]["auroc"]["n"] == 20

    def test_json_is_for_programs(self, tmp_path, medtool):
        folder = _predictions(tmp_path / "a", MODEL_A, silent=("C00",))
        out = medtool("evaluate", folder, "--labels", _labels(tmp_path), "--json")
        # One case has no answer: status 1, and it is named.
        assert out.status == 1
        assert json.loads(out.out)["evaluated"][0]["without_answer"] == {"C00": "no-brain"}
