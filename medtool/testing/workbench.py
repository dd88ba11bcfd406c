"""The bench on which a task is checked: its demo, a few prepared cases, a network and answers."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtool.core.records import Batch, Case, ExampleKey, Prediction, Source
from medtool.core.task import Task

if TYPE_CHECKING:
    from torch import nn

    from medtool.predict.model import Model

# Cases of each class that are prepared: enough for a step, few enough for a quick test.
CASES_OF_A_CLASS = 2
DEMO_PRESET = "demo"


class Workbench:
    """A task with its demo, prepared cases and a network, each made once and when needed."""

    def __init__(self, task: type[Task] | str, folder: Path, *, seed: int = 0) -> None:
        from medtool.core.registry import load_task

        self.task_class = load_task(task) if isinstance(task, str) else task
        self.folder = folder
        self.seed = seed

    @cached_property
    def task(self) -> Task:
        """Built from its preset ``demo`` where it has one, else from the defaults, and planned."""
        from medtool.data.cohort import build_cohort

        found = build_cohort(self.unplanned, Source((self.demo,)))
        known = [case for case in found.cases if self.unplanned.has_reference(case)]
        return self.unplanned.planned(
            known, intake=found.cohort.intake, folder=self.folder / "fingerprints"
        )

    @cached_property
    def unplanned(self) -> Task:
        """The task as its preset has it, before it saw any data."""
        from medtool.config import presets_of, resolve

        has_demo = any(
            preset.name == DEMO_PRESET
            for preset in presets_of(self.task_class.name, self.task_class.__module__, self.folder)
        )
        preset = DEMO_PRESET if has_demo else None
        return self.task_class(resolve(self.task_class, preset, folder=self.folder).settings)

    @cached_property
    def demo(self) -> Path:
        """The folder of the synthetic cohort."""
        demo = self.folder / "demo"
        self.unplanned.write_demo(demo, self.seed)
        return demo

    @cached_property
    def all_cases(self) -> tuple[Case, ...]:
        """Every case of the demo, with its label where the task has labels."""
        from medtool.data.cohort import build_cohort

        return build_cohort(self.task, Source((self.demo,))).cases

    @cached_property
    def cases(self) -> tuple[Case, ...]:
        """A few of them, of each label."""
        by_label: dict[float | None, list[Case]] = {}
        for case in self.all_cases:
            by_label.setdefault(case.label, []).append(case)
        return tuple(case for same in by_label.values() for case in same[:CASES_OF_A_CLASS])

    @cached_property
    def prepared(self) -> Mapping[str, Path]:
        """Their files in the cache."""
        from medtool.data.cache import Cache

        cache = Cache(self.folder / "cache", self.task)
        for case in self.cases:
            if not cache.has(case):
                cache.store(case, self.task.prepare(case))
        return {case.case_id: cache.path(case) for case in self.cases}

    def network(self) -> nn.Module:
        """A network with the same weights each time."""
        import torch

        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            return self.task.network()

    def batch(self, *, training: bool, epoch: int = 0) -> Batch:
        """All prepared cases as one batch."""
        examples: Any = self.task.examples(self.cases, self.prepared, training=training)
        keys = [ExampleKey(self.seed, epoch, index) for index in range(len(self.cases))]
        samples = [examples[key] for key in keys]
        batch: Batch = examples.collate(samples, list(self.cases), self.seed, epoch)
        return batch

    @cached_property
    def model(self) -> Model:
        """A checkpoint of the untrained network, loaded back."""
        import torch

        from medtool.config.places import portable_preset
        from medtool.core.checkpoint import read_header, write_checkpoint
        from medtool.nets.state import load_network, raw_tensor
        from medtool.predict.model import Model

        path = self.folder / "untrained.safetensors"
        saved = self.network()
        tensors = [raw_tensor(f"model.{name}", t) for name, t in saved.state_dict().items()]
        document = {
            "task": self.task.name,
            "preset": portable_preset(self.task.settings),
            "threshold": 0.5,
            "synthetic": True,
        }
        write_checkpoint(path, document, tensors)
        network = self.task.network()
        load_network(path, network)
        network.eval()
        return Model(
            task=self.task,
            network=network,
            device=torch.device("cpu"),
            autocast_type=None,
            header=read_header(path),
            path=path,
            found=str(path),
        )

    def predictions(self) -> list[Prediction]:
        """The untrained network's answers."""
        from medtool.data.cache import read_prepared

        answers = []
        for case in self.cases:
            prepared = read_prepared(self.prepared[case.case_id])
            answers.append(self.task.predict(self.model, prepared, case))
        return answers
