"""Answers of a prognosis: passes, maps, columns, files, and what an ensemble makes of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_prognosis import SPACING_MM, tiny_model, tiny_settings, tiny_studies

from medtool.core.errors import CaseRefused, UsageError
from medtool.core.records import ExampleKey
from medtool.nets.dropout import KeyedDropout
from medtool.nets.freezing import parameter_count
from medtool.nets.monte_carlo import dropout_at_work, pass_keys
from medtool.predict.model import Model
from medtool.score.uncertainty import region_near
from medtool.tasks.prognosis_answers import (
    UNCERTAINTY,
    prognosis_columns,
    read_study,
    write_study,
)
from medtool.tasks.prognosis_chances import (
    calibrated,
    disagreement,
    doubt_beside_volume,
    entropy_of,
    mean_or_most_doubtful,
)
from medtool.tasks.prognosis_covariates import with_known_covariates
from medtool.tasks.prognosis_examples import HEAD, StudyExamples
from medtool.tasks.prognosis_learning import study_facts, study_losses
from medtool.tasks.prognosis_network import build_prognosis_network
from medtool.tasks.prognosis_passes import chances_of, look_at
from medtool.tasks.prognosis_predict import predict_study, predict_study_together
from medtool.tasks.prognosis_settings import PrognosisSettings
from medtool.tasks.segmentation_labels import MASK
from medtool.tasks.segmentation_predict import PROBABILITIES


def not_sure(model: Model, level: str = "2") -> Model:
    """The model with logits around 0, so that there is something to outline."""
    with torch.no_grad():
        layer: Any = model.network.decoder.seg_layers[level]
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
    assert row["tlg_g"] == pytest.approx(prepared.arrays["suv"][mask].sum() * voxel_ml, rel=1e-6)
    assert row["risk_low"] <= row["risk"] <= row["risk_high"]
    near = region_near([mask], SPACING_MM[::-1])
    beside = prediction.arrays[UNCERTAINTY][near].sum() / mask.sum()
    assert row["uncertainty"] == pytest.approx(beside, rel=1e-5)
    assert 0 < row["uncertainty_mutual_information"] <= np.log(2)
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


def test_a_risk_that_is_no_number_is_no_answer(tmp_path: Path) -> None:
    """From a fault: its patient fell out of the C-index, which then said nothing of it."""
    settings = tiny_settings()
    studies, model = tiny_studies(tmp_path, 1), tiny_model(settings)
    with torch.no_grad():
        [*_, last] = model.network.head.parameters()
        last.fill_(float("nan"))
    with pytest.raises(CaseRefused) as refused:
        predict_study(settings, model, studies.prepared["case0"], studies.cases[0])
    assert refused.value.code == "not-finite"


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


def test_four_passes_by_hand() -> None:
    """0.9, 0.6, 0.8, 0.3 (methods, Gal and Ghahramani): as one structure, and as two classes."""
    for regions in (True, False):
        sums = np.zeros(4)
        for p in (0.9, 0.6, 0.8, 0.3):
            logit = float(np.log(p / (1 - p)))
            logits = torch.tensor([logit] if regions else [0.0, logit]).double()[None, :, None]
            chances, tumour, entropy = chances_of(logits, exclusive=not regions)
            assert float(tumour) == pytest.approx(p)
            sums += [p, p**2, float(entropy), float(chances[0, -1, 0])]
        mean = np.asarray([[sums[3] / 4]] if regions else [[1 - sums[3] / 4], [sums[3] / 4]])
        assert entropy_of(mean, regions=regions) == pytest.approx(0.647447, abs=5e-7)
        assert sums[2] / 4 == pytest.approx(0.527340, abs=5e-7)
        parts = (np.asarray([value / 4]) for value in sums[1:3])
        information, variance = disagreement(mean, *parts, regions=regions)
        assert information == pytest.approx(0.120106, abs=1e-6)
        assert variance == pytest.approx(0.0525)


def test_temperature_keeps_order_and_mask_and_is_undone_by_its_inverse() -> None:
    chances = np.linspace(0.01, 0.99, 50, dtype=np.float32)[None]
    cooler = calibrated(chances, 2.0, regions=True)
    assert (np.diff(cooler[0]) > 0).all()
    np.testing.assert_array_equal(cooler > 0.5, chances > 0.5)
    np.testing.assert_allclose(calibrated(cooler, 0.5, regions=True), chances, rtol=1e-4)
    both = np.concatenate([1 - chances, chances])
    # Two classes are a yes or no.
    np.testing.assert_allclose(calibrated(both, 2.0, regions=False)[1:], cooler, rtol=1e-5)


def test_where_nothing_is_outlined_the_least_sure_millilitre_stands_for_the_case() -> None:
    values = np.zeros((4, 4, 4), dtype=np.float32)
    values[0, 0] = (0.1, 0.2, 0.6, 0.4)
    nothing = np.zeros(values.shape, dtype=bool)
    # Half a millilitre a voxel: the two least sure.
    assert mean_or_most_doubtful(values, nothing, 0.5) == pytest.approx(0.5)
    nothing[0, 0, :2] = True
    assert mean_or_most_doubtful(values, nothing, 0.5) == pytest.approx(0.15)


def test_doubt_counts_on_both_sides_of_the_outline_beside_what_is_outlined() -> None:
    entropy = np.zeros((1, 1, 9), dtype=np.float32)
    entropy[0, 0] = (0.5, 0.1, 0.2, 0.3, 0.0, 0.0, 0.4, 0.2, 0.6)
    tumour = np.zeros(entropy.shape, dtype=bool)
    tumour[0, 0, 3:5] = True
    # Voxels of 4 mm: the neighbours are within 5 mm, those behind them are not.
    wanted = (0.2 + 0.3 + 0.0 + 0.0) / 2
    assert doubt_beside_volume(entropy, tumour, (4.0, 4.0, 4.0), 0.064) == pytest.approx(wanted)
    nothing = np.zeros_like(tumour)
    assert doubt_beside_volume(entropy, nothing, (4.0,) * 3, 0.5) == pytest.approx(0.55)


@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"neighbour_slices": 1}},
        {"model": {"stems": "two"}},
        {"model": {"stems": "two", "neighbour_slices": 2, "pooling": "both"}},
        {
            "data": {
                "label_ids": {"primary": [1], "node": [2]},
                "regions_order": [],
                "preparation": {"size_px": [32, 32]},
            }
        },
        {
            "data": {"preparation": {"size_px": [], "spacing_mm": [4, 4, 5]}},
            "model": {
                "kind": "residual",
                "normalisation": "instance",
                "patch_size_vox": [8, 16, 16],
                "pooling": "both",
            },
        },
    ],
    ids=["neighbours", "two stems", "both", "two labels", "volumes"],
)
def test_every_kind_of_network_learns_and_answers(tmp_path: Path, changes: Any) -> None:
    if "data" in changes:
        known = {"label_ids": {"tumour": [1]}, "regions_order": [1]}
        changes = {**changes, "data": {**known, **changes["data"]}}
    settings = tiny_settings(**changes)
    studies, model = tiny_studies(tmp_path, 2), not_sure(tiny_model(settings))
    network: Any = model.network
    examples = StudyExamples(settings, studies.cases, studies.paths, training=True)
    samples = [examples[ExampleKey(0, 0, n)] for n in range(2)]
    batch = examples.collate(samples, studies.cases, 0, 0)
    study_losses(settings, network.train(), batch)["loss"].backward()
    assert all(p.grad is not None for p in network.parameters())
    with torch.no_grad():
        facts = study_facts(settings, network.eval(), batch)
    assert np.isfinite(facts["risk"]).all()
    prediction = predict_study(settings, model, studies.prepared["case0"], studies.cases[0])
    row = write_study(settings, prediction, studies.cases[0], tmp_path / "out")
    assert list(row) == list(prognosis_columns(settings))
    assert prediction.arrays[MASK].shape == (12, 32, 32)
    assert np.isfinite(row["uncertainty"]) and row["risk_low"] < row["risk_high"]


def test_windows_of_a_volume_share_what_passes_have_in_common(tmp_path: Path) -> None:
    """With one window the answer is the network's; more of them do not move it far."""
    volume = {"data": {"label_ids": {"tumour": [1]}, "regions_order": [1]}}
    volume["data"]["preparation"] = {"size_px": [], "spacing_mm": [4, 4, 5]}
    model_keys = {"kind": "residual", "normalisation": "instance", "levels": 3}
    found = []
    for patch in ([12, 32, 32], [8, 32, 32]):
        settings = tiny_settings(**volume, model={**model_keys, "patch_size_vox": patch})
        model = not_sure(tiny_model(settings), "1")
        studies = tiny_studies(tmp_path, 1)
        found.append((model, look_at(settings, model, studies.prepared["case0"], studies.cases[0])))
    (model, one), (_, several) = found
    network: Any = model.network
    image = torch.from_numpy(studies.prepared["case0"].arrays["image"].astype(np.float32))[None]
    image[:, 0] /= 5.0
    with torch.no_grad(), dropout_at_work(network):
        passes = [network.look(image, pass_keys(0, "case0", [0], n))[0].sigmoid() for n in range(4)]
    wanted = torch.stack(passes).mean(0)[0].numpy()
    np.testing.assert_allclose(one.probability, wanted, atol=1e-5)
    assert np.abs(several.probability - one.probability).mean() < 0.1


def test_an_ensemble_pools_the_passes_of_its_members(tmp_path: Path) -> None:
    settings = tiny_settings()
    studies = tiny_studies(tmp_path, 1)
    hazard = {"times_days": [100.0, 500.0], "hazard": [0.1, 0.4]}
    members = [
        not_sure(tiny_model(settings, {"baseline_hazard": {**hazard, "mean_risk": centre}}, seed=n))
        for n, centre in enumerate((0.5, -1.0))
    ]
    prepared, case = studies.prepared["case0"], studies.cases[0]
    together = replace(members[0], members=tuple(members))
    found = predict_study_together(together, [prepared, prepared], case)
    alone = [look_at(settings, member, prepared, case) for member in members]
    mean = np.mean([one.probability for one in alone], axis=0)
    np.testing.assert_allclose(found.arrays[PROBABILITIES], mean, atol=1e-6)
    risks = np.concatenate([alone[0].risks - 0.5, alone[1].risks + 1.0])
    assert found.scalars["risk"] == pytest.approx(risks.mean())
    assert found.scalars["risk_low"] == pytest.approx(np.percentile(risks, 2.5))
    survival = np.exp(-0.1 * np.exp(risks.mean()))
    assert found.scalars["survival_365"] == pytest.approx(survival)
    assert found.scalars["survival_365_low"] < survival < found.scalars["survival_365_high"]


def test_covariates_that_are_missing_count_as_the_mean_and_are_said(tmp_path: Path) -> None:
    studies = tiny_studies(tmp_path, 4)
    plain = tiny_settings(model={"covariates": ["age", "Sex"]})
    settings = with_known_covariates(plain, studies.cases)
    known = {one.name: one for one in settings.model.known_covariates}
    assert known["age"].mean == 51.5 and known["Sex"].levels == ["f", "m"]
    model = not_sure(tiny_model(settings))
    case = studies.cases[0]
    risks = []
    for covariates in (case.covariates, {"age": "51.5", "sex": "f"}, {"sex": "f"}, {}):
        changed = replace(case, covariates=covariates)
        prediction = predict_study(settings, model, studies.prepared["case0"], changed)
        risks.append(prediction.scalars["risk"])
        said = [finding.message for finding in prediction.findings]
        missing = {"age", "Sex"} - {name for name in known if name.lower() in covariates}
        assert all(name in said[0] for name in missing) if missing else not said
    assert len(set(risks)) == 4
    with pytest.raises(UsageError, match="no value in any case"):
        with_known_covariates(tiny_settings(model={"covariates": ["weight"]}), studies.cases)


def test_the_reference_has_31_6_million_parameters() -> None:
    settings = PrognosisSettings.model_validate(
        {"data": {"label_ids": {"tumour": [1]}, "regions_order": [1]}}
    )
    with torch.device("meta"):
        network = build_prognosis_network(settings)
    assert parameter_count(network) == 31_600_642
    assert len(network.encoder.features) == 5


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"model": {"dropout_level": 4}}, "dropout_level"),
        ({"model": {"stems": "two", "kind": "residual"}}, "stems"),
        ({"train": {"objectives": "survival"}, "model": {"pooling": "both"}}, "pooling"),
        ({"model": {"patch_size_vox": [8, 16, 16]}}, "spacing_mm"),
    ],
)
def test_what_does_not_go_together_is_refused(changes: Any, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        tiny_settings(**changes)


def test_slices_that_cannot_be_halved_are_refused() -> None:
    settings = tiny_settings(
        data={"label_ids": {"tumour": [1]}, "preparation": {"size_px": [36, 36]}}
    )
    with pytest.raises(UsageError, match="halved"):
        build_prognosis_network(settings)
