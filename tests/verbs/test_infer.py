"""``infer`` on a stranger's tiny task: rows, records, refusals, and nothing lost."""

from __future__ import annotations

import csv
import errno
import importlib.metadata
import json
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_plugin import install_plugin
from tiny_task import TinySettings, TinyTask, write_tiny_cohort

from medtool.core.checkpoint import write_checkpoint
from medtool.core.errors import (
    CaseRefused,
    GateError,
    InputError,
    MachineError,
    OutputExistsError,
    UsageError,
)
from medtool.core.records import Prediction
from medtool.core.registry import load_task
from medtool.nets.state import raw_tensor
from medtool.verbs.infer import InferOptions, infer
from medtool.verbs.infer_output import OutputPlace, clear
from medtool.verbs.options import RunOptions


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """The tiny task installed, a cohort and a checkpoint of it."""
    site = install_plugin(tmp_path / "site")
    monkeypatch.syspath_prepend(str(site))
    torch.manual_seed(0)
    task = TinyTask(TinySettings())
    network = task.network()
    tensors = [raw_tensor(f"model.{name}", value) for name, value in network.state_dict().items()]
    document = {
        "task": "tiny",
        "preset": TinySettings().as_dict(),
        "threshold": 0.4,
        "synthetic": True,
        "training_range": {"manufacturer": {"tiny": 4}},
    }
    write_checkpoint(tmp_path / "model.safetensors", document, tensors)
    write_tiny_cohort(tmp_path / "data", 3, patients=5)
    return tmp_path


def options(tiny: Path, **changes: object) -> InferOptions:
    given = {
        "sources": (tiny / "data" / "scans",),
        "checkpoint": tiny / "model.safetensors",
        "output": tiny / "out",
        "run": RunOptions(device="cpu", workers=0),
    }
    return InferOptions(**(given | changes))  # type: ignore[arg-type]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_study_is_a_row_with_the_networks_own_number(tiny) -> None:
    result = infer(options(tiny))
    rows = rows_of(tiny / "out" / "predictions.csv")
    assert [row["case"] for row in rows] == [
        "P000_0", "P000_1", "P001_0", "P002_0", "P003_0", "P004_0",
    ]  # fmt: skip
    assert list(rows[0])[:6] == ["case", "patient", "study_uid", "status", "code", "message"]
    assert (result.ok, result.refused, result.failed, int(result.status)) == (6, 0, 0, 0)
    # The same number from the weights in the file, by hand: two linear layers, tanh, maximum.
    from safetensors.numpy import load_file

    weights = load_file(tiny / "model.safetensors")
    scan = np.load(tiny / "data/scans/P002/P002_0.npy").reshape(-1, 256)
    hidden = np.tanh(scan @ weights["model.trunk.weight"].T + weights["model.trunk.bias"])
    logit = (hidden @ weights["model.head.weight"].T + weights["model.head.bias"]).max()
    assert float(rows[3]["logit"]) == pytest.approx(float(logit), abs=1e-5)
    elements = rows_of(tiny / "out" / "slices.csv")
    assert len([e for e in elements if e["case"] == "P002_0"]) == len(scan)


def test_the_record_says_what_ran_on_what(tiny) -> None:
    import hashlib

    infer(options(tiny, command="medtool infer data"))
    record = json.loads((tiny / "out" / "run.json").read_text("utf-8"))
    assert record["command"] == "medtool infer data"
    whole = hashlib.sha256((tiny / "model.safetensors").read_bytes()).hexdigest()
    assert record["checkpoint"]["sha256"] == whole
    assert record["studies"] == {"ok": 6, "refused": 0, "failed": 0}
    one = hashlib.sha256((tiny / "data/scans/P001/P001_0.npy").read_bytes()).hexdigest()
    of_case = {case["case"]: case for case in record["cases"]}
    assert of_case["P001_0"]["inputs_sha256"] == hashlib.sha256(one.encode()).hexdigest()
    assert {"startup", "preparing", "network", "writing"} <= set(record["seconds"])
    assert "not a medical device" in record["notice"]
    # The versions that answered, not those that trained.
    assert record["versions"]["numpy"] == np.__version__
    assert record["versions"]["torch"] == importlib.metadata.version("torch")
    assert record["started_utc"] <= record["ended_utc"]
    assert not (tiny / "out" / ".partial").exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_one_bad_study_is_a_row_and_never_the_end(tiny, workers) -> None:
    np.save(tiny / "data/scans/P001/P001_0.npy", np.zeros((3, 8, 8), np.float32))
    result = infer(options(tiny, run=RunOptions(device="cpu", workers=workers)))
    rows = {row["case"]: row for row in rows_of(result.table)}
    assert rows["P001_0"]["status"] == "refused"
    assert rows["P001_0"]["code"] == "wrong-size"
    assert rows["P001_0"]["probability"] == ""
    assert rows["P002_0"]["status"] == "ok"
    assert int(result.status) == 1


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (RuntimeError("shapes"), "unforeseen", "RuntimeError in predict (test_infer.py:"),
        (torch.OutOfMemoryError("no room"), "out-of-memory", "OutOfMemoryError: no room"),
        (UsageError("No such input."), "prediction", "No such input."),
    ],
)
def test_a_network_that_fails_on_one_study_is_a_row(
    tiny, monkeypatch, error, code, message
) -> None:
    """Only our own errors used to be a row; any other ended the run and lost the table."""
    answer = TinyTask.predict

    def predict(self, model, prepared, case) -> Prediction:
        if case.case_id == "P001_0":
            raise error
        return answer(self, model, prepared, case)

    task = load_task("tiny")
    monkeypatch.setattr(task, "predict", predict)
    result = infer(options(tiny))
    assert (result.ok, result.failed, int(result.status)) == (5, 1, 1)
    row = {row["case"]: row for row in rows_of(result.table)}["P001_0"]
    assert (row["status"], row["code"]) == ("failed", code)
    assert row["message"].startswith(message)


@pytest.mark.parametrize("step", ["write", "write_dicom", "picture"])
@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ValueError("P001^Name"), "unforeseen", "ValueError in fail (test_infer.py:"),
        (CaseRefused("invalid-geometry", "No volume."), "invalid-geometry", "No volume."),
        (UsageError("A folder stands there."), "writing", "A folder stands there."),
    ],
)
def test_an_answer_that_cannot_be_written_is_a_row(
    tiny, monkeypatch, step, error, code, message
) -> None:
    """Such a study once ended the run, and --continue stopped at it again."""
    task = load_task("tiny")

    def written(self, prediction, case, folder, *rest) -> list[Path]:
        path = folder / f"{case.case_id}.{'dcm' if rest else 'png'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("drawn")
        return [path]

    monkeypatch.setattr(task, "write_dicom", written)
    monkeypatch.setattr(
        task, "picture", lambda self, p, ready, c, folder: written(self, p, c, folder)
    )
    answer = getattr(task, step)

    def fail(self, prediction, *rest) -> object:
        if prediction.case_id == "P001_0":
            raise error
        return answer(self, prediction, *rest)

    monkeypatch.setattr(task, step, fail)
    result = infer(options(tiny, dicom_seg=True, overlays=True))
    assert (result.ok, result.failed, int(result.status)) == (5, 1, 1)
    row = {row["case"]: row for row in rows_of(result.table)}["P001_0"]
    assert (row["status"], row["code"], row["probability"]) == ("failed", code, "")
    assert row["message"].startswith(message)
    # What was written of it before is gone; what was written of the others is listed.
    assert list((tiny / "out").rglob("*P001_0*.*")) == []
    of_case = {c["case"]: c for c in json.loads((tiny / "out/run.json").read_text())["cases"]}
    assert of_case["P001_0"]["outputs_sha256"] == {}
    assert len(of_case["P002_0"]["outputs_sha256"]) == 2
    assert len(of_case["P001_0"]["inputs_sha256"]) == 64


@pytest.mark.parametrize(
    "error", [MachineError("The disk is full."), OSError(errno.ENOSPC, "No space left on device")]
)
def test_a_full_disk_ends_the_run_and_keeps_what_is_done(tiny, monkeypatch, error) -> None:
    task = load_task("tiny")
    write = task.write

    def fail(self, prediction, case, folder) -> object:
        if prediction.case_id == "P001_0":
            raise error
        return write(self, prediction, case, folder)

    with monkeypatch.context() as patch:
        patch.setattr(task, "write", fail)
        with pytest.raises(MachineError, match="The disk is full"):
            infer(options(tiny))
    assert (infer(options(tiny, resume=True)).ok) == 6


def test_a_study_whose_files_are_gone_is_a_row(tiny, monkeypatch) -> None:
    """The hash of the files was asked for outside of what catches errors."""
    task = load_task("tiny")
    prepare = task.prepare

    def vanish(self, case) -> object:
        if case.case_id == "P001_0":
            next(iter(case.inputs.values())).unlink()
        return prepare(self, case)

    monkeypatch.setattr(task, "prepare", vanish)
    result = infer(options(tiny))
    assert (result.ok, result.failed) == (5, 1)


def test_when_no_study_gives_an_answer_the_table_still_says_why(tiny) -> None:
    for file in (tiny / "data/scans").rglob("*.npy"):
        np.save(file, np.zeros((3, 8, 8), np.float32))
    result = infer(options(tiny))
    assert int(result.status) == 3
    assert {row["status"] for row in rows_of(result.table)} == {"refused"}


def test_a_table_by_name_puts_the_rest_beside_it(tiny) -> None:
    result = infer(options(tiny, output=tiny / "answers.csv"))
    assert result.table == tiny / "answers.csv"
    assert (tiny / "answers" / "run.json").is_file()
    assert not (tiny / "answers" / "predictions.csv").exists()


def test_an_output_is_kept_unless_forced(tiny) -> None:
    infer(options(tiny))
    (tiny / "out" / "mine.txt").write_text("kept")
    with pytest.raises(OutputExistsError):
        infer(options(tiny))
    infer(options(tiny, force=True))
    assert (tiny / "out" / "mine.txt").read_text() == "kept"


def test_a_forced_run_leaves_nothing_of_the_one_before(tiny, monkeypatch) -> None:
    """From a fault: maps named by real ids, and a second table, stayed beside pseudonyms."""
    write = TinyTask.write

    def with_map(self, prediction, case, folder) -> dict[str, object]:
        name = f"maps/{prediction.case_id}.txt"
        (folder / "maps").mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("a map")
        return {**write(self, prediction, case, folder), "map": name}

    monkeypatch.setattr(TinyTask, "write", with_map)
    monkeypatch.setattr(TinyTask, "columns", {**TinyTask.columns, "map": ("file", "", "a map")})
    out = tiny / "out"
    infer(options(tiny))
    (out / "uncertainty").mkdir()
    (out / "uncertainty" / "P009_0.nii.gz").write_text("of a run before that")
    for name in ("predictions", "slices"):
        (out / f"{name}-2.csv").write_bytes((out / f"{name}.csv").read_bytes())
    kept = [out / "maps" / "mine.txt", out / "predictions-old.csv", tiny / "outside.txt"]
    for file in kept:
        file.write_text("P000")
    record = json.loads((out / "run.json").read_text("utf-8"))
    record["cases"][0]["outputs_sha256"] |= {"../outside.txt": "", str(kept[2]): "", "..": ""}
    (out / "run.json").write_text(json.dumps(record), "utf-8")
    infer(options(tiny, force=True, pseudonymise=tiny / "key"))
    assert [path for path in out.rglob("*") if "P00" in path.name] == []
    assert all(file.read_text() == "P000" for file in kept)
    assert {file for file in out.rglob("*.csv")} == {
        kept[1], out / "predictions.csv", out / "slices.csv",
    }  # fmt: skip


def test_what_a_run_that_was_cut_off_lists_is_removed(tmp_path) -> None:
    place = OutputPlace.of(tmp_path / "out.csv")
    (place.folder / "maps").mkdir(parents=True)
    (place.folder / "maps" / "P000.txt").write_text("a map")
    place.journal.parent.mkdir()
    entry = json.dumps({"case": "P000", "outputs_sha256": {"maps/P000.txt": ""}})
    place.journal.write_text(f'{{"identity": {{}}}}\n{entry}\n{{"case": "P0')
    # Two tables beside it: of a run of its own, and of no run.
    (tmp_path / "out-2").mkdir()
    for name in ("out-2.csv", "out-3.csv"):
        (tmp_path / name).write_text("case,patient,study_uid,status,code,message\n")
    (tmp_path / "out-3.csv").write_text("case,age\n")
    clear(place)
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        "out", "out-2", "out-2.csv", "out-3.csv",
    ]  # fmt: skip


def test_force_removes_nothing_where_no_run_was(tiny) -> None:
    """From a fault: masks of the user's own went where none of ours had been."""
    (tiny / "out" / "masks").mkdir(parents=True)
    (tiny / "out" / "masks" / "mine.nii.gz").write_text("drawn by hand")
    infer(options(tiny, force=True))
    assert (tiny / "out" / "masks" / "mine.nii.gz").read_text() == "drawn by hand"


def test_a_zip_gives_the_same_answers_as_its_folder(tiny) -> None:
    infer(options(tiny))
    with zipfile.ZipFile(tiny / "p.zip", "w") as archive:
        for file in (tiny / "data/scans").rglob("*.npy"):
            archive.write(file, file.relative_to(tiny / "data/scans").as_posix())
    infer(options(tiny, sources=(tiny / "p.zip",), output=tiny / "zipped"))
    assert (tiny / "zipped/predictions.csv").read_bytes() == (
        tiny / "out/predictions.csv"
    ).read_bytes()


def test_a_zip_that_climbs_is_a_row_among_others_and_the_end_alone(tiny) -> None:
    with zipfile.ZipFile(tiny / "evil.zip", "w") as archive:
        archive.writestr("../../evil.npy", b"x")
    result = infer(options(tiny, sources=(tiny / "data/scans", tiny / "evil.zip")))
    assert rows_of(result.table)[0]["code"] == "archive-path"
    assert (result.ok, result.refused) == (6, 1)
    with pytest.raises(InputError):
        infer(options(tiny, sources=(tiny / "evil.zip",), output=tiny / "b"))
    assert not list(tiny.rglob("evil.npy"))


def test_a_source_that_is_not_there_is_no_input(tiny) -> None:
    with pytest.raises(InputError, match="nothing by this name"):
        infer(options(tiny, sources=(tiny / "nowhere",)))


def test_a_demo_model_refuses_patients_unless_told(tiny, monkeypatch) -> None:
    import dataclasses

    import tiny_task

    whole = tiny_task._case

    def of_a_patient(file):
        case = whole(file)
        return dataclasses.replace(case, facts={**case.facts, "synthetic": False})

    monkeypatch.setattr(tiny_task, "_case", of_a_patient)
    with pytest.raises(GateError, match="synthetic"):
        infer(options(tiny))
    assert infer(options(tiny, allow_demo=True)).ok == 6


def test_unlike_training_is_said_in_the_row(tiny, monkeypatch) -> None:
    import dataclasses

    import tiny_task

    whole = tiny_task._case
    monkeypatch.setattr(
        tiny_task,
        "_case",
        lambda file: dataclasses.replace(
            whole(file), facts={"manufacturer": "other", "slices": 3, "synthetic": True}
        ),
    )
    row = rows_of(infer(options(tiny)).table)[0]
    assert (row["status"], row["code"]) == ("ok", "unlike-training")
    assert "manufacturer other (in training tiny)" in row["message"]


def test_by_patient_pools_with_the_tasks_own_rule(tiny, monkeypatch) -> None:
    def largest(self, predictions):
        return max(predictions, key=lambda p: p.scalars["logit"])

    with pytest.raises(UsageError, match="by case"):
        infer(options(tiny, by="patient"))
    monkeypatch.setattr(TinyTask, "pool", largest)
    by_case = rows_of(infer(options(tiny, output=tiny / "cases")).table)
    np.save(tiny / "data/scans/P001/P001_0.npy", np.zeros((3, 8, 8), np.float32))
    result = infer(options(tiny, by="patient", force=True))
    rows = {row["case"]: row for row in rows_of(result.table)}
    assert list(rows) == ["P000", "P001", "P002", "P003", "P004"]
    assert rows["P000"]["studies"] == "2"
    assert rows["P000"]["logit"] == max((r["logit"] for r in by_case[:2]), key=float)
    assert rows["P001"]["status"] == "refused"


def test_by_patient_a_study_without_an_answer_still_counts(tiny, monkeypatch) -> None:
    """From a fault: beside an answered study of the same patient a failed one was not counted."""
    monkeypatch.setattr(TinyTask, "pool", lambda self, predictions: predictions[0])
    np.save(tiny / "data/scans/P000/P000_1.npy", np.zeros((3, 8, 8), np.float32))
    for resume in (False, True):
        result = infer(options(tiny, by="patient", resume=resume))
        assert [row["status"] for row in result.rows] == ["ok"] * 5
        assert (result.ok, result.refused, int(result.status)) == (5, 1, 1)
    record = json.loads((tiny / "out" / "run.json").read_text("utf-8"))
    assert record["studies"] == {"ok": 5, "refused": 1, "failed": 0}


def test_pseudonyms_leave_no_id_anywhere(tiny) -> None:
    infer(options(tiny, pseudonymise=tiny / "key", command="medtool infer P000", overlays=True))
    written = [path for path in (tiny / "out").rglob("*") if path.is_file()]
    for path in written:
        for secret in ("P000", "P001", "scans", "2.25."):
            text = path.read_text("utf-8")
            found = [line for line in text.splitlines() if secret in line]
            assert not found or secret == "2.25.", (path, secret)
        assert "P00" not in path.relative_to(tiny / "out").as_posix()
    uids = {row["study_uid"] for row in rows_of(tiny / "out/predictions.csv")}
    assert len(uids) == 6
    again = infer(options(tiny, pseudonymise=tiny / "key", force=True))
    assert {row["study_uid"] for row in again.rows} == uids


def test_a_run_that_was_killed_is_finished_with_the_same_files(tiny, monkeypatch) -> None:
    infer(options(tiny, output=tiny / "whole"))
    script = f"""
import sys, time
sys.path[:0] = {sys.path!r}
import tiny_task
from pathlib import Path
slow = tiny_task.TinyTask.predict
def predict(self, *words):
    time.sleep(0.4)
    return slow(self, *words)
tiny_task.TinyTask.predict = predict
from medtool.verbs.infer import InferOptions, infer
from medtool.verbs.options import RunOptions
infer(InferOptions(sources=(Path({str(tiny / "data/scans")!r}),),
      checkpoint=Path({str(tiny / "model.safetensors")!r}), output=Path({str(tiny / "out")!r}),
      run=RunOptions(device="cpu", workers=0)))
"""
    journal = tiny / "out" / ".partial" / "journal.jsonl"
    with subprocess.Popen([sys.executable, "-c", script]) as process:
        limit = time.monotonic() + 60
        while time.monotonic() < limit:
            if journal.exists() and journal.read_bytes().count(b"\n") >= 3:
                break
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    done = journal.read_bytes().count(b"\n") - 1
    assert 2 <= done < 6
    with pytest.raises(OutputExistsError, match="cut off"):
        infer(options(tiny))
    asked: list[str] = []
    predict = TinyTask.predict

    def counted(self, model, prepared, case) -> Prediction:
        asked.append(case.case_id)
        return predict(self, model, prepared, case)

    monkeypatch.setattr(TinyTask, "predict", counted)
    infer(options(tiny, resume=True))
    assert len(asked) == 6 - done
    for name in ("predictions.csv", "slices.csv"):
        assert (tiny / "out" / name).read_bytes() == (tiny / "whole" / name).read_bytes()


def test_going_on_with_what_is_whole_changes_nothing(tiny) -> None:
    """A job that is queued again after it was done is done."""
    first = infer(options(tiny))
    written = {path: path.stat().st_mtime_ns for path in (tiny / "out").rglob("*")}
    again = infer(options(tiny, resume=True))
    assert again.rows == first.rows
    assert (again.ok, int(again.status)) == (6, 0)
    assert {path: path.stat().st_mtime_ns for path in (tiny / "out").rglob("*")} == written
    record = json.loads((tiny / "out" / "run.json").read_text("utf-8"))
    record["checkpoint"]["sha256"] = "0" * 64
    (tiny / "out" / "run.json").write_text(json.dumps(record), "utf-8")
    with pytest.raises(UsageError, match="another one"):
        infer(options(tiny, resume=True))


SERIES = "key,chosen,use\n1.2.3,yes,no\n"


@pytest.mark.parametrize(
    ("changes", "met"),
    [
        ({"overlays": True}, "overlays"),
        ({"assignments": ("infer.case_timeout_s=60",)}, "changed"),
        ({"run": RunOptions(device="cpu", workers=0, precision="bf16")}, "precision"),
        ({"pseudonymise": Path("key")}, "pseudonyms"),
        ({"series": Path("series.csv")}, "series"),
        ({"by": "patient"}, "by"),
        ({"sources": (Path("data/scans/P001"),)}, "sources"),
    ],
)
def test_going_on_with_what_is_whole_asks_the_same(tiny, monkeypatch, changes, met) -> None:
    """From faults: real ids stayed where pseudonyms were asked for, and another week's studies
    were not answered, with status 0."""
    monkeypatch.chdir(tiny)
    Path("series.csv").write_text(SERIES, "utf-8")
    infer(options(tiny))
    with pytest.raises(UsageError, match="another one") as refused:
        infer(options(tiny, resume=True, **changes))
    assert refused.value.met == f"other {met}"
    assert not Path("key").exists()


def test_what_is_whole_was_asked_the_same_in_other_words(tiny) -> None:
    infer(options(tiny, pseudonymise=tiny / "key"))
    run = RunOptions(device="auto", workers=0, precision="32")
    asked = {"pseudonymise": tiny / "key", "by": "case", "run": run, "resume": True}
    asked["sources"] = (tiny / "data" / ".." / "data" / "scans",)
    assert infer(options(tiny, **asked)).ok == 6
    file = tiny / "out" / "run.json"
    record = json.loads(file.read_text("utf-8"))
    # An earlier version kept nothing to compare.
    del record["identity"]
    file.write_text(json.dumps(record), "utf-8")
    assert infer(options(tiny, resume=True)).ok == 6


@pytest.mark.parametrize("changed", ["precision", "series"])
def test_going_on_in_another_way_is_refused(tiny, monkeypatch, changed) -> None:
    """From a fault: --continue mixed answers of two arithmetics, or of two choices of series."""

    def full(self, prediction, case, folder) -> object:
        raise MachineError("The disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr(load_task("tiny"), "write", full)
        with pytest.raises(MachineError):
            infer(options(tiny))
    (tiny / "series.csv").write_text(SERIES, "utf-8")
    ways = {
        "precision": {"run": RunOptions(device="cpu", workers=0, precision="bf16")},
        "series": {"series": tiny / "series.csv"},
    }
    with pytest.raises(UsageError, match="another one") as refused:
        infer(options(tiny, resume=True, **ways[changed]))
    assert refused.value.met == f"other {changed}"


def test_going_on_with_another_checkpoint_is_refused(tiny) -> None:
    place = tiny / "out" / ".partial"
    place.mkdir(parents=True)
    (place / "journal.jsonl").write_text('{"identity": {"checkpoint": "another"}}\n')
    with pytest.raises(UsageError, match="another one"):
        infer(options(tiny, resume=True))


def test_disk_stays_flat(tiny, monkeypatch) -> None:
    """No prepared case outlives its answer."""
    import medtool.predict.cases as cases

    seen: list[int] = []
    whole = cases._answer

    def watching(*arguments):
        from medtool.data.scratch import scratch_root

        seen.append(len(list(scratch_root().rglob("*.b2"))))
        return whole(*arguments)

    monkeypatch.setattr(cases, "_answer", watching)
    infer(options(tiny))
    assert max(seen) <= 2
