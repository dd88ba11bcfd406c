"""``bench`` on a small real model: every engine of this machine, one after another."""

import json
from pathlib import Path

import pytest
import torch
from optimised import optimised, write_heart

from medtool.cli.app import main
from medtool.core.errors import (
    CheckpointError,
    ExitStatus,
    OutputExistsError,
    UnknownNameError,
    UsageError,
)
from medtool.report.bench_figure import bench_figure
from medtool.verbs.bench import BenchOptions, bench, thread_counts

QUICK = {"threads": (1,), "batches": (1, 2), "runs": 3, "memory": False, "compiled": False}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_heart(tmp_path_factory.mktemp("bench") / "heart.safetensors")


@pytest.fixture(scope="module")
def folder(checkpoint: Path) -> Path:
    made = checkpoint.parent / "optimised"
    optimised(checkpoint, made)
    return made


def test_a_checkpoint_is_timed_in_pytorch_and_exported_in_the_others(checkpoint: Path) -> None:
    before = torch.get_num_threads()
    result = bench(BenchOptions((checkpoint,), **QUICK))  # type: ignore[arg-type]
    names = list(dict.fromkeys(row["name"] for row in result.rows))
    assert {"pytorch eager float32", "onnxruntime float32", "openvino float32"} <= set(names)
    assert len(result.rows) == 2 * len(names)
    for row in result.rows:
        assert row["runs"] == 3
        assert row["quartiles_ms"][0] <= row["median_ms"] <= row["quartiles_ms"][1]
        base = next(
            other
            for other in result.rows
            if other["name"] == "pytorch eager float32" and other["batch"] == row["batch"]
        )
        assert row["times_faster"] == pytest.approx(base["median_ms"] / row["median_ms"], rel=0.02)
        assert row["per_second"] == pytest.approx(1e3 * row["batch"] / row["median_ms"], rel=0.02)
    assert result.machine["instructions"] is not None
    assert torch.get_num_threads() == before


def test_an_optimised_folder_is_timed_without_pytorch(folder: Path) -> None:
    result = bench(BenchOptions((folder,), **QUICK))  # type: ignore[arg-type]
    assert {row["engine"] for row in result.rows} == {"onnxruntime", "openvino"}
    assert {row["file"] for row in result.rows} == {"model.onnx"}
    assert all(row["times_faster"] is None for row in result.rows)


def test_both_together_compare_the_folder_with_pytorch(checkpoint: Path, folder: Path) -> None:
    options = BenchOptions((checkpoint, folder / "model.onnx"), **QUICK)  # type: ignore[arg-type]
    rows = [row for row in bench(options).rows if row["engine"] == "onnxruntime"]
    assert len(rows) == 4
    assert all(row["times_faster"] > 0 for row in rows)


def test_memory_is_measured_once_for_each_file_and_engine(checkpoint: Path) -> None:
    chosen = {**QUICK, "memory": True, "engines": ("pytorch",), "batches": (1,)}
    result = bench(BenchOptions((checkpoint,), **chosen))  # type: ignore[arg-type]
    eager = next(row for row in result.rows if row["name"] == "pytorch eager float32")
    assert eager["peak_bytes"] > eager["model_bytes"] > 0


def test_results_are_written_with_a_plot_and_not_over_others(
    checkpoint: Path, tmp_path: Path
) -> None:
    options = BenchOptions(
        (checkpoint,),
        engines=("onnxruntime",),
        output=tmp_path / "out",
        **QUICK,  # type: ignore[arg-type]
    )
    result = bench(options)
    assert json.loads((tmp_path / "out" / "bench.json").read_text()) == result.as_dict()
    assert "onnxruntime float32" in (tmp_path / "out" / "bench.svg").read_text()
    with pytest.raises(OutputExistsError):
        bench(options)


def test_threads_are_powers_of_two_up_to_all() -> None:
    assert [thread_counts(n) for n in (1, 2, 6, 8)] == [(1,), (1, 2), (1, 2, 4, 6), (1, 2, 4, 8)]


def test_what_makes_no_sense_is_refused(checkpoint: Path, folder: Path) -> None:
    with pytest.raises(UsageError, match="less than one"):
        bench(BenchOptions((checkpoint,), batches=(0,)))
    with pytest.raises(UnknownNameError, match="no engine named 'onnx'"):
        bench(BenchOptions((checkpoint,), engines=("onnx",)))
    with pytest.raises(CheckpointError, match="No engine that is asked for"):
        bench(BenchOptions((folder,), engines=("pytorch",)))


def test_the_command_prints_a_table_or_json(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["bench", str(checkpoint), "--engine", "onnxruntime", "--threads", "1", "--batch", "1"]
    words += ["--runs", "2", "--no-memory", "--no-compile", "--quiet"]
    assert main(words) == ExitStatus.DONE
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["way", "file", "MB"]
    assert lines[1].startswith("onnxruntime float32  model.onnx")
    assert main([*words, "--json"]) == ExitStatus.DONE
    (row,) = json.loads(capsys.readouterr().out)["network"]
    assert row["runs"] == 2


def test_the_plot_has_a_panel_for_each_batch_and_leaves_out_what_failed() -> None:
    rows = [
        {"name": "a", "batch": 1, "threads": 1, "per_second": 2.0},
        {"name": "a", "batch": 1, "threads": 2, "per_second": 3.0},
        {"name": "a", "batch": 8, "threads": 1, "per_second": 4.0},
        {"name": "b", "batch": 8, "threads": 1, "per_second": None},
    ]
    figure = bench_figure(rows)
    first, second = figure.axes
    assert [list(line.get_ydata()) for line in first.lines] == [[2.0, 3.0]]
    assert [list(line.get_ydata()) for line in second.lines] == [[4.0]]
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "1 image at a time",
        "8 images at a time",
    ]
