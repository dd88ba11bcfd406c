"""Two nodes, as processes that SLURM or torchrun would start, on this machine's own network."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from tiny_plugin import install_plugin
from tiny_task import write_tiny_cohort

from medtool.core.checkpoint import read_header, verify_tensors
from medtool.core.errors import UsageError
from medtool.data.run_folder import RunFolder
from medtool.train.devices import make_fabric
from medtool.train.nodes import connect

ROOT = Path(__file__).parents[2]
PATHS = (ROOT, ROOT / "plugins", ROOT / "tests" / "support")
LONGEST_S = 100
ENDLESS = "train.epochs=5000"


def free_port() -> int:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return int(door.getsockname()[1])


def train_words(run: str, *more: str, batch: int = 2) -> list[str]:
    settings = (f"train.batch_cases={batch}", "metrics.bootstrap_draws=100")
    words = ["train", "tiny", "--device", "cpu", "--workers", "0", "--run", run, *more]
    return [*words, *(word for setting in settings for word in ("--set", setting))]


def start(folder: Path, words: list[str], **environment: str) -> subprocess.Popen[str]:
    """One process of the command line, in which the tiny task is installed."""
    path = os.pathsep.join(map(str, (*PATHS, folder / "site")))
    return subprocess.Popen(
        [sys.executable, "-m", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, **environment},  # noqa: TID251 - a child's
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def two_of_slurm(folder: Path, *words: str) -> list[subprocess.Popen[str]]:
    """What ``srun`` starts in a job of two nodes, with what it tells each process."""
    job = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "1",
        "SLURM_NNODES": "2",
        "SLURM_LOCALID": "0",
    }
    return [
        start(folder, ["medtool.cli.app", *words], **job, SLURM_PROCID=rank, SLURM_NODEID=rank)
        for rank in ("0", "1")
    ]


def two_of_torchrun(folder: Path, *words: str) -> list[subprocess.Popen[str]]:
    """``torchrun`` on each of two nodes; after ``--`` it takes no option for its own."""
    same = ["torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    same += ["--master-addr", "127.0.0.1", "--master-port", str(free_port())]
    return [
        start(folder, [*same, "--node-rank", rank, "-m", "--", "medtool.cli.app", *words])
        for rank in ("0", "1")
    ]


def ends(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    """Status, stdout and stderr of each; none is left behind."""
    try:
        said = [process.communicate(timeout=LONGEST_S) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(p.returncode, *texts) for p, texts in zip(processes, said, strict=True)]


def wait_for_epoch(run: RunFolder, process: subprocess.Popen[str]) -> None:
    last = run.checkpoints_folder / "last.safetensors"
    before = last.stat().st_mtime_ns if last.is_file() else 0
    while process.poll() is None and (not last.is_file() or last.stat().st_mtime_ns == before):
        time.sleep(0.02)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    install_plugin(tmp_path / "site")
    cohort = tmp_path / "cohort"
    cohort.mkdir()
    write_tiny_cohort(cohort, patients=16)
    (cohort / "site").symlink_to(tmp_path / "site")
    return cohort


def test_two_nodes_give_the_weights_of_one_process_and_one_report(folder: Path) -> None:
    both = ends(two_of_torchrun(folder, *train_words("both", "--nodes", "2")))
    assert [status for status, _, _ in both] == [0, 0], both
    (alone,) = ends([start(folder, ["medtool.cli.app", *train_words("alone", batch=4)])])
    assert alone[0] == 0, alone
    runs = [RunFolder(folder / "runs" / "tiny" / name) for name in ("both", "alone")]
    two, one = (load_file(run.checkpoints_folder / "last.safetensors") for run in runs)
    for name, wanted in one.items():
        if name.startswith("model."):
            np.testing.assert_allclose(two[name], wanted, rtol=0, atol=1e-5)
    # What belongs to a run is there once, and said once.
    assert [run.name for run in (folder / "runs" / "tiny").iterdir() if run.name != "alone"] == [
        "both"
    ]
    names = [
        {path.name for path in run.path.rglob("*") if "events" not in path.parts} for run in runs
    ]
    assert names[0] == names[1]
    assert both[0][1].startswith("medtool infer SCANS --checkpoint")
    assert both[1][1] == ""
    assert "Epoch" not in both[1][2] and "Report" not in both[1][2]
    assert runs[0].read_run()["environment"]["WORLD_SIZE"] == "2"


def test_a_refusal_of_the_first_process_ends_both_and_is_said_once(folder: Path) -> None:
    (folder / "empty").mkdir()
    words = train_words("refused", "--nodes", "2", "--data", "empty")
    first, second = ends(two_of_slurm(folder, *words))
    assert first[0] == second[0] == 3, (first, second)
    assert "medtool: No tiny scans were found." in first[2]
    assert second[1:] == ("", "")


@pytest.mark.parametrize("whom", ["both", "first"])
def test_sigterm_ends_both_with_all_saved_and_the_run_goes_on(folder: Path, whom: str) -> None:
    run = RunFolder(folder / "runs" / "tiny" / "stopped")
    words = train_words("stopped", "--nodes", "2", "--start-or-resume", "--set", ENDLESS)
    steps = [0]
    for _ in range(2):
        processes = two_of_slurm(folder, *words)
        wait_for_epoch(run, processes[0])
        for process in processes if whom == "both" else processes[:1]:
            process.send_signal(signal.SIGTERM)
        first, second = ends(processes)
        assert first[0] == second[0] == 130, (first, second)
        assert "Stopped; everything learned so far is saved." in first[2]
        assert second[1:] == ("", "")
        header = read_header(run.checkpoints_folder / "last.safetensors")
        assert verify_tensors(header) == []
        steps.append(header.document["step"])
    assert steps[0] < steps[1] < steps[2]


def test_a_process_that_is_killed_ends_the_other(folder: Path) -> None:
    run = RunFolder(folder / "runs" / "tiny" / "killed")
    words = train_words("killed", "--nodes", "2", "--start-or-resume", "--set", ENDLESS)
    for victim, said in ((0, "The first process"), (1, "A process")):
        processes = two_of_slurm(folder, *words)
        wait_for_epoch(run, processes[0])
        processes[victim].kill()
        killed_at = time.monotonic()
        left = ends(processes)[1 - victim]
        assert left[0] == 5, left
        assert f"{said} of the training ended before its time." in left[2]
        # Noticed by the connection, not by a time-out of half an hour.
        assert time.monotonic() - killed_at < 40


SLOW_PREPARATION = """
import sys, time
from medtool.cli.app import main
from medtool.verbs import train_prepare
def make_ready(*_, **__):
    print("preparing", file=sys.stderr, flush=True)
    time.sleep(600)
train_prepare.make_ready = make_ready
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("number", "statuses"), [(signal.SIGTERM, [130, 130]), (signal.SIGKILL, [-9, 5])]
)
def test_who_waits_for_a_preparation_notices_its_end(
    folder: Path, number: signal.Signals, statuses: list[int]
) -> None:
    (folder / "slow_preparation.py").write_text(SLOW_PREPARATION)
    words = train_words("slow", "--nodes", "2")
    port = str(free_port())
    processes = [
        start(
            folder,
            ["slow_preparation", *words],
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=port,
            NODE_RANK=rank,
            LOCAL_RANK="0",
        )
        for rank in ("0", "1")
    ]
    assert processes[0].stderr is not None
    assert processes[0].stderr.readline() == "preparing\n"
    processes[0].send_signal(number)
    first, second = ends(processes)
    assert [first[0], second[0]] == statuses, (first, second)
    gone = "The first process of the training ended before its time."
    assert (gone in second[2]) == (number == signal.SIGKILL)


def launched(monkeypatch: pytest.MonkeyPatch, **environment: str) -> Callable[[], object]:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return lambda: connect("cpu", devices=1, nodes=2)


def test_several_nodes_need_someone_who_starts_them(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="Nothing started the processes") as error:
        launched(monkeypatch)()
    assert "srun" in error.value.how


@pytest.mark.parametrize(
    ("ntasks", "per_node"), [("3", "1"), ("2", "2"), ("2", None)], ids=["all", "node", "unknown"]
)
def test_another_number_of_processes_is_refused(
    monkeypatch: pytest.MonkeyPatch, ntasks: str, per_node: str | None
) -> None:
    told = {"SLURM_NTASKS": ntasks, "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}
    if per_node is not None:
        told["SLURM_NTASKS_PER_NODE"] = per_node
    with pytest.raises(UsageError, match="do not fit the options"):
        launched(monkeypatch, **told)()


def test_processes_of_one_machine_are_ours_within_a_job_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    launched(monkeypatch, SLURM_NTASKS="1", SLURM_PROCID="0", SLURM_LOCALID="0", SLURM_NODEID="0")
    assert make_fabric("cpu", devices=2).world_size == 2
