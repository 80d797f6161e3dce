"""Worker processes: how they start, which signals they heed, and that they never outlive the process they serve."""

from __future__ import annotations

import ctypes
import multiprocessing
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import signal
from multiprocessing.context import ForkServerContext

_LEFT_TO_THE_PARENT = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
_PR_SET_PDEATHSIG = 1


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
    """Set up a worker: ignore what is meant for the parent, and die with the server, which dies with the parent."""
    for number in _LEFT_TO_THE_PARENT:
        signal.signal(number, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
