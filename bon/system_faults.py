"""What the system lacks or refuses (room, descriptors, memory, permission), and what helps.

Such an error says nothing about the data: a part that cannot be opened is not damaged.
"""

from __future__ import annotations

import errno
import os
import resource

from bon.errors import SystemFaultError, first_line
from bon.memory import is_lack_of_memory
from bon.store_faults import is_store_fault, store_fault

__all__ = ["advice", "reason", "refuse_little_memory", "refuse_system_fault", "system_fault"]

_ROOM = "make room or choose another place"
_RIGHTS = "give yourself the right to it, or choose another place"
_NAME = "choose a shorter name"
_FILES = (
    "raise the limit on open files (`ulimit -n 1024`; a container or service has its own limit)"
)
_MEMORY = (
    "free memory, or raise the limit that this process has (`ulimit -v`, `ulimit -d`, the memory "
    "of its container or job)"
)
_DISK = "the disk or the network file system fails: look at the system's log (`dmesg`)"
_ADVICE = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: f"{_ROOM}: the quota is used up",
    errno.EFBIG: "raise the limit on file sizes (`ulimit -f unlimited`), or choose another place",
    errno.EROFS: "choose a place that is not read-only",
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.ENAMETOOLONG: _NAME,
    errno.ELOOP: "mend the symbolic link, which leads to itself, or choose another place",
    errno.EMFILE: _FILES,
    errno.ENFILE: "close other programs: the whole system has too many open files",
    errno.ENOMEM: _MEMORY,
    errno.EAGAIN: f"{_MEMORY}, or the limit on processes (`ulimit -u`)",
    errno.EIO: _DISK,
    errno.ESTALE: _DISK,
    errno.ENODEV: _DISK,
    errno.ENXIO: _DISK,
    errno.ETIMEDOUT: _DISK,
}
"""By error number: what a person can do, without what then follows."""
_AGAIN = "; then run the same command again; what is committed stays"
_THREAD = "can't start new thread"
_NO_MAP = "failed to map segment"
_IN_WORDS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)
"""Numbers that arrive as words alone, such as from Arrow or the loader of shared libraries."""
_LEAST = {resource.RLIMIT_AS: ("ulimit -v", 1 << 30), resource.RLIMIT_DATA: ("ulimit -d", 1 << 28)}
"""Bytes without which numpy and Arrow do not load: they hang in that, or abort."""


def reason(error: BaseException) -> str:
    """Return what the system said, without another library's frame around it."""
    number = _number(error)
    return os.strerror(number) if number is not None else first_line(error)


def advice(error: BaseException, otherwise: str) -> str:
    """Return what helps against an error of the system, `otherwise` where it is none."""
    return _ADVICE.get(_number(error) or 0, otherwise)


def system_fault(
    error: BaseException, where: object = "", *, is_boundary: bool = False
) -> SystemFaultError | None:
    """Return an error that says what the system lacks or refuses; none where it is no such error.

    At the boundary, where nobody else will explain it, any error with a number is one.
    """
    if is_store_fault(error):
        return store_fault(error, str(where))
    number = _number(error)
    if number is None or (number not in _ADVICE and not is_boundary):
        return None
    file = getattr(error, "filename", None)
    place = str(where) or ("" if file is None else os.fsdecode(file))
    what = "not enough memory" if number == errno.ENOMEM else "the system refuses"
    step = _ADVICE.get(number, "see to what it says, with --debug for where in bon") + _AGAIN
    return SystemFaultError(what, where=place, why=os.strerror(number), next_step=step)


def refuse_little_memory() -> None:
    """Refuse to begin under a limit on memory with which a command would hang while it loads.

    Raises:
        SystemFaultError: such a limit is set.
    """
    for number, (command, least) in _LEAST.items():
        most = resource.getrlimit(number)[0]
        if most != resource.RLIM_INFINITY and most < least:
            raise SystemFaultError(
                "not enough memory",
                why=f"this process may have {most >> 20} MiB (`{command}`)",
                next_step=f"raise the limit: `{command} {least >> 10}` is the least, in KiB",
            )


def refuse_system_fault(error: BaseException, where: object) -> None:
    """Raise what the system lacks or refuses; return where an error says something else.

    Raises:
        SystemFaultError: it is one of the system.
    """
    if isinstance(error, SystemFaultError):
        raise error
    fault = system_fault(error, where)
    if fault is not None:
        raise fault from error


def _number(error: BaseException) -> int | None:
    """Return the number of an error of the system, from its words where it has none itself."""
    number = getattr(error, "errno", None)
    if isinstance(error, OSError) and isinstance(number, int) and number > 0:
        return number
    if is_lack_of_memory(error):
        return errno.ENOMEM
    text = str(error)
    if isinstance(error, RuntimeError) and _THREAD in text:
        return errno.EAGAIN
    if isinstance(error, ImportError) and _NO_MAP in text:
        return errno.ENOMEM
    if type(error).__module__.startswith(("duckdb", "_duckdb")):
        if type(error).__name__ == "OutOfMemoryException":
            return errno.ENOMEM
        return next((one for one in _ADVICE if os.strerror(one) in text), None)
    is_arrows = type(error).__module__.startswith("pyarrow")
    if is_arrows or isinstance(error, ImportError | RuntimeError):
        return next((one for one in _IN_WORDS if os.strerror(one) in text), None)
    return None
