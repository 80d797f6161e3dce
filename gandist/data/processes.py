"""Worker processes: how they start, which signals they heed, and that they never outlive the process they serve."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import signal
import threading
from multiprocessing.context import ForkServerContext

_LEFT_TO_THE_PARENT = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
_WATCH_SECONDS = 1.0


def worker_context(preload: str) -> ForkServerContext:
    """Return the context that workers are started from, and begin to start it.

    Workers are forked from a small server process that has imported ``preload`` and nothing else: they start in
    milliseconds, and inherit neither threads nor a GPU from the process they serve. A signal to the whole process group
    (Ctrl-C, a batch system's warning) is for the parent alone: it still needs its workers to save and stop in order.

    Args:
        preload: the module that holds what the workers run.

    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([preload])
    unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, _LEFT_TO_THE_PARENT)
    try:  # what starts now inherits the blocked signals; in this process they are delivered afterwards
        multiprocessing.resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, _LEFT_TO_THE_PARENT)  # the call above unblocks some of them
        multiprocessing.forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
    return context


def begin_worker(_number: int = 0) -> None:
    """Set up a worker process: it ignores what is meant for its parent, and ends when its parent does or says so.

    Watching the parent is our own task: the server that workers descend from lives on as long as one of them does.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _LEFT_TO_THE_PARENT)  # before the thread starts, which inherits it
    threading.Thread(target=_watch_parent, name="watch-parent", daemon=True).start()


def _watch_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "begin_worker was called outside a worker"
    while not multiprocessing.connection.wait([parent.sentinel], timeout=0):
        received = signal.sigtimedwait(_LEFT_TO_THE_PARENT, _WATCH_SECONDS)
        if received is not None and received.si_signo == signal.SIGTERM and received.si_pid == parent.pid:
            break  # how multiprocessing ends a worker that does not end by itself
    os._exit(0)
