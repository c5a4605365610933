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
from typing import IO, Any

from bon import __version__
from bon.errors import BonError
from bon.redaction import redacted_command, redacted_values

__all__ = ["RunLog"]


class RunLog:
    """Appends to a pool's `run.log` while the block runs.

    Every line has `time` (UTC, by the machine's clock), `elapsed_s` (since the run began, by a
    clock that never goes back), `pid` and `event`; the other keys are the event's own. The log
    is for people: where it cannot be written, the run goes on without it. Secrets are taken out.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[bytes] | None = None
        self._started_s = time.monotonic()

    def __enter__(self) -> RunLog:
        with suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            is_torn = _is_torn(self.path)
            self._file = self.path.open("ab", buffering=0)
            if is_torn:  # a run was killed while it wrote
                self._file.write(b"\n")
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


def _is_torn(path: Path) -> bool:
    """Tell whether the last line has no end."""
    if not path.exists() or path.stat().st_size == 0:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"
