"""A pool that a command writes to: its lock held, its log kept, its progress shown."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

from bon.cli.console import StageProgress, note
from bon.cli.engines import make_engine
from bon.cli.flags import Invocation
from bon.cli.reasons import reasons_to
from bon.pipeline.jobs import StageReport
from bon.places import Place
from bon.pool.layout import PoolLayout
from bon.pool.lock import pool_lock
from bon.pool.run_log import RunLog
from bon.protocols import Engine, Event, Note, PartDone, Progress, Ready, Restarted

__all__ = ["PoolRun", "pool_run"]


@dataclass
class PoolRun:
    """What the stages of a run share."""

    engine: Engine
    log: RunLog
    _progress: StageProgress
    _quiet: bool
    _counts: dict[str, dict[str, int]] = field(default_factory=dict)
    """By stage, what was computed since its last part was committed."""
    _since_s: dict[str, float] = field(default_factory=dict)

    def note(self, text: str) -> None:
        """Show one line, and log it."""
        note(text, quiet=self._quiet)
        self.log.write("note", text=text)

    def show(self, stage: str, num_parts: int, event: Event) -> None:
        """Show one event of a stage that makes nothing, and log none."""
        self._progress(stage, num_parts, event)

    def observe(self, stage: str, num_parts: int, event: Event) -> None:
        """Show and log one event of a stage that has so many parts to do."""
        self._progress(stage, num_parts, event)
        if isinstance(event, Ready):
            self._begin(stage)
            self.log.write("ready", stage=stage, parts=num_parts, load_s=round(event.load_s, 3))
        elif isinstance(event, Progress):
            self._add(stage, event)
        elif isinstance(event, Restarted):
            self.log.write("restart", stage=stage, cause=event.cause, doing=event.doing)
        elif isinstance(event, Note):
            self.log.write("note", stage=stage, text=event.text)
        elif isinstance(event, PartDone):
            now_s = time.monotonic()
            seconds = round(now_s - self._since_s.get(stage, now_s), 3)
            counts = {name: count for name, count in self._counts.get(stage, {}).items() if count}
            self.log.write(
                "part", stage=stage, part=event.part, seconds=seconds, **counts, drops=event.drops
            )
            self._begin(stage)

    def end_stage(self, report: StageReport) -> StageReport:
        """Log what a stage did, if it did anything, and return that."""
        if report.num_parts_done:
            self.log.write("stage", **report.as_json())
        return report

    def _begin(self, stage: str) -> None:
        self._since_s[stage], self._counts[stage] = time.monotonic(), {}

    def _add(self, stage: str, event: Progress) -> None:
        """Count what was computed since the last part was committed, of whatever part."""
        added = {
            "candidates": event.num_candidates,
            "tokens": event.num_tokens,
            "tokens_computed": event.num_tokens_computed,
            "retries": sum(event.retries.values()),
        }
        counts = self._counts.setdefault(stage, {})
        for name, count in added.items():
            counts[name] = counts.get(name, 0) + count


@contextmanager
def pool_run(call: Invocation, root: Place) -> Iterator[PoolRun]:
    """Hold a pool for writing while the block runs, and tell what is done to it.

    Raises:
        PoolLockedError: another run holds it.
    """
    layout = PoolLayout(root)
    with (
        pool_lock(layout.lock),
        RunLog(layout.run_log) as log,
        StageProgress(quiet=call.quiet) as progress,
        reasons_to(lambda text: log.write("reason", text=text)),
        closing(make_engine(call, layout.log)) as engine,
    ):
        yield PoolRun(engine, log, progress, call.quiet)
