"""Which of several servers is asked next."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from bon.serving.faults import Fault

__all__ = ["Endpoint", "Endpoints"]

_POLL_S = 0.05
_FIRST_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 5.0
_MOST_FAULTS = 3


@dataclass(slots=True)
class Endpoint:
    """One server; while it is down, one request at a time tries it."""

    url: str
    concurrency: int
    num_in_flight: int = 0
    num_taken: int = 0
    """Requests that it was given so far."""
    num_failures: int = 0
    """Since it was last well: connections that failed, and faults beyond the first few."""
    num_faults: int = 0
    """Faults since it last answered."""
    closed_until_s: float = 0.0
    """On the monotonic clock."""
    limit: float = field(init=False)
    """Most in flight: half as many after a 429, up to one more after as many answers."""
    lowered_s: float = -math.inf

    def __post_init__(self) -> None:
        self.limit = self.concurrency

    def has_room(self, now_s: float) -> bool:
        """Tell whether it may be asked now."""
        limit = 1 if self.num_failures else int(self.limit)
        return self.num_in_flight < limit and self.closed_until_s <= now_s

    def is_well(self) -> None:
        """It answered, or said why it does not."""
        self.num_failures, self.num_faults, self.closed_until_s = 0, 0, 0.0

    def note_answer(self) -> None:
        """It answered: it may be asked a little more at once."""
        self.is_well()
        self.limit = min(self.limit + 1 / self.limit, self.concurrency)

    def note(self, fault: Fault, asked_s: float = math.inf) -> None:
        """Leave it alone for a while where it is not reached, or does nothing but fail.

        One that fails at once would else be the least busy one, and draw all requests. One that
        wants to be asked less gets half as much; what was on its way by then (`asked_s`) had
        not known.
        """
        if fault.is_rate and asked_s > self.lowered_s:
            self.limit = max(min(self.limit, self.num_in_flight) / 2, 1)
            self.lowered_s = time.monotonic()
        if fault.is_busy:
            self.is_well()
            return
        self.num_faults += 1
        if fault.cause == "connection" or self.num_faults >= _MOST_FAULTS:
            self.is_lost()

    def is_lost(self) -> None:
        """Leave it alone for a while, longer each time."""
        pause_s = min(_FIRST_PAUSE_S * 2**self.num_failures, _LONGEST_PAUSE_S)
        self.num_failures = min(self.num_failures + 1, 30)
        self.closed_until_s = time.monotonic() + pause_s * random.uniform(0.75, 1.25)


class Endpoints:
    """Servers that share the load."""

    def __init__(self, urls: Sequence[str], concurrency: int) -> None:
        self._all = [Endpoint(url, concurrency) for url in urls]

    @property
    def num_at_once(self) -> int:
        """How many requests they take by now, at least one each."""
        return sum(int(one.limit) for one in self._all)

    async def take(self, url: str | None = None, *, avoid: str | None = None) -> Endpoint:
        """Wait for one with room, the one with the fewest requests in flight; or for `url`.

        Another than `avoid` where there is one. The caller gives it back.
        """
        while True:
            now_s = time.monotonic()
            ready = [one for one in self._all if one.has_room(now_s) and url in (None, one.url)]
            if ready:
                chosen = min(
                    ready, key=lambda one: (one.url == avoid, one.num_in_flight, one.num_taken)
                )
                chosen.num_in_flight += 1
                chosen.num_taken += 1
                return chosen
            # only while one is down or takes less: callers else never have more than there is room
            await asyncio.sleep(_POLL_S)

    def give_back(self, endpoint: Endpoint) -> None:
        """Say that a request has ended."""
        endpoint.num_in_flight -= 1
