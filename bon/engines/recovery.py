"""What an engine does when it loses workers: go on, and find the prompt that kills them.

A worker that dies, hangs or fails once is bad luck: it is started again. Twice on the same part
is suspicious: parts are then done one at a time, and where one keeps ending its worker, halves of
its prompts are tried until the prompts are found that do so by themselves. These become drops, and
all others are complete. Where no prompt at all lives any more, the model or the machine is at
fault: the run ends, and no prompt is dropped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from bon.errors import BonError
from bon.protocols import Event, PartDone, PartWork, Restarted, Scope
from bon.records import Drop

__all__ = ["Attempt", "Lost", "Recovery"]


_MOST_OTHERS = 4
"""Prompts that are tried before the machine is blamed."""


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


Attempt: TypeAlias = Callable[[PartWork, Sequence[int]], Iterator[Event | Lost]]
"""Runs a work over parts in one worker; where that is lost, `Lost` is the last item."""


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

    def run(self, work: PartWork, parts: Sequence[int]) -> Iterator[Event]:
        """Do all parts and yield events as they come.

        Raises:
            BonError: what the work raised, or how the worker was lost where that cannot be helped.
        """
        left, num_at_once, num_unloaded = list(parts), max(1, len(parts)), 0
        while left:
            batch, lost = left[:num_at_once], None
            for event in self.attempt(work, batch):
                if isinstance(event, Lost):
                    lost = event
                    break
                if isinstance(event, PartDone):
                    left.remove(event.part)
                    self._num_lived += 1
                yield event
            if lost is None:
                num_at_once *= 2
            elif left and not lost.was_ready:
                num_unloaded += 1
                if num_unloaded > self.max_restarts:
                    raise lost.error
                yield Restarted(lost.cause, "starting it again")
            elif left:
                num_unloaded = 0
                self._deaths[left[0]] += 1
                if self._deaths[left[0]] > 1 and len(batch) == 1:
                    work = yield from self._without_killers(work, left, lost)
                elif self._deaths[left[0]] == 1 and num_at_once in (1, len(parts)):
                    yield Restarted(lost.cause, "starting it again")
                else:
                    num_at_once = 1
                    yield Restarted(lost.cause, "going on one part at a time")

    def _without_killers(
        self, work: PartWork, left: list[int], lost: Lost
    ) -> Generator[Restarted, None, PartWork]:
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
                groups += self._halves_that_kill(work, left, group)
                continue
            again = self._kills_alone(work, left, group)
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
    ) -> list[list[str]]:
        """Return those halves of prompts that end a worker together which do so too."""
        middle = len(group) // 2
        first, second = group[:middle], group[middle:]
        if self._tried(work, left[0], first) is None:
            return [second]  # one of them must do it
        lost = self._tried(work, left[0], second)
        if lost is None:
            return [first]
        self._check_machine(work, left, group[0], lost)
        return [first, second]

    def _kills_alone(self, work: PartWork, left: list[int], group: list[str]) -> Lost | None:
        """Tell how one prompt ends a worker: twice, while another prompt does not."""
        lost = self._tried(work, left[0], group)
        if lost is None:
            return None
        self._check_machine(work, left, group[0], lost)
        return self._tried(work, left[0], group)

    def _check_machine(self, work: PartWork, left: list[int], suspect: str, lost: Lost) -> None:
        """Make sure that a prompt still lives: one that did in this search, or any of a few others.

        Raises:
            BonError: none does, so it is the model or the machine that is at fault.
        """
        if self._witness is not None:
            part, prompt_id = self._witness
            if self._tried(work, part, [prompt_id]) is not None:
                raise lost.error
            return
        others = [(part, one) for part in left[1:_MOST_OTHERS] for one in work.prompt_ids(part)[:1]]
        same = [(left[0], one) for one in work.prompt_ids(left[0]) if one != suspect]
        others += same[:: max(1, len(same) // _MOST_OTHERS)]
        for part, prompt_id in others[:_MOST_OTHERS]:
            if self._tried(work, part, [prompt_id]) is None:
                return
        if others or not self._num_lived:
            raise lost.error

    def _tried(self, work: PartWork, part: int, group: list[str]) -> Lost | None:
        """Give a worker these prompts alone, commit nothing, and return how it was lost."""
        trial = work.within(Scope(frozenset(group), work.scope.dropped))
        lost = None
        for _ in range(self.max_restarts + 1):
            events = self.attempt(trial, [part])
            lost = next((event for event in events if isinstance(event, Lost)), None)
            if lost is None:
                self._num_lived += 1
                self._witness = part, group[0]
                return None
            if lost.was_ready:
                return lost
        assert lost is not None
        raise lost.error
