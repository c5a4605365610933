"""Found by every Python that `support.steps` starts: counts what it does to files, and stops there.

`BON_STEPS` is a JSON object: `log`, a file that gets a line a step; `roots`, folders whose files
count; `at`, the number of the step (from 1, over all processes of the run) that is not done any
more; `signals`, what the process sends there to itself (`self`), or to its parent (`parent`).
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

_WANTED = json.loads(os.environ.get("BON_STEPS", "{}"))


def _path(target: Any, dir_fd: int | None) -> Path:
    if isinstance(target, int):
        return Path(f"/proc/self/fd/{target}").readlink()
    folder = Path.cwd() if dir_fd is None else Path(f"/proc/self/fd/{dir_fd}").readlink()
    return folder / target


def _step(name: str, path: Path) -> None:
    log = os.open(_WANTED["log"], os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(log, f"{os.getpid()} {name} {path}\n".encode())
    number = os.pread(log, 1 << 24, 0).count(b"\n")
    os.close(log)
    if number == _WANTED.get("at"):
        for whose, how in _WANTED["signals"]:
            os.kill(os.getpid() if whose == "self" else os.getppid(), signal.Signals[how])


def _armed(name: str, does: Callable[..., Any]) -> Callable[..., Any]:
    def armed(target: Any, *others: Any, dir_fd: int | None = None, **options: Any) -> Any:
        path = _path(target, dir_fd)
        is_done = name == "mkdir" and path.exists()
        if not is_done and any(path.is_relative_to(root) for root in _WANTED["roots"]):
            _step(name, path)
        given = options if dir_fd is None else {**options, "dir_fd": dir_fd}
        return does(target, *others, **given)

    return armed


if _WANTED:
    for _name in ("fsync", "ftruncate", "mkdir", "replace", "rmdir", "unlink"):
        setattr(os, _name, _armed(_name, getattr(os, _name)))
