"""Places on object stores: one immutable value for one address, used as a path is.

A store has no folders, no rename and no lock. It has one promise, on which all else rests: an
object that is put appears whole or not at all, and whoever reads or lists afterwards sees it.
"""

from __future__ import annotations

import errno
import heapq
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePath, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, TypeAlias, TypeVar, cast

from bon.errors import SettingsError, did_you_mean
from bon.store_faults import store_fault
from bon.store_systems import KNOWN, ask

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo, FileSystem

__all__ = [
    "ObjectPath",
    "ObjectStat",
    "Place",
    "arrow_source",
    "inside",
    "is_local",
    "lies_in",
    "place",
]

_ADDRESS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<key>[^?]*)(?:\?(?P<query>.*))?")
_LISTING_LASTS_S = 30.0
"""How long what was seen of an object is taken for its state, unless this process changes it."""
_SMALL_BYTES = 1 << 18
"""What is no larger is read by one request."""

_T = TypeVar("_T")


class ObjectStat(NamedTuple):
    """One state of an object, under the names that a file's has."""

    st_size: int
    st_mtime_ns: int
    """Of many stores in whole seconds."""
    st_ino: int = 0
    """How often this process has put it: a second state within a second is another one."""

    @property
    def st_ctime_ns(self) -> int:
        """As `st_mtime_ns`: an object is never changed."""
        return self.st_mtime_ns


@dataclass(frozen=True, slots=True, order=True)
class ObjectPath:
    """An object, or all those whose names begin with its own and `/`."""

    scheme: str
    key: str
    """Bucket and name, without slashes at their ends."""
    query: str = ""
    """Options of the file system, as in the address: `endpoint_override=…&scheme=http`."""

    def __str__(self) -> str:
        address = f"{self.scheme}://{self.key}"
        return f"{address}?{self.query}" if self.query else address

    def __truediv__(self, name: str | PurePath) -> ObjectPath:
        return replace(self, key=f"{self.key}/{name}")

    @property
    def name(self) -> str:
        """Its last part."""
        return self.key.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """As of a path."""
        return PurePosixPath(self.name).suffix

    @property
    def stem(self) -> str:
        """As of a path."""
        return PurePosixPath(self.name).stem

    @property
    def parent(self) -> ObjectPath:
        """What it lies in; of a bucket, the bucket itself."""
        above = self.key.rpartition("/")[0]
        return replace(self, key=above) if above else self

    @property
    def parents(self) -> tuple[ObjectPath, ...]:
        """All that it lies in, the nearest first."""
        found = self
        above = []
        while found.parent != found:
            found = found.parent
            above.append(found)
        return tuple(above)

    def with_name(self, name: str) -> ObjectPath:
        """Return what lies beside it."""
        return self.parent / name

    def with_suffix(self, suffix: str) -> ObjectPath:
        """As of a path."""
        return self.with_name(f"{self.stem}{suffix}")

    def is_relative_to(self, other: ObjectPath) -> bool:
        """Tell whether it is `other`, or lies in it."""
        return self == other or other in self.parents

    def relative_to(self, other: ObjectPath) -> PurePosixPath:
        """Return its name within `other`.

        Raises:
            ValueError: it does not lie there.
        """
        if not self.is_relative_to(other):
            raise ValueError(f"{self} does not lie in {other}")
        return PurePosixPath(self.key[len(other.key) + 1 :])

    def resolve(self) -> ObjectPath:
        """Return itself: there are no links."""
        return self

    absolute = resolve

    def is_symlink(self) -> bool:
        """Never: there are no links."""
        return False

    def exists(self) -> bool:
        """Tell whether there is such an object, or anything that lies in it."""
        return bool(self._info().type.name != "NotFound")

    def is_file(self) -> bool:
        """Tell whether there is such an object."""
        if self._seen() is not None:
            return True
        try:
            self._ask(lambda store: store.open_input_file(self.key)).close()
        except FileNotFoundError:
            return False
        return True

    def is_dir(self) -> bool:
        """Tell whether anything lies in it."""
        return bool(self._info().type.name == "Directory")

    def stat(self) -> ObjectStat:
        """Return its size and when it was put; what was seen within 30 s is not asked for again.

        Raises:
            FileNotFoundError: there is no such object.
        """
        info = self._seen() or self._info()
        if info.type.name != "File":
            raise self._missing()
        _listed.setdefault(self, (info, time.monotonic()))
        return ObjectStat(int(info.size), int(info.mtime_ns or 0), _num_puts.get(self, 0))

    def iterdir(self) -> Iterator[ObjectPath]:
        """Yield what lies in it, by one request for a thousand objects.

        Raises:
            FileNotFoundError: nothing lies in it.
        """
        yield from self._list()

    def walk(self) -> Iterator[ObjectPath]:
        """Yield every object in it, however deep."""
        with suppress(FileNotFoundError):
            yield from (path for path in self._list(is_deep=True) if path in _listed)

    def open(self, mode: str = "rb") -> BinaryIO:
        """Open it for reading; of a large one, only what is read is fetched.

        Raises:
            FileNotFoundError: there is no such object.
        """
        if mode != "rb":
            raise ValueError(f"an object is only read: {mode}")

        def opened(store: FileSystem) -> Any:
            import pyarrow as pa

            file = store.open_input_file(self.key)
            # A buffer of Arrow's own: one of Python's, let go by a thread of Arrow's while Python
            # ends, aborts the process.
            return file if file.size() > _SMALL_BYTES else pa.BufferReader(file.read_buffer())

        return cast("BinaryIO", self._ask(opened))

    def read_bytes(self) -> bytes:
        """Read it whole."""

        def read(store: FileSystem) -> bytes:
            with store.open_input_file(self.key) as file:
                return bytes(file.readall())

        return self._ask(read)

    def read_text(self, encoding: str = "utf-8") -> str:
        """Read it whole, as text."""
        return self.read_bytes().decode(encoding)

    def write_bytes(self, content: bytes) -> None:
        """Put it: it appears whole, or stays what it was."""
        self._put(content)

    def write_text(self, text: str, encoding: str = "utf-8") -> None:
        """Put a text, as `write_bytes`."""
        self._put(text.encode(encoding))

    def write_file(self, path: Path) -> None:
        """Put the content of a local file, as `write_bytes`."""
        import pyarrow as pa

        if path.stat().st_size == 0:
            return self._put(b"")
        with pa.memory_map(str(path)) as file:
            self._put(file.read_buffer())

    def unlink(self, missing_ok: bool = False) -> None:
        """Delete it.

        Raises:
            FileNotFoundError: there is no such object.
        """
        try:
            self._ask(lambda store: store.delete_file(self.key))
        except FileNotFoundError:
            if not missing_ok:
                raise
        finally:
            self._forget()

    def remove_tree(self) -> None:
        """Delete all that lies in it."""
        self._ask(lambda store: store.delete_dir_contents(self.key, missing_dir_ok=True))
        for path in [path for path in _listed if path.is_relative_to(self)]:
            path._forget()

    def rename(self, target: ObjectPath) -> ObjectPath:
        """Copy it to another name, then delete it: two steps, the first of which is whole."""
        self._ask(lambda store: store.move(self.key, target.key))
        self._forget()
        target._forget()
        return target

    def next_seen(self, count: int) -> list[ObjectPath]:
        """Return the objects that follow it in what it lies in, as far as they have been seen."""
        beside = (path for path in _listed if path > self and path.parent == self.parent)
        return heapq.nsmallest(count, beside)

    def file_stats(self) -> dict[str, ObjectStat]:
        """Return the state of every object in it, by its address."""
        with suppress(FileNotFoundError):
            return {str(path): path.stat() for path in self._list() if path in _listed}
        return {}

    def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:
        """Do nothing: there are no folders."""

    def _list(self, *, is_deep: bool = False) -> list[ObjectPath]:
        from pyarrow.fs import FileSelector

        selector = FileSelector(self.key, recursive=is_deep)
        infos = self._ask(lambda store: store.get_file_info(selector))
        now_s, found = time.monotonic(), []
        for info in infos:
            path = replace(self, key=info.path.rstrip("/"))
            _listed.pop(path, None)
            if info.type.name == "File":
                _listed[path] = info, now_s
            found.append(path)
        return found

    def _put(self, content: Any) -> None:
        # One call with all of it: a stream that is closed before its end would be put as it is.
        def put(store: FileSystem) -> None:
            with store.open_output_stream(self.key) as stream:
                stream.write(content)

        try:
            self._ask(put)
        finally:
            self._forget()

    def _forget(self) -> None:
        _listed.pop(self, None)
        _num_puts[self] = _num_puts.get(self, 0) + 1

    def _seen(self) -> FileInfo | None:
        info, seen_s = _listed.get(self, (None, 0.0))
        if info is not None and time.monotonic() - seen_s > _LISTING_LASTS_S:
            _listed.pop(self, None)
            return None
        return info

    def _info(self) -> FileInfo:
        return self._ask(lambda store: store.get_file_info(self.key))

    def _missing(self) -> FileNotFoundError:
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self))

    def _ask(self, request: Callable[[FileSystem], _T]) -> _T:
        try:
            return ask(self.scheme, self.key.partition("/")[0], self.query, request)
        except FileNotFoundError:
            raise self._missing() from None
        except OSError as error:
            raise store_fault(error, str(self)) from error


Place: TypeAlias = Path | ObjectPath
"""Where a pool or a set lies: on a disk, or on an object store."""

_listed: dict[ObjectPath, tuple[FileInfo, float]] = {}
"""What listings said of objects, and when."""
_num_puts: dict[ObjectPath, int] = {}


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
