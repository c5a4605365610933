"""stdin, stdout and stderr as a command needs them: there, and never the reason that it fails.

What a command makes is files and pools; what it prints tells of them. So

- a message that stderr does not take (closed, full, its reader gone) is lost, and nothing else;
- a command that made a set or a pool ends with 0, or 3 for drops, also where nobody could read the
  line or the JSON that it printed; a warning on stderr says so where stdout failed;
- a command whose result is what it prints (`inspect`, `env`, `--dry-run`, `--help`) ends with 1
  where stdout failed (a full disk), and with 0 where its reader wanted no more (`| head`);
- a stream that is closed from the start (`>&-`) is as good as `/dev/null`.
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from bon.system_faults import reason

__all__ = ["ForgivingFile", "forgiving_text", "result_is_complete", "standard_streams"]


class ForgivingFile(io.RawIOBase):
    """Writes to a descriptor; after the first write that fails, to nowhere."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.error: OSError | None = None
        """Why nothing is written any more."""

    def writable(self) -> bool:
        """Return that it is."""
        return True

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._descriptor

    def isatty(self) -> bool:
        """Tell whether a person looks at it."""
        return os.isatty(self._descriptor)

    def write(self, data: Any) -> int:
        """Write what can be written; the rest counts as written."""
        if self.error is None:
            try:
                return self._write(data)
            except OSError as error:
                self.error = error
        return len(memoryview(data).cast("B"))

    def _write(self, data: Any) -> int:
        while True:
            try:
                return os.write(self._descriptor, data)
            except BlockingIOError:  # somebody else has made the terminal non-blocking
                select.select([], [self._descriptor], [])

    @property
    def is_lost(self) -> bool:
        """Whether something could not be written that somebody waits for."""
        return self.error is not None and self.error.errno != errno.EPIPE


def forgiving_text(descriptor: int, encoding: str, errors: str) -> io.TextIOWrapper:
    """Return a text stream over a `ForgivingFile`; each line is written when it is complete."""
    raw = io.BufferedWriter(ForgivingFile(descriptor), io.DEFAULT_BUFFER_SIZE)
    return io.TextIOWrapper(raw, encoding, errors, line_buffering=True)


@contextmanager
def standard_streams() -> Iterator[None]:
    """Have all three streams, none of which raises, while the block runs.

    Descriptors that are closed lead to `/dev/null`: else the next file that is opened would get
    their numbers, and what is printed would be written into it.

    Raises:
        SystemExit: with 1 where the block ends well, but its result was not taken by stdout.
    """
    is_there = {number: _is_open(number) for number in (0, 1, 2)}
    for number, there in is_there.items():
        if not there:
            _open_nowhere(number)
    if not is_there[0]:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = _replaced(sys.stdout, 1, "backslashreplace")
    sys.stderr = _replaced(sys.stderr, 2, "backslashreplace")
    code: Any = 0
    try:
        yield
    except SystemExit as end:
        code = end.code
    sys.stdout.flush()
    lost = _lost(sys.stdout)
    if lost is not None and not code:
        why = f"\n  why:   {reason(lost)}\n  next:  give stdout another place"
        print(f"error: the result could not be printed\n  where: stdout{why}", file=sys.stderr)
        code = 1
    if code:
        raise SystemExit(code)


def result_is_complete() -> None:
    """Say that what was printed only tells of a result: it may be lost, with a warning."""
    sys.stdout.flush()
    lost = _lost(sys.stdout)
    if lost is not None:
        said = "the result is complete, but stdout did not take what tells of it"
        print(f"warning: {said}: {reason(lost)}", file=sys.stderr)
        _raw(sys.stdout).error = OSError(errno.EPIPE, "told")


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _open_nowhere(number: int) -> None:
    opened = os.open(os.devnull, os.O_RDWR)
    if opened != number:
        os.dup2(opened, number)
        os.close(opened)
    os.set_inheritable(number, True)


def _replaced(stream: Any, descriptor: int, errors: str) -> io.TextIOWrapper:
    if stream is not None:
        with suppress(OSError, ValueError):
            stream.flush()
    return forgiving_text(descriptor, getattr(stream, "encoding", None) or "utf-8", errors)


def _raw(stream: Any) -> Any:
    return getattr(getattr(stream, "buffer", None), "raw", None)


def _lost(stream: Any) -> OSError | None:
    """Return why a stream lost what somebody waits for; none where it did not, or is another's."""
    raw = _raw(stream)
    return raw.error if isinstance(raw, ForgivingFile) and raw.is_lost else None
