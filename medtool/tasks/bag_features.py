"""Features of the parts that never learn, computed once and kept in the run's folder.

Where every stage freezes the beginning of the backbone, its answer to a slice depends on the slice
alone. It is computed once for the slice as it is and for a few augmented copies of it (drawn from
seed, copy, case and slice); training then draws copies, and only the rest of the network runs.
The files lie in a folder named after all that they depend on, so a resumed run finds its own and
no other run's.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from medtool.core.clock import about
from medtool.core.files import replace_text, replacing
from medtool.core.progress import Reporter, Silent
from medtool.core.randomness import generator
from medtool.core.records import Case, ExampleKey
from medtool.data.machine import require_disk
from medtool.nets.backbones import Step, backbone_steps
from medtool.tasks.bag_examples import BagExamples, BagSample, case_label
from medtool.tasks.bag_network import BagNetwork, network_groups
from medtool.train.weights import tensors_sha256

if TYPE_CHECKING:
    from medtool.tasks.bag import BagTask

FEATURES_SUFFIX = ".features.npy"
DESCRIPTION_NAME = "features.json"
# No epoch has this number: copies are none of the draws that training would make.
EPOCH_OF_COPIES = -1


@dataclass(frozen=True)
class FeaturePlan:
    """What is computed: the backbone's first ``steps``, for the slice and ``copies`` of it."""

    steps: int
    parts: tuple[str, ...]
    copies: int
    seed: int
    folder: Path


def is_feature_file(path: Path) -> bool:
    """Whether ``path`` holds features rather than a prepared study."""
    return path.name.endswith(FEATURES_SUFFIX)


def precompute_features(
    task: BagTask,
    network: nn.Module,
    training: Sequence[Case],
    selection: Sequence[Case],
    prepared: Mapping[str, Path],
    folder: Path,
    *,
    learning: Collection[str],
    device: torch.device,
    reporter: Reporter | None = None,
) -> Mapping[str, Path]:
    """Files of features in place of ``prepared``, or ``prepared`` itself where the preset asks
    for none or the first part of the backbone learns in some stage.

    ``learning`` are the groups that learn in any stage. Raises MachineError where the disk is too
    small.
    """
    reporter = reporter or Silent()
    copies = task.settings.train.feature_copies
    if copies == 0 or not isinstance(network, BagNetwork):
        return prepared
    plan = _plan(task, network, folder, learning)
    if plan.steps == 0:
        reporter.warn("train.feature_copies: no part of the backbone is frozen throughout.")
        return prepared
    files = {
        case.case_id: plan.folder / (prepared[case.case_id].stem + FEATURES_SUFFIX)
        for case in (*training, *selection)
    }
    missing = [
        (cases, index)
        for cases in (training, selection)
        for index in range(len(cases))
        if not files[cases[index].case_id].is_file()
    ]
    plan.folder.mkdir(parents=True, exist_ok=True)
    replace_text(plan.folder / DESCRIPTION_NAME, json.dumps({"first_step": plan.steps}))
    network.to(device).eval()
    plain = {
        id(cases): task.examples(cases, prepared, training=False)
        for cases in (training, selection)
        if missing
    }
    augmented = task.examples(training, prepared, training=True) if missing else None
    began = time.perf_counter()
    with reporter.progress("features of frozen parts", len(missing)) as advance:
        for number, (cases, index) in enumerate(missing):
            sources = [plain[id(cases)]]
            if cases is training and augmented is not None and task.settings.augment.enabled:
                sources += [augmented] * plan.copies
            array = _features(network, sources, index, plan, device)
            file = files[cases[index].case_id]
            if number == 0:
                _say(plan, array, len(missing), time.perf_counter() - began, reporter)
            with replacing(file) as opened:
                np.save(opened, array)
            advance()
    return {**prepared, **files}


def _plan(
    task: BagTask, network: BagNetwork, folder: Path, learning: Collection[str]
) -> FeaturePlan:
    groups = network_groups(network)
    moving = {id(p) for name in learning for m in groups.get(name, ()) for p in m.parameters()}
    steps = backbone_steps(network.backbone)
    count = 0
    while count < len(steps) and not any(
        id(p) in moving for module in steps[count].modules for p in module.parameters()
    ):
        count += 1
    train, augment = task.settings.train, task.settings.augment
    basis = {
        "weights": _prefix_sha256(steps[:count]),
        "copies": train.feature_copies,
        "seed": train.seed,
        "augment": augment.model_dump(mode="json"),
        "steps": count,
        "preparation_version": task.preparation_version,
        "preparation": dict(task.preparation_key()),
        # How slices are scaled is among the keys of the model.
        "model": task.settings.model.model_dump(mode="json", exclude={"weights"}),
    }
    text = json.dumps(basis, sort_keys=True)
    key = blake2b(text.encode(), digest_size=8).hexdigest()
    return FeaturePlan(
        steps=count,
        parts=tuple(step.part for step in steps[:count]),
        copies=train.feature_copies,
        seed=train.seed,
        folder=folder / key,
    )


def _prefix_sha256(steps: Sequence[Step]) -> str:
    return tensors_sha256(
        {
            f"{number}.{place}.{name}": tensor
            for number, step in enumerate(steps)
            for place, module in enumerate(step.modules)
            for name, tensor in module.state_dict().items()
        }
    )


def _features(
    network: BagNetwork,
    sources: Sequence[BagExamples],
    index: int,
    plan: FeaturePlan,
    device: torch.device,
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Features (copies, slices, ...) of one case: of the first source as copy 0, and so on."""
    rows = range(sources[0].slice_count(index))
    copies = []
    for copy, source in enumerate(sources):
        key = ExampleKey(plan.seed, EPOCH_OF_COPIES, index, copy)
        images = source.images(key, rows)
        with torch.inference_mode():
            found = [
                network.features(chunk.to(device), last_step=plan.steps).float().cpu()
                for chunk in torch.split(images, network.chunk_slices)
            ]
        copies.append(torch.cat(found).numpy())
    return np.stack(copies)


def _say(
    plan: FeaturePlan,
    first: np.ndarray[Any, Any],
    cases: int,
    first_s: float,
    reporter: Reporter,
) -> None:
    """Estimate disk and time from the first case; refuse what does not fit."""
    needed = first.nbytes * cases
    reporter.say(
        f"Features of {', '.join(plan.parts)} are computed once: {plan.copies} augmented copies a "
        f"slice, about {needed / 1e9:.1f} GB in the run's folder and "
        f"{about(first_s * cases)}."
    )
    require_disk(
        needed,
        plan.folder,
        what="the features of the frozen parts",
        how="lower train.feature_copies (0 computes features at every step), or free space.",
    )


class FeatureExamples(BagExamples):
    """Bags of features: as BagExamples, with a drawn copy in place of an augmentation."""

    def __init__(
        self,
        task: BagTask,
        cases: Sequence[Case],
        prepared: Mapping[str, Path],
        *,
        training: bool,
    ) -> None:
        super().__init__(task, cases, prepared, training=training)
        text = (self.paths[0].parent / DESCRIPTION_NAME).read_text(encoding="utf-8")
        self.first_step = int(json.loads(text)["first_step"])

    def slice_count(self, index: int) -> int:
        """Number of slices of a case."""
        return int(_opened(self.paths[index]).shape[1])

    def __getitem__(self, key: ExampleKey) -> BagSample:
        case = self.cases[key.index]
        stored = _opened(self.paths[key.index])
        slices = self.chosen_slices(key)
        copy = 0
        if self.training and stored.shape[0] > 1:
            rng = generator("feature-copy", key.seed, key.epoch, case.case_id, key.copy)
            # Copy 0 is the slice as it is: for evaluation.
            copy = 1 + int(rng.integers(stored.shape[0] - 1))
        return BagSample(
            inputs=torch.from_numpy(np.array(stored[copy, slices])),
            slices=tuple(slices),
            label=case_label(case),
            weight=self.weights.of(case),
            copy=key.copy,
            first_step=self.first_step,
        )


def _opened(path: Path) -> np.ndarray[Any, np.dtype[np.float32]]:
    stored: np.ndarray[Any, np.dtype[np.float32]] = np.load(path, mmap_mode="r")
    return stored
