"""The page of an optimised model, of documents as ``optimize`` writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medtool.report.optimisation import write_optimisation_report

FILE = {"engine": "onnxruntime", "arithmetic": "float32", "bytes": 1000}


def timed(file: str, batch: int, median_ms: float, runs: int = 50) -> dict[str, Any]:
    engine = "pytorch" if file == "the checkpoint" else "onnxruntime"
    return {
        **{"file": file, "engine": engine, "batch": batch, "threads": 2, "runs": runs},
        **{"median_ms": median_ms, "quartiles_ms": [median_ms, median_ms], "per_second": 1.0},
    }


def page(folder: Path, **document: Any) -> str:
    whole = {"task": "heart", "default": "model.onnx", "files": {"model.onnx": FILE}, **document}
    return write_optimisation_report(folder, whole).read_text(encoding="utf-8")


def test_what_was_not_measured_stands_there_with_why(tmp_path: Path) -> None:
    text = page(
        tmp_path,
        latency=[
            timed("the checkpoint", 1, 70.0),
            {"file": "the checkpoint", "engine": "pytorch", "batch": 8, "why_not": "out of it"},
            timed("model.onnx", 1, 20.0, runs=7),
            {**timed("model.onnx", 8, 90.0), "why_no_memory": "it ended"},
        ],
        measuring={"calls": 50, "seconds": 60.0, "left_out": ["64 images a call: too many"]},
    )
    assert "3.50" in text
    for said in (
        "Not measured",
        "64 images a call: too many.",
        "the checkpoint, 8 images a call: out of it.",
        "model.onnx, 8 images a call, memory: it ended.",
        "model.onnx, 1 images a call: 7 of 50 calls; more would take longer than 60 seconds.",
    ):
        assert said in text
    # Nothing is compared with what was not measured.
    assert "0.78" not in text


def test_where_all_was_measured_nothing_is_said_of_it(tmp_path: Path) -> None:
    text = page(
        tmp_path,
        latency=[timed("the checkpoint", 1, 70.0), timed("model.onnx", 1, 20.0)],
        measuring={"calls": 50, "seconds": 60.0, "left_out": []},
    )
    assert "How fast it is" in text
    assert "Not measured" not in text


def test_other_metrics_are_told_where_a_file_changed_them(tmp_path: Path) -> None:
    def found(**after: float) -> dict[str, Any]:
        others = [{"metric": name, "before": 0.5, "after": value} for name, value in after.items()]
        return {"metrics": [fall()], "agreement": [], "other_metrics": others}

    files = {"model.onnx": found(iou=0.5, nsd=0.5), "model.int8.onnx": found(iou=0.4983, nsd=0.5)}
    text = page(tmp_path, accuracy={"part": "test part", "cases": 9, "files": files})
    assert "1 of 2 changed by 0.0001 or more" in text
    row = text[text.index(">iou<") :]
    assert "0.4983" in row[: row.index("</tr>")]
    assert ">nsd<" not in text


def fall() -> dict[str, Any]:
    words = {"metric": "dice", "before": 0.9, "after": 0.9, "low": 0.0, "high": 0.0}
    return {**words, "fall": 0.0, "tolerance": 0.005, "n": 9, "proved": True}


def test_passes_have_a_table_of_their_own(tmp_path: Path) -> None:
    def files(**passes: Any) -> dict[str, Any]:
        told = {"most_mean": 0.01, "least_correlation": 0.95, **passes}
        found = {"metrics": [], "agreement": [], "without_answer": [], "passes": told}
        return {"part": "test part", "cases": 9, "files": {"model.int8.onnx": found}}

    text = page(tmp_path, accuracy=files(cases=8, mean=0.0012, largest=0.21, correlation=0.9712))
    for said in ("Whether uncertainty survives", "0.0012", "0.2100", "0.9712", "has to be 0.95"):
        assert said in text
    assert "pruned one" not in text
    none = files(cases=0, mean=None, largest=None, correlation=None)
    assert "nothing was compared" in page(tmp_path, accuracy=none)
    without = {"metrics": [], "agreement": [], "without_answer": []}
    plain = {"part": "test part", "cases": 9, "files": {"model.onnx": without}}
    assert "uncertainty survives" not in page(tmp_path, accuracy=plain)
