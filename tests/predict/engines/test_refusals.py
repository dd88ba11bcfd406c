"""Files that an engine cannot run, and operators that it lacks: named, with their layers."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx import TensorProto, helper, save

from medtool.core.errors import CheckpointError, MachineError, UsageError
from medtool.predict.engines import open_engine
from medtool.predict.engines.onnx_runtime import providers_for, with_options

LAYER = "decoder.stages.0.convs.0.gate/Gate"


def graph_with(file: Path, operator: str, domain: str) -> Path:
    """A model of one node."""
    shape = ["images", 3]
    node = helper.make_node(operator, ["image"], ["logits"], name=LAYER, domain=domain)
    graph = helper.make_graph(
        [node],
        "model",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape)],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("example", 1)]
    save(helper.make_model(graph, opset_imports=opsets, ir_version=10), file)
    return file


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("domain", ["example", ""])
def test_an_operator_that_is_lacking_is_named_with_its_layer(
    tmp_path: Path, engine: str, domain: str
) -> None:
    file = graph_with(tmp_path / "model.onnx", "Gate", domain)
    with pytest.raises(CheckpointError, match="cannot run an operator") as refused:
        open_engine(file, engine=engine, threads=1)
    assert "Gate" in refused.value.met and LAYER in refused.value.met
    assert engine in refused.value.what


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_file_that_is_none_is_refused(tmp_path: Path, engine: str) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(b"no model at all")
    with pytest.raises(CheckpointError, match="cannot run this file"):
        open_engine(file, engine=engine, threads=1)


def test_an_engine_reads_its_own_files_only(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not read such a file"):
        open_engine(tmp_path / "model.xml", engine="onnxruntime")
    with pytest.raises(UsageError, match="does not read such a file"):
        open_engine(tmp_path / "model.pt")


def test_a_gpu_is_used_where_onnx_runtime_has_one() -> None:
    cpu, cuda, tensorrt = (f"{n}ExecutionProvider" for n in ("CPU", "CUDA", "Tensorrt"))
    assert providers_for("auto", [cpu]) == [cpu]
    assert providers_for("cpu", [tensorrt, cuda, cpu]) == [cpu]
    assert providers_for("cuda:0", [cuda, cpu]) == [cuda, cpu]
    assert providers_for("auto", [cpu, cuda, tensorrt]) == [tensorrt, cuda, cpu]
    for device in ("cuda", "mps"):
        with pytest.raises(MachineError, match="not built for this device"):
            providers_for(device, [cpu])


def test_tensorrt_is_not_asked_for_eight_bits_that_it_cannot_take() -> None:
    """Its zero is always at 0; that of these files is not."""
    cpu, cuda, tensorrt = (f"{n}ExecutionProvider" for n in ("CPU", "CUDA", "Tensorrt"))
    assert providers_for("auto", [tensorrt, cuda, cpu], arithmetic="int8") == [cuda, cpu]
    assert providers_for("cuda", [tensorrt, cuda, cpu], arithmetic="float32")[0] == tensorrt
    with pytest.raises(MachineError, match="not built for this device"):
        providers_for("cuda", [tensorrt, cpu], arithmetic="int8")


def test_of_several_gpus_the_one_that_is_named_computes_and_in_whole_float32() -> None:
    cpu, cuda, tensorrt = (f"{n}ExecutionProvider" for n in ("CPU", "CUDA", "Tensorrt"))
    assert with_options([cuda, cpu], "cuda") == [(cuda, {"use_tf32": 0}), cpu]
    assert with_options([tensorrt, cuda, cpu], "cuda:1") == [
        (tensorrt, {"device_id": 1}),
        (cuda, {"device_id": 1, "use_tf32": 0}),
        cpu,
    ]
    assert with_options([cpu], "auto") == [cpu]
