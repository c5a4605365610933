"""Places on object stores: one immutable value for one address, used as a path is.

A store has no folders, no rename and no lock. It has one promise, on which all else rests: an
object that is put appears whole or not at all, and whoever reads or lists afterwards sees it.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePath, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, TypeVar, cast

from bon.store_faults import is_missing, store_fault
from bon.store_listings import Listings
from bon.store_systems import ask

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo, FileSystem

__all__ = ["ObjectPath", "ObjectStat"]

_SMALL_BYTES = 1 << 18
"""What is no larger is read by one request."""
_LARGE_BYTES = 5 << 20
"""What is larger is put in several parts; Arrow itself does so from 10 MiB on."""

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
        if self._state() is not None:
            return True
        if "/" not in self.key:  # a bucket
            return False
        try:
            self._ask(lambda store: store.open_input_file(self.key)).close()
        except FileNotFoundError:
            return False
        return True

    def is_dir(self) -> bool:
        """Tell whether anything lies in it."""
        return bool(self._info().type.name == "Directory")

    def holds_files(self) -> bool:
        """Tell whether it is an object or has one in it, however deep.

        Where the last one was deleted, Arrow leaves an empty object that stands for the folder.
        """
        return self.is_file() or any(True for _ in self.walk())

    def stat(self) -> ObjectStat:
        """Return its size and when it was put; what was seen within 30 s is not asked for again.

        Of many that are asked for after that, all of the place are asked for at once.

        Raises:
            FileNotFoundError: there is no such object.
        """
        info = self._state() or self._info()
        if info.type.name != "File":
            raise self._missing()
        _seen.note(self, info)
        return ObjectStat(int(info.size), int(info.mtime_ns or 0), _seen.num_puts(self))

    def iterdir(self) -> Iterator[ObjectPath]:
        """Yield what lies in it, by one request for a thousand objects.

        Raises:
            FileNotFoundError: nothing lies in it.
        """
        yield from (path for path, _ in self._list())

    def walk(self) -> Iterator[ObjectPath]:
        """Yield every object in it, however deep."""
        with suppress(FileNotFoundError):
            yield from (path for path, is_file in self._list(is_deep=True) if is_file)

    def open(self, mode: str = "rb", *, is_whole: bool = False) -> BinaryIO:
        """Open it for reading; of a large one, only what is read is fetched.

        With `is_whole` all is fetched at once: what fails after that is its content, not the store.

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
            is_small = is_whole or file.size() <= _SMALL_BYTES
            return pa.BufferReader(file.read_buffer()) if is_small else file

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
            _seen.forget(self)

    def remove_tree(self) -> None:
        """Delete all that lies in it."""
        self._ask(lambda store: store.delete_dir_contents(self.key, missing_dir_ok=True))
        for path in _seen.paths():
            if path.is_relative_to(self):
                _seen.forget(path)

    def rename(self, target: ObjectPath) -> ObjectPath:
        """Copy it to another name, then delete it: two steps, the first of which is whole."""
        self._ask(lambda store: store.move(self.key, target.key))
        _seen.forget(self)
        _seen.forget(target)
        return target

    def next_seen(self, count: int) -> list[ObjectPath]:
        """Return the objects that follow it in what it lies in, as the last listing named them."""
        return _seen.following(self.parent, self, count)

    def file_stats(self) -> dict[str, ObjectStat]:
        """Return the state of every object in it, by its address."""
        with suppress(FileNotFoundError):
            return {str(path): path.stat() for path, is_file in self._list() if is_file}
        return {}

    def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:
        """Do nothing: there are no folders."""

    def _list(self, *, is_deep: bool = False) -> list[tuple[ObjectPath, bool]]:
        """Return what lies in it, with `is_deep` however deep, each and whether it is an object."""
        from pyarrow.fs import FileSelector

        selector = FileSelector(self.key, recursive=is_deep)
        since_s = time.monotonic()
        infos = self._ask(lambda store: store.get_file_info(selector))
        found = [(replace(self, key=info.path.rstrip("/")), info) for info in infos]
        files = [(path, info) for path, info in found if info.type.name == "File"]
        _seen.note_all(files, since_s)
        if not is_deep:
            _seen.set_names(self, (path for path, _ in files))
        return [(path, info.type.name == "File") for path, info in found]

    def _state(self) -> FileInfo | None:
        """Return what was seen of it within 30 s."""
        info = _seen.state(self)
        if info is None and _seen.is_list_due(self.parent):
            with suppress(FileNotFoundError):
                self.parent._list()
            info = _seen.state(self)
        return info

    def _put(self, content: Any) -> None:
        # One call with all of it: a stream that is closed before its end would be put as it is.
        # Python has no way to give a stream up, so a large upload must be refused, if it is, before
        # there is a stream.
        def put(store: FileSystem) -> None:
            with store.open_output_stream(self.key) as stream:
                stream.write(content)

        try:
            self._ask(put, is_large=len(memoryview(content)) > _LARGE_BYTES)
        finally:
            _seen.forget(self)

    def _info(self) -> FileInfo:
        return self._ask(lambda store: store.get_file_info(self.key))

    def _missing(self) -> FileNotFoundError:
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self))

    def _ask(self, request: Callable[[FileSystem], _T], *, is_large: bool = False) -> _T:
        try:
            bucket = self.key.partition("/")[0]
            return ask(self.scheme, bucket, self.query, request, is_large=is_large)
        except FileNotFoundError:
            raise self._missing() from None
        except OSError as error:
            if is_missing(error):
                raise self._missing() from None
            raise store_fault(error, str(self)) from error


_seen: Listings[ObjectPath] = Listings()
