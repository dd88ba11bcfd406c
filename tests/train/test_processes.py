"""Two processes on the CPU learn what one learns with the doubled batch."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_training import tiny_cases, tiny_job, tiny_live, tiny_task
from torch import nn

from medtool.train.devices import make_fabric
from medtool.train.loop import training_loop


def learn_here(fabric, folder: Path, train: dict, kind: str) -> dict[str, np.ndarray]:  # noqa: ANN001
    """Train in each process; module level, so that spawned processes can import it."""
    torch.set_num_threads(1)
    task = tiny_task(**train)
    if kind == "frozen-norm":
        task.network = _network_with_norm  # type: ignore[method-assign]
        task.groups = _groups_with_norm  # type: ignore[method-assign]
    job = tiny_job(folder, task, fabric)
    live = tiny_live(job)
    for _ in training_loop(job, live):
        pass
    # As numpy: a tensor's memory would be gone with the process that it is sent from.
    learned = {name: tensor.numpy().copy() for name, tensor in live.network.state_dict().items()}
    if torch.distributed.is_initialized():
        # Else its threads may still be at work when the process ends, which then aborts.
        torch.distributed.destroy_process_group()
    return learned


class NormedNetwork(nn.Module):
    """A bag network with a batch norm in its trunk."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(256, 8), nn.BatchNorm1d(8))
        self.head = nn.Linear(8, 1)

    def forward(self, slices: torch.Tensor) -> torch.Tensor:
        """(slices, 16, 16) -> scalar."""
        return self.head(self.trunk(slices.flatten(1)).tanh()).max()


def _network_with_norm() -> nn.Module:
    return NormedNetwork()


def _groups_with_norm(network: nn.Module) -> dict[str, list[nn.Module]]:
    return {"trunk": [network.trunk], "head": [network.head]}


@pytest.mark.parametrize("kind", ["no-norm", "frozen-norm"])
def test_two_processes_give_the_weights_of_one(tmp_path: Path, kind: str) -> None:
    # Seven training cases: the last step has an uneven number for the two processes.
    train = {"epochs": 3, "weight_decay": 0.01}
    if kind == "frozen-norm":
        from medtool.config.sections import StageSection

        train["stages"] = [StageSection(from_epoch=0, rates={"head": 1e-2})]
    tiny_cases(tmp_path, tiny_task())
    alone = make_fabric("cpu")
    one = alone.launch(learn_here, tmp_path, {**train, "batch_cases": 4}, kind)
    both = make_fabric("cpu", devices=2)
    two = both.launch(learn_here, tmp_path, {**train, "batch_cases": 2}, kind)
    for name, array in one.items():
        np.testing.assert_allclose(two[name], array, rtol=0, atol=1e-5)
