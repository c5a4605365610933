"""Works of stages side by side; light to import, since workers do."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bon.protocols import Event, PartDone, Parts, Ready, Scope
from support.works import Scoped

TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Waits(Scoped):
    """Does a part only once the next stage has done all that it did before."""

    folder: Path
    following: Path
    scope: Scope = field(default_factory=Scope)

    def run(self, parts: Parts) -> Iterator[Event]:
        yield Ready(0.0)
        before: list[int] = []
        for part in parts:
            if part is None:
                continue
            deadline_s = time.monotonic() + TIMEOUT_S
            while not all((self.following / f"part-{one}").exists() for one in before):
                assert time.monotonic() < deadline_s, f"not all of {before} went on"
                time.sleep(0.01)
            (self.folder / f"part-{part}").touch()
            before.append(part)
            yield PartDone(part)


@dataclass(frozen=True)
class Follows(Scoped):
    """Does a part that the stage before has done, and fails for any other."""

    folder: Path
    before: Path
    scope: Scope = field(default_factory=Scope)

    def run(self, parts: Parts) -> Iterator[Event]:
        yield Ready(0.0)
        for part in parts:
            if part is None:
                continue
            assert (self.before / f"part-{part}").exists()
            (self.folder / f"part-{part}").touch()
            yield PartDone(part)


@dataclass(frozen=True)
class Lingers(Scoped):
    """Does its parts, and then does not end before the next stage has done them all."""

    folder: Path
    following: Path
    scope: Scope = field(default_factory=Scope)

    def run(self, parts: Parts) -> Iterator[Event]:
        yield Ready(0.0)
        given = []
        for part in parts:
            if part is not None:
                given.append(part)
                (self.folder / f"part-{part}").touch()
                yield PartDone(part)
        threading.Thread(target=self._linger, args=(given,)).start()

    def _linger(self, given: list[int]) -> None:
        while not all((self.following / f"part-{one}").exists() for one in given):
            time.sleep(0.01)
        (self.folder / "all went on").touch()
