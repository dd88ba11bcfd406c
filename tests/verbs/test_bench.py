"""``bench`` on a small real model: every engine of this machine, one after another."""

import json
import shutil
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import torch
from optimised import change_weights, optimised, with_eight_bits, write_heart
from untrained_segment import write_model

from medtool.cli.app import main
from medtool.core.checkpoint import FORMAT_VERSION
from medtool.core.errors import (
    CheckpointError,
    ExitStatus,
    InputError,
    Interrupted,
    MachineError,
    OutputExistsError,
    UnknownNameError,
    UsageError,
)
from medtool.core.files import file_sha256
from medtool.optimize import bench as ways
from medtool.optimize import measure
from medtool.predict.engines import presence
from medtool.report.bench_figure import bench_figure
from medtool.verbs import infer
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


def test_the_first_checkpoint_is_what_all_are_compared_with(
    checkpoint: Path, tmp_path: Path
) -> None:
    other = write_heart(tmp_path / "other.safetensors", "model.first_features=8")
    chosen = {**QUICK, "engines": ("pytorch",)}
    options = BenchOptions((checkpoint, other), **chosen)  # type: ignore[arg-type]
    rows = [row for row in bench(options).rows if row["arithmetic"] == "float32"]
    first = {row["batch"]: row for row in rows if row["model"] == str(checkpoint)}
    assert [row["times_faster"] for row in first.values()] == [1.0, 1.0]
    for row in (row for row in rows if row["model"] == str(other)):
        assert row["times_faster"] == pytest.approx(
            first[row["batch"]]["median_ms"] / row["median_ms"], rel=0.02
        )
    assert len(rows) == 4


def test_the_folds_of_a_run_are_timed_as_one_model(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "fold_0" / "checkpoints").mkdir(parents=True)
    write_heart(run / "fold_0" / "checkpoints" / "best.safetensors")
    shutil.copytree(run / "fold_0", run / "fold_1")
    # The same model twice would count twice.
    change_weights(run / "fold_1" / "checkpoints" / "best.safetensors")
    one = bench(BenchOptions((run / "fold_0",), engines=("onnxruntime",), **QUICK))  # type: ignore[arg-type]
    options = BenchOptions((run,), engines=("onnxruntime", "pytorch"), **QUICK)  # type: ignore[arg-type]
    rows = bench(options).rows
    assert {row["engine"] for row in rows} == {"onnxruntime", "pytorch"}
    assert {row["model"] for row in rows} == {str(run)}
    # Both networks are in the file.
    both = next(row["bytes"] for row in rows if row["engine"] == "onnxruntime")
    assert both > 1.8 * one.rows[0]["bytes"]


def scans(folder: Path) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(2):
        image = rng.integers(0, 256, (40, 52)).astype(np.uint8)
        assert cv2.imwrite(str(folder / f"p{number}.png"), image)
    return folder


def test_the_whole_way_is_timed_in_every_engine(
    checkpoint: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = {**QUICK, "batches": (1,), "engines": ("pytorch", "onnxruntime")}
    options = BenchOptions(
        (checkpoint, folder),
        sources=(scans(tmp_path / "scans"),),
        output=tmp_path / "out",
        **chosen,  # type: ignore[arg-type]
    )
    rows = bench(options).from_files
    # bfloat16 and compiled networks answer no scans; the checkpoint is exported for the others.
    assert [(row["name"], row["model"]) for row in rows] == [
        ("pytorch eager float32", str(checkpoint)),
        ("onnxruntime float32", str(checkpoint)),
        ("onnxruntime float32", str(folder)),
    ]
    for row in rows:
        assert (row["studies"], row["answered"]) == (2, 2)
        assert row["seconds"] > 0
        assert row["seconds_each"] == pytest.approx(row["seconds"] / 2, abs=1e-3)
    assert json.loads((tmp_path / "out" / "bench.json").read_text())["from_files"] == list(rows)
    words = ["bench", str(folder), "--engine", "onnxruntime", "--threads", "1", "--batch", "1"]
    words += ["--runs", "2", "--no-memory", "--source", str(tmp_path / "scans"), "--quiet"]
    assert main(words) == ExitStatus.DONE
    last = capsys.readouterr().out.splitlines()[-2:]
    assert last[0].split() == ["from", "file", "to", "file", "file", "studies", "s", "each"]
    assert last[1].startswith("onnxruntime float32  model.onnx  2 of 2")


def test_scans_are_answered_in_eight_bits_too_and_by_the_files_that_infer_takes(
    checkpoint: Path, tmp_path: Path
) -> None:
    """Rows once said "not measured" of every file in eight bits, and named files that infer passes
    over for another one.
    """
    optimised(checkpoint, tmp_path / "two")
    with_eight_bits(tmp_path / "two", "openvino")
    options = BenchOptions(
        (tmp_path / "two",),
        sources=(scans(tmp_path / "scans"),),
        **{**QUICK, "batches": (1,)},  # type: ignore[arg-type]
    )
    result = bench(options)
    # Of the network alone every file is timed in every engine that reads it.
    assert len(result.rows) == 4
    named = [(row["name"], row["file"], row["answered"]) for row in result.from_files]
    assert named == [
        ("onnxruntime float32", "model.onnx", 2),
        ("openvino float32", "model.onnx", 2),
        ("onnxruntime int8", "model.int8.onnx", 2),
        ("openvino int8", "model.int8.onnx", 2),
    ]
    # A file that is meant for an engine goes before others that it also reads.
    with_eight_bits(tmp_path / "two", "openvino", arithmetic="float32")
    named = [(row["name"], row["file"], row["answered"]) for row in bench(options).from_files]
    assert named == [
        ("onnxruntime float32", "model.onnx", 2),
        ("openvino float32", "model.int8.onnx", 2),
    ]


def test_scans_that_are_not_there_are_refused_before_anything_is_timed(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*arguments: object, **named: object) -> None:
        raise AssertionError("it timed")

    monkeypatch.setattr(ways, "time_engine", never)
    (tmp_path / "scans").mkdir()
    with pytest.raises(InputError, match="nothing by this name") as refused:
        bench(BenchOptions((checkpoint,), sources=(tmp_path / "scan",), **QUICK))  # type: ignore[arg-type]
    assert refused.value.nearest == str(tmp_path / "scans")


def test_a_way_that_answers_no_scan_takes_no_times_with_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    chosen = {**QUICK, "engines": ("onnxruntime",)}
    options = BenchOptions((folder,), sources=(tmp_path / "empty",), **chosen)  # type: ignore[arg-type]
    result = bench(options)
    assert all(row["per_second"] > 0 for row in result.rows)
    (row,) = result.from_files
    assert row["seconds"] is None and "no study" in row["why_not"]

    def stopped(*arguments: object) -> None:
        raise Interrupted("Interrupted; 1 of 2 studies are done and kept.")

    # What was answered is gone with the folder of the benchmark.
    monkeypatch.setattr(infer, "infer", stopped)
    with pytest.raises(KeyboardInterrupt):
        bench(options)


def test_a_process_that_was_ended_for_its_memory_takes_no_times_with_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(*arguments: object, **named: object) -> None:
        raise BrokenProcessPool("A process in the process pool was terminated abruptly.")

    monkeypatch.setattr(ways, "peak_of_engine", ended)
    chosen = {**QUICK, "engines": ("onnxruntime",), "memory": True}
    rows = bench(BenchOptions((folder,), **chosen)).rows  # type: ignore[arg-type]
    assert all(row["per_second"] > 0 and "peak_bytes" not in row for row in rows)


def test_what_onnx_runtime_cannot_compute_is_said_in_its_row(
    checkpoint: Path, tmp_path: Path
) -> None:
    """Its errors are of no common kind; a graph that wants two images fails for one."""
    optimised(checkpoint, tmp_path / "one")
    file = tmp_path / "one" / "model.onnx"
    graph = onnx.load(file)
    graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    onnx.save(graph, file)
    entry = json.loads((tmp_path / "one" / "optimize.json").read_text())
    entry["files"]["model.onnx"]["sha256"] = file_sha256(file)
    (tmp_path / "one" / "optimize.json").write_text(json.dumps(entry))
    chosen = {**QUICK, "engines": ("onnxruntime",)}
    single, both = bench(BenchOptions((tmp_path / "one",), **chosen)).rows  # type: ignore[arg-type]
    assert single["per_second"] is None and "cannot run this file" in single["why_not"]
    assert both["per_second"] > 0


def test_volumes_are_timed_eight_at_a_time_only_where_that_is_asked_for(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight of 128 in cube take the memory of most machines, and with it all that was timed."""
    few = partial(measure.fitting_batches, most_places=4 * 16 * 24)
    monkeypatch.setattr(measure, "fitting_batches", few)
    chosen = {**QUICK, "engines": ("onnxruntime",), "batches": ()}
    options = BenchOptions((checkpoint,), **chosen)  # type: ignore[arg-type]
    result = bench(options)
    assert [row["batch"] for row in result.rows] == [1]
    (why,) = result.left_out
    assert why.startswith("8 images a call: ")
    assert result.as_dict()["left_out"] == [why]
    asked = bench(replace(options, batches=(8,)))
    assert [row["batch"] for row in asked.rows] == [8] and asked.left_out == ()


def test_a_model_that_takes_one_image_says_so_of_more(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one(spec: object, batch: int) -> Any:
        if batch > 1:
            raise UsageError("This model takes one image at a time.", met=f"a batch of {batch}")
        return measure.example_inputs(spec, batch)  # type: ignore[arg-type]

    monkeypatch.setattr(ways, "example_inputs", one)
    chosen = {**QUICK, "engines": ("onnxruntime",)}
    single, both = bench(BenchOptions((checkpoint,), **chosen)).rows  # type: ignore[arg-type]
    assert single["per_second"] > 0
    assert both["why_not"] == "This model takes one image at a time: a batch of 2"


def test_what_is_not_timed_is_said(checkpoint: Path, folder: Path) -> None:
    chosen = {**QUICK, "batches": (1,)}
    (why,) = bench(BenchOptions((folder,), engines=("pytorch", "onnxruntime"), **chosen)).left_out  # type: ignore[arg-type]
    assert why == "pytorch: needs the checkpoint; name it beside the optimised folder"
    (why,) = bench(
        BenchOptions((checkpoint,), engines=("litert", "onnxruntime"), **chosen)
    ).left_out  # type: ignore[arg-type]
    assert why == "litert: reads .tflite, which a folder of 'medtool optimize' may have"


def test_what_is_not_installed_is_said_and_refused_where_it_is_asked_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = replace(presence.KNOWN["openvino"], module="no_such_module")
    monkeypatch.setitem(presence.KNOWN, "openvino", known)  # type: ignore[arg-type]
    result = bench(BenchOptions((folder,), **{**QUICK, "batches": (1,)}))  # type: ignore[arg-type]
    assert {row["engine"] for row in result.rows} == {"onnxruntime"}
    assert 'openvino: not installed (pip install "medtool[openvino]")' in result.left_out
    with pytest.raises(MachineError, match="'openvino' is not installed") as refused:
        bench(BenchOptions((folder,), engines=("openvino",)))
    assert 'pip install "medtool[openvino]"' in refused.value.how


def test_without_a_compiler_torch_compile_is_left_out_and_that_is_said(
    checkpoint: Path, medtool: Callable[..., Any]
) -> None:
    words = ["bench", checkpoint, "--engine", "pytorch", "--threads", "1", "--batch", "1"]
    words += ["--runs", "2", "--no-memory"]
    with torch._inductor.config.patch({"cpp.cxx": (None, "no-such-compiler")}):
        told = medtool(*words)
    assert told.status == ExitStatus.DONE
    assert "Not measured: pytorch compiled: no compiler of C++ is found: install one" in told.err
    assert "pytorch eager float32" in told.out and "compiled" not in told.out


def test_without_units_bfloat16_is_left_out_and_that_is_said(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ways, "computes_slowly", lambda *words: True)
    chosen = {**QUICK, "batches": (1,), "engines": ("pytorch",)}
    result = bench(BenchOptions((checkpoint,), **chosen))  # type: ignore[arg-type]
    assert [row["name"] for row in result.rows] == ["pytorch eager float32"]
    (why,) = result.left_out
    assert why.startswith("pytorch bfloat16: this processor has no units for it")


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="no compiler of C++ is here")
@pytest.mark.parametrize("dimensions", [2, 3])
def test_networks_are_timed_as_torch_compile_makes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dimensions: int
) -> None:
    monkeypatch.setattr(ways, "computes_slowly", lambda *words: False)
    file = tmp_path / "model.safetensors"
    if dimensions == 2:
        write_heart(file)
    else:
        write_model(file, "[1.0, 1.0, 1.0]", "model.patch_size_vox=[8, 8, 8]")
    chosen = {**QUICK, "engines": ("pytorch",), "compiled": True, "batches": (1,)}
    result = bench(BenchOptions((file,), **chosen))  # type: ignore[arg-type]
    assert result.left_out == ()
    assert [row["name"] for row in result.rows] == [
        f"pytorch {way} {arithmetic}"
        for way in ("eager", "compiled")
        for arithmetic in ("float32", "bfloat16")
    ]
    assert [row.get("why_not") for row in result.rows] == [None] * 4
    assert all(row["times_faster"] > 0 for row in result.rows)


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


def test_a_checkpoint_of_a_newer_medtool_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    # The document is JSON within JSON.
    ours, theirs = (f'\\"format\\":{n}'.encode() for n in (FORMAT_VERSION, 9))
    data = checkpoint.read_bytes()
    assert data.count(ours) == 1
    file = tmp_path / "newer.safetensors"
    file.write_bytes(data.replace(ours, theirs))
    with pytest.raises(CheckpointError, match="newer"):
        bench(BenchOptions((file,)))


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


def timed(
    name: str, batch: int, threads: int, per_second: float | None, file: str = "f", model: str = "m"
) -> dict[str, object]:
    row = {"name": name, "batch": batch, "threads": threads, "per_second": per_second}
    return row | {"file": file, "model": model}


def test_each_file_has_a_line_of_its_own_and_no_point_where_it_failed() -> None:
    eight = "openvino int8"
    rows = [
        timed("onnxruntime int8", 1, 1, 1.0, "model.int8.onnx"),
        timed(eight, 1, 1, 2.0, "model.int8.onnx"),
        timed(eight, 1, 1, 3.0, "model.int8.xml"),
        timed(eight, 8, 1, 4.0, "model.int8.xml"),
        timed(eight, 8, 1, None, "model.int8.onnx"),
        timed("c", 8, 1, 5.0, "model.onnx", "one"),
        timed("c", 8, 1, 6.0, "model.onnx", "two"),
    ]
    figure = bench_figure(rows)
    first, second = figure.axes
    assert [list(line.get_ydata()) for line in first.lines] == [[1.0], [2.0], [3.0]]
    assert [list(line.get_ydata()) for line in second.lines] == [[4.0], [5.0], [6.0]]
    # One legend for both panels: what only the second shows is in it, and in the same colour.
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "onnxruntime int8",
        "openvino int8, model.int8.onnx",
        "openvino int8, model.int8.xml",
        "c, model.onnx, one",
        "c, model.onnx, two",
    ]
    assert second.lines[0].get_color() == first.lines[2].get_color()


def test_the_plot_has_a_panel_for_each_batch_and_leaves_out_what_failed() -> None:
    rows = [
        timed("a", 1, 1, 2.0),
        timed("a", 1, 2, 3.0),
        timed("a", 8, 1, 4.0),
        timed("b", 8, 1, None),
    ]
    figure = bench_figure(rows)
    first, second = figure.axes
    assert [list(line.get_ydata()) for line in first.lines] == [[2.0, 3.0]]
    assert [list(line.get_ydata()) for line in second.lines] == [[4.0]]
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "1 image at a time",
        "8 images at a time",
    ]
