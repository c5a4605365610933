"""Places on object stores, against a real S3-compatible server."""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
import pyarrow as pa
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from support import s3
from support.proxies import Proxy, proxy_to

from bon import store_listings, store_systems
from bon.errors import PoolCorruptError, SettingsError, SystemFaultError
from bon.object_store import ObjectPath
from bon.places import inside, lies_in, place
from bon.pool.files import read_footer, read_table, write_table
from bon.store_listings import Listings


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests that fail for the moment are made again at once."""
    monkeypatch.setattr(store_systems, "_PAUSES_S", (0.01, 0.01))


def through(proxy: Proxy, path: str) -> ObjectPath:
    """Return the place that an address names, reached through a proxy."""
    server = f"endpoint_override=127.0.0.1:{proxy.port}&scheme=http&region=us-east-1"
    return ObjectPath("s3", path.removeprefix("s3://"), server)


@pytest.mark.parametrize("said", ["a/b.pool", "/a/b", "s3:/a/b", "best.parquet"])
def test_a_path_stays_a_path(said: str) -> None:
    assert place(said) == Path(said)
    assert isinstance(place(said), Path)


def test_an_address_is_taken_apart_as_a_path_is() -> None:
    found = place("s3://bucket/runs/a.b.pool/?region=x")

    assert isinstance(found, ObjectPath)
    assert str(found) == "s3://bucket/runs/a.b.pool?region=x"
    assert place(str(found)) == found == pickle.loads(pickle.dumps(found))
    assert (found.name, found.stem, found.suffix) == ("a.b.pool", "a.b", ".pool")
    assert str(found / "prompts/part-00000.parquet").endswith("part-00000.parquet?region=x")
    assert found.with_name("c").key == "bucket/runs/c"
    assert [one.key for one in found.parents] == ["bucket/runs", "bucket"]
    assert (found / "x/y").relative_to(found) == PurePosixPath("x/y")
    assert inside(found / "x", found) == PurePosixPath("x")
    assert lies_in(found / "x", found) and not lies_in(place("s3://bucket/runs/a.b.poolx"), found)
    assert not lies_in(Path("a"), found) and not lies_in(found, Path("a"))


@pytest.mark.parametrize(
    ("said", "what"),
    [
        ("s4://bucket/x", "s4:// is no object store"),
        ("https://host/x", "https:// is no object store"),
        ("s3://", "names no bucket"),
        ("s3:///x", "names no bucket"),
        ("s3://bucket/a//b.pool", "a name in it that is empty"),
        ("s3://bucket/a/../b.pool", "a name in it that is empty or dots"),
        ("s3://KEY:SECRET@bucket/x", "an address with a key in it"),
    ],
)
def test_an_address_that_cannot_be_is_refused(said: str, what: str) -> None:
    with pytest.raises(SettingsError, match=what) as caught:
        place(said)
    assert "SECRET" not in str(caught.value)


def test_an_option_that_nobody_knows_is_refused() -> None:
    with pytest.raises(SettingsError, match="cannot be used") as caught:
        (ObjectPath("s3", "bucket/x", "colour=red")).exists()
    assert "colour" in caught.value.why


def test_objects_are_put_found_read_renamed_and_deleted(bucket: str, tmp_path: Path) -> None:
    root = ObjectPath("s3", bucket.removeprefix("s3://")) / "a b/ü"
    assert not root.exists() and not root.is_dir()
    with pytest.raises(FileNotFoundError, match="No such file"):
        root.stat()
    with pytest.raises(FileNotFoundError):
        root.read_bytes()
    with pytest.raises(FileNotFoundError):
        root.unlink()
    root.unlink(missing_ok=True)
    root.remove_tree()

    (root / "one").write_text("1")
    (tmp_path / "large").write_bytes(bytes(range(256)) * 50_000)  # put in several parts
    (root / "deep/two").write_file(tmp_path / "large")
    (tmp_path / "empty").touch()
    (root / "deep/empty").write_file(tmp_path / "empty")

    assert root.is_dir() and not root.is_file()
    assert (root / "one").is_file() and (root / "one").read_text() == "1"
    assert (root / "deep/empty").read_bytes() == b""
    assert sorted(path.name for path in root.iterdir()) == ["deep", "one"]
    assert {str(path.relative_to(root)) for path in root.walk()} == {
        "one",
        "deep/two",
        "deep/empty",
    }
    assert (root / "deep/two").stat().st_size == 12_800_000
    with (root / "deep/two").open() as file:
        file.seek(-4, 2)
        assert file.read() == bytes([252, 253, 254, 255])

    (root / "one").rename(root / "three")
    assert not (root / "one").exists() and (root / "three").read_bytes() == b"1"
    root.remove_tree()
    assert not list(root.walk())


def test_two_states_of_an_object_are_told_apart_within_a_second(bucket: str) -> None:
    path = ObjectPath("s3", f"{bucket[5:]}/x")
    path.write_text("a")
    first = path.stat()
    path.write_text("b")
    assert path.stat() != first
    assert path.stat() == path.stat()


def test_a_bucket_is_no_object_which_is_said_without_asking_again(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_systems, "_PAUSES_S", (99.0,))
    root = ObjectPath("s3", bucket.removeprefix("s3://"))
    assert root.is_dir() and not root.is_file()
    with pytest.raises(SystemFaultError):
        root.read_bytes()


def test_a_bucket_that_is_not_there_is_said(bucket: str) -> None:
    path = ObjectPath("s3", "no-such-bucket/x")
    with pytest.raises(SystemFaultError) as caught:
        path.write_text("a")

    error = caught.value
    assert error.where == "s3://no-such-bucket/x"
    assert error.why == "The specified bucket does not exist (NO_SUCH_BUCKET)"
    assert "make the bucket first" in error.next_step


@pytest.mark.slow
def test_a_server_that_is_not_there_is_said(bucket: str) -> None:
    path = ObjectPath("s3", "bucket/x", "endpoint_override=127.0.0.1:9&scheme=http")
    with pytest.raises(SystemFaultError, match="the object store refuses") as caught:
        path.read_bytes()

    assert "127.0.0.1" in caught.value.why and "NETWORK_CONNECTION" in caught.value.why
    assert "AWS_ENDPOINT_URL" in caught.value.next_step


def test_a_large_upload_that_is_refused_at_its_beginning_changes_nothing(
    bucket: str, s3_server: s3.Server, tmp_path: Path
) -> None:
    large = tmp_path / "large"
    large.write_bytes(os.urandom(12 << 20))
    (ObjectPath("s3", bucket.removeprefix("s3://")) / "x").write_text("before")

    def refuse(method: str, path: str) -> int | None:
        return 403 if method == "POST" and path.endswith("?uploads") else None

    with proxy_to(s3_server.port, refuse) as proxy:
        path = through(proxy, f"{bucket}/x")
        with pytest.raises(SystemFaultError, match="the object store refuses"):
            path.write_file(large)
        assert proxy.refused
        assert path.read_bytes() == b"before"


@pytest.mark.slow
def test_a_large_upload_that_is_a_process_s_first_request_is_made_again(
    bucket: str, s3_server: s3.Server, tmp_path: Path, short_pauses: None
) -> None:
    large, left = tmp_path / "large", [33]  # the SDK itself tries 31 times in 6 s
    large.write_bytes(os.urandom(12 << 20))
    let_through: list[str] = []

    def refuse(method: str, path: str) -> int | None:
        left[0] -= 1
        if left[0] >= 0:
            return 503
        let_through.append(f"{method} {path}")
        return None

    with proxy_to(s3_server.port, refuse) as proxy:
        path = through(proxy, f"{bucket}/x")
        path.write_file(large)
        puts = [one for one in let_through if one.startswith("PUT ")]
        assert puts and all("partNumber" in one for one in puts), "never one that puts nothing"
        assert path.read_bytes() == large.read_bytes()


def test_what_is_deleted_between_its_opening_and_its_reading_is_not_there(
    bucket: str, s3_server: s3.Server
) -> None:
    path = place(f"{bucket}/x")
    assert isinstance(path, ObjectPath)
    path.write_text("a")

    def refuse(method: str, target: str) -> int | None:
        if method == "GET" and target.endswith("/x"):
            path.unlink(missing_ok=True)
        return None

    with proxy_to(s3_server.port, refuse) as proxy, pytest.raises(FileNotFoundError):
        through(proxy, f"{bucket}/x").read_bytes()
    assert not path.exists()


def test_the_objects_that_follow_one_are_found_without_looking_at_all(bucket: str) -> None:
    root = place(f"{bucket}/p")
    assert isinstance(root, ObjectPath)
    for name in ("a/part-3", "a/part-1", "a/part-2", "a/deep/part-9", "b/part-4"):
        (root / name).write_text("x")
    assert (root / "a/part-1").next_seen(9) == [], "nothing was listed yet"
    list((root / "a").iterdir())

    assert (root / "a/part-1").next_seen(9) == [root / "a/part-2", root / "a/part-3"]
    assert (root / "a/part-1").next_seen(1) == [root / "a/part-2"]
    assert (root / "a/part-0").next_seen(1) == [root / "a/part-1"], "itself need not be there"


def test_of_many_whose_state_was_seen_long_ago_all_are_asked_for_at_once(
    bucket: str, s3_server: s3.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = place(f"{bucket}/p")
    assert isinstance(root, ObjectPath)
    paths = [root / f"part-{number:03}" for number in range(60)]
    for path in paths:
        path.write_text("x")
    assert len(root.file_stats()) == 60
    num_before = len(s3_server.requests())
    assert {path.stat().st_size for path in paths} == {1}
    assert len(s3_server.requests()) == num_before, "they were seen just now"

    now_s = time.monotonic()
    monkeypatch.setattr(store_listings.time, "monotonic", lambda: now_s + 40)
    assert all(path.is_file() for path in paths)
    assert {path.stat().st_size for path in paths} == {1}

    assert len(s3_server.requests()) - num_before < 25
    assert not (root / "part-060").is_file()


def test_what_is_put_while_its_place_is_listed_is_not_taken_for_what_it_was(bucket: str) -> None:
    root = place(f"{bucket}/p")
    assert isinstance(root, ObjectPath)
    (root / "part-0").write_text("x")
    seen, info, since_s = Listings[ObjectPath](), (root / "part-0")._info(), time.monotonic()
    seen.forget(root / "part-0")
    seen.note_all([(root / "part-0", info)], since_s)
    assert seen.state(root / "part-0") is None
    seen.note_all([(root / "part-0", info)], time.monotonic())
    assert seen.state(root / "part-0") == info


def test_a_folder_whose_last_object_was_deleted_holds_nothing(bucket: str) -> None:
    root = place(f"{bucket}/p")
    assert isinstance(root, ObjectPath)
    (root / "a/b/one").write_text("1")
    assert (root / "a").holds_files() and (root / "a/b/one").holds_files()
    (root / "a/b/one").unlink()

    assert root.exists(), "Arrow left an object that stands for the folder"
    assert not (root / "a/b").holds_files() and not root.holds_files()


class _Store(MemoryFileSystem):  # type: ignore[misc]
    protocol = "oss"


@pytest.fixture
def other_store() -> Iterator[ObjectPath]:
    """A place on a store whose words nobody knows."""
    fsspec.register_implementation("oss", _Store, clobber=True)
    root = place("oss://bucket/a")
    assert isinstance(root, ObjectPath)
    yield root
    _Store.store.clear()


@pytest.mark.parametrize("num_failed", [0, 1, 2, 99])
def test_only_content_is_damage_whatever_words_a_store_has(
    other_store: ObjectPath,
    tmp_path: Path,
    num_failed: int,
    short_pauses: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = pa.table({"a": [os.urandom(400_000)]})  # more than is read by one request
    path = other_store / "part-00000.parquet"
    write_table(table, path, tmp_path)
    opened, left = _Store._open, [num_failed]

    def fails(store: _Store, name: str, mode: str = "rb", **options: Any) -> Any:
        file = opened(store, name, mode, **options)
        if mode == "rb":
            read = file.read

            def torn(*size: int) -> bytes:
                left[0] -= 1
                if left[0] >= 0:
                    raise OSError("the connection was reset")
                return read(*size)

            file.read = torn
        return file

    monkeypatch.setattr(_Store, "_open", fails)
    if num_failed < 10:
        assert read_table(path, table.schema).equals(table)
        return
    for read in (lambda: read_table(path, table.schema), lambda: read_footer(path)):
        with pytest.raises(SystemFaultError, match="the object store refuses") as caught:
            read()
        assert "the connection was reset" in caught.value.why

    left[0] = 0
    content = bytearray(path.read_bytes())
    content[200_000] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(PoolCorruptError):
        read_table(path, table.schema)


def test_a_store_that_only_fsspec_knows(other_store: ObjectPath) -> None:
    root = other_store
    (root / "one").write_text("1")
    assert [path.name for path in root.iterdir()] == ["one"]
    assert (root / "one").read_text() == "1"
    (root / "one").unlink()
    assert not (root / "one").is_file()
