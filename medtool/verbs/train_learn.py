"""Start the learning: in this process, or in one for each device, on one node or several."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medtool.core.progress import Reporter
from medtool.data.run_folder import RunFolder
from medtool.verbs.train_options import TrainOptions
from medtool.verbs.train_prepare import Ready
from medtool.verbs.train_run import Learned, fabric_of, learn

if TYPE_CHECKING:
    from medtool.train.nodes import Link


def start_learning(
    ready: Ready,
    options: TrainOptions,
    run: RunFolder,
    reporter: Reporter,
    link: Link | None = None,
) -> Learned:
    """Learn as ``ready.order`` says, on the devices that were asked for.

    ``link`` leads to the processes of other nodes. Raises MachineError where a device is missing.
    """
    fabric = fabric_of(ready.order.task, options)
    run.log(f"Learning on {options.run.devices * options.run.nodes} device(s).")
    if link is not None:
        from medtool.train.nodes import Word

        link.say(Word.LEARN, ready.order)
    if link is not None or options.run.devices == 1:
        fabric.launch()
        return learn(fabric, ready.order, reporter)
    from medtool.verbs.train_processes import learn_in_processes

    return learn_in_processes(fabric, ready.order, reporter)
