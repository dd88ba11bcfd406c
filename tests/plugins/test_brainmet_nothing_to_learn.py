"""What must not be learned: labels dealt anew, and heads without lesions that keep their labels.

Small versions of what ``benchmarks/demo_quality.py`` measures. Five cohorts are written as DICOM,
found and prepared; a network learns from one of them and answers for the patients of the other
four, so that many patients judge each of five trainings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from medtool_brainmet import Brainmet
from medtool_brainmet.demo import DemoOptions, plan_cohort, write_study
from scipy.stats import mannwhitneyu

from medtool.config import resolve
from medtool.core.randomness import key64
from medtool.core.records import Case, ExampleKey, Source
from medtool.data.cache import Cache
from medtool.train.devices import make_fabric
from medtool.train.live import Live
from medtool.train.loader import BatchLoader
from medtool.train.loop import Job, training_loop
from medtool.train.plan import make_plan

SEEDS = range(5)
SMALL = DemoOptions(patients=20, size_px=64, oddities=False)
QUICK = (
    "data.preparation.size_px=48",
    "model.hidden_features=16",
    "train.epochs=16",
    "train.batch_cases=4",
)
# The mean over five trainings where there is nothing to learn, and where there is.
NOTHING = (0.4, 0.6)
LEAST_WITH_LESIONS = 0.65


@dataclass(frozen=True)
class Cohorts:
    """Prepared cases of each seed, labelled: as they are, and with every lesion left out."""

    task: Brainmet
    ill: Sequence[Sequence[Case]]
    bare: Sequence[Sequence[Case]]
    paths: Mapping[str, Path]


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory: pytest.TempPathFactory) -> Cohorts:
    folder = tmp_path_factory.mktemp("cohorts")
    task = Brainmet(resolve(Brainmet, "demo", assignments=QUICK).settings)
    cache = Cache(folder / "cache", task)
    ill, bare, paths = [], [], {}
    for seed in SEEDS:
        studies, labels = plan_cohort(seed, SMALL)
        without, _ = plan_cohort(seed, replace(SMALL, lesions=False))
        for study, healthy in zip(studies, without, strict=True):
            write_study(folder / f"{seed}-ill", study)
            # A head that never had a lesion is the same in both.
            if labels[study.header.patient_id]:
                write_study(folder / f"{seed}-bare", healthy)
        found = {
            kind: [
                replace(
                    case,
                    case_id=f"{seed}-{kind}-{case.case_id}",
                    label=float(labels[case.patient_id]),
                )
                for case in task.find(Source((folder / f"{seed}-{kind}",))).cases
            ]
            for kind in ("ill", "bare")
        }
        for case in (*found["ill"], *found["bare"]):
            cache.store(case, task.prepare(case))
            paths[case.case_id] = cache.path(case)
        ill.append(found["ill"])
        bare.append([*(case for case in found["ill"] if not case.label), *found["bare"]])
    return Cohorts(task, ill, bare, paths)


def answers(cohorts: Cohorts, training: Sequence[Case], seed: int, held_out: list[Case]) -> list:
    """Logits for ``held_out`` of a network that learned from ``training`` to the last epoch."""
    task = cohorts.task
    fabric = make_fabric("cpu")
    fabric.launch()
    train = task.settings.train.model_copy(update={"seed": seed})
    with torch.random.fork_rng():
        torch.manual_seed(key64("weights", seed))
        network = task.network()
    groups = task.groups(network)
    job = Job(task=task, fabric=fabric, training=training, selection=[], prepared=cohorts.paths)
    live = Live(network, groups, train, make_plan(train, list(groups), cases=len(training)))
    for _ in training_loop(job, live):
        pass
    network.eval()
    loader = BatchLoader(task.examples(held_out, cohorts.paths, training=False), held_out)
    keys = [(ExampleKey(seed, 0, index),) for index in range(len(held_out))]
    logits = []
    with torch.no_grad():
        for batch in loader.batches(keys):
            logits += task.validate(network, batch)["logit"]
    return logits


def held_out_aurocs(
    cohorts: Cohorts, studies: Sequence[Sequence[Case]], seeds: Sequence[int]
) -> list[float]:
    """AUROC, by seed of the training cohort, on the patients of all other cohorts."""
    aurocs = []
    for seed in seeds:
        others = [case for other in SEEDS if other != seed for case in studies[other]]
        logits = np.array(answers(cohorts, studies[seed], seed, others))
        positive = np.array([bool(case.label) for case in others])
        statistic = mannwhitneyu(logits[positive], logits[~positive]).statistic
        aurocs.append(float(statistic) / (positive.sum() * (~positive).sum()))
    return aurocs


def deal_labels(cases: Sequence[Case], seed: int) -> list[Case]:
    """The same cases with their labels in another order."""
    dealt = np.random.default_rng((seed, 5)).permutation([case.label for case in cases])
    return [replace(case, label=float(label)) for case, label in zip(cases, dealt, strict=True)]


def test_from_labels_that_were_dealt_anew_nothing_is_learned(cohorts: Cohorts) -> None:
    dealt = [deal_labels(cases, seed) for seed, cases in enumerate(cohorts.ill)]
    aurocs = held_out_aurocs(cohorts, dealt, SEEDS)
    assert NOTHING[0] <= np.mean(aurocs) <= NOTHING[1], aurocs


def test_where_lesions_were_left_out_nothing_is_learned(cohorts: Cohorts) -> None:
    aurocs = held_out_aurocs(cohorts, cohorts.bare, SEEDS)
    assert NOTHING[0] <= np.mean(aurocs) <= NOTHING[1], aurocs


def test_the_same_trainings_learn_from_lesions(cohorts: Cohorts) -> None:
    aurocs = held_out_aurocs(cohorts, cohorts.ill, SEEDS[:2])
    assert np.mean(aurocs) >= LEAST_WITH_LESIONS, aurocs
