"""Classes beside masks, in memory: what a patch teaches, and how much it counts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from medtool_pancreas import Pancreas
from tiny_classified import SMALL, draw_tiny, write_tiny_classified

from medtool.config import resolve
from medtool.core.errors import LabelsError, UsageError
from medtool.core.records import Case, ExampleKey, Source
from medtool.data.cache import Cache
from medtool.data.cohort import build_cohort
from medtool.data.placement import placement_from_facts
from medtool.nets.classification_losses import classification_share
from medtool.tasks.classifying import ClassifyingSegmentationTask
from medtool.tasks.classifying_predict import _prepared_voxel, middle_of_largest
from medtool.tasks.classifying_scores import scored_structures

LESION = 2


class Prepared:
    """A planned task with prepared cases."""

    def __init__(self, folder: Path, *assignments: str) -> None:
        write_tiny_classified(folder / "data", cases=6)
        given = (*SMALL, *assignments)
        settings = resolve(Pancreas, None, folder=folder, assignments=given).settings
        task = Pancreas(settings)
        found = build_cohort(task, Source((folder / "data",)))
        self.cases = found.cases
        self.task: ClassifyingSegmentationTask = task.planned(
            found.cases, intake=found.cohort.intake, folder=folder / "fingerprints"
        )
        cache = Cache(folder / "cache", self.task)
        for case in self.cases:
            cache.store(case, self.task.prepare(case))
        self.paths = {case.case_id: cache.path(case) for case in self.cases}

    def batch(self, keys, cases=None, *, training=True, epoch=0):
        examples = self.task.examples(cases or self.cases, self.paths, training=training)
        asked = [ExampleKey(0, epoch, *key) for key in keys]
        chosen = [(cases or self.cases)[key.index] for key in asked]
        return examples.collate([examples[key] for key in asked], chosen, 0, epoch)


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return Prepared(tmp_path_factory.mktemp("classifying"))


def shows(batch) -> list[int]:
    return (batch.tensors["label"] == LESION).flatten(1).sum(1).tolist()


def test_what_chooses_lies_around_the_lesion_with_the_networks_own_masks(ready: Prepared) -> None:
    batch = ready.batch([(n,) for n in range(6)], training=False)
    assert min(shows(batch)) >= 50
    assert batch.tensors["class"].tolist() == [n % 2 for n in range(6)]
    assert not batch.tensors["true_masks"].any()


def test_half_of_the_patches_are_pooled_by_true_masks(ready: Prepared) -> None:
    batch = ready.batch([(n, copy) for n in range(6) for copy in range(20)])
    share = batch.tensors["true_masks"].float().mean().item()
    assert 0.35 < share < 0.65


def test_a_patch_that_shows_too_little_teaches_no_class(ready: Prepared) -> None:
    keys = [(n, copy) for n in range(6) for copy in range(10)]
    batch = ready.batch(keys)
    seen = zip(shows(batch), batch.tensors["class"].tolist(), keys, strict=True)
    for voxels, number, (index, _) in seen:
        assert number == (index % 2 if voxels >= 50 else -1)


def test_a_case_without_a_class_learns_its_masks_only(ready: Prepared) -> None:
    cases = [replace(case, label=None) for case in ready.cases]
    batch = ready.batch([(0,), (1,)], cases)
    assert batch.tensors["class"].tolist() == [-1, -1]
    network = ready.task.network()
    found = ready.task.losses(network, batch)
    assert found["classification"].item() == 0.0
    found["loss"].backward()
    gradients = [p.grad for p in network.classifier.parameters()]
    assert all(gradient is None or not gradient.any() for gradient in gradients)


def test_the_loss_is_the_weighted_sum_of_both(ready: Prepared) -> None:
    network = ready.task.network().eval()
    for epoch in (0, 30, 70):
        found = ready.task.losses(network, ready.batch([(0,), (1,)], epoch=epoch))
        share = classification_share(epoch)
        wanted = (1 - share) * found["segmentation"] + share * found["classification"]
        assert found["loss"].item() == pytest.approx(wanted.item(), rel=1e-6)


def test_a_run_cut_by_minutes_climbs_within_its_own_epochs(ready: Prepared) -> None:
    """Epoch 3 of 10 stands where epoch 30 of the preset's 100 does: half-way up its ramp."""
    network = ready.task.network().eval()
    batch = replace(ready.batch([(0,), (1,)], epoch=3), preset_epochs_per_epoch=10.0)
    found = ready.task.losses(network, batch)
    share = 0.1 + 0.4 * (30 - 20) / 40
    wanted = (1 - share) * found["segmentation"] + share * found["classification"]
    assert found["loss"].item() == pytest.approx(wanted.item(), rel=1e-6)


def test_a_rare_class_weighs_more_in_a_batch_of_one(tmp_path: Path) -> None:
    """Torch's weighted mean divides by the weight: at one case nothing would be left of it."""
    one = Prepared(tmp_path / "one", "train.class_weights=[1.0, 1.0]", "train.lesion_share=1.0")
    two = Prepared(tmp_path / "two", "train.class_weights=[1.0, 3.0]", "train.lesion_share=1.0")
    network = one.task.network().eval()
    for index, factor in ((0, 1.0), (1, 3.0)):
        plain, weighted = (
            p.task.losses(network, p.batch([(index,)]))["classification"] for p in (one, two)
        )
        assert weighted.item() == pytest.approx(factor * plain.item(), rel=1e-5)


def test_weights_by_smoothed_frequency(ready: Prepared) -> None:
    """Counts 62, 106, 84 of methods D.3: by hand (N / n) ** 0.5 of mean 1 over the cases."""
    from medtool.tasks.classifying_classes import planned_classes

    data = ready.task.settings.data.model_copy(update={"classes": ["a", "b", "c"]})
    train = ready.task.settings.train.model_copy(update={"class_weights": []})
    settings = ready.task.settings.model_copy(update={"data": data, "train": train})
    labels = [0.0] * 62 + [1.0] * 106 + [2.0] * 84
    cases = [Case(f"c{n}", f"p{n}", "", {}, label=label) for n, label in enumerate(labels)]
    weights = planned_classes(settings, cases).train.class_weights
    assert weights == pytest.approx([1.170817, 0.895430, 1.005878], abs=2e-6)
    wrong = train.model_copy(update={"class_weights": [1.0, 2.0]})
    with pytest.raises(LabelsError, match="not one weight for each class"):
        planned_classes(settings.model_copy(update={"train": wrong}), cases)


def test_the_segmentation_alone_chooses_where_no_class_is_known(ready: Prepared) -> None:
    with torch.no_grad():
        facts = ready.task.validate(
            ready.task.network().eval(), ready.batch([(0,)], training=False)
        )
    assert {"macro_f1", "accuracy", "dice_and_f1"} <= set(ready.task.summarise([facts]))
    unknown = {**facts, "class": [-1]}
    found = ready.task.summarise([unknown])
    assert found["dice_and_f1"] == found["dice"]
    assert np.isnan(found["macro_f1"])


def test_the_answer_looks_at_the_middle_of_the_largest_piece(ready: Prepared) -> None:
    mask = np.zeros((6, 20, 20), dtype=bool)
    assert middle_of_largest(mask) is None
    mask[1:4, 2:7, 11:16] = True
    mask[5, 18, 18] = True
    assert middle_of_largest(mask) == (2, 4, 13)
    # A ring: the centroid is no voxel of it, the nearest one is.
    ring = np.zeros((1, 5, 5), dtype=bool)
    ring[0] = True
    ring[0, 1:4, 1:4] = False
    assert ring[middle_of_largest(ring)]


def test_a_voxel_finds_its_place_on_the_planned_grid(ready: Prepared) -> None:
    for case in ready.cases[:2]:
        prepared = ready.task.prepare(case)
        placement = placement_from_facts(prepared.facts)
        _, mask, _ = draw_tiny(int(case.case_id[-2:]))
        middle = middle_of_largest(mask == LESION)
        place = _prepared_voxel(middle, placement)
        assert prepared.arrays["label"][place] == LESION


def test_all_labels_together_are_scored_beside_them(ready: Prepared) -> None:
    found = scored_structures(ready.task.settings)
    assert found == {"organ": (1,), "lesion": (2,), "whole organ": (1, 2)}
    metrics = ready.task.settings.metrics.model_copy(update={"organ_name": ""})
    assert "whole organ" not in scored_structures(
        ready.task.settings.model_copy(update={"metrics": metrics})
    )


def test_a_lesion_that_no_label_is_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabelsError, match="not among the labels") as caught:
        Prepared(tmp_path, "data.lesion=lesoin").task.network()
    assert caught.value.nearest == "lesion"


def test_a_pattern_that_is_none_is_refused(tmp_path: Path) -> None:
    write_tiny_classified(tmp_path / "data", cases=4, table=False)
    given = (*SMALL, 'data.class_pattern="("')
    task = Pancreas(resolve(Pancreas, None, folder=tmp_path, assignments=given).settings)
    with pytest.raises(UsageError, match="no regular expression") as refused:
        build_cohort(task, Source((tmp_path / "data",)))
    assert (refused.value.where, refused.value.met) == ("label pattern", "(")


def test_two_axes_are_classified_as_well() -> None:
    """A network of single slices has a head that pools slices."""
    from medtool.core.plan import NetworkPlan
    from medtool.nets.classification import Classifier, build_classifying_unet

    plan = NetworkPlan(
        kind="plain",
        features=(4, 8),
        kernel_sizes=((3, 3), (3, 3)),
        strides=((1, 1), (2, 2)),
        encoder_blocks=(1, 1),
        decoder_convolutions=(1,),
    )
    network = build_classifying_unet(plan, 1, 3, Classifier(2, masks=((2,), (1, 2)))).eval()
    _, classes = network.both(torch.zeros(1, 1, 8, 8))
    assert classes.shape == (1, 2)
