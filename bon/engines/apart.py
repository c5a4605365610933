"""What talks to Ray, in a process of its own, so that a cluster that is lost is not the run's end.

Where Ray loses its cluster it ends the process that it is in, without a word: two seconds after
that machine's node died, a minute after the head did. Here that process does nothing but talk to
Ray; this one asks it, hears of its end, and says what to do.
"""

from __future__ import annotations

import logging
import math
import multiprocessing.connection
import signal
import sys
import tempfile
from collections.abc import Generator, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from bon.engines.lane import Lane
from bon.engines.ray_cluster import lost_cluster
from bon.engines.recovery import Lost, Waiting
from bon.engines.shares import Share

__all__ = ["Apart", "Question"]

_END_TIMEOUT_S = 30.0
"""That process has so long to leave the cluster, or to end one of our own."""
Held = TypeVar("Held")
Asks_contra = TypeVar("Asks_contra", contravariant=True)


class Question(Protocol[Asks_contra]):
    """What that process is to answer, with what it holds; can be pickled."""

    def answers(self, held: Asks_contra, more: Iterator[Any], /) -> Iterator[Any]:
        """Yield the answers; from `more` comes what was said to follow the question."""
        ...


@dataclass(slots=True)
class Apart(Generic[Held]):
    """One such process; it starts with the first question, and ends when it is closed."""

    held: AbstractContextManager[Held]
    """What it enters, and leaves before it ends; can be pickled."""
    address: str | None
    """Of the cluster, as errors name it."""
    _asked: Iterator[Any] = field(default_factory=lambda: iter(()))
    _said: Generator[Any, None, None] | None = None
    """What that process says, as long as it is there."""

    def close(self) -> None:
        """End that process, and with it all that runs in the cluster for us."""
        said, self._said = self._said, None
        if said is not None:
            said.close()

    def answers(
        self, question: Question[Held], more: Iterable[Any] = (), *, log: Path | None = None
    ) -> Generator[Any, None, None]:
        """Yield what it answers; `more` is what the question takes, a few ahead of its answers.

        One question at a time. Who does not wait for the last answer ends that process. `log`
        receives what it prints, where it has to be started.

        Raises:
            BonError: what was raised there.
            EngineError: the cluster was lost.
        """
        self._asked = chain([question], more)
        if self._said is None:
            lane = Lane(log or _scratch_log(), math.inf, math.inf, Share(), _END_TIMEOUT_S)
            self._said = lane.attempt(_Talks(self.held), self._questions())
        try:
            while not isinstance(said := next(self._said), _Answered):
                if isinstance(said, Waiting):
                    multiprocessing.connection.wait(said.on, said.longest_s)
                elif isinstance(said, Lost):
                    why = f"the process that talked to it ended: {said.cause}"
                    raise lost_cluster(self.address, why)
                elif isinstance(said, _Answer):
                    yield said.answer
        except BaseException:
            self.close()  # nobody wants the rest
            raise

    def _questions(self) -> Iterator[Any]:
        while True:
            yield next(self._asked, None)


def _scratch_log() -> Path:
    return Path(tempfile.mkdtemp(prefix="bon-")) / "ray.log"


@dataclass(frozen=True, slots=True)
class _Answer:
    """One of the answers to what was asked last."""

    answer: Any


@dataclass(frozen=True, slots=True)
class _Answered:
    """There are no more."""


@dataclass(frozen=True, slots=True)
class _Talks(Generic[Held]):
    """What that process does until it is made to end."""

    held: AbstractContextManager[Held]

    def run(self, asked: Iterator[Any]) -> Iterator[_Answer | _Answered]:
        """Answer one question after the other."""
        logging.basicConfig(level=logging.INFO, format="%(message)s")  # into the log
        signal.signal(signal.SIGTERM, lambda *_: sys.exit())
        with self.held as held:
            for one in asked:
                if one is not None:
                    yield from map(_Answer, one.answers(held, asked))
                    yield _Answered()
