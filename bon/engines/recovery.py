"""What an engine does when it loses workers: go on, and find the prompt that kills them.

A worker that dies, hangs or fails once is bad luck: it is started again. Twice on the same part
is suspicious: parts are then done one at a time, and where one keeps ending its worker, halves of
its prompts are tried until the prompts are found that do so by themselves. These become drops, and
all others are complete. Where no prompt at all lives any more, the model or the machine is at
fault: the run ends, and no prompt is dropped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing.connection import Connection
from typing import TypeAlias

from bon.errors import AccountingError, BonError
from bon.protocols import Event, KnowsOthers, PartDone, Parts, PartWork, Restarted, Scope
from bon.records import Drop

__all__ = ["Attempt", "Lost", "Recovery", "Waiting"]


_MOST_OTHERS = 4
"""Prompts that are tried before the machine is blamed."""
_ALL = 1 << 62
_NOTHING_FOR_NOW_S = 0.05


@dataclass(frozen=True, slots=True)
class Lost:
    """A worker ended before its work did."""

    reason: str
    """As a prompt's drop says it: `worker_killed`, `worker_hung` or `worker_failed`."""
    cause: str
    """For a person: `killed by SIGSEGV`."""
    error: BonError
    """What ends the run where nothing helps."""
    was_ready: bool
    """Its model was loaded; else no prompt can be at fault."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A worker has nothing to say yet: whoever runs it may look after others meanwhile."""

    on: tuple[Connection | int, ...] = ()
    """One of these will be ready when it has."""
    longest_s: float = _NOTHING_FOR_NOW_S
    """It is to be looked after by then in any case."""


Attempt: TypeAlias = Callable[[PartWork, Parts], Iterator[Event | Lost | Waiting]]
"""Runs a work over parts in one worker; where that is lost, `Lost` is the last item."""
Tried: TypeAlias = Generator[Waiting, None, "Lost | None"]
"""A trial, which ends with how its worker was lost; none: it was not."""


class _Given:
    """The parts of one worker after the other: what a lost one left, then new ones."""

    def __init__(self, source: Parts) -> None:
        self._source = iter(source)
        self.left: list[int] = []
        """Given to a worker and not committed."""
        self.are_all = False
        """The source has no more."""

    def all(self) -> Iterator[int | None]:
        yield from list(self.left)
        while True:
            part = self.next()
            if self.are_all:
                return
            yield part

    def next(self) -> int | None:
        """Take a new part; none where there is none for now, or no more."""
        try:
            part = next(self._source)
        except StopIteration:
            self.are_all = True
            return None
        if part is not None:
            self.left.append(part)
        return part


@dataclass
class Recovery:
    """One stage's work, done to its end by as many workers as it takes."""

    attempt: Attempt
    max_restarts: int = 2
    """Workers in a row that may be lost while they load their model."""
    _deaths: Counter[int] = field(default_factory=Counter)
    """Workers that were lost, by the first part that they had not committed."""
    _searches: Counter[int] = field(default_factory=Counter)
    """Searches that found nothing, by part."""
    _num_lived: int = 0
    """Workers that did what they were given, and parts: not everything ends a worker."""
    _witness: tuple[int, str] | None = None
    """A prompt, with its part, that lived in this search."""

    def run(self, work: PartWork, parts: Parts) -> Generator[Event | Waiting, None, None]:
        """Do all parts and yield events as they come.

        Raises:
            BonError: what the work raised, or how the worker was lost where that cannot be helped.
        """
        given, num_at_once, num_unloaded = _Given(parts), _ALL, 0
        left = given.left
        while left or not given.are_all:
            if not left and given.next() is None:
                if not given.are_all:
                    yield Waiting()
                continue  # no worker is started, no model loaded, for nothing
            batch = given.all() if num_at_once >= _ALL else iter(left[:num_at_once])
            is_alone = num_at_once == 1 or (given.are_all and len(left) == 1)
            lost, num_before = None, self._num_lived
            for event in self.attempt(work, batch):
                if isinstance(event, Lost):
                    lost = event
                    break
                if isinstance(event, PartDone):
                    left.remove(event.part)
                    self._num_lived += 1
                yield event
            if lost is None and left and self._num_lived == num_before:
                raise AccountingError(
                    f"a worker ended in order without part {left[0]}", why="this is a bug in bon"
                )
            if lost is None:
                num_at_once = num_at_once * 2 if num_at_once < len(left) else _ALL
            elif left and not lost.was_ready:
                num_unloaded += 1
                if num_unloaded > self.max_restarts:
                    raise lost.error
                yield Restarted(lost.cause, "starting it again")
            elif left:
                num_unloaded = 0
                self._deaths[left[0]] += 1
                if self._deaths[left[0]] > 1 and is_alone:
                    work = yield from self._without_killers(work, left, lost)
                elif self._deaths[left[0]] == 1 and num_at_once in (1, _ALL):
                    yield Restarted(lost.cause, "starting it again")
                else:
                    num_at_once = 1
                    yield Restarted(lost.cause, "going on one part at a time")

    def _without_killers(
        self, work: PartWork, left: list[int], lost: Lost
    ) -> Generator[Restarted | Waiting, None, PartWork]:
        """Return the work without the prompts of the first part that end a worker by themselves."""
        part, self._witness = left[0], None
        suspects = work.prompt_ids(part)
        doing = f"looking for the prompt of part {part} that does it, among {len(suspects)}"
        yield Restarted(lost.cause, doing)
        killers: dict[str, Drop] = {}
        groups = [suspects] if suspects else []
        while groups:
            group = groups.pop()
            if len(group) > 1:
                groups += yield from self._halves_that_kill(work, left, group)
                continue
            again = yield from self._kills_alone(work, left, group)
            if again is not None:
                killers[group[0]] = Drop(again.reason, f"{again.cause}, whenever it is computed")
                yield Restarted(again.cause, f"dropping the prompt id={group[0]}")
        if not killers:
            self._searches[part] += 1
            if self._searches[part] > 1:
                lost.error.why += f"\nit is part {part} that does it, but none of its prompts alone"
                raise lost.error
        dropped = {**work.scope.dropped, **killers}
        return work.within(Scope(dropped=dropped))

    def _halves_that_kill(
        self, work: PartWork, left: list[int], group: list[str]
    ) -> Generator[Waiting, None, list[list[str]]]:
        """Return those halves of prompts that end a worker together which do so too."""
        middle = len(group) // 2
        first, second = group[:middle], group[middle:]
        if (yield from self._tried(work, left[0], first)) is None:
            return [second]  # one of them must do it
        lost = yield from self._tried(work, left[0], second)
        if lost is None:
            return [first]
        yield from self._check_machine(work, left, group[0], lost)
        return [first, second]

    def _kills_alone(self, work: PartWork, left: list[int], group: list[str]) -> Tried:
        """Tell how one prompt ends a worker: twice, while another prompt does not."""
        lost = yield from self._tried(work, left[0], group)
        if lost is None:
            return None
        yield from self._check_machine(work, left, group[0], lost)
        return (yield from self._tried(work, left[0], group))

    def _check_machine(
        self, work: PartWork, left: list[int], suspect: str, lost: Lost
    ) -> Generator[Waiting, None, None]:
        """Make sure that a prompt still lives: one that did in this search, or any of a few others.

        Raises:
            BonError: none does, so it is the model or the machine that is at fault.
        """
        if self._witness is not None:
            part, prompt_id = self._witness
            if (yield from self._tried(work, part, [prompt_id])) is not None:
                raise lost.error
            return
        others = [(part, one) for part in left[1:_MOST_OTHERS] for one in work.prompt_ids(part)[:1]]
        same = [(left[0], one) for one in work.prompt_ids(left[0]) if one != suspect]
        others += same[:: max(1, len(same) // _MOST_OTHERS)]
        if isinstance(work, KnowsOthers):
            # what this worker has left may be killers alone: of several, each has but few parts
            elsewhere = (one for one in work.others(left[0]) if one[1] not in work.scope.dropped)
            first = others[: _MOST_OTHERS - 1]
            others = [*first, *islice(elsewhere, _MOST_OTHERS), *others[len(first) :]]
        for part, prompt_id in others[:_MOST_OTHERS]:
            if (yield from self._tried(work, part, [prompt_id])) is None:
                return
        if others or not self._num_lived:
            raise lost.error

    def _tried(self, work: PartWork, part: int, group: list[str]) -> Tried:
        """Give a worker these prompts alone, commit nothing, and return how it was lost."""
        trial = work.within(Scope(frozenset(group), work.scope.dropped))
        lost = None
        for _ in range(self.max_restarts + 1):
            lost = None
            for event in self.attempt(trial, [part]):
                if isinstance(event, Waiting):
                    yield event
                elif isinstance(event, Lost):
                    lost = event
            if lost is None:
                self._num_lived += 1
                self._witness = part, group[0]
                return None
            if lost.was_ready:
                return lost
        assert lost is not None
        raise lost.error
