"""One run in the processes of several nodes.

The first process makes ready and finishes, as if it were alone; the others wait for its order,
learn with it, and end as it ends. What is to be said to a person, the first one says.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from medtool.core.errors import EndedElsewhere, ExitStatus, MachineError, MedtoolError
from medtool.core.processes import sigterm_interrupts
from medtool.train.nodes import Link, LinkLost, Said, Word, broke_off, connect
from medtool.verbs.train_options import TrainOptions, TrainResult
from medtool.verbs.train_run import Order, fabric_of, learn, stop_signals

# How often a waiting process looks whether it was asked to stop.
LOOK_S = 1.0
# How long a process that failed, or was asked to stop, waits for the first one to say the same.
GRACE_S = 15.0


def train_on_nodes(options: TrainOptions, whole: Callable[[Link], TrainResult]) -> TrainResult:
    """Do the ``whole`` run in the first process, and take part in it in the others.

    The result is that of the first process; ``first`` tells which one has it at first hand.
    Raises what ``train`` raises, in the other processes EndedElsewhere for it; MachineError where
    a process is gone.
    """
    link = connect(options.run.device, devices=options.run.devices, nodes=options.run.nodes)
    return _lead(link, whole) if link.first else _follow(link, options)


def _lead(link: Link, whole: Callable[[Link], TrainResult]) -> TrainResult:
    try:
        with sigterm_interrupts():
            result = whole(link)
        link.say(Word.DONE, result)
    except BaseException as error:
        lost = broke_off(error)
        link.say(Word.ENDED, ExitStatus.MACHINE if lost else _status(error))
        if lost:
            raise _gone("A process of the training ended before its time.") from error
        raise
    link.part()
    return result


def _status(error: BaseException) -> ExitStatus:
    if isinstance(error, MedtoolError):
        return error.exit_status
    if isinstance(error, KeyboardInterrupt):
        return ExitStatus.INTERRUPTED
    # What the machine refuses has no class of ours everywhere.
    return ExitStatus.MACHINE if isinstance(error, OSError | MemoryError) else ExitStatus.BUG


def _gone(what: str) -> MachineError:
    return MachineError(
        what,
        how="see what its node said; the run goes on from its last checkpoint with --resume.",
    )


def _follow(link: Link, options: TrainOptions) -> TrainResult:
    try:
        with stop_signals() as asked:
            while True:
                said = _next(link, asked)
                if said.word is Word.DONE:
                    link.part()
                    result: TrainResult = said.value
                    return replace(result, first=False)
                if said.word is Word.ENDED:
                    raise EndedElsewhere(said.value)
                _learn(link, said.value, options)
    except LinkLost as error:
        raise _gone("The first process of the training ended before its time.") from error
    finally:
        link.drop()


def _next(link: Link, asked: Callable[[], bool]) -> Said:
    """The first process's next word, however long it takes.

    Raises KeyboardInterrupt where this process was asked to stop and the first one says nothing.
    """
    said = None
    while said is None and not asked():
        said = link.hear(LOOK_S)
    if said is None:
        with suppress(LinkLost):
            said = link.hear(GRACE_S)
        if said is None or said.word is Word.LEARN:
            raise KeyboardInterrupt
    return said


def _learn(link: Link, order: Order, options: TrainOptions) -> None:
    """Learn beside the first process; where both fail, the first one says why.

    Raises LinkLost where the first process is gone, else what ``learn`` raises.
    """
    try:
        fabric = fabric_of(order.task, options)
        fabric.launch()
        learn(fabric, order)
    except Exception as error:
        try:
            said = link.hear(GRACE_S)
        except LinkLost:
            if broke_off(error):
                # The step broke off because the first process was gone.
                raise
            raise error from None
        if said is None or said.word is not Word.ENDED:
            raise
        raise EndedElsewhere(said.value) from error
