"""What a person sees while a command runs: on stderr, bars only on a terminal."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from bon.protocols import Event, Note, PartDone, Progress, Ready, Restarted
from bon.shown import printable, shown

__all__ = ["StageProgress", "note", "print_path"]

_LINE_EVERY_S = 60.0


def note(text: str, *, quiet: bool = False) -> None:
    """Print one line for a person."""
    if not quiet:
        print(shown(text), file=sys.stderr, flush=True)


def print_path(path: str | None) -> None:
    """Print where a result is, on stdout: for a program as it is, on a terminal printable."""
    if sys.stdout.isatty():
        print(printable(str(path)), flush=True)
        return
    sys.stdout.flush()
    # bytes: a path need not be text in the locale's encoding
    sys.stdout.buffer.write(os.fsencode(str(path)) + os.linesep.encode())
    sys.stdout.flush()


@dataclass
class _Stage:
    """What is known of one stage so far."""

    name: str
    num_parts: int
    bar: Any = None
    """Its task on the terminal."""
    started_s: float = field(default_factory=time.monotonic)
    first_s: float = 0.0
    noted_s: float = field(default_factory=time.monotonic)
    num_tokens: int = 0
    num_candidates: int = 0
    done: set[int] = field(default_factory=set)

    def begin(self) -> None:
        """A worker is ready: one that starts again has a rate of its own."""
        self.started_s = self.noted_s = time.monotonic()
        self.first_s = self.first_s or self.started_s
        self.num_tokens = self.num_candidates = 0

    @property
    def rate(self) -> str:
        """How much is done in a second, by its worker."""
        seconds = max(1e-3, time.monotonic() - self.started_s)
        if not self.num_candidates and not self.num_tokens:
            return ""
        if not self.num_tokens:  # rules count none
            return f"{self.num_candidates / seconds:,.0f} candidates/s"
        return f"{self.num_tokens / seconds:,.0f} tokens/s"

    @property
    def left(self) -> str:
        """How long the other parts will take, if they go like those of this run."""
        num_done = len(self.done)
        if not 0 < num_done < self.num_parts:
            return ""
        seconds = (time.monotonic() - self.first_s) / num_done * (self.num_parts - num_done)
        for unit_s, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
            if seconds >= 2 * unit_s:
                return f"about {seconds / unit_s:.0f} {unit} left"
        return f"about {seconds:.0f} s left"


class StageProgress:
    """Shows each stage's parts, tokens/s and what is left; an `Observer` of the pipeline.

    A bar on a terminal, elsewhere a line a minute; of stages that run side by side, one of each.
    """

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._bar: Any = None
        self._stages: dict[str, _Stage] = {}

    def __enter__(self) -> StageProgress:
        if not self._quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description:<24}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("parts"),
                TextColumn("{task.fields[rate]}", markup=False),
                TimeElapsedColumn(),
                TextColumn("{task.fields[left]}", markup=False),
                console=Console(stderr=True),
            )
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, stage: str, num_parts: int, event: Event) -> None:
        """Take one event of a stage that has so many parts to do."""
        if stage not in self._stages:
            self._stages[stage] = self._begun(stage, num_parts)
        known = self._stages[stage]
        if isinstance(event, Ready):
            known.begin()
            if self._bar is None:
                note(f"{stage}: ready after {event.load_s:.0f} s", quiet=self._quiet)
        elif isinstance(event, Progress):
            known.num_tokens += event.num_tokens
            known.num_candidates += event.num_candidates
            self._show(known)
        elif isinstance(event, PartDone):
            known.done.add(event.part)
            self._show(known, is_last=len(known.done) == num_parts)
        elif isinstance(event, Restarted):
            self._say(f"{stage}: the model's process was lost ({event.cause}); {event.doing}")
        elif isinstance(event, Note):
            self._say(f"{stage}: {event.text}")

    def _show(self, stage: _Stage, *, is_last: bool = False) -> None:
        num_done, rate, left = len(stage.done), stage.rate, stage.left
        now_s = time.monotonic()
        if self._bar is not None:
            self._bar.update(stage.bar, completed=num_done, rate=rate, left=left)
        elif is_last or now_s - stage.noted_s >= _LINE_EVERY_S:
            stage.noted_s = now_s
            texts = [f"{num_done}/{stage.num_parts} parts", rate, left]
            note(f"{stage.name}: {', '.join(filter(None, texts))}", quiet=self._quiet)

    def _say(self, text: str) -> None:
        if self._bar is not None:
            self._bar.console.print(shown(text), markup=False, highlight=False)
        else:
            note(text, quiet=self._quiet)

    def _begun(self, name: str, num_parts: int) -> _Stage:
        stage = _Stage(name, num_parts)
        if self._bar is None:
            parts = "1 part" if num_parts == 1 else f"{num_parts} parts"
            note(f"{name}: {parts} to do", quiet=self._quiet)
        else:
            stage.bar = self._bar.add_task(shown(name), total=num_parts, rate="loading", left="")
        return stage
