"""Works for the worker process of `bon.engines.local`; light to import, since it is spawned."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from bon.errors import EngineError, PoolCorruptError, PoolNotFoundError
from bon.heartbeat import beat
from bon.protocols import Event, PartDone, Parts, Progress, Ready, Scope

PROMPTS = 8


class Scoped:
    """What every work has: prompts `PART-NUMBER`, and a scope."""

    scope: Scope

    def within(self, scope: Scope) -> Self:
        return replace(self, scope=scope)  # type: ignore[type-var]

    def prompt_ids(self, part: int) -> list[str]:
        ids = [f"{part}-{number}" for number in range(PROMPTS)]
        return [one for one in ids if self.scope.takes(one) and one not in self.scope.dropped]


@dataclass(frozen=True)
class Work(Scoped):
    """Commits each part by a file; what else it does is said by `trouble`."""

    folder: Path
    trouble: str = ""
    at: int = 1
    scope: Scope = field(default_factory=Scope)

    def run(self, parts: Parts) -> Iterator[Event]:
        with (self.folder / "pids").open("a") as file:
            file.write(f"{os.getpid()}\n")
        print("the model is loading", flush=True)
        os.write(2, b"a library writes to descriptor 2\n")
        yield Ready(0.5)
        for part in parts:
            if part is None:
                continue
            if part == self.at:
                getattr(self, f"_{self.trouble}", lambda: None)()
            with (self.folder / f"part-{part}").open("a") as file:
                file.write("x")
            yield Progress(1, 2, 3)
            yield PartDone(part)

    def _loses_worker(self) -> None:
        raise EngineError("the model fell over", where="model.py:1")

    def _beats(self) -> None:
        for _ in range(10):
            time.sleep(0.3)
            beat()

    def _bon_error(self) -> None:
        raise PoolCorruptError("bad part", where="here", why="bits", next_step="delete it")

    def _other_error(self) -> None:
        raise KeyError("lost key")

    def _exit(self) -> None:
        sys.exit(7)

    def _die_once(self) -> None:
        if not (self.folder / "died").exists():
            (self.folder / "died").touch()
            self._die()

    def _die(self) -> None:
        print("out of memory, said the model", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

    def _kills_actor(self) -> None:
        os.kill(os.getppid(), signal.SIGKILL)  # and so dies with it
        time.sleep(600)

    def _hang(self) -> None:
        time.sleep(600)

    def _unpicklable(self) -> None:
        raise ValueError(lambda: None)


@dataclass(frozen=True)
class Deadly(Scoped):
    """Prompts in `deadly` end the worker, by `how`; the file of a part lists what it computed."""

    folder: Path
    deadly: frozenset[str]
    how: str = "die"
    scope: Scope = field(default_factory=Scope)

    def run(self, parts: Parts) -> Iterator[Event]:
        work = Work(self.folder)
        with (self.folder / "workers").open("a") as file:
            file.write("x")
        yield Ready(0.0)
        for part in parts:
            if part is None:
                continue
            for prompt_id in self.prompt_ids(part):
                if prompt_id in self.deadly:
                    getattr(work, f"_{self.how}")()
            if self.scope.only is None:
                text = " ".join(self.prompt_ids(part))
                (self.folder / f"part-{part}").write_text(text)
            yield PartDone(part)


@dataclass(frozen=True)
class Forgetful(Scoped):
    """Takes its time, and can tell what is committed."""

    folder: Path
    scope: Scope = field(default_factory=Scope)

    def done(self, part: int) -> PartDone | None:
        return PartDone(part) if (self.folder / f"part-{part}").exists() else None

    def run(self, parts: Parts) -> Iterator[Event]:
        yield Ready(0.0)
        for part in parts:
            if part is None:
                continue
            time.sleep(0.1)
            with (self.folder / f"part-{part}").open("a") as file:
                file.write("x")
            yield PartDone(part)


@dataclass(frozen=True)
class CannotLook(Forgetful):
    """Is told, where it looks what is committed, that there is no pool."""

    def done(self, part: int) -> PartDone | None:
        raise PoolNotFoundError("there is no pool here", where="/pool", next_step="make one")


@dataclass(frozen=True)
class HangsWhileLoading(Scoped):
    """Never gets ready."""

    scope: Scope = field(default_factory=Scope)

    def run(self, parts: Parts) -> Iterator[Event]:
        time.sleep(600)
        yield Ready(600.0)


@dataclass(frozen=True)
class DiesAfterEachPart(Scoped):
    """Commits one part, then dies: it needs a fresh worker for every part."""

    folder: Path
    scope: Scope = field(default_factory=Scope)

    def run(self, parts: Parts) -> Iterator[Event]:
        for part in parts:
            if part is None:
                continue
            (self.folder / f"part-{part}").touch()
            yield PartDone(part)
            time.sleep(0.1)
            os.kill(os.getpid(), signal.SIGKILL)


def main(folder: Path, trouble: str = "hang") -> None:
    """Run a work, as a parent that will be killed or stopped."""
    from bon.engines.local import LocalEngine

    for _ in LocalEngine(folder / "log", stall_timeout_s=3.0).run(Work(folder, trouble), [0, 1]):
        print("event", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
