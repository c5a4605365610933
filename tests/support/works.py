"""Works for the worker process of `bon.engines.local`; light to import, since it is spawned."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bon.errors import PoolCorruptError
from bon.protocols import Event, PartDone, Progress, Ready


@dataclass(frozen=True)
class Work:
    """Commits each part by a file; what else it does is said by `trouble`."""

    folder: Path
    trouble: str = ""
    at: int = 1

    def run(self, parts: Iterable[int]) -> Iterator[Event]:
        with (self.folder / "pids").open("a") as file:
            file.write(f"{os.getpid()}\n")
        print("the model is loading", flush=True)
        os.write(2, b"a library writes to descriptor 2\n")
        yield Ready(0.5)
        for part in parts:
            if part == self.at:
                getattr(self, f"_{self.trouble}", lambda: None)()
            with (self.folder / f"part-{part}").open("a") as file:
                file.write("x")
            yield Progress(1, 2, 3)
            yield PartDone(part)

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

    def _hang(self) -> None:
        time.sleep(600)

    def _unpicklable(self) -> None:
        raise ValueError(lambda: None)


@dataclass(frozen=True)
class DiesAfterEachPart:
    """Commits one part, then dies: it needs a fresh worker for every part."""

    folder: Path

    def run(self, parts: Iterable[int]) -> Iterator[Event]:
        for part in parts:
            (self.folder / f"part-{part}").touch()
            yield PartDone(part)
            time.sleep(0.1)
            os.kill(os.getpid(), signal.SIGKILL)


def main(folder: Path) -> None:
    """Run a work that hangs, as a parent that will be killed."""
    from bon.engines.local import LocalEngine

    for _ in LocalEngine(folder / "log").run(Work(folder, "hang"), [0, 1]):
        print("event", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
