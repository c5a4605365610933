"""What runs did to a pool, one JSON object a line: for people who come back after a week."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol

from bon import __version__
from bon.errors import BonError
from bon.object_store import ObjectPath
from bon.places import Place
from bon.redaction import redacted_command, redacted_values

__all__ = ["RunLog"]


_PUT_EVERY_S = 60.0
_OBJECT_BYTES = 1 << 20
"""An object of lines is put again until it has this many; the next lines have one of their own."""


class _Lines(Protocol):
    def write(self, content: bytes, /) -> object: ...

    def close(self) -> None: ...


class RunLog:
    """Appends to a pool's `run.log` while the block runs.

    On an object store, where nothing can be appended, each run has objects of its own beside it,
    `run-TIME-PID-00000.log` and so on, of about 1 MiB each; the last is put every minute and at the
    end.

    Every line has `time` (UTC, by the machine's clock), `elapsed_s` (since the run began, by a
    clock that never goes back), `pid` and `event`; the other keys are the event's own. The log
    is for people: where it cannot be written, the run goes on without it. Secrets are taken out.
    """

    def __init__(self, path: Place) -> None:
        self.path = path
        self._file: _Lines | None = None
        self._started_s = time.monotonic()

    def __enter__(self) -> RunLog:
        with suppress(OSError):
            self._file = _opened(self.path)
        self.write(
            "start",
            command=redacted_command(["bon", *sys.argv[1:]]),
            version=__version__,
            host=platform.node(),
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.write("end", status="complete")
        elif isinstance(error, Exception):
            what = error.what if isinstance(error, BonError) else f"{type(error).__name__}: {error}"
            where, why = getattr(error, "where", ""), getattr(error, "why", "")
            self.write("end", status="failed", what=what, where=where, why=why)
        else:
            self.write("end", status="interrupted")
        if self._file is not None:
            with suppress(OSError):
                self._file.close()

    def write(self, event: str, **fields: Any) -> None:
        """Append one line; values are JSON's."""
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "elapsed_s": round(time.monotonic() - self._started_s, 3),
            "pid": os.getpid(),
            "event": event,
            **fields,
        }
        text = json.dumps(redacted_values(line), ensure_ascii=True)
        if self._file is not None:
            with suppress(OSError):
                self._file.write(f"{text}\n".encode())


class _PutLines:
    """Lines that are put as objects, the last one again and again while it grows."""

    def __init__(self, path: ObjectPath) -> None:
        now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        self._first = path.with_name(f"{path.stem}-{now}-{os.getpid()}{path.suffix}")
        self._number = 0
        self._content = bytearray()
        self._put_s = time.monotonic()

    def write(self, content: bytes) -> None:
        self._content += content
        is_full = len(self._content) >= _OBJECT_BYTES
        if is_full or time.monotonic() - self._put_s > _PUT_EVERY_S:
            try:
                self.close()
            finally:
                if is_full:  # whether it could be put or not: a run of a week has 10,000 minutes
                    self._content.clear()
                    self._number += 1

    def close(self) -> None:
        self._put_s = time.monotonic()
        if self._content:
            first = self._first
            name = f"{first.stem}-{self._number:05d}{first.suffix}"
            first.with_name(name).write_bytes(bytes(self._content))


def _opened(path: Place) -> _Lines:
    if isinstance(path, ObjectPath):
        return _PutLines(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    is_torn = _is_torn(path)
    file: IO[bytes] = path.open("ab", buffering=0)
    if is_torn:  # a run was killed while it wrote
        file.write(b"\n")
    return file


def _is_torn(path: Path) -> bool:
    """Tell whether the last line has no end."""
    if not path.exists() or path.stat().st_size == 0:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"
