"""What a state that was restored still holds of the file that it came from: nothing."""

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny_training import tiny_job, tiny_live, tiny_task

from medtool.core.checkpoint import write_checkpoint
from medtool.nets.state import load_network, read_tensors
from medtool.train.live import Live
from medtool.train.loop import Job, training_loop
from medtool.train.state import restore, training_document, training_tensors

MAPS = Path("/proc/self/maps")


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return tiny_job(tmp_path, tiny_task(average_decay=0.9, optimiser="adam"))


@pytest.fixture
def path(job: Job, tmp_path: Path) -> Path:
    """The checkpoint of a whole training, with moments and an average."""
    live = tiny_live(job)
    for _ in training_loop(job, live):
        pass
    return save(tmp_path / "last.safetensors", live)


def save(path: Path, live: Live) -> Path:
    write_checkpoint(path, training_document(live), training_tensors(live))
    return path


def tensors_of(live: Live) -> dict[str, torch.Tensor]:
    found = dict(live.network.state_dict())
    found |= {f"average {name}": tensor for name, tensor in live.average.items()}
    for number, kept in enumerate(live.optimiser.state.values()):
        found |= {f"optimiser {number} {key}": value for key, value in kept.items()}
    return found


def is_mapped(path: Path) -> bool:
    gc.collect()
    return str(path) in MAPS.read_text()


def test_no_restored_tensor_is_a_view_of_the_file(
    job: Job, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Windows refuses to replace a file that is mapped, and the first epoch replaces this one.
    read: list[torch.Tensor] = []

    def noted(file: Path, prefix: str) -> Iterator[tuple[str, torch.Tensor]]:
        for name, tensor in read_tensors(file, prefix):
            read.append(tensor)
            yield name, tensor

    monkeypatch.setattr("medtool.train.state.read_tensors", noted)
    live = tiny_live(job)
    restore(path, live)
    found = tensors_of(live)
    assert any(name.startswith("optimiser") for name in found)
    assert any(name.startswith("average") for name in found)
    inside = [range(tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes) for tensor in read]
    for name, tensor in found.items():
        assert not any(tensor.data_ptr() in part for part in inside), name


@pytest.mark.skipif(not MAPS.exists(), reason="only Linux tells what is mapped")
def test_a_file_that_was_restored_from_is_no_longer_mapped(job: Job, path: Path) -> None:
    views = dict(read_tensors(path, ""))
    assert is_mapped(path)
    views.clear()
    assert not is_mapped(path)
    live = tiny_live(job)
    restore(path, live)
    assert not is_mapped(path)
    network = job.task.network()
    load_network(path, network)
    assert not is_mapped(path)
    # Alive until here: what they keep would be mapped.
    assert tensors_of(live) and network.state_dict()
