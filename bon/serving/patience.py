"""How long is asked again: for one request, and for a server that answers nothing any more."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from bon.serving.faults import Fault
from bon.serving.messages import Check, ServerRequest

__all__ = ["Patience", "Tried"]

_TOLD_AFTER_S = 2.0
"""A shorter time without an answer is not worth a line."""
_MOST_FAULTS = 5
_MOST_TIMEOUTS = 3


@dataclass(slots=True)
class Tried:
    """What one request has been through."""

    request: ServerRequest
    check: Check | None = None
    url: str | None = None
    """Of the server that is to answer; none: any."""
    last_url: str | None = None
    """Of the server that was asked last."""
    first_fault_s: float | None = None
    num_faults: Counter[str] = field(default_factory=Counter)
    """By the reason of the drop that it may end in."""

    def is_worn_out(self, fault: Fault) -> bool:
        """Tell whether it has failed so often that it may be at fault itself."""
        most = _MOST_TIMEOUTS if fault.cause == "timeout" else _MOST_FAULTS
        return bool(fault.reason) and self.num_faults[fault.reason] >= most


class Patience:
    """Knows since when nothing was answered, and says so in the log."""

    def __init__(self, patience_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.patience_s = patience_s
        self._clock = clock
        self._failing_since_s: float | None = None
        self._answered_s: float | None = None
        self._is_told = False

    def note_answer(self) -> None:
        """A server answered what it was asked."""
        self._answered_s = self._clock()
        self.note_life()

    def note_life(self) -> None:
        """A server gave a reason why it does not answer this."""
        if self._is_told:
            _log("the server answers again")
        self._failing_since_s, self._is_told = None, False

    def note_fault(self, tried: Tried, fault: Fault) -> bool:
        """A request failed; tells whether that may be its own fault."""
        now_s = self._clock()
        if tried.first_fault_s is None:
            tried.first_fault_s = now_s
        tried.num_faults[fault.reason] += 1
        if self._failing_since_s is None:
            self._failing_since_s = now_s
        elif not self._is_told and now_s - self._failing_since_s > _TOLD_AFTER_S:
            self._is_told = True
            _log(f"{fault.detail}; asking again for up to {self.patience_s:g} s")
        has_waited = now_s - tried.first_fault_s > self.patience_s
        return tried.is_worn_out(fault) or (has_waited and fault.cause != "connection")

    def has_answered_others(self, tried: Tried) -> bool:
        """Tell whether there was an answer since a request first failed."""
        if self._answered_s is None or tried.first_fault_s is None:
            return False
        return self._answered_s > tried.first_fault_s

    def is_over(self) -> bool:
        """Tell whether nothing was answered for longer than is waited."""
        since_s = self._failing_since_s
        return since_s is not None and self._clock() - since_s > self.patience_s


def _log(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
