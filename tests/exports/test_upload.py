"""Folders of sets on a real S3-compatible server."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from support import s3
from support.proxies import proxy_to

from bon.errors import OutputError
from bon.exports.formats import choose_format
from bon.exports.target import check_output
from bon.exports.upload import replaced_folder
from bon.object_store import ObjectPath


@pytest.fixture
def out(bucket: str) -> ObjectPath:
    """A folder that is not there yet."""
    return ObjectPath("s3", bucket.removeprefix("s3://")) / "sets/best"


def export(out: ObjectPath, top: str, num_shards: int = 1) -> None:
    """Put a set of so many shards below a folder, and its card."""
    with replaced_folder(out) as folder:
        (folder / top).mkdir()
        for n in range(num_shards):
            name = f"train-{n:05d}-of-{num_shards:05d}.parquet"
            (folder / top / name).write_text(f"{top} {num_shards}")
        (folder / "README.md").write_text(f"card of {top} {num_shards}")


def found(out: ObjectPath) -> dict[str, str]:
    """Return what lies in a folder, its marker aside."""
    every = {str(path.relative_to(out)): path.read_text() for path in out.walk()}
    return {name: text for name, text in every.items() if not name.startswith(".")}


def test_a_set_follows_another_one_under_other_names_and_back(out: ObjectPath) -> None:
    for top in ("train", "data", "train"):
        if out.is_dir():
            name = "llama-factory" if top == "train" else "bon"
            check_output(out, choose_format(name, "pairs"))
        export(out, top)
        assert found(out) == {
            f"{top}/train-00000-of-00001.parquet": f"{top} 1",
            "README.md": f"card of {top} 1",
        }


def test_a_whole_bucket_may_be_the_folder(out: ObjectPath) -> None:
    bucket = out.parent.parent
    check_output(bucket, choose_format("bon", "pairs"))
    export(bucket, "data")
    check_output(bucket, choose_format("bon", "pairs"))
    export(bucket, "data", 2)
    assert set(found(bucket).values()) == {"data 2", "card of data 2"}


def test_of_two_that_put_at_once_one_is_refused_and_the_other_is_whole(
    out: ObjectPath, s3_server: s3.Server
) -> None:
    export(out, "data", 1)
    reached, go_on = threading.Event(), threading.Event()
    faults: list[Exception] = []

    def refuse(method: str, target: str) -> int | None:
        if method == "PUT" and "of-00003" in target:
            reached.set()
            assert go_on.wait(60)
        return None

    def slow(through: ObjectPath) -> None:
        try:
            export(through, "data", 3)
        except Exception as error:
            faults.append(error)

    with proxy_to(s3_server.port, refuse) as proxy:
        server = f"endpoint_override=127.0.0.1:{proxy.port}&scheme=http&region=us-east-1"
        thread = threading.Thread(target=slow, args=[ObjectPath("s3", out.key, server)])
        thread.start()
        assert reached.wait(60)
        with pytest.raises(OutputError, match="another run is writing into best") as caught:
            export(out, "data", 2)
        assert f"process {os.getpid()} on" in caught.value.why
        go_on.set()
        thread.join()
    assert not faults
    assert set(found(out).values()) == {"data 3", "card of data 3"} and len(found(out)) == 4
    export(out, "data", 2)
    assert set(found(out).values()) == {"data 2", "card of data 2"}


def test_a_store_that_refuses_the_marker_is_not_a_folder_without_an_export(
    out: ObjectPath, s3_server: s3.Server
) -> None:
    export(out, "data", 1)
    before = found(out)

    def refuse(method: str, target: str) -> int | None:
        return 403 if method in ("GET", "HEAD") and target.endswith(".bon-export.json") else None

    with proxy_to(s3_server.port, refuse) as proxy:
        server = f"endpoint_override=127.0.0.1:{proxy.port}&scheme=http&region=us-east-1"
        with pytest.raises(OutputError, match="cannot write to best") as caught:
            export(ObjectPath("s3", out.key, server), "data", 2)
    assert "ACCESS_DENIED" in caught.value.why
    assert found(out) == before


def test_a_marker_that_the_disk_refuses_is_not_a_folder_without_an_export(tmp_path: Path) -> None:
    export_here = tmp_path / "best"
    with replaced_folder(export_here) as folder:
        (folder / "README.md").write_text("one")
    marker = export_here / ".bon-export.json"
    marker.unlink()
    marker.symlink_to(marker)  # whoever reads it is refused
    with (
        pytest.raises(OutputError, match="cannot write into best"),
        replaced_folder(export_here) as folder,
    ):
        (folder / "README.md").write_text("two")
    assert (export_here / "README.md").read_text() == "one"
