"""How every worker process of ours begins: quiet, deaf to Ctrl-C, and never without its parent;
and how one that works ends when it is asked to.
"""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


def begin_worker() -> None:
    """What a worker process does first; the parent alone decides what Ctrl-C means."""
    # It goes to every process of the terminal.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    quiet_libraries()
    end_with_parent()


def quiet_libraries() -> None:
    """Ignore libraries' warnings, unless Python was asked to show them.

    They may quote headers; what matters has a code and is said by us.
    """
    if not sys.warnoptions:
        warnings.simplefilter("ignore")


def end_with_parent() -> None:
    """End this process as soon as the one that started it is gone, however it went.

    A parent that was killed tells nobody: its workers would wait for work for ever, and hold
    memory, locks and the terminal. Does nothing in a process that nobody started.
    """
    # Imported here: the command line takes only the quiet of this module.
    import threading
    from multiprocessing import parent_process
    from multiprocessing.connection import wait

    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Let SIGTERM, which schedulers send, end this process as Ctrl-C does: tidied up, with a word.

    Outside the main thread signals cannot be taken: nothing changes there.
    """
    import threading

    if threading.current_thread() is not threading.main_thread():
        yield
        return

    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
