"""Answers of a prognosis: passes, maps, columns, files, and what an ensemble makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_prognosis import SPACING_MM, tiny_model, tiny_settings, tiny_studies

from medtool.nets.dropout import KeyedDropout
from medtool.nets.monte_carlo import dropout_at_work, pass_keys
from medtool.predict.model import Model
from medtool.tasks.prognosis_answers import (
    UNCERTAINTY,
    prognosis_columns,
    read_study,
    write_study,
)
from medtool.tasks.prognosis_examples import HEAD
from medtool.tasks.prognosis_passes import look_at
from medtool.tasks.prognosis_predict import predict_study
from medtool.tasks.segmentation_labels import MASK
from medtool.tasks.segmentation_predict import PROBABILITIES


def not_sure(model: Model) -> Model:
    """The model with logits around 0, so that there is something to outline."""
    with torch.no_grad():
        layer: Any = model.network.decoder.seg_layers["2"]
        layer.weight.mul_(5)
        layer.bias.zero_()
    return model


@pytest.mark.parametrize("pooling", ["global", "lesion", "both"])
@pytest.mark.parametrize("level", [1, 2, 3])
def test_shared_passes_of_a_whole_case_are_whole_passes(
    tmp_path: Path, pooling: str, level: int
) -> None:
    settings = tiny_settings(model={"pooling": pooling, "dropout_level": level})
    studies, model = tiny_studies(tmp_path, 1), not_sure(tiny_model(settings))
    case, prepared = studies.cases[0], studies.prepared["case0"]
    found = look_at(settings, model, prepared, case)
    network: Any = model.network
    images = torch.from_numpy(prepared.arrays["image"].astype(np.float32)).transpose(0, 1)
    images[:, 0] /= settings.model.suv_scale
    chances, risks = [], []
    volume_ml = torch.tensor([32 * 32 * 12 * np.prod(SPACING_MM) / 1000], dtype=torch.float32)
    with torch.no_grad(), dropout_at_work(network):
        for number in range(4):
            key, head = pass_keys(0, "case0", [0, HEAD], number)
            logits, rows = network.look(images, key.expand(len(images)))
            chances.append(logits.sigmoid()[:, 0].numpy())
            embedded = network.embedding(rows.mean(0, keepdim=True), volume_ml, torch.zeros(1, 0))
            risks.append(float(network.head(embedded, head[None])))
    passes = np.stack(chances)
    np.testing.assert_allclose(found.probability[0], passes.mean(0), atol=1e-5)
    np.testing.assert_allclose(found.tumour_square, (passes**2).mean(0), atol=1e-5)
    entropy = -passes * np.log(passes) - (1 - passes) * np.log(1 - passes)
    np.testing.assert_allclose(found.entropy, entropy.mean(0), atol=1e-5)
    np.testing.assert_allclose(found.risks, risks, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        found.volumes_ml, (passes > 0.5).sum((1, 2, 3)) * np.prod(SPACING_MM) / 1000, rtol=1e-6
    )
    assert len(set(found.risks)) == 4


def test_all_columns_and_files_and_back(tmp_path: Path) -> None:
    settings = tiny_settings()
    studies, model = tiny_studies(tmp_path, 1), not_sure(tiny_model(settings))
    case, prepared = studies.cases[0], studies.prepared["case0"]
    prediction = predict_study(settings, model, prepared, case)
    row = write_study(settings, prediction, case, tmp_path / "out")
    assert list(row) == list(prognosis_columns(settings))
    mask = prediction.arrays[MASK] > 0
    voxel_ml = np.prod(SPACING_MM) / 1000
    assert row["volume_ml"] == pytest.approx(mask.sum() * voxel_ml)
    assert row["suv_max"] == pytest.approx(prepared.arrays["suv"][mask].max(), rel=1e-6)
    assert row["tlg_ml"] == pytest.approx(prepared.arrays["suv"][mask].sum() * voxel_ml, rel=1e-6)
    assert row["risk_low"] <= row["risk"] <= row["risk_high"]
    assert row["uncertainty"] == pytest.approx(prediction.arrays[UNCERTAINTY][mask].mean())
    assert 0 < row["uncertainty_mutual_information"] < row["uncertainty"] <= np.log(2)
    assert len(prediction.elements) == row["lesions"]
    assert row["volume_ml"] == pytest.approx(sum(e["volume_ml"] for e in prediction.elements))
    line = {
        "case": "case0",
        "patient": "patient0",
        **{k: "" if v is None else v for k, v in row.items()},
    }
    again = read_study(settings, line, tmp_path / "out")
    assert again.scalars == {**row}
    for name in (MASK, UNCERTAINTY, PROBABILITIES):
        np.testing.assert_array_equal(again.arrays[name], prediction.arrays[name])


def test_without_passes_nothing_is_said_of_uncertainty(tmp_path: Path) -> None:
    settings = tiny_settings(infer={"passes": 0})
    studies, model = tiny_studies(tmp_path, 1), not_sure(tiny_model(settings))
    prediction = predict_study(settings, model, studies.prepared["case0"], studies.cases[0])
    row = write_study(settings, prediction, studies.cases[0], tmp_path / "out")
    empty = {name for name, value in row.items() if value is None}
    assert {"risk_low", "risk_high", "uncertainty", "uncertainty_map", "volume_spread"} <= empty
    assert row["risk"] is not None and row["mask"]
    network: Any = model.network
    assert not any(m.training for m in network.modules() if isinstance(m, KeyedDropout))


def test_the_size_of_batches_changes_no_answer(tmp_path: Path) -> None:
    settings = tiny_settings()
    studies, model = tiny_studies(tmp_path, 1), not_sure(tiny_model(settings))
    one, other = (
        look_at(s, model, studies.prepared["case0"], studies.cases[0])
        for s in (settings, tiny_settings(infer={"batch_slices": 2}))
    )
    np.testing.assert_allclose(one.probability, other.probability, atol=1e-6)
    np.testing.assert_allclose(one.risks, other.risks, atol=1e-5)


def test_objectives_alone_leave_the_other_columns_empty(tmp_path: Path) -> None:
    studies = tiny_studies(tmp_path, 1)
    rows = {}
    for objectives in ("segmentation", "survival"):
        settings = tiny_settings(train={"objectives": objectives})
        model = not_sure(tiny_model(settings))
        prediction = predict_study(settings, model, studies.prepared["case0"], studies.cases[0])
        rows[objectives] = write_study(
            settings, prediction, studies.cases[0], tmp_path / objectives
        )
        assert (MASK in prediction.arrays) == (objectives == "segmentation")
    assert rows["segmentation"]["risk"] is None and rows["segmentation"]["mask"]
    assert rows["survival"]["mask"] is None and rows["survival"]["risk"] is not None
