"""The processes of several nodes: who they are, and what the first one says to the others.

torch or SLURM start them; Fabric reads from their environment which one each is. Beside the
connections that gradients take, the first process keeps a small store of words that the others
look into: one may come after hours of preparation, or while they are in the middle of a step. The
store is gone as soon as the first process is.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum
from typing import Any

from torch import distributed

# Public by its documentation, though its stub does not say so.
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from medtool.core.errors import ExitStatus, MachineError, UsageError
from medtool.train.devices import make_fabric

# How often a waiting process looks for a word.
POLL_S = 0.1
# How long the first process, at its end, waits until all have heard why.
FAREWELL_S = 10.0


class Word(IntEnum):
    """What the first process says: learn this, all is done, or it ended before its time."""

    LEARN = 1
    DONE = 2
    ENDED = 3


@dataclass(frozen=True)
class Said:
    """One word, with what comes with it: an order, a result or an exit status."""

    word: Word
    value: Any = None


class LinkLost(Exception):
    """Another process is gone."""


class Link:
    """How the first process (``first``) speaks to the others, who listen.

    ``address`` is where the others reach the first process.
    """

    def __init__(self, address: str) -> None:
        self._group = distributed.new_group(backend="gloo")
        self._rank = distributed.get_rank()
        self.first = self._rank == 0
        self._others = range(1, distributed.get_world_size())
        self._count = 0
        store = TCPStore(address, 0, is_master=True) if self.first else None
        port = self._shared(store.port if store is not None else None)
        self._store = store or TCPStore(address, port)

    def _shared(self, value: Any) -> Any:
        """The first process's ``value``, in all: every process must be there for it."""
        box = [value]
        distributed.broadcast_object_list(box, 0, group=self._group)
        return box[0]

    def say(self, word: Word, value: Any) -> None:
        """Tell the others; ``value`` is any object that can be pickled, a status for ENDED.

        An end is told to those who are there; else raises LinkLost where one of them is gone.
        """
        if word is Word.ENDED:
            self._store.set(self._key(), f"{int(word)} {int(value)}")
            # Who waits in the middle of a step is let go, and looks for the reason.
            self.drop()
            with suppress(RuntimeError):
                heard = [f"heard {rank}" for rank in self._others]
                self._store.wait(heard, timedelta(seconds=FAREWELL_S))
            return
        self._store.set(self._key(), f"{int(word)} 0")
        self._count += 1
        try:
            self._shared(value)
        except RuntimeError as error:
            raise LinkLost(str(error)) from error

    def hear(self, patience_s: float) -> Said | None:
        """The next word; None when none came within ``patience_s``.

        Raises LinkLost where the first process is gone.
        """
        end = time.monotonic() + patience_s
        try:
            while not self._store.check([self._key()]):
                if time.monotonic() >= end:
                    return None
                time.sleep(POLL_S)
            word, status = map(int, self._store.get(self._key()).split())
            if word == Word.ENDED:
                self._store.set(f"heard {self._rank}", "")
                return Said(Word.ENDED, ExitStatus(status))
            self._count += 1
            return Said(Word(word), self._shared(None))
        except RuntimeError as error:
            raise LinkLost(str(error)) from error

    def _key(self) -> str:
        return f"word {self._count}"

    def part(self) -> None:
        """End the connections at the end of a whole run, once every process is there."""
        # An other end that has gone first harms nothing now.
        with suppress(RuntimeError):
            distributed.barrier(group=self._group)
        self.drop()

    def drop(self) -> None:
        """End the connections at once."""
        if distributed.is_initialized():
            distributed.destroy_process_group()


def broke_off(error: BaseException) -> bool:
    """Whether an exception came from a connection whose other end is gone.

    gloo has no class for it: its messages begin with the file of gloo that raised them.
    """
    return isinstance(error, LinkLost | distributed.DistError) or (
        isinstance(error, RuntimeError) and "gloo" in str(error)
    )


def connect(device: str = "auto", *, devices: int, nodes: int) -> Link:
    """Join the other processes of a run, which torch or SLURM started with this one.

    Raises UsageError where nobody started them or their number is another, MachineError where
    they cannot be reached or a device is missing.
    """
    wanted = devices * nodes
    try:
        fabric = make_fabric(device, devices=devices, nodes=nodes)
        environment: Any = getattr(fabric.strategy, "cluster_environment", None)
        if not environment.creates_processes_externally:
            raise UsageError(
                "Nothing started the processes of several nodes.",
                met=f"--devices {devices} --nodes {nodes}, and one process that knows no other",
                wanted=f"{wanted} processes, one a device",
                how="start the command with srun or torchrun; docs/verbs/train.md shows both.",
            )
        if environment.world_size() != wanted:
            raise _wrong_number(f"{environment.world_size()} processes", devices, nodes)
        # What it notes of a connection is for those who program it.
        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
        fabric.launch()
        return Link(environment.main_address)
    except distributed.DistError as error:
        raise MachineError(
            "The processes of the other nodes cannot be reached.",
            met=_first_line(error),
            how="see that all were started, and that MASTER_ADDR and MASTER_PORT are right.",
        ) from error
    except (ValueError, RuntimeError) as error:
        # Fabric compares what SLURM or torch say of the job with what it was asked.
        raise _wrong_number(_first_line(error), devices, nodes) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or repr(error)).splitlines()[0]


def _wrong_number(met: str, devices: int, nodes: int) -> UsageError:
    return UsageError(
        "The processes that were started do not fit the options.",
        met=met,
        wanted=f"--devices {devices} on each of --nodes {nodes}: {devices * nodes} processes",
        how="ask srun (--ntasks-per-node) or torchrun (--nproc-per-node) for as many as --devices.",
    )
