"""What a person sees while a command runs: on stderr, bars only on a terminal."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from bon.protocols import Event, PartDone, Progress, Ready, Restarted
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


class StageProgress:
    """Shows each stage's parts, tokens/s and what is left; an `Observer` of the pipeline.

    A bar on a terminal, elsewhere a line a minute.
    """

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._bar: Any = None
        self._stage = ""
        self._started_s = self._first_s = 0.0
        self._noted_s = 0.0
        self._num_tokens = self._num_candidates = 0
        self._done: set[int] = set()

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
        if stage != self._stage:
            self._begin(stage, num_parts)
        if isinstance(event, Ready):
            self._started_s = self._noted_s = time.monotonic()
            self._first_s = self._first_s or self._started_s
            # a worker that starts again has a rate of its own
            self._num_tokens = self._num_candidates = 0
            if self._bar is None:
                note(f"{stage}: ready after {event.load_s:.0f} s", quiet=self._quiet)
        elif isinstance(event, Progress):
            self._num_tokens += event.num_tokens
            self._num_candidates += event.num_candidates
            self._show(num_parts)
        elif isinstance(event, PartDone):
            self._done.add(event.part)
            self._show(num_parts, is_last=len(self._done) == num_parts)
        elif isinstance(event, Restarted):
            self._say(f"{stage}: the model's process was lost ({event.cause}); {event.doing}")

    def _show(self, num_parts: int, *, is_last: bool = False) -> None:
        num_done, rate, left = len(self._done), self._rate(), self._left(num_parts)
        now_s = time.monotonic()
        if self._bar is not None:
            self._bar.update(self._task, completed=num_done, rate=rate, left=left)
        elif is_last or now_s - self._noted_s >= _LINE_EVERY_S:
            self._noted_s = now_s
            texts = [f"{num_done}/{num_parts} parts", rate, left]
            note(f"{self._stage}: {', '.join(filter(None, texts))}", quiet=self._quiet)

    def _say(self, text: str) -> None:
        if self._bar is not None:
            self._bar.console.print(shown(text), markup=False, highlight=False)
        else:
            note(text, quiet=self._quiet)

    def _rate(self) -> str:
        seconds = max(1e-3, time.monotonic() - self._started_s)
        if not self._num_candidates and not self._num_tokens:
            return ""
        if not self._num_tokens:  # rules count none
            return f"{self._num_candidates / seconds:,.0f} candidates/s"
        return f"{self._num_tokens / seconds:,.0f} tokens/s"

    def _left(self, num_parts: int) -> str:
        """Say how long the other parts will take, if they go like those of this run."""
        num_done = len(self._done)
        if not 0 < num_done < num_parts:
            return ""
        seconds = (time.monotonic() - self._first_s) / num_done * (num_parts - num_done)
        for unit_s, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
            if seconds >= 2 * unit_s:
                return f"about {seconds / unit_s:.0f} {unit} left"
        return f"about {seconds:.0f} s left"

    def _begin(self, stage: str, num_parts: int) -> None:
        self._stage, self._done = stage, set()
        self._num_tokens = self._num_candidates = 0
        self._started_s = self._noted_s = time.monotonic()
        self._first_s = 0.0
        if self._bar is None:
            parts = "1 part" if num_parts == 1 else f"{num_parts} parts"
            note(f"{stage}: {parts} to do", quiet=self._quiet)
        else:
            self._task = self._bar.add_task(shown(stage), total=num_parts, rate="loading", left="")
