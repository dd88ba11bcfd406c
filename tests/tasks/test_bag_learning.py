"""Learning from bags: chunks, weights, draws and answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from tiny_bag import TinyBag, tiny_cases, tiny_settings
from torch import nn

from medtool.core.errors import CaseRefused, UsageError
from medtool.core.records import Batch, Case, ExampleKey, Prediction, Truth
from medtool.data.cache import Cache
from medtool.nets.freezing import keep_frozen_statistics, parameter_count, set_learning
from medtool.tasks.bag_codes import STUDY_CODES
from medtool.tasks.bag_learning import summarise_facts
from medtool.tasks.bag_network import build_network, network_groups
from medtool.tasks.bag_predict import bag_scalars, clipped, predict_bag
from medtool.tasks.bag_settings import BagModelSection

POOLINGS = ["max", "mean", "top-k", "lse", "noisy-or", "attention"]
Prepare = Callable[..., tuple[TinyBag, list[Case], dict[str, Path]]]


@pytest.fixture
def prepare(tmp_path: Path) -> Prepare:
    def made(
        cases: Sequence[Case] | None = None, **sections: Any
    ) -> tuple[TinyBag, list[Case], dict[str, Path]]:
        task = TinyBag(tiny_settings(**sections))
        own = list(tiny_cases(4) if cases is None else cases)
        cache = Cache(tmp_path, task)
        for case in own:
            cache.store(case, task.prepare(case))
        return task, own, {case.case_id: cache.path(case) for case in own}

    return made


def batch_of(
    task: TinyBag, cases: list[Case], paths: dict[str, Path], *, training: bool = True
) -> Batch:
    examples = task.examples(cases, paths, training=training)
    samples = [examples[ExampleKey(0, 0, index)] for index in range(len(cases))]
    return examples.collate(samples, cases, 0, 0)


def network_of(task: TinyBag, chunk: int, learning: Sequence[str] | None = None) -> nn.Module:
    torch.manual_seed(0)
    network = build_network(task.settings.model.model_copy(update={"chunk_slices": chunk}))
    # Statistics as after a training, so that evaluation is no identity.
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 2.0)
    groups = network_groups(network)
    set_learning(groups, list(groups) if learning is None else learning)
    network.train()
    keep_frozen_statistics(network)
    return network


def gradients(task: TinyBag, network: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
    task.losses(network, batch)["loss"].backward()
    return {n: p.grad for n, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("learning", [None, ["layer4", "head"], ["head"]])
def test_chunks_have_the_result_and_gradients_of_the_whole_bag(
    pooling: str, learning: list[str] | None, prepare: Prepare
) -> None:
    task, cases, paths = prepare(model={"pooling": pooling, "top_share": 0.5})
    batch = batch_of(task, cases, paths)
    whole, chunked = network_of(task, 1000, learning), network_of(task, 3, learning)
    wanted, found = gradients(task, whole, batch), gradients(task, chunked, batch)
    assert set(wanted) == set(found)
    if learning == ["head"]:
        assert not any(name.startswith("backbone") for name in found)
    for name, gradient in wanted.items():
        # Gradients below a millionth are rounding of sums that cancel.
        scale = max(gradient.abs().max().item(), 1e-6)
        assert (found[name] - gradient).abs().max().item() / scale < 1e-4, name
    with torch.no_grad():
        alone = task.losses(whole, batch)["loss"].item()
        assert task.losses(chunked, batch)["loss"].item() == pytest.approx(alone, rel=1e-5)


def test_memory_of_a_chunk_is_given_back_before_the_next(prepare: Prepare) -> None:
    # What the backward pass keeps must not grow with the slices by more than their input.
    task, cases, paths = prepare(tiny_cases(1, slices=24))
    batch = batch_of(task, cases, paths)

    def kept(chunk: int) -> int:
        numbers = 0

        def count(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal numbers
            numbers += tensor.numel() if not isinstance(tensor, nn.Parameter) else 0
            return tensor

        network = network_of(task, chunk)
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            task.losses(network, batch)
        return numbers

    assert kept(4) < kept(1000) / 20


def test_learned_batch_norms_count_a_chunk_once(prepare: Prepare) -> None:
    task, cases, paths = prepare(model={"batch_norm": "learned"})
    batch = batch_of(task, cases, paths)
    network = network_of(task, 8)
    by_hand = network_of(task, 8)
    task.losses(network, batch)["loss"].backward()
    with torch.no_grad():
        for chunk in batch.tensors["inputs"].split(8):
            by_hand.backbone(chunk)
    moved = ("bn1.running_mean", "layer4.0.bn1.running_var", "bn1.num_batches_tracked")
    for name in (f"backbone.{one}" for one in moved):
        torch.testing.assert_close(network.get_buffer(name), by_hand.get_buffer(name))


@pytest.mark.parametrize(
    ("model", "frozen"),
    [
        ({}, False),
        ({"batch_norm": "frozen"}, True),
        ({"weights": {"repository": "a/b", "file": "c.pt"}}, True),
        ({"weights": {"path": "w.pt"}}, True),
        ({"weights": {"path": "w.pt"}, "from_scratch": True}, False),
        ({"weights": {"path": "w.pt"}, "batch_norm": "learned"}, False),
    ],
)
def test_batch_norms_are_frozen_with_weights_of_others(model: dict[str, Any], frozen: bool) -> None:
    network = TinyBag(tiny_settings(model={"batch_norm": "auto", **model})).network().train()
    assert network.get_submodule("backbone.bn1").training is (not frozen)


def test_parameters_of_the_reference_network_by_stage() -> None:
    network = build_network(BagModelSection())
    groups = network_groups(network)
    assert parameter_count(network) == 24_551_361
    counts = []
    for learning in (["head"], ["head", "layer4"], ["head", "layer4", "layer3"]):
        set_learning(groups, learning)
        counts.append(parameter_count(network, learning=True))
    assert counts == [1_049_601, 16_014_337, 23_112_705]


def test_order_of_slices_changes_no_answer(prepare: Prepare) -> None:
    for pooling in POOLINGS:
        task, cases, paths = prepare(model={"pooling": pooling})
        batch = batch_of(task, cases[:1], paths)
        network = network_of(task, 4)
        order = torch.randperm(len(batch.tensors["inputs"]))
        shuffled = {
            **batch.tensors,
            **{name: batch.tensors[name][order] for name in ("inputs", "keys")},
        }
        first = task.losses(network, batch)["loss"].item()
        again = task.losses(network, replace(batch, tensors=shuffled))["loss"].item()
        assert again == pytest.approx(first, rel=1e-4)


def test_a_study_alone_or_among_others_has_the_same_logit(prepare: Prepare) -> None:
    for pooling in POOLINGS:
        task, cases, paths = prepare(model={"pooling": pooling})
        network = network_of(task, 4)
        together = task.validate(network, batch_of(task, cases, paths))["logit"]
        alone = [
            task.validate(network, batch_of(task, [case], paths))["logit"][0] for case in cases
        ]
        np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)


def test_each_patient_counts_once_and_classes_are_balanced(prepare: Prepare) -> None:
    cases = [
        replace(case, patient_id=patient, label=label)
        for case, patient, label in zip(
            tiny_cases(4), ["a", "a", "b", "c"], [1.0, 1.0, 0.0, 0.0], strict=True
        )
    ]
    task, cases, paths = prepare(cases, train={"class_weight": "none"})
    weights = batch_of(task, cases, paths).tensors["weights"]
    # Four cases of three patients: 4/3 for each patient.
    torch.testing.assert_close(weights, torch.tensor([2 / 3, 2 / 3, 4 / 3, 4 / 3]))
    task, cases, paths = prepare(tiny_cases(3), train={"class_weight": "balanced"})
    assert batch_of(task, cases, paths).tensors["weights"].tolist() == [1.0, 2.0, 1.0]
    task, cases, paths = prepare(tiny_cases(2), train={"class_weight": 2.5})
    assert batch_of(task, cases, paths).tensors["weights"].tolist() == [1.0, 2.5]


def test_the_loss_is_the_mean_of_the_cases(prepare: Prepare) -> None:
    task, cases, paths = prepare(train={"class_weight": 3.0})
    batch = batch_of(task, cases, paths)
    network = network_of(task, 4)
    with torch.no_grad():
        logits = torch.tensor(task.validate(network, batch)["logit"]).double()
        loss = task.losses(network, batch)["loss"].item()
    by_hand = [
        (3.0 if case.label else 1.0) * math.log1p(math.exp(-z if case.label else z))
        for case, z in zip(cases, logits.tolist(), strict=True)
    ]
    assert loss == pytest.approx(sum(by_hand) / 4, rel=1e-5)


def test_the_prior_is_not_corrected_twice() -> None:
    with pytest.raises(ValidationError, match="correct the prior twice"):
        tiny_settings(train={"sampling": "balanced", "class_weight": "balanced"})


def test_classes_are_not_weighted_twice_by_the_focal_loss() -> None:
    train = {"loss": "focal", "focal_alpha": 0.25}
    with pytest.raises(ValidationError, match="weight the classes twice"):
        tiny_settings(train={**train, "class_weight": "balanced"})
    assert tiny_settings(train={**train, "class_weight": "none"}).train.focal_alpha == 0.25


def test_slices_are_drawn_in_training_only_and_anew_each_epoch(prepare: Prepare) -> None:
    task, cases, paths = prepare(tiny_cases(1, slices=30), train={"max_slices": 5})
    training = task.examples(cases, paths, training=True)
    epochs = [training[ExampleKey(0, epoch, 0)].slices for epoch in range(4)]
    assert all(len(set(slices)) == 5 and list(slices) == sorted(slices) for slices in epochs)
    assert len(set(epochs)) > 1
    assert training[ExampleKey(0, 0, 0)].slices == epochs[0]
    whole = task.examples(cases, paths, training=False)[ExampleKey(0, 0, 0)]
    assert whole.slices == tuple(range(30))


def test_augmentation_follows_the_key_and_the_class(prepare: Prepare) -> None:
    task, cases, paths = prepare(tiny_cases(2))
    examples = task.examples(cases, paths, training=True)
    first = examples[ExampleKey(0, 0, 1)].inputs
    assert torch.equal(first, examples[ExampleKey(0, 0, 1)].inputs)
    assert not torch.equal(first, examples[ExampleKey(0, 1, 1)].inputs)
    assert not torch.equal(first, examples[ExampleKey(0, 0, 1, copy=1)].inputs)
    plain = task.examples(cases, paths, training=False)[ExampleKey(0, 0, 1)].inputs
    gains = ((first + 1) / (plain + 1)).flatten(1).mean(dim=1)
    assert (gains >= 1).all(), "the positive case's gain is at least 1"
    assert gains.unique().numel() == len(gains), "each slice has its own"


def test_a_slice_is_changed_alike_however_many_are_drawn(prepare: Prepare) -> None:
    task, cases, paths = prepare(tiny_cases(1, slices=12), train={"max_slices": 3})
    examples = task.examples(cases, paths, training=True)
    key = ExampleKey(0, 0, 0)
    drawn = examples[key]
    everything = examples.images(key, range(12))
    assert torch.equal(drawn.inputs, everything[list(drawn.slices)])


def test_augmentation_can_be_switched_off(prepare: Prepare) -> None:
    task, cases, paths = prepare(augment={"enabled": False})
    key = ExampleKey(0, 0, 1)
    off = task.examples(cases, paths, training=True)[key].inputs
    assert torch.equal(off, task.examples(cases, paths, training=False)[key].inputs)


def test_unlabelled_cases_do_not_train(prepare: Prepare) -> None:
    task, cases, paths = prepare([replace(case, label=None) for case in tiny_cases(2)])
    with pytest.raises(UsageError, match="cannot be examples"):
        task.examples(cases, paths, training=True)
    assert len(task.examples(cases, paths, training=False)) == 2


def facts(rows: list[tuple[str, float, float]]) -> dict[str, Any]:
    return {
        "case": [row[0] for row in rows],
        "label": [row[1] for row in rows],
        "logit": [row[2] for row in rows],
        "loss": [0.5] * len(rows),
    }


def test_an_epoch_is_summed_up_by_hand() -> None:
    metrics = tiny_settings(metrics={"threshold_rule": "fixed", "threshold_target": 0.5}).metrics
    rows = [("a", 1.0, 2.0), ("b", 1.0, -1.0), ("c", 0.0, 1.0), ("d", 0.0, -3.0), ("e", 0.0, -2.0)]
    found = summarise_facts(metrics, [facts(rows[:3]), facts(rows[2:])])
    # Pairs won: a beats c, d, e; b beats d, e: 5 of 6. One true and one false positive.
    assert found["auroc"] == pytest.approx(5 / 6)
    assert (found["sensitivity"], found["specificity"]) == (0.5, pytest.approx(2 / 3))
    assert found["f1"] == 0.5
    assert (found["loss"], found["threshold"]) == (0.5, 0.5)


def test_the_threshold_of_an_epoch_stays_off_the_score_that_set_it() -> None:
    rows = [("a", 1.0, 2.0), ("b", 1.0, -1.0), ("c", 0.0, 1.0), ("d", 0.0, -3.0)]
    found = summarise_facts(tiny_settings().metrics, [facts(rows)])
    # The best F1, 4 in 5, is at the probability of b: 1 / (1 + e) = 0.268941.
    assert found["f1"] == pytest.approx(0.8)
    assert found["threshold"] == pytest.approx(0.268941 - 1e-4, abs=1e-6)


def test_one_class_in_the_selection_part_gives_no_auroc() -> None:
    found = summarise_facts(tiny_settings().metrics, [facts([("a", 0.0, -1.0)])])
    assert math.isnan(found["auroc"])
    assert math.isnan(found["sensitivity"])
    assert found["threshold"] == 0.5


# --- answers ------------------------------------------------------------------------------------
def model_of(network: nn.Module, threshold: float = 0.4) -> Any:
    return SimpleNamespace(
        network=network.eval(),
        device=torch.device("cpu"),
        threshold=threshold,
        autocast=torch.inference_mode,
    )


@pytest.mark.parametrize("pooling", POOLINGS)
def test_the_answer_is_that_of_validation(pooling: str, prepare: Prepare) -> None:
    task, cases, paths = prepare(model={"pooling": pooling})
    network = network_of(task, 4).eval()
    wanted = task.validate(network, batch_of(task, cases, paths, training=False))["logit"]
    for case, logit in zip(cases, wanted, strict=True):
        answer = predict_bag(task, model_of(network), task.prepare(case), case)
        assert answer.scalars["logit"] == pytest.approx(logit, rel=1e-4, abs=1e-5)
        assert set(answer.scalars) == set(task.columns)
        assert list(answer.scalars) == list(task.columns)


def test_the_row_of_a_study(prepare: Prepare) -> None:
    task, cases, _ = prepare()
    prepared = task.prepare(cases[1])
    answer = predict_bag(task, model_of(network_of(task, 4)), prepared, cases[1])
    row = answer.scalars
    assert row["slices_read"] == len(prepared.elements) == row["slices_used"] + 1
    logits = [element["logit"] for element in answer.elements]
    assert logits[-1] is None, "an unused slice has no logit"
    assert row["top_slice_index"] == int(np.argmax(logits[:-1]))
    assert row["top_slice_instance"] == row["top_slice_index"] + 1
    assert row["top_slice_position_mm"] == 5.0 * row["top_slice_index"]
    assert row["top_slice_uid"] == f"1.2.{row['top_slice_index']}"
    assert row["logit"] == pytest.approx(max(logits[:-1]), rel=1e-6), "the pooling is max"
    assert row["probability"] == pytest.approx(1 / (1 + math.exp(-row["logit"])))


@pytest.mark.parametrize(("logit", "wanted"), [(1e4, 30.0), (-1e4, -30.0), (1.5, 1.5)])
def test_logits_are_clipped(logit: float, wanted: float) -> None:
    assert clipped(logit) == wanted


@pytest.mark.parametrize(
    ("threshold", "wanted"), [(0.5, "positive"), (0.5000001, "negative"), (0.0, "positive")]
)
def test_a_decision_at_the_threshold(threshold: float, wanted: str) -> None:
    rows = [
        {
            "slice_index": 0,
            "instance_number": 1,
            "position_mm": 0.0,
            "sop_instance_uid": "",
            "used": True,
            "logit": 0.0,
        }
    ]
    assert bag_scalars(0.0, threshold, rows)["decision"] == wanted


def study(case: str, logits: list[float]) -> Prediction:
    rows = tuple(
        {
            "slice_index": index,
            "instance_number": index,
            "position_mm": float(index),
            "sop_instance_uid": f"{case}.{index}",
            "used": True,
            "logit": logit,
        }
        for index, logit in enumerate(logits)
    )
    return Prediction(case, "p", bag_scalars(max(logits), 0.5, rows), elements=rows)


@pytest.mark.parametrize(
    ("pooling", "probability"),
    [("max", 0.9), ("mean", 0.4), ("top-k", 0.65), ("noisy-or", 0.9568), ("lse", 0.606580)],
)
def test_studies_of_a_patient_are_one_bag(pooling: str, probability: float) -> None:
    task = TinyBag(tiny_settings(model={"pooling": pooling, "top_share": 0.5}))
    first, second = (torch.logit(torch.tensor(p)).tolist() for p in ([0.1, 0.2], [0.9, 0.4]))
    pooled = task.pool([study("a", first), study("b", second)])
    assert pooled.scalars["probability"] == pytest.approx(probability, abs=1e-6)
    assert pooled.scalars["top_slice_uid"] == "b.0"
    assert (pooled.scalars["slices_read"], pooled.patient_id) == (4, "p")


def test_with_attention_the_study_that_answers_names_its_own_slice() -> None:
    # The first study says more (0.8 against 0.6), though a slice of the second has more alone.
    task = TinyBag(tiny_settings(model={"pooling": "attention"}))
    first, second = study("a", [1.0]), study("b", [3.0])
    said = [
        replace(one, scalars={**one.scalars, "logit": math.log(p / (1 - p)), "probability": p})
        for one, p in ((first, 0.8), (second, 0.6))
    ]
    pooled = task.pool(said)
    assert pooled.scalars["probability"] == pytest.approx(0.8)
    assert pooled.scalars["top_slice_uid"] == "a.0"


def test_predictions_are_scored_at_their_threshold() -> None:
    task = TinyBag(tiny_settings(metrics={"bootstrap_draws": 100}))
    predictions = [study("a", [2.0]), study("b", [-2.0]), study("c", [1.0]), study("d", [-1.0])]
    predictions = [replace(p, patient_id=p.case_id) for p in predictions]
    truths = [Truth(c, c, label=y) for c, y in zip("abcd", [1.0, 0.0, 0.0, 0.0], strict=True)]
    scores = task.score(predictions, truths)
    assert scores.metrics["auroc"].value == 1.0
    assert scores.metrics["specificity"].value == pytest.approx(2 / 3)
    # Where folds answered, each decides its own cases.
    other = replace(predictions[2], scalars={**predictions[2].scalars, "threshold": 0.8})
    scores = task.score([*predictions[:2], other, predictions[3]], truths)
    assert scores.metrics["specificity"].value == 1.0
    assert scores.tables["decision"]["thresholds"] == [0.5, 0.8]


@pytest.mark.parametrize("pooling", POOLINGS)
def test_an_answer_that_is_no_number_is_never_a_decision(pooling: str, prepare: Prepare) -> None:
    # NaN is less than every threshold: a broken network would have called each study negative.
    task, cases, _ = prepare(model={"pooling": pooling})
    network = network_of(task, 4)
    with torch.no_grad():
        network.head.output.bias.fill_(math.nan)
    with pytest.raises(CaseRefused) as caught:
        predict_bag(task, model_of(network), task.prepare(cases[0]), cases[0])
    assert caught.value.code == "undefined-answer"
    assert caught.value.code in STUDY_CODES


def test_deployment_names_the_shape_of_a_slice() -> None:
    spec = TinyBag(tiny_settings()).deployment()
    assert spec.inputs == {"slices": (1, 1, 32, 32)}


def test_a_backbone_for_one_size_is_built_for_the_size_of_the_slices() -> None:
    task = TinyBag(tiny_settings(model={"backbone": "vit_tiny_patch16_224"}))
    with torch.no_grad():
        found = task.network().eval()(torch.zeros(2, 1, 32, 32), torch.tensor([2]))
    assert found["logits"].shape == (1,)
