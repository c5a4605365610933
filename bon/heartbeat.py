"""Signs of life: code that works for long says so, and a watchdog tells work from a hang.

A worker process installs where the signs go; without that, they go nowhere.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["beat", "beating", "send_beats_to"]

_EVERY_S = 1.0


class _Heart:
    send: Callable[[], None] | None = None
    last_s = 0.0


def beat() -> None:
    """Say that work goes on; cheap enough for every batch and every step of decoding."""
    if _Heart.send is None:
        return
    now_s = time.monotonic()
    if now_s - _Heart.last_s >= _EVERY_S:
        _Heart.last_s = now_s
        _Heart.send()


@contextmanager
def beating() -> Iterator[None]:
    """Say that work goes on for as long as the block runs.

    For what is bounded by limits of its own (requests to a server) or not ours to bound (a user's
    function).
    """
    done = threading.Event()

    def keep_beating() -> None:
        while not done.wait(_EVERY_S):
            beat()

    thread = threading.Thread(target=keep_beating, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def send_beats_to(send: Callable[[], None] | None) -> None:
    """Have `beat` call a function, at most once a second; none: nothing again."""
    _Heart.send, _Heart.last_s = send, 0.0
