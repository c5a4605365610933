"""Places on object stores, against a real S3-compatible server."""

from __future__ import annotations

import pickle
from pathlib import Path, PurePosixPath

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from bon.errors import SettingsError, SystemFaultError
from bon.object_store import ObjectPath, inside, lies_in, place


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


def test_a_store_that_only_fsspec_knows() -> None:
    class Store(MemoryFileSystem):
        protocol = "oss"

    fsspec.register_implementation("oss", Store, clobber=True)
    root = place("oss://bucket/a")
    assert isinstance(root, ObjectPath)
    (root / "one").write_text("1")
    assert [path.name for path in root.iterdir()] == ["one"]
    assert (root / "one").read_text() == "1"
    (root / "one").unlink()
    assert not (root / "one").is_file()
