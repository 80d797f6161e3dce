"""Looks through all shards of a lot, in several processes and in their order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tqdm import tqdm

from gandist.data.processes import begin_worker, worker_context
from gandist.data.remote.address import is_remote, shown
from gandist.data.remote.cache import Cache
from gandist.data.survey.locate import Lot
from gandist.data.survey.probe import Findings, Question, probe
from gandist.data.survey.report import damaged
from gandist.errors import DataError, MachineError

_WORTH_A_POOL_BYTES = 32 << 20  # less is looked through before a pool has started
_TASKS_AHEAD = 4  # for each worker

Answer = Findings | DataError


def sweep(lot: Lot, question: Question, cache: Cache | None, workers: int | None) -> list[Findings]:
    """Return what each shard holds.

    Args:
        lot: the shards.
        question: what is asked of each.
        cache: where shards from afar are kept meanwhile.
        workers: processes; one for each core when None, 0 for none.

    Raises:
        DataError: shards are damaged; the message names them all.
        MachineError: a worker died.

    """
    answers = list(_answers(lot, question, cache, workers))
    if faults := [answer for answer in answers if isinstance(answer, DataError)]:
        raise damaged(faults, len(answers))
    return [answer for answer in answers if not isinstance(answer, DataError)]


@contextmanager
def here(address: str, cache: Cache | None) -> Iterator[Path]:
    """Give the file of a shard on this machine, fetched if it lies elsewhere."""
    if not is_remote(address):
        yield Path(address)
        return
    assert cache is not None
    with cache.lease(address) as lease:
        yield lease.path


def _answer(task: tuple[str, str], question: Question, cache: Cache | None) -> Answer:
    """Look through one shard; an error is a value here, so that all shards are looked through."""
    address, url = task
    try:
        with here(address, cache) as path:
            return probe(path, shown(address), url, question)
    except DataError as error:
        return error


def _answers(lot: Lot, question: Question, cache: Cache | None, workers: int | None) -> Iterator[Answer]:
    """Yield what each shard holds, in their order."""
    tasks = [(lot.address(url), url) for url in lot.urls]
    sizes = [1 if lot.remote else _size(address) for address, _ in tasks]
    wanted = min(len(os.sched_getaffinity(0)) if workers is None else workers, len(tasks))
    if len(tasks) == 1 or not (lot.remote or sum(sizes) >= _WORTH_A_POOL_BYTES):
        wanted = 0
    ask = partial(_answer, question=question, cache=cache)
    unit = {"unit": " shards"} if lot.remote else {"unit": "B", "unit_scale": True}
    with tqdm(desc="shards", total=sum(sizes), disable=None, leave=False, **unit) as progress:
        answers = _in_pool(ask, tasks, wanted) if wanted else map(ask, tasks)
        for size, answer in zip(sizes, answers, strict=True):
            progress.update(size)
            yield answer


def _in_pool(ask: partial[Answer], tasks: Sequence[tuple[str, str]], workers: int) -> Iterator[Answer]:
    pool = ProcessPoolExecutor(workers, mp_context=worker_context(__name__), initializer=begin_worker)
    ahead: deque[Future[Answer]] = deque()
    try:
        for task in tasks:
            ahead.append(pool.submit(ask, task))
            if len(ahead) > workers * _TASKS_AHEAD:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    except BrokenProcessPool as error:
        raise MachineError(
            "A process that looks through shards died; usually the machine ran out of memory. Use fewer with --workers."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:
        return 0  # what is wrong with it is said when it is read
