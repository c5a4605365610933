"""The file of `rule:FILE.py:FUNCTION`: read and tried before any work."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from bon.errors import SettingsError, UnknownChoiceError, did_you_mean

__all__ = ["UserFile", "names_file", "read_user_file"]

_PROGRAM = Path(__file__).with_name("user_module.py")
_IMPORT_S = 300.0
_NEXT_STEP = "see docs/rules.md: def FUNCTION(prompts, responses, columns) -> list of floats"


@dataclass(frozen=True, slots=True)
class UserFile:
    """A file's content as it was read, and the name of a function in it."""

    path: str
    """Absolute."""
    function: str
    source: bytes

    @property
    def digest(self) -> str:
        """What stands for the content in a fingerprint."""
        return hashlib.sha256(self.source).hexdigest()[:16]


def names_file(rule: str) -> bool:
    """Tell whether what follows `rule:` is a Python file."""
    return rule.endswith(".py") or ".py:" in rule


def read_user_file(rule: str, where: str) -> UserFile:
    """Read `FILE.py:FUNCTION`, and import it in a process of its own to see that it can be.

    Raises:
        SettingsError: there is no such file, it cannot be imported, or the function takes other
            arguments.
        UnknownChoiceError: it has no such function.
    """
    said, _, function = (rule, "", "") if rule.endswith(".py") else rule.rpartition(":")
    path = Path(said).expanduser().absolute()
    try:
        source = path.read_bytes()
    except OSError as error:
        raise SettingsError(
            f"cannot read {said!r}", where=where, why=str(error.strerror), next_step=_NEXT_STEP
        ) from None
    found = UserFile(str(path), function, source)
    fault = _faults(found)
    if "known" in fault:
        known = fault["known"]
        raise UnknownChoiceError(
            f"{said!r} has no function {function!r}" if function else "which function?",
            where=where,
            next_step=did_you_mean(function, known) if known else f"it has none; {_NEXT_STEP}",
        )
    if "signature" in fault:
        raise SettingsError(
            f"{function!r} takes other arguments",
            where=where,
            why=f"it is {fault['signature']}",
            next_step=_NEXT_STEP,
        )
    if fault:
        raise SettingsError(
            f"cannot import {said!r}", where=where, why=fault["error"], next_step=_NEXT_STEP
        )
    return found


@lru_cache(maxsize=16)
def _faults(file: UserFile) -> dict[str, Any]:
    """Return what `user_module.py` finds; its process keeps what the file does away from ours."""
    try:
        done = subprocess.run(
            [sys.executable, "-P", str(_PROGRAM), file.path, file.function],
            input=file.source,
            capture_output=True,
            timeout=_IMPORT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"importing it did not end within {_IMPORT_S:g} s"}
    if not done.stdout:
        return {"error": f"importing it ended the process: exit code {done.returncode}"}
    found: dict[str, Any] = json.loads(done.stdout)
    return found
