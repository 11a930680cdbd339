"""Ctrl-C, SIGTERM, a closed terminal: the first ends the work cleanly, the second at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# Windows has no terminal that hangs up.
_HANG_UP: int | None = getattr(signal, "SIGHUP", None)
_STOPPING: tuple[int, ...] = (
    *(signal.SIGINT, signal.SIGTERM),
    *(() if _HANG_UP is None else (_HANG_UP,)),
)


class Interrupted(KeyboardInterrupt):
    """A signal asked the work to stop.

    Not an Exception, so that no library mistakes it for a failure of its own. Nothing needs to be
    saved when it arrives: a clip is either committed or it does not exist.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__()
        self.signal_number = signal_number


# The signal that asks the work under way to stop.
_received: list[int] = []


def raise_again() -> None:
    """Raise `Interrupted` if a signal came and the work went on all the same.

    Python drops what is raised in a finalizer, a signal that arrives there included; so whatever
    the work passes often asks here.
    """
    if _received and threading.current_thread() is threading.main_thread():
        raise Interrupted(_received[0])


@contextmanager
def stop_on_signals() -> Iterator[None]:
    """Raise `Interrupted` in the main thread at the first signal, leave the process at the second.

    Python runs a handler between two operations, so the work stops inside the denoising step, as
    soon as the operation under way has returned.
    """

    def handle(signal_number: int, frame: FrameType | None) -> None:
        if _received:
            os._exit(128 + signal_number)
        _received.append(signal_number)
        raise Interrupted(signal_number)

    wanted = list(_STOPPING)
    if _HANG_UP is not None and signal.getsignal(_HANG_UP) == signal.SIG_IGN:
        wanted.remove(_HANG_UP)  # `nohup` means a run to outlive its terminal.
    previous = {number: signal.signal(number, handle) for number in wanted}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        _received.clear()
