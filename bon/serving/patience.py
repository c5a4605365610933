"""How long is asked again: for one request, and for a server that answers nothing any more."""

from __future__ import annotations

import math
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from bon.serving.faults import Fault
from bon.serving.messages import Check, ServerRequest
from bon.shown import shown

__all__ = ["Patience", "Tried"]

_TOLD_AFTER_S = 2.0
"""A shorter time without an answer is not worth a line."""
_MOST_FAULTS = 5
_MOST_TIMEOUTS = 3


@dataclass(slots=True, eq=False)
class Tried:
    """What one request has been through."""

    request: ServerRequest
    check: Check | None = None
    url: str | None = None
    """Of the server that is to answer; none: any."""
    last_url: str | None = None
    """Of the server that was asked last."""
    asked_s: float = -math.inf
    """When that was."""
    first_fault_s: float = math.inf
    fault_s: float = -math.inf
    """When it failed last."""
    num_faults: Counter[str] = field(default_factory=Counter)
    """By the reason of the drop that it may end in."""
    is_suspect: bool = False
    """It wore out, but maybe the server was down meanwhile: from then on a fault counts only where
    the server answered others since the one before."""

    def is_worn_out(self, fault: Fault) -> bool:
        """Tell whether it has failed so often that it may be at fault itself."""
        most = _MOST_TIMEOUTS if fault.cause == "timeout" else _MOST_FAULTS
        return bool(fault.reason) and self.num_faults[fault.reason] >= most

    def suspect(self, *, needs_all: bool) -> None:
        """Give it another chance: one more, or as many as at first (`needs_all`)."""
        self.is_suspect = True
        for reason in self.num_faults:
            self.num_faults[reason] = 0 if needs_all else self.num_faults[reason] - 1


class Patience:
    """Knows since when nothing was answered, and says so in the log."""

    def __init__(self, patience_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.patience_s = patience_s
        self._clock = clock
        self._failing_since_s: float | None = None
        self._answered_asked_s: dict[str, float] = {}
        """By URL, when the latest of the requests that were answered was asked."""
        self._news_s = -math.inf
        """When something was answered for the first time."""
        self._is_told = self._is_rate_told = False

    def note_attempt(self, tried: Tried, url: str) -> None:
        """A request goes to a server."""
        tried.last_url, tried.asked_s = url, self._clock()

    def note_answer(self, tried: Tried, *, is_probe: bool = False) -> None:
        """A server answered what it was asked; `is_probe`: what it had answered before."""
        url = str(tried.last_url)
        self._answered_asked_s[url] = max(self._answered_asked_s.get(url, -math.inf), tried.asked_s)
        if not is_probe:
            self._news_s = self._clock()
        self.note_life()

    def note_life(self) -> None:
        """A server gave a reason why it does not answer this."""
        if self._is_told:
            _log("the server answers again")
        self._failing_since_s, self._is_told = None, False

    def note_fault(self, tried: Tried, fault: Fault) -> bool:
        """A request failed; tells whether that may be its own fault."""
        now_s = self._clock()
        if not tried.is_suspect or self.has_answered(tried.last_url, tried.fault_s):
            tried.num_faults[fault.reason] += 1
        tried.first_fault_s, tried.fault_s = min(tried.first_fault_s, now_s), now_s
        if fault.is_rate and not self._is_rate_told:
            self._is_rate_told = True
            _log(f"{fault.detail}; asking fewer at once until more are answered")
        if self._failing_since_s is None:
            self._failing_since_s = now_s
        elif not self._is_told and now_s - self._failing_since_s > _TOLD_AFTER_S:
            self._is_told = True
            _log(f"{fault.detail}; asking again for up to {self.patience_s:g} s")
        return tried.is_worn_out(fault)

    def has_answered(self, url: str | None, since_s: float) -> bool:
        """Tell whether a server answered what it was asked after a time.

        One that is on its way down ends what it has begun: such answers say nothing.
        """
        return self._answered_asked_s.get(str(url), -math.inf) > since_s

    def is_stuck(self, tried: Tried) -> bool:
        """Tell whether a request, and whatever else was asked, waits for longer than is waited."""
        return self._clock() - max(tried.first_fault_s, self._news_s) > self.patience_s

    def is_over(self) -> bool:
        """Tell whether nothing was answered for longer than is waited."""
        since_s = self._failing_since_s
        return since_s is not None and self._clock() - since_s > self.patience_s


def _log(text: str) -> None:
    print(shown(f"{time.strftime('%H:%M:%S')} {text}"), file=sys.stderr, flush=True)
