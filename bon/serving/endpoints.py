"""Which of several servers is asked next."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Endpoint", "Endpoints"]

_POLL_S = 0.05
_FIRST_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 5.0


@dataclass(slots=True)
class Endpoint:
    """One server; while it is down, one request at a time tries it."""

    url: str
    concurrency: int
    num_in_flight: int = 0
    num_taken: int = 0
    """Requests that it was given so far."""
    num_failures: int = 0
    """Failed connections since one was made."""
    closed_until_s: float = 0.0
    """On the monotonic clock."""

    def has_room(self, now_s: float) -> bool:
        """Tell whether it may be asked now."""
        limit = 1 if self.num_failures else self.concurrency
        return self.num_in_flight < limit and self.closed_until_s <= now_s

    def is_reached(self) -> None:
        """It answered, whatever it said."""
        self.num_failures, self.closed_until_s = 0, 0.0

    def is_lost(self) -> None:
        """It could not be reached: leave it alone for a while."""
        pause_s = min(_FIRST_PAUSE_S * 2**self.num_failures, _LONGEST_PAUSE_S)
        self.num_failures = min(self.num_failures + 1, 30)
        self.closed_until_s = time.monotonic() + pause_s * random.uniform(0.75, 1.25)


class Endpoints:
    """Servers that share the load."""

    def __init__(self, urls: Sequence[str], concurrency: int) -> None:
        self._all = [Endpoint(url, concurrency) for url in urls]

    async def take(self, url: str | None = None) -> Endpoint:
        """Wait for one with room, the one with the fewest requests in flight; or for `url`.

        The caller gives it back.
        """
        while True:
            now_s = time.monotonic()
            ready = [one for one in self._all if one.has_room(now_s) and url in (None, one.url)]
            if ready:
                chosen = min(ready, key=lambda one: (one.num_in_flight, one.num_taken))
                chosen.num_in_flight += 1
                chosen.num_taken += 1
                return chosen
            # only while one is down: callers never have more in flight than there is room for
            await asyncio.sleep(_POLL_S)

    def give_back(self, endpoint: Endpoint) -> None:
        """Say that a request has ended."""
        endpoint.num_in_flight -= 1
