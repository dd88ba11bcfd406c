"""Batches of a data set that is indexed by ExampleKey, in this process or in workers."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from torch.utils.data import DataLoader, Dataset

from medtool.core.processes import begin_worker
from medtool.core.records import Batch, Case, ExampleKey


class _Keyed(Dataset[Any]):
    """Samples with their keys, so that a batch knows its cases, seed and epoch."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __getitem__(self, key: ExampleKey) -> tuple[ExampleKey, Any]:
        return key, self.dataset[key]


class _Collate:
    """Samples to a batch. A class, since spawned workers must be able to pickle it."""

    def __init__(self, dataset: Any, cases: Sequence[Case]) -> None:
        self.dataset = dataset
        # Batches travel between processes; the planes of a series are heavy and not needed there.
        self.cases = [replace(case, inputs={}, findings=()) for case in cases]

    def __call__(self, items: Sequence[tuple[ExampleKey, Any]]) -> Batch:
        first = items[0][0]
        cases = tuple(self.cases[key.index] for key, _ in items)
        batch: Batch = self.dataset.collate(
            [sample for _, sample in items], cases, first.seed, first.epoch
        )
        return batch


class _Order:
    """The batches of keys to come; set anew before every epoch, read in the main process."""

    def __init__(self) -> None:
        self.batches: list[list[ExampleKey]] = []

    def __iter__(self) -> Iterator[list[ExampleKey]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def default_start_method() -> str:
    """forkserver where there is one, else spawn.

    A plain fork would copy a process whose libraries run threads, and may hang.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return "spawn"
    # Imported once by the server, so that each worker starts at once.
    multiprocessing.set_forkserver_preload(["medtool.train.loader"])
    return "forkserver"


def _begin(worker: int) -> None:
    # torch watches the parent process only, which here is the server that forks the workers.
    begin_worker()
    # Schedulers and terminals signal all processes; the run still needs its step's batches.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


class BatchLoader:
    """Gives the batches of any list of keys; workers live as long as the loader.

    ``workers`` 0 loads in this process. ``start_method`` is fork, spawn or forkserver; None takes
    the one that is safe here.
    """

    def __init__(
        self,
        dataset: Any,
        cases: Sequence[Case],
        *,
        workers: int = 0,
        start_method: str | None = None,
        pin_memory: bool = False,
    ) -> None:
        self._order = _Order()
        self._loader: DataLoader[Any] = DataLoader(
            _Keyed(dataset),
            batch_sampler=self._order,
            collate_fn=_Collate(dataset, cases),
            num_workers=workers,
            persistent_workers=workers > 0,
            multiprocessing_context=(start_method or default_start_method()) if workers else None,
            worker_init_fn=_begin,
            pin_memory=pin_memory,
        )

    def batches(self, keys: Iterable[tuple[ExampleKey, ...]]) -> Iterator[Batch]:
        """One batch for each tuple of keys that is not empty, in order."""
        self._order.batches = [list(batch) for batch in keys if batch]
        return iter(self._loader)


def to_device(value: Any, device: Any) -> Any:
    """``value`` with every tensor inside lists, tuples and mappings moved to ``device``."""
    if hasattr(value, "to"):
        return value.to(device, non_blocking=True)
    if isinstance(value, dict):
        return {key: to_device(item, device) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(to_device(item, device) for item in value)
    return value


def batch_to_device(batch: Batch, device: Any) -> Batch:
    """``batch`` with its tensors on ``device``."""
    return replace(batch, tensors=to_device(dict(batch.tensors), device))
