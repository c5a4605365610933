"""Object stores through pyarrow's file systems, or fsspec's where pyarrow has none; asked again."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote, urlencode

from bon.errors import SettingsError
from bon.store_faults import is_passing, is_unreachable

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

__all__ = ["KNOWN", "ask"]

_OF_PYARROW = frozenset({"s3", "gs", "gcs", "abfs", "abfss"})
_OF_FSSPEC = frozenset({"az", "oci", "oss"})
"""The package that fsspec asks for must be there."""
KNOWN = _OF_PYARROW | _OF_FSSPEC
"""The schemes of addresses: of stores that put an object whole, and show it to the next listing."""
_DELAYED_OPEN = "allow_delayed_open"
"""S3: what is small is put by one request, and no request is made before there is content.

Not so what is large: there the first request begins an upload in several parts, and where that one
is refused, a stream that is closed then puts an empty object over what was there.
"""
_PAUSES_S = (1.0, 4.0, 15.0)
"""Before a request is made again that failed for the moment; the SDK has tried three times then."""
_answered: set[tuple[str, str, str]] = set()
"""Buckets that were reached: an address that never was is wrong, and nobody should wait for it."""

_T = TypeVar("_T")


def ask(
    scheme: str,
    bucket: str,
    query: str,
    request: Callable[[FileSystem], _T],
    *,
    is_large: bool = False,
) -> _T:
    """Make a request; one that fails for the moment again, unless nobody was ever reached there.

    `is_large` says that more is put than one request takes.

    Raises:
        OSError: what the file system raised.
        SettingsError: the address cannot be used.
    """
    pauses_s = iter(_PAUSES_S)
    while True:
        try:
            answer = request(_file_system(scheme, bucket, query, is_large))
            _answered.add((scheme, bucket, query))
            return answer
        except OSError as error:
            is_wrong = is_unreachable(error) and (scheme, bucket, query) not in _answered
            pause_s = next(pauses_s, None)
            if pause_s is None or is_wrong or not is_passing(error, scheme):
                raise
            time.sleep(pause_s)


@lru_cache(maxsize=16)
def _file_system(scheme: str, bucket: str, query: str, is_large: bool) -> FileSystem:
    from pyarrow import ArrowInvalid
    from pyarrow.fs import FileSystem, FSSpecHandler, PyFileSystem

    if scheme in _OF_FSSPEC:
        import fsspec  # type: ignore[import-untyped]

        try:
            return PyFileSystem(FSSpecHandler(fsspec.filesystem(scheme)))
        except ImportError as error:
            raise SettingsError(
                f"{scheme}:// needs a package that is not installed",
                why=str(error),
                next_step="install it, and run the same command again",
            ) from None
    said = _with(query, _DELAYED_OPEN, str(not is_large).lower()) if scheme == "s3" else query
    address = f"{scheme}://{quote(bucket, safe='@.')}/" + (f"?{said}" if said else "")
    try:
        return FileSystem.from_uri(address)[0]
    except ArrowInvalid as error:
        raise SettingsError(
            "the address cannot be used",
            where=f"{scheme}://{bucket}",
            why=str(error),
            next_step="give options as pyarrow's file systems take them: "
            "?region=…&endpoint_override=HOST:PORT&scheme=http",
        ) from None


def _with(query: str, option: str, value: str) -> str:
    others = [one for one in query.split("&") if one and not one.startswith(f"{option}=")]
    return "&".join([*others, urlencode({option: value})])
