"""Every error that `bon` raises on purpose.

Each leaf is also the standard exception that fits it, can be pickled (it crosses a process
boundary), and says four things: what happened, where, why, and what to do next.

    BonError
    ├── SettingsError          ValueError            exit 2: a flag or a config file
    │   ├── UnknownChoiceError LookupError           a name that is not in the list
    │   └── SettingsMismatchError                    resuming with other settings
    ├── InputError             ValueError            the input as a whole cannot be used
    │   ├── InputNotFoundError FileNotFoundError
    │   └── UnknownLayoutError                       no known columns
    ├── ModelError             ValueError            a model that cannot be used
    │   └── ModelNotFoundError FileNotFoundError
    ├── PoolError              RuntimeError
    │   ├── PoolNotFoundError  FileNotFoundError
    │   ├── PoolIncompleteError                      parts are missing
    │   ├── PoolCorruptError                         a part fails its checksum
    │   └── PoolLockedError    BlockingIOError       another run holds it
    ├── EngineError            RuntimeError
    │   ├── WorkerDiedError    ChildProcessError
    │   └── ServerError        ConnectionError       a model server cannot be used
    │       ├── ServerPathError LookupError          it has no such path, or no such model
    │       └── ServerGoneError TimeoutError         it answers nothing any more
    ├── OutputError            OSError               the result cannot be written
    ├── SystemFaultError       OSError               room, memory, descriptors or rights are lacking
    └── AccountingError        ArithmeticError       rows in != rows out + drops: a bug
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "AccountingError",
    "BonError",
    "EngineError",
    "InputError",
    "InputNotFoundError",
    "ModelError",
    "ModelNotFoundError",
    "OutputError",
    "PoolCorruptError",
    "PoolError",
    "PoolIncompleteError",
    "PoolLockedError",
    "PoolNotFoundError",
    "ServerError",
    "ServerGoneError",
    "ServerPathError",
    "SettingsError",
    "SettingsMismatchError",
    "SystemFaultError",
    "UnknownChoiceError",
    "UnknownLayoutError",
    "WorkerDiedError",
    "did_you_mean",
    "first_line",
    "listed",
]


_MAX_NAMES, _MAX_NAME, _MAX_COMPARED = 50, 100, 10_000


class BonError(Exception):
    """Base of the tree: `what` happened, `where`, `why`, and the `next_step` to take."""

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", why: str = "", next_step: str = "") -> None:
        super().__init__(what)
        self.what, self.where, self.why, self.next_step = what, where, why, next_step

    def __str__(self) -> str:
        lines = [self.what]
        lines += [f"  where: {self.where}"] if self.where else []
        lines += [f"  why:   {self.why}"] if self.why else []
        lines += [f"  next:  {self.next_step}"] if self.next_step else []
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.what, self.where, self.why, self.next_step)


def _rebuild(kind: type[BonError], what: str, where: str, why: str, next_step: str) -> BonError:
    return kind(what, where=where, why=why, next_step=next_step)


def first_line(error: BaseException) -> str:
    """Return the first line of another library's error that says something, or its kind."""
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line), type(error).__name__)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `did you mean 'x'?` for the nearest known name, or the list of all of them."""
    choices = sorted(known)
    near = difflib.get_close_matches(name, choices[:_MAX_COMPARED], n=1)
    return f"did you mean {listed([repr(near[0])])}?" if near else "known: " + listed(choices)


def listed(names: Iterable[str]) -> str:
    """Return names of an input, which may be a million or a page long, as a list to be read."""
    every = list(names)
    cut = [
        name if len(name) <= _MAX_NAME else name[:_MAX_NAME] + "…" for name in every[:_MAX_NAMES]
    ]
    more = [f"and {len(every) - _MAX_NAMES:,} more"] if len(every) > _MAX_NAMES else []
    return ", ".join(cut + more)


class SettingsError(BonError, ValueError):
    """A flag, a config file or their combination cannot be used."""

    exit_code = 2


class UnknownChoiceError(SettingsError, LookupError):
    """A name was given that is not one of the choices."""


class SettingsMismatchError(SettingsError):
    """A pool is resumed with settings or input other than those that made it."""


class InputError(BonError, ValueError):
    """An input file cannot be used as a whole; a bad row is a drop, not an error."""


class InputNotFoundError(InputError, FileNotFoundError):
    """The input does not exist."""


class UnknownLayoutError(InputError):
    """The columns of the input match no known layout."""


class ModelError(BonError, ValueError):
    """A model cannot be used for what it was asked to do."""


class ModelNotFoundError(ModelError, FileNotFoundError):
    """A model folder, a file in it or a hub id does not exist."""


class PoolError(BonError, RuntimeError):
    """A pool cannot be used."""


class PoolNotFoundError(PoolError, FileNotFoundError):
    """There is no pool at the given path."""


class PoolIncompleteError(PoolError):
    """Parts that a command needs have not been made yet."""


class PoolCorruptError(PoolError):
    """A committed file of the pool cannot be read back."""


class PoolLockedError(PoolError, BlockingIOError):
    """Another run is writing to the pool."""


class EngineError(BonError, RuntimeError):
    """The engine that runs the models failed."""


class WorkerDiedError(EngineError, ChildProcessError):
    """A model's process ended without finishing its work."""


class ServerError(EngineError, ConnectionError):
    """A model server is gone, refuses the key, or is not what it was taken for."""


class ServerPathError(ServerError, LookupError):
    """A model server has no such path, or no such model."""


class ServerGoneError(ServerError, TimeoutError):
    """Model servers are not reached, or answer nothing, for longer than is waited."""


class OutputError(BonError, OSError):
    """The result cannot be written where it was asked for."""


class SystemFaultError(BonError, OSError):
    """The system lacks or refuses something; it says nothing about the data."""


class AccountingError(BonError, ArithmeticError):
    """Rows in and rows out plus drops disagree; always a bug in `bon`."""
