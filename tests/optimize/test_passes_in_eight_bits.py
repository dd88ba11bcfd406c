"""Monte Carlo passes by a file in eight bits: means and maps of uncertainty survive."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from medtool_petct import Petct
from optimised import learned_somewhat
from scipy.stats import spearmanr
from tiny_prognosis import tiny_settings, tiny_studies

from medtool.core.checkpoint import CheckpointHeader
from medtool.optimize.activations import observe, ranges_of
from medtool.optimize.calibration import Recorder
from medtool.optimize.export import export_onnx
from medtool.optimize.quantise_onnx import quantise, ready_graph
from medtool.predict.deployed_model import engine_model
from medtool.predict.engines import open_engine
from medtool.predict.model import Model
from medtool.tasks.prognosis_passes import look_at


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_uncertainty_survives_eight_bits(tmp_path: Path, engine: str) -> None:
    """Mean within 0.01; rank correlation of the maps of uncertainty above 0.95."""
    settings: Any = tiny_settings(
        model={"first_features": 8, "levels": 3, "head_features": [8], "pooling": "lesion"},
        infer={"passes": 6, "batch_slices": 5},
    )
    task = Petct(settings)
    torch.manual_seed(3)
    network: Any = task.network().eval()
    learned_somewhat(network.state_dict())
    with torch.no_grad():
        # Logits on both sides of 0: something to be unsure about.
        layer = list(network.decoder.seg_layers.values())[-1]
        layer.weight.mul_(3)
        layer.bias.zero_()
    header = CheckpointHeader(Path("none"), {}, {}, 0)
    model = Model(task, network, torch.device("cpu"), None, header, Path("none"), "")
    export_onnx(task, network, tmp_path / "model.onnx")
    studies = tiny_studies(tmp_path, 3)
    # Calibrated on two cases, looked at in the third.
    recorder = Recorder(open_engine(tmp_path / "model.onnx"), 12, task.exported_deployment())
    asked = engine_model(model, recorder)
    inputs = []
    for case in studies.cases[:2]:
        look_at(settings, asked, studies.prepared[case.case_id], case)
        inputs += recorder.taken()
    # The graph computes with sizes, which are no floats: they are left alone.
    graph = ready_graph(tmp_path / "model.onnx", tmp_path)
    seen = observe(graph, inputs)
    heads = [layer.node for layer in graph.layers if layer.stays_in_float]
    quantise(graph, ranges_of(seen, "minmax", 99.99), tmp_path / "int8.onnx", floats=heads)
    case, prepared = studies.cases[2], studies.prepared["case2"]
    wanted = look_at(settings, model, prepared, case)
    opened = open_engine(tmp_path / "int8.onnx", engine=engine, threads=1)
    found = look_at(settings, engine_model(model, opened), prepared, case)
    difference = np.abs(found.probability - wanted.probability)
    assert 0 < difference.mean() < 0.01
    assert spearmanr(found.entropy.ravel(), wanted.entropy.ravel()).statistic > 0.95
    spreads = [one.tumour_square - one.probability.max(axis=0) ** 2 for one in (found, wanted)]
    assert spearmanr(*(spread.ravel() for spread in spreads)).statistic > 0.95
    assert np.ptp(found.risks) > 0
