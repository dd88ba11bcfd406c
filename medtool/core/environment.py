"""The process's environment: the only file of medtool that touches ``os.environ``.

No setting of medtool is an environment variable. What others agreed on is read here (NO_COLOR,
what torch and SLURM set), two variables are written (one keeps a library from asking for updates,
one has torch ask for large pages), and what influenced a run is recorded for ``run.json``.
"""

from __future__ import annotations

import os

# https://no-color.org: set to anything but "", programs print no colour.
NO_COLOR = "NO_COLOR"

# albumentations asks PyPI for a newer version on import unless this is set; nothing of medtool
# may open a socket that nobody asked for.
NO_UPDATE_CHECK = "NO_ALBUMENTATIONS_UPDATE"

# torch asks Linux for pages of 2 MB where this is 1 as it first takes memory; elsewhere, and where
# the system has none to give, nothing changes.
LARGE_PAGES = "THP_MEM_ALLOC_ENABLE"

# What the libraries below medtool read when they are loaded: one thread pool a process is enough.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENCV_FOR_THREADS_NUM",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
    "BLOSC_NTHREADS",
)

# What decides how a run is spread over devices, threads and nodes. Names of users, hosts and
# accounts are left out on purpose: run.json travels with results.
RECORDED_VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "CUBLAS_WORKSPACE_CONFIG",
    "GROUP_RANK",
    "LOCAL_RANK",
    "MKL_NUM_THREADS",
    "NODE_RANK",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "PYTORCH_ALLOC_CONF",
    "PYTORCH_CUDA_ALLOC_CONF",
    "RANK",
    "SLURM_ARRAY_JOB_ID",
    "SLURM_ARRAY_TASK_ID",
    "SLURM_CPUS_PER_TASK",
    "SLURM_GPUS",
    "SLURM_GPUS_ON_NODE",
    "SLURM_JOB_ID",
    "SLURM_JOB_NUM_NODES",
    "SLURM_LOCALID",
    "SLURM_MEM_PER_CPU",
    "SLURM_MEM_PER_NODE",
    "SLURM_NNODES",
    "SLURM_NODEID",
    "SLURM_NTASKS",
    "SLURM_NTASKS_PER_NODE",
    "SLURM_PROCID",
    "SLURM_RESTART_COUNT",
    "TORCH_CUDNN_DETERMINISTIC",
    "TORCH_NUM_THREADS",
    "WORLD_SIZE",
)


def colour_forbidden() -> bool:
    """Whether the user asked all programs for output without colour."""
    return bool(os.environ.get(NO_COLOR))


def keep_imports_offline() -> None:
    """Call before a library that asks for updates is imported; worker processes inherit it."""
    os.environ[NO_UPDATE_CHECK] = "1"


def ask_for_large_pages() -> None:
    """Call before torch is imported by what answers images; a value of the user's own stays.

    A network that answers takes and gives back the memory of every map, and the system clears it in
    pages of 4 kB each time: a third of the seconds of ``infer petct`` on two cores, for 7 % more
    memory with large pages. Training gained nothing from them.
    """
    os.environ.setdefault(LARGE_PAGES, "1")


def limit_threads(count: int) -> None:
    """Let libraries that this process loads from now on use ``count`` threads each.

    For worker processes only: as many of them as there are cores would otherwise start as many
    threads each.
    """
    for name in THREAD_VARIABLES:
        os.environ[name] = str(count)


def recorded_environment() -> dict[str, str]:
    """What torch and SLURM read from the environment, for the record of a run."""
    return {name: os.environ[name] for name in RECORDED_VARIABLES if name in os.environ}
