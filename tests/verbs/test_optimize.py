"""``optimize`` through the verb and the command line, on a small model that really learned."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import onnx
import pytest
import SimpleITK as sitk
from listening import Listening
from medtool_heart.demo import write_cohort
from named_in import files_naming
from optimised_heart import QUICK, run_of, small
from trained_heart import train_heart

import medtool
from medtool.core.checkpoint import read_header, write_checkpoint
from medtool.core.errors import (
    CheckpointError,
    GateError,
    InputError,
    MachineError,
    OutputExistsError,
    PresetError,
    UsageError,
)
from medtool.data.dataset_record import ImageReference
from medtool.data.predictions import read_predictions
from medtool.data.run_folder import read_rows, write_rows
from medtool.data.volumes import read_mask
from medtool.nets.state import raw_tensor, read_tensors
from medtool.predict.engines import presence
from medtool.verbs import optimize_data, optimize_make
from medtool.verbs.doctor import doctor
from medtool.verbs.infer import InferOptions, infer
from medtool.verbs.optimize import optimize
from medtool.verbs.optimize_data import OptimizeData
from medtool.verbs.optimize_options import OptimizeOptions, OptimizeResult
from medtool.verbs.options import RunOptions


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cohort of 12 patients, and a run on it."""
    folder = tmp_path_factory.mktemp("optimize")
    train_heart(folder)
    return folder


@pytest.fixture(scope="module")
def made(place: Path) -> OptimizeResult:
    return small(place, place / "small", "optimize.measure_runs=2", "optimize.measure_batches=[1]")


def test_the_folder_holds_what_its_json_names(made: OptimizeResult) -> None:
    document = json.loads((made.folder / "optimize.json").read_text(encoding="utf-8"))
    # Whichever was faster in two calls.
    assert document["default"] in ("model.int8.onnx", "model.onnx")
    assert set(document["files"]) == {"model.onnx", "model.int8.onnx", "model.int8.xml"}
    names = {path.name for path in made.folder.iterdir()}
    assert {*document["files"], "model.int8.bin", "report.html", "document.safetensors"} <= names
    for name, entry in document["files"].items():
        beside = sum((made.folder / one).stat().st_size for one in (name, *entry["external"]))
        assert entry["bytes"] == beside


def test_each_engine_gets_the_layers_that_it_computes_in_eight_bits(made: OptimizeResult) -> None:
    """ONNX Runtime has no transposed convolution in eight bits, OpenVINO has."""
    kinds = {
        name: {node.op_type for node in onnx.load(made.folder / name).graph.node}
        for name in ("model.onnx", "model.int8.onnx")
    }
    assert "ConvTranspose" in kinds["model.onnx"]
    assert "ConvTranspose" not in kinds["model.int8.onnx"]
    own = (made.folder / "model.int8.xml").read_text(encoding="utf-8")
    assert "ConvolutionBackpropData" in own


def test_no_byte_of_it_says_where_the_data_or_the_program_lay(
    made: OptimizeResult, place: Path
) -> None:
    program = str(Path(medtool.__file__).parent)
    assert files_naming(made.folder, str(place), program) == []


def test_it_says_on_whom_it_was_calibrated_and_judged(made: OptimizeResult, place: Path) -> None:
    document = made.document
    assert document["quantisation"]["calibration"]["inputs"] == 8
    assert document["accuracy"]["part"] == "test part"
    assert document["accuracy"]["optimistic"] == ""
    for found in document["accuracy"]["files"].values():
        (dice,) = found["metrics"]
        assert dice["metric"] == "dice"
        # A gain, as rounding may give a small network, is no fall.
        assert dice["fall"] <= 0.005
        assert found["without_answer"] == []
    mask = next(
        one
        for one in document["accuracy"]["files"]["model.int8.onnx"]["agreement"]
        if one["name"] == "mask"
    )
    assert 0.97 < mask["worst"] <= mask["mean"] <= 1


def test_it_measures_every_file_beside_pytorch(made: OptimizeResult) -> None:
    rows = made.document["latency"]
    assert [row["file"] for row in rows] == ["the checkpoint", *made.document["files"]]
    assert all(row["median_ms"] > 0 for row in rows)
    # Each is a process with its libraries and a small model.
    assert all(20 < row["memory_mb"] < 4000 for row in rows)
    assert made.document["counts"]["multiply_adds"] > 0
    assert made.document["measuring"] == {"calls": 2, "seconds": None, "left_out": []}


def test_the_page_says_it_all(made: OptimizeResult) -> None:
    page = made.report.read_text(encoding="utf-8")
    for text in ("What was made", "How good it is", "How fast it is", "How it was quantised"):
        assert text in page
    assert f"{made.document['default']} (default)" in page
    assert "Synthetic data: not for patients" in page
    others = made.document["accuracy"]["files"]["model.int8.onnx"]["other_metrics"]
    assert others
    assert "dice" not in {one["metric"] for one in others}
    assert "other metrics" in page
    assert "decoder.seg_layers" in page


def test_inspection_tells_its_own_numbers_from_those_of_the_original(
    made: OptimizeResult, medtool: Callable[..., Any]
) -> None:
    """From a fault: the original's scores stood there as if they were those of the files."""
    told = medtool("inspect-checkpoint", made.folder).out
    accuracy = made.document["accuracy"]
    assert f"Accuracy beside the original ({accuracy['part']}, {accuracy['cases']} cases)" in told
    for name, found in accuracy["files"].items():
        (fall,) = found["metrics"]
        assert f"{fall['before']:.4f} before, {fall['after']:.4f} after" in told
        assert f"  {name:20} dice" in told
    assert "Metrics of the original (primary: dice)" in told


def test_only_the_table_of_cases_names_patients(
    made: OptimizeResult, place: Path, tmp_path: Path
) -> None:
    """From a fault: ids of the test part stood in optimize.json and in the page."""
    rows = read_rows(run_of(place) / "cases.csv")
    ids = {row[name] for row in rows for name in ("case", "patient")}
    travelling = [file for file in made.folder.iterdir() if file.name != "cases.csv"]
    assert len(travelling) > 5
    for file in travelling:
        content = file.read_bytes()
        assert not [one for one in ids if one.encode() in content], file.name
        if file.suffix in (".json", ".html"):
            assert str(place).encode() not in content, file.name
    table = {int(row["row"]): row for row in read_rows(made.folder / "cases.csv")}
    judged = [row["case"] for row in rows if row["part"] == "test"]
    files = made.document["accuracy"]["files"]
    assert list(table) == list(range(1, len(judged) * len(files) + 1))
    for name, found in files.items():
        own = [row for row in table.values() if row["file"] == name]
        assert {row["case"] for row in own} == set(judged)
        worst = found["worst_case"]
        row = table[worst["row"]]
        assert row["file"] == name
        assert float(row["error_after"]) == pytest.approx(worst["error_after"])
        mask = next(one for one in found["agreement"] if one["name"] == "mask")
        alike = [float(row["mask_alike"]) for row in own]
        assert min(alike) == pytest.approx(mask["worst"])
        assert float(table[mask["worst_row"]]["mask_alike"]) == min(alike)
    # Nothing needs it.
    folder = shutil.copytree(made.folder, tmp_path / "passed-on")
    (folder / "cases.csv").unlink()
    options = InferOptions(
        (place / "data",), folder, tmp_path / "out", run=RunOptions(workers=0, device="cpu")
    )
    assert infer(options).ok


def test_infer_answers_alike_with_the_folder_and_each_file(
    made: OptimizeResult, place: Path, tmp_path: Path
) -> None:
    def answered(checkpoint: Path, name: str) -> list[dict[str, Any]]:
        infer(
            InferOptions(
                sources=(place / "data",),
                checkpoint=checkpoint,
                output=tmp_path / name,
                run=RunOptions(workers=0, device="cpu"),
            )
        )
        return read_predictions(tmp_path / name)

    original = answered(run_of(place), "original")
    for number, file in enumerate((made.folder, made.folder / "model.int8.xml")):
        rows = answered(file, f"small-{number}")
        assert [row.keys() for row in rows] == [row.keys() for row in original]
        for row, wanted in zip(rows, original, strict=True):
            one = read_mask(ImageReference(tmp_path / f"small-{number}" / row["mask"]))
            two = read_mask(ImageReference(tmp_path / "original" / wanted["mask"]))
            assert one.grid == two.grid
            assert (one.array == two.array).mean() > 0.98


def test_the_same_command_gives_the_same_model(
    made: OptimizeResult, place: Path, tmp_path: Path
) -> None:
    again = small(place, tmp_path / "again")
    for name in ("model.int8.onnx", "model.onnx"):
        assert (again.folder / name).read_bytes() == (made.folder / name).read_bytes()
    # Where nothing was measured eight bits are the default.
    assert again.document["default"] == "model.int8.onnx"
    first, second = (one.document["quantisation"]["calibration"] for one in (made, again))
    assert first == second


def test_lighter_files_need_no_calibration(place: Path, tmp_path: Path) -> None:
    result = small(place, tmp_path / "light", formats=("float16", "weights8"))
    assert set(result.document["files"]) == {
        "model.onnx",
        "model.float16.onnx",
        "model.weights8.onnx",
    }
    assert "quantisation" not in result.document
    # The export is compared with PyTorch whatever is made of it.
    export = result.document["export"]
    assert 0 < export["inputs"] <= 8
    assert 0 <= export["largest"] < 1e-4 * export["range"]
    sizes = {name: entry["bytes"] for name, entry in result.document["files"].items()}
    assert sizes["model.weights8.onnx"] < sizes["model.float16.onnx"] < sizes["model.onnx"]


def test_of_data_alone_known_patients_calibrate_and_others_judge(
    place: Path, tmp_path: Path
) -> None:
    shutil.copy(run_of(place) / "checkpoints" / "best.safetensors", tmp_path / "model.safetensors")
    result = small(
        place,
        tmp_path / "small",
        checkpoint=tmp_path / "model.safetensors",
        data=place / "data",
    )
    assert result.document["accuracy"]["part"] == "patients that the model never met"
    # The run's test part: the others are in the list of the checkpoint.
    judged = result.document["accuracy"]["cases"]
    of_run = small(place, tmp_path / "run").document["accuracy"]["cases"]
    assert judged == of_run


# --- refused --------------------------------------------------------------------------------------
def nothing_left(folder: Path) -> bool:
    return not any(folder.iterdir())


@pytest.fixture(scope="module")
def drowned(place: Path) -> Path:
    """The same run with a checkpoint that says the same in float, and little in eight bits.

    One map of the first layer is ten thousand times as large, its weights in the next layer as much
    smaller.
    """
    run = shutil.copytree(run_of(place), place / "drowned")
    best = run / "checkpoints" / "best.safetensors"
    document = read_header(best).document
    tensors = {name: tensor.clone() for name, tensor in read_tensors(best, "model.")}
    block = "encoder.stages.0.0.convs"
    for name in ("weight", "bias"):
        tensors[f"{block}.0.norm.{name}"][0] *= 1e4
    tensors[f"{block}.1.conv.weight"][:, 0] /= 1e4
    raw = [raw_tensor(f"model.{name}", tensor) for name, tensor in tensors.items()]
    write_checkpoint(best, document, raw)
    return run


def test_layers_that_eight_bits_ruin_stay_in_float(drowned: Path, place: Path, tmp_path) -> None:
    # Two patients judge: what is left moves their metric by the tolerance on some processors.
    result = small(place, tmp_path / "out", "optimize.tolerance=0.02", checkpoint=drowned)
    floats = result.document["quantisation"]["layers_in_float"]
    assert {f"encoder.stages.0.0.convs.{number}.conv" for number in (0, 1)} <= set(floats)
    assert not result.document["quantisation"]["tried"][0]["kept"]
    (dice,) = result.document["accuracy"]["files"]["model.int8.onnx"]["metrics"]
    assert dice["kept"]


def test_a_model_that_is_worse_than_allowed_is_not_written(drowned: Path, place, tmp_path) -> None:
    with pytest.raises(GateError, match="nothing was written") as refused:
        small(place, tmp_path / "out", "optimize.most_float_share=0", checkpoint=drowned)
    assert nothing_left(tmp_path)
    assert refused.value.exit_status == 4
    assert "encoder.stages.0.0.convs.1.conv (" in refused.value.met
    assert "--tolerance" in refused.value.how


def test_layers_are_named_where_nobody_could_choose_them(
    drowned: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the part that judges says that eight bits cost too much."""
    whole = optimize_data.optimize_data

    def nobody_chooses(*words: Any, **named: Any) -> OptimizeData:
        return replace(whole(*words, **named), choosing=())

    monkeypatch.setattr(optimize_data, "optimize_data", nobody_chooses)
    with pytest.raises(GateError, match="nothing was written") as refused:
        small(place, tmp_path / "out", checkpoint=drowned)
    assert refused.value.where == "model.int8.onnx, test part"
    assert "encoder.stages.0.0.convs.1.conv (" in refused.value.met
    assert nothing_left(tmp_path)


@pytest.fixture
def converted(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Which layers LiteRT's converter, which is not asked, would have left in float."""
    asked: list[list[str]] = []

    def noted(*words: Any, float_layers: Sequence[str], **named: Any) -> dict[str, Any]:
        asked.append(list(float_layers))
        return {}

    monkeypatch.setattr("medtool.verbs.optimize._require_engines", lambda *words: None)
    monkeypatch.setattr(optimize_make, "write_litert", noted)
    return asked


def test_litert_alone_leaves_the_layers_in_float_that_eight_bits_ruin(
    drowned: Path, place: Path, tmp_path: Path, converted: list[list[str]]
) -> None:
    """From a fault: they were found only while a file for ONNX Runtime was made as well."""
    result = small(place, tmp_path / "out", checkpoint=drowned, formats=("litert",))
    (floats,) = converted
    assert {f"encoder.stages.0.0.convs.{number}.conv" for number in (0, 1)} <= set(floats)
    assert "decoder.seg_layers.1" in floats
    # What they were found on is no part of the folder.
    assert set(result.document["files"]) == {"model.onnx"}
    assert not list((tmp_path / "out").glob("*int8*"))
    found = result.document["quantisation"]
    assert found["layers_in_float"] == floats
    assert found["found_on"] == "ONNX files in eight bits that are not kept"
    # LiteRT knows no other way.
    assert {one["method"] for one in found["tried"]} == {"minmax"}
    assert "layers of LiteRT’s file" in result.report.read_text().replace("&#39;", "’")


def test_where_onnx_loses_too_much_litert_is_judged_by_its_own_file(
    drowned: Path, place: Path, tmp_path: Path, converted: list[list[str]]
) -> None:
    said = Listening()
    options = OptimizeOptions(
        checkpoint=drowned,
        output=tmp_path / "out",
        formats=("litert",),
        assignments=(*QUICK, "optimize.most_float_share=0"),
        run=RunOptions(workers=0, device="cpu", cache=place / "cache"),
    )
    assert optimize(options, said).document["quantisation"]["layer_costs"]
    assert converted == [["decoder.seg_layers.1"]]
    assert any("LiteRT's own is made with as many layers in float" in line for line in said.lines)


def test_calibration_patients_that_would_judge_are_refused(place: Path, tmp_path: Path) -> None:
    with pytest.raises(GateError, match="would also judge") as refused:
        small(place, tmp_path / "out", calibration=place / "data")
    assert refused.value.exit_status == 4
    assert nothing_left(tmp_path)


def test_without_calibration_data_it_is_refused(place: Path, tmp_path: Path) -> None:
    # A checkpoint elsewhere, and only patients that it never met.
    others = tmp_path / "others"
    write_cohort(others, 5, 3)
    rows = read_rows(others / "manifest.csv")
    write_rows(others / "manifest.csv", [{**row, "patient": "X" + row["patient"]} for row in rows])
    shutil.copy(run_of(place) / "checkpoints" / "best.safetensors", tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="nothing to calibrate on"):
        small(
            place,
            tmp_path / "out",
            checkpoint=tmp_path / "model.safetensors",
            data=others,
        )


def test_other_data_than_the_runs_are_refused(place: Path, tmp_path: Path) -> None:
    data = shutil.copytree(place / "data", tmp_path / "data")
    file = sorted((data / "images").rglob("*.nii.gz"))[0]
    image = sitk.ReadImage(file)
    sitk.WriteImage(image + 1, file)
    with pytest.raises(CheckpointError, match="not the data"):
        small(place, tmp_path / "out", data=data)
    assert not (tmp_path / "out").exists()


def test_an_output_that_exists_is_refused_and_replaced_only_on_purpose(
    place: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    small(place, output, formats=("float16",))
    with pytest.raises(OutputExistsError):
        small(place, output, formats=("weights8",))
    assert (output / "model.float16.onnx").is_file()
    small(place, output, formats=("weights8",), force=True)
    assert not (output / "model.float16.onnx").exists()
    assert list(tmp_path.iterdir()) == [output]


def test_force_replaces_no_folder_of_others(place: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("two years", encoding="utf-8")
    with pytest.raises(UsageError, match="no optimised model"):
        small(place, tmp_path, force=True)
    assert (tmp_path / "thesis.txt").is_file()


def test_a_tampered_file_does_not_answer(made: OptimizeResult, place: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(made.folder, tmp_path / "small")
    file = folder / "model.int8.bin"
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    for checkpoint in (folder / "model.int8.xml", folder):
        options = InferOptions((place / "data",), checkpoint, tmp_path / checkpoint.name)
        if checkpoint == folder:
            # The default does not rest on that file.
            assert infer(replace(options, run=RunOptions(workers=0))).ok
        else:
            with pytest.raises(CheckpointError, match="not the one that was made") as refused:
                infer(options)
            assert refused.value.where.endswith("model.int8.bin")


def test_an_optimised_model_is_not_optimised_again(
    made: OptimizeResult, place: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="optimised already"):
        small(place, tmp_path / "out", checkpoint=made.folder)


def test_settings_of_training_are_refused_and_words_of_formats_too(
    place: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="made smaller"):
        small(place, tmp_path / "out", "train.epochs=3")
    with pytest.raises(PresetError):
        small(place, tmp_path / "out", formats=("int4",))


def test_an_engine_that_is_not_installed_says_how_to_get_it(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hidden(name: str) -> object:
        return None if name == "openvino" else find_spec(name)

    monkeypatch.setattr(presence, "find_spec", hidden)
    with pytest.raises(MachineError) as refused:
        small(place, tmp_path / "out", formats=("openvino",))
    assert "pip install" in refused.value.how
    # Where nobody asked for it by name there is simply no file for it.
    result = small(place, tmp_path / "out")
    assert set(result.document["files"]) == {"model.onnx", "model.int8.onnx"}


def test_no_socket_opens(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    def refuse(*words: object, **named: object) -> None:
        raise AssertionError(f"a socket was opened: {words}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    small(place, tmp_path / "out")


def test_a_machine_on_which_eight_bits_are_slower_takes_float(place: Path, tmp_path: Path) -> None:
    from medtool.core.progress import Silent
    from medtool.verbs.optimize_make import Making

    making = Making(*[None] * 6, Silent())  # type: ignore[arg-type]
    making.document = {
        "files": {"model.onnx": {}, "model.int8.onnx": {}},
        "latency": [
            {"file": "model.onnx", "batch": 1, "median_ms": 10.0},
            {"file": "model.onnx", "batch": 8, "median_ms": 70.0},
            {"file": "model.int8.onnx", "batch": 1, "median_ms": 15.0},
            {"file": "model.int8.onnx", "batch": 8, "median_ms": 60.0},
        ],
    }
    assert making._default() == "model.onnx"
    making.document["latency"][0]["median_ms"] = 14.5
    assert making._default() == "model.int8.onnx"


def test_an_interrupted_run_leaves_nothing(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medtool.verbs.optimize_make import Making

    def interrupted(self: Making) -> None:
        assert (self.stage / "model.int8.onnx").is_file()
        raise KeyboardInterrupt

    monkeypatch.setattr(Making, "judge", interrupted)
    with pytest.raises(KeyboardInterrupt):
        small(place, tmp_path / "out")
    assert nothing_left(tmp_path)


def test_the_command_says_where_it_is(
    place: Path, tmp_path: Path, medtool: Callable[..., Any]
) -> None:
    outcome = medtool(
        "optimize", run_of(place), "-o", tmp_path / "out", "--format", "float16",
        "--cache", place / "cache", "--set", "optimize.measure_runs=0", "--workers", "0", "--json",
    )  # fmt: skip
    assert outcome.status == 0, outcome.err
    assert json.loads(outcome.out)["default"] == "model.onnx"
    (dice,) = json.loads(outcome.out)["accuracy"]["files"]["model.onnx"]["metrics"]
    assert dice["fall"] == pytest.approx(0, abs=1e-4)
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    said = "medtool optimize CHECKPOINT -o FOLDER --format float16 --set optimize.measure_runs=0"
    assert said in page
    assert str(tmp_path) not in page


def test_the_command_hands_on_data_and_labels(
    place: Path, tmp_path: Path, medtool: Callable[..., Any]
) -> None:
    words = ("optimize", run_of(place), "-o", tmp_path / "out", "--cache", place / "cache")
    outcome = medtool(*words, "--labels", tmp_path / "nowhere.csv")
    assert outcome.status == 2
    # This task has masks; which tables others read, tests/verbs/test_optimize_data.py says.
    assert "nowhere.csv" in outcome.err
    outcome = medtool(*words, "--data", tmp_path / "nowhere")
    assert outcome.status != 0
    assert "nowhere" in outcome.err


def test_what_is_recorded_of_the_command_names_no_place() -> None:
    options = OptimizeOptions(
        checkpoint=Path("DOE_JOHN/run"),
        output=Path("for/DOE_JOHN"),
        data=Path("DOE_JOHN"),
        labels=Path("DOE_JOHN.csv"),
        calibration=Path("other/DOE_JOHN"),
        litert_python=Path("DOE_JOHN/bin/python"),
        formats=("int8", "litert"),
        prune="presets/DOE_JOHN.toml",
        tolerance=0.01,
        assignments=("optimize.prune.share=0.2",),
        run=RunOptions(seed=3, cache=Path("DOE_JOHN/cache")),
    )
    assert options.without_places() == (
        "medtool optimize CHECKPOINT -o FOLDER --data DIR --labels FILE --calibration DIR "
        "--format int8 --format litert --prune FILE --tolerance 0.01 "
        "--set optimize.prune.share=0.2 --seed 3"
    )
    assert "--prune dual-decoder" in replace(options, prune="dual-decoder").without_places()


def test_doctor_proves_the_eight_bits_of_every_engine(made: OptimizeResult) -> None:
    """Each file gives what it gave when it was made, by its own engine at least."""
    proofs = {(one.checkpoint.name, one.device): one for one in doctor(made.folder).proofs}
    for name, engine, tolerance in (
        ("model.onnx", "onnxruntime", 1e-4),
        ("model.int8.onnx", "onnxruntime", 1e-2),
        ("model.int8.xml", "openvino", 1e-2),
    ):
        proof = proofs[name, engine]
        assert proof.passed and proof.tolerance == tolerance
    # The file that was made here, by the same engine: to the bit, or nearly.
    assert proofs["model.int8.onnx", "onnxruntime"].share < 1e-4
