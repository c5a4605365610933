"""Where a pool or a set lies: on a disk of this machine, or on an object store."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePath
from typing import BinaryIO, TypeAlias

from bon.errors import SettingsError, did_you_mean
from bon.object_store import ObjectPath
from bon.store_systems import KNOWN

__all__ = ["Place", "arrow_source", "inside", "is_local", "lies_in", "place"]

_ADDRESS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<key>[^?]*)(?:\?(?P<query>.*))?")

Place: TypeAlias = Path | ObjectPath
"""Where a pool or a set lies: on a disk, or on an object store."""


def place(text: str | os.PathLike[str] | ObjectPath) -> Place:
    """Return where a pool or a set lies, as a person says it: a path, or `s3://BUCKET/NAME`.

    Raises:
        SettingsError: an address of no known store, without a bucket, or with a password.
    """
    if isinstance(text, ObjectPath):
        return text
    said = os.fspath(text)
    found = _ADDRESS.fullmatch(said)
    if found is None or found["scheme"] == "file":
        return Path(said if found is None else found["key"])
    scheme, key = found["scheme"].lower(), found["key"].strip("/")
    if scheme not in KNOWN:
        raise SettingsError(
            f"{scheme}:// is no object store that bon knows",
            where=f"{scheme}://…",
            next_step=did_you_mean(scheme, KNOWN),
        )
    if "@" in key and not scheme.startswith("abfs"):
        raise SettingsError(
            "an address with a key in it is not taken",
            where=f"{scheme}://…@…",
            why="whoever lists the machine's processes would see it",
            next_step="put keys into the environment (AWS_ACCESS_KEY_ID, …) or into a profile",
        )
    if not key or found["key"].startswith("/"):
        raise SettingsError(
            "the address names no bucket", where=said, next_step=f"give {scheme}://BUCKET/NAME"
        )
    if {"", ".", ".."}.intersection(key.split("/")):
        raise SettingsError(
            "the address has a name in it that is empty or dots alone",
            where=said,
            next_step="leave it out: a store has no folders that it could lead to",
        )
    return ObjectPath(scheme, key, found["query"] or "")


def is_local(where: Place) -> bool:
    """Tell whether a place is on a disk of this machine."""
    return isinstance(where, Path)


def arrow_source(path: Place) -> Path | BinaryIO:
    """Return what Arrow's readers take: a path, or an object opened."""
    return path if isinstance(path, Path) else path.open()


def inside(path: Place, folder: Place) -> PurePath:
    """Return the name of a place within another one.

    Raises:
        ValueError: it does not lie there.
    """
    if isinstance(path, ObjectPath) and isinstance(folder, ObjectPath):
        return path.relative_to(folder)
    return Path(str(path)).relative_to(str(folder))


def lies_in(path: Place, folder: Place) -> bool:
    """Tell whether a place is another one, or lies in it."""
    if isinstance(path, ObjectPath):
        return isinstance(folder, ObjectPath) and path.is_relative_to(folder)
    return isinstance(folder, Path) and path.is_relative_to(folder)
