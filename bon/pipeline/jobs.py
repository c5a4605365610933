"""The stages of one run: what each has to do, what it did, alone or beside the others."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from bon.pipeline.lookout import Lookout
from bon.pipeline.plans import GenerationPlan, ScoringPlan
from bon.protocols import Engine, Event, PartDone, PartWork, Progress, Ready, Stage

__all__ = ["Job", "Observer", "StageReport", "run_alone", "run_side_by_side"]

_Event = TypeVar("_Event")
Observer = Callable[[str, int, Event], None]
"""Called with the stage's name, its number of parts still to do, and an event."""


@dataclass
class StageReport:
    """What one stage did in this run; parts that were there already cost nothing."""

    name: str
    num_parts: int = 0
    num_parts_done: int = 0
    """Parts made by this run; the others were there already."""
    num_candidates: int = 0
    num_tokens: int = 0
    """Tokens given to the model, or sampled by it."""
    num_tokens_computed: int = 0
    """Tokens that a scorer computed for them, padding included; 0 where nobody counts."""
    halved_batch_tokens: int | None = None
    """Most tokens of a batch in the end, where memory ran out; none where it did not."""
    load_s: float = 0.0
    run_s: float = 0.0
    retries: dict[str, int] = field(default_factory=dict)
    """How often servers were asked again, by cause."""
    engine: str | None = None
    """What ran a model, and why; none for rules and where nothing was to be done."""
    engine_why: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the report for `--json`."""
        rate = self.num_tokens / self.run_s if self.run_s else None
        computed, given = self.num_tokens_computed, self.num_tokens
        saved = 1 - computed / given if computed and given else None
        return {**vars(self), "tokens_per_s": rate, "share_saved": saved}


@dataclass(frozen=True, slots=True)
class Job:
    """One stage of this run."""

    plan: GenerationPlan | ScoringPlan
    work: PartWork
    parts: list[int]
    """What is missing."""
    report: StageReport
    lookout: Lookout
    """Makes sure that what is told to be done is there."""

    @property
    def name(self) -> str:
        """The stage's name, as it is shown."""
        return self.report.name

    def finished(self) -> StageReport:
        """Return what the stage did."""
        if self.report.num_parts_done:
            self.report.engine, self.report.engine_why = self.plan.engine, self.plan.engine_why
        return self.report


def run_alone(job: Job, engine: Engine, observe: Observer) -> StageReport:
    """Do one stage.

    Raises:
        PoolIncompleteError: what a worker has committed is not there.
    """
    tally = _Tally(job.report)
    with _closed(
        engine.run(job.work, job.parts, job.plan.needs) if job.parts else iter(())
    ) as events:
        for event in events:
            observe(job.name, len(job.parts), event)
            tally.add(event)
            job.lookout.hear(event)
    job.lookout.end()
    return job.finished()


def run_side_by_side(jobs: Sequence[Job], engine: Engine, observe: Observer) -> list[StageReport]:
    """Do several stages at once, each part in one after the other.

    Raises:
        PoolIncompleteError: what a worker has committed is not there.
    """
    tallies = [_Tally(job.report) for job in jobs]
    stages = [Stage(job.work, job.parts, job.plan.needs) for job in jobs]
    with _closed(engine.run_chain(stages)) as events:
        for number, event in events:
            observe(jobs[number].name, len(jobs[number].parts), event)
            tallies[number].add(event)
            jobs[number].lookout.hear(event)
    for job in jobs:
        job.lookout.end()
    return [job.finished() for job in jobs]


@contextmanager
def _closed(events: Iterator[_Event]) -> Iterator[Iterator[_Event]]:
    """End what an engine does where nobody listens any more."""
    try:
        yield events
    finally:
        if isinstance(events, Generator):
            events.close()


@dataclass
class _Tally:
    """Adds a stage's events up."""

    report: StageReport
    _last_s: float = field(default_factory=time.monotonic)

    def add(self, event: Event) -> None:
        report = self.report
        if isinstance(event, Ready):
            report.load_s += event.load_s
            self._last_s = time.monotonic()
        elif isinstance(event, Progress):
            report.num_candidates += event.num_candidates
            report.num_tokens += event.num_tokens
            report.num_tokens_computed += event.num_tokens_computed
            report.halved_batch_tokens = event.halved_batch_tokens or report.halved_batch_tokens
            for cause, count in event.retries.items():
                report.retries[cause] = report.retries.get(cause, 0) + count
            now_s = time.monotonic()
            report.run_s, self._last_s = report.run_s + now_s - self._last_s, now_s
        elif isinstance(event, PartDone):
            report.num_parts_done += 1
