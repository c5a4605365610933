"""A command that is killed at one of its steps, repeated, and compared with a run left alone."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from support.commands import bon
from support.damage import assert_nothing_lost, parts_of
from support.given import write_given, write_prompts
from support.steps import KILL_ALL, KILL_RUN, Step, all_files, bon_until, steps_of

Command = tuple[object, ...]
MINE = """
def rate(prompts, responses, columns):
    return [len(one) for one in responses]
"""
"""A function of one's own costs nobody knows how much, so what it scored is never begun anew."""


@dataclass
class Killable:
    """A command in a folder of its own, with inputs, a function `my.py` and what came before."""

    place: Path
    command: Command
    before: tuple[Command, ...] = ()

    def __post_init__(self) -> None:
        start = self.place / "start"
        start.mkdir(parents=True)
        write_given(start / "in.jsonl")
        write_prompts(start / "prompts.jsonl")
        (start / "my.py").write_text(MINE)
        for command in self.before:
            done = bon(*command, cwd=start)
            assert done.returncode == 0, done.stderr

    def fresh(self) -> Path:
        """Return the folder as it is before the command, at the one path that results may name."""
        folder = self.place / "run"
        shutil.rmtree(folder, ignore_errors=True)
        return Path(shutil.copytree(self.place / "start", folder))

    @cached_property
    def whole(self) -> tuple[dict[str, bytes], list[Step]]:
        """The files after a run that nobody kills, and its steps."""
        folder = self.fresh()
        steps = steps_of(*self.command, cwd=folder)
        return all_files(folder), steps

    @property
    def steps(self) -> list[Step]:
        """What the command does to files."""
        return self.whole[1]

    def is_workers(self, step: Step) -> bool:
        """Tell whether a step is done in the worker's process."""
        return step.pid != self.steps[0].pid

    def check_same(self, folder: Path) -> None:
        """Run the command again, to its end, and compare."""
        done = bon(*self.command, cwd=folder)
        assert done.returncode == 0, done.stderr
        assert all_files(folder) == self.whole[0]

    def check_killed(self, step: Step, whom: tuple[tuple[str, str], ...] | None = None) -> None:
        """Kill a fresh run before a step, run it again, and compare; by default all are killed."""
        whom = whom or (KILL_ALL if self.is_workers(step) else KILL_RUN)
        folder = self.fresh()
        before = parts_of(folder)

        killed = bon_until(step.number, *self.command, cwd=folder, signals=whom)

        goes_on = self.is_workers(step) and whom == KILL_RUN
        assert killed.returncode == (0 if goes_on else -9), (step, killed.stderr)
        assert "Traceback" not in killed.stderr, (step, killed.stderr)
        if goes_on:
            assert "killed by SIGKILL" in killed.stderr, step
        else:
            assert_nothing_lost(folder, before, self.whole[0])
            done = bon(*self.command, cwd=folder)
            assert done.returncode == 0, (step, done.stderr)
        assert all_files(folder) == self.whole[0], step
