"""Loads a user's Python file; as a program it tells what is wrong with one.

It imports nothing of `bon`: as a program it says on stdout, in JSON, why the file cannot be
imported or has no such function, and an empty object where nothing is wrong. Its arguments are the
file's path and the function's name, stdin is the file's content.
"""

from __future__ import annotations

import inspect
import json
import os
import sys
import traceback
from types import ModuleType
from typing import Any

__all__ = ["described", "faults", "load"]


def load(source: bytes, path: str) -> ModuleType:
    """Run a file's content as a module; files beside it can be imported.

    Raises:
        BaseException: whatever its code raises.
    """
    folder, name = os.path.dirname(path), os.path.basename(path).removesuffix(".py")  # noqa: PTH119, PTH120
    name = name if name not in sys.modules else f"bon_rule_{name}"
    module = ModuleType(name)
    module.__file__ = path
    if folder not in sys.path:
        sys.path.insert(0, folder)
    sys.modules[name] = module  # dataclasses look for it there
    try:
        exec(compile(source, path, "exec"), vars(module))
    except BaseException:
        del sys.modules[name]
        raise
    return module


def described(error: BaseException, path: str) -> str:
    """Return an error's kind, its first line that says something, and its line in the file."""
    lines = (line.strip() for line in str(error).splitlines())
    said = next((line for line in lines if line), "")
    text = f"{type(error).__name__}: {said}" if said else type(error).__name__
    frames = [one for one in traceback.extract_tb(error.__traceback__) if one.filename == path]
    number = frames[-1].lineno if frames else None
    if isinstance(error, SyntaxError) and error.filename == path:
        return f"{type(error).__name__}: {error.msg} (line {error.lineno})"
    return text if number is None else f"{text} (line {number})"


def faults(source: bytes, path: str, name: str) -> dict[str, Any]:
    """Return what is wrong: `error`, the functions that there are (`known`), or `signature`."""
    try:
        module = load(source, path)
    except BaseException as error:
        return {"error": described(error, path)}
    function = getattr(module, name, None)
    if not callable(function):
        own = [
            key
            for key, value in vars(module).items()
            if inspect.isfunction(value) and value.__module__ == module.__name__
        ]
        return {"known": own}
    try:
        signature = inspect.signature(function)
        signature.bind([], [], [])
    except TypeError:
        return {"signature": f"{name}{signature}"}
    except ValueError:
        pass  # written in C, and does not say
    return {}


if __name__ == "__main__":
    _replies = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what the file prints is not for here
    _found = faults(sys.stdin.buffer.read(), sys.argv[1], sys.argv[2])
    os.write(_replies, json.dumps(_found).encode())
    os._exit(0)  # whatever threads the file has started
