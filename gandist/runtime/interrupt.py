"""An order to end that is heard as Ctrl-C, so that what was begun is put back before the process ends."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_ORDERS = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def orders_interrupt() -> Iterator[None]:
    """Raise :class:`KeyboardInterrupt` where TERM or HUP arrives; one that is ignored stays so."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    heard = [number for number in _ORDERS if signal.getsignal(number) != signal.SIG_IGN]
    previous = {number: signal.signal(number, interrupt) for number in heard}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
