"""Clipping by hand, arithmetic by name, and the state of 16-bit training through a resume."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision import MixedPrecision
from tiny_training import tiny_job, tiny_live, tiny_task

from medtool.core.checkpoint import read_header
from medtool.core.errors import MachineError
from medtool.data.run_folder import RunFolder
from medtool.nets.state import read_tensors
from medtool.train.devices import clip, make_fabric
from medtool.train.loop import training_loop
from medtool.train.plan import make_plan
from medtool.verbs.train_run import Order, learn, new_network


def test_a_gradient_is_scaled_down_to_the_largest_norm_and_never_up() -> None:
    fabric = make_fabric("cpu")
    network = torch.nn.Linear(2, 1, bias=False)
    optimiser = torch.optim.SGD(network.parameters(), lr=1.0)
    for largest, wanted in ((1.0, [0.6, 0.8]), (10.0, [3.0, 4.0]), (0.0, [3.0, 4.0])):
        # A gradient of norm 5.
        network.weight.grad = torch.tensor([[3.0, 4.0]])
        clip(fabric, network, optimiser, largest)
        assert network.weight.grad[0].tolist() == pytest.approx(wanted)


def test_a_step_moves_the_weights_by_no_more_than_rate_times_clip(tmp_path: Path) -> None:
    # Plain gradient descent: the whole movement is rate x clipped gradient.
    train = {"optimiser": "sgd", "momentum": 0.0, "weight_decay": 0.0, "batch_cases": 8}
    moved = []
    for limit in (0.0, 0.01):
        task = tiny_task(epochs=1, learning_rate=0.5, gradient_clip=limit, **train)
        job = tiny_job(tmp_path, task)
        live = tiny_live(job)
        before = torch.cat([p.detach().flatten().clone() for p in live.network.parameters()])
        list(training_loop(job, live))
        after = torch.cat([p.detach().flatten() for p in live.network.parameters()])
        moved.append(float((after - before).norm()))
    assert moved[0] > 0.1
    assert moved[1] == pytest.approx(0.5 * 0.01, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "arithmetic"), [("auto", "32-true"), ("32", "32-true"), ("bf16", "bf16-mixed")]
)
def test_arithmetic_on_a_processor_by_name(name: str, arithmetic: str) -> None:
    assert make_fabric("cpu", precision=name).strategy.precision.precision == arithmetic


def test_bfloat16_is_what_the_network_computes_in(tmp_path: Path) -> None:
    plain = tiny_job(tmp_path, tiny_task(epochs=1))
    reduced = replace(plain, fabric=make_fabric("cpu", precision="bf16"))
    rows = []
    for job in (plain, reduced):
        live = tiny_live(job)
        list(training_loop(job, live))
        rows.append(live.history[0]["loss"])
        assert all(p.dtype == torch.float32 for p in live.network.parameters())
    # Near, since the weights stay in float32, but not the same: 8 bits of mantissa.
    assert rows[0] != rows[1] == pytest.approx(rows[0], rel=0.05)


def test_a_processor_has_no_16_bit_floats() -> None:
    with pytest.raises(MachineError, match="16-bit"):
        make_fabric("cpu", precision="16")


def test_devices_that_are_not_there_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(MachineError, match="no device 'cuda'"):
        make_fabric("cuda")


def sixteen_bits() -> Fabric:
    """Fabric for 16-bit floats on a processor, as a GPU has them: losses are scaled."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20, growth_interval=3)
    return Fabric(accelerator="cpu", plugins=[MixedPrecision("16-mixed", "cpu", scaler)])


def order_of(folder: Path, run: str, **changes: object) -> Order:
    job = tiny_job(folder, tiny_task(epochs=4, checkpoint_every_epochs=1, keep=9))
    network = new_network(job.task)
    groups = job.task.groups(network)
    order = Order(
        task=job.task,
        training=tuple(job.training),
        selection=tuple(job.selection),
        prepared=job.prepared,
        plan=make_plan(job.task.settings.train, list(groups), cases=len(job.training)),
        run=folder / run,
        base={"task": job.task.name},
        weights={name: tensor.clone() for name, tensor in network.state_dict().items()},
    )
    return replace(order, **changes)  # type: ignore[arg-type]


def test_the_scale_of_16_bit_losses_survives_a_resume(tmp_path: Path) -> None:
    learn(sixteen_bits(), order_of(tmp_path, "whole"))
    whole = RunFolder(tmp_path / "whole").checkpoints_folder
    middle = whole / "epoch_0001.safetensors"
    scales = [
        read_header(path).document["live"]["scaler"]
        for path in (middle, whole / "last.safetensors")
    ]
    # It moved within the run, so that a fresh one would not give the same steps.
    assert scales[0]["scale"] != 2.0**20
    learn(sixteen_bits(), order_of(tmp_path, "again", resume=middle))
    again = RunFolder(tmp_path / "again").checkpoints_folder / "last.safetensors"
    assert read_header(again).document["live"]["scaler"] == scales[1]
    wanted = dict(read_tensors(whole / "last.safetensors", "model."))
    for name, tensor in read_tensors(again, "model."):
        assert torch.equal(tensor, wanted[name]), name
