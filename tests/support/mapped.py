"""Functions for the processes of a mapper; light to import, since they are spawned."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pyarrow as pa

from bon.errors import PoolCorruptError


class Unsendable(Exception):
    """Cannot be made again from its arguments."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__("lost on the way")


def work(item: int | str) -> tuple[int | str, int]:
    """Return the item and who computed it; some items are trouble."""
    match item:
        case "damaged":
            raise PoolCorruptError("bad part", where="here", why="bits", next_step="mend it")
        case "unsendable":
            raise Unsendable(1, 2)
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exits":
            os._exit(7)
        case int():
            time.sleep(0.01 if item % 3 else 0.05)  # so that later ones are ready first
    return item, os.getpid()


def sliced(num_rows: int) -> pa.Table:
    return pa.table({"text": ["x" * 1000] * 1000}).slice(5, num_rows)


def die_once(item: tuple[Path, int]) -> int:
    """Return the number; the process of number 3 dies the first time."""
    folder, number = item
    if number == 3 and not (folder / "died").exists():
        (folder / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def folder(_: int) -> str:
    """Return where it is computed."""
    return str(Path.cwd())


def slow(item: int) -> int:
    """Return the item after a while."""
    time.sleep(0.3)
    return item
