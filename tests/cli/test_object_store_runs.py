"""The real CLI with pools and sets on a real S3-compatible server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support import s3
from support.commands import bon, bon_json, pool_files
from support.given import PART, write_given

from bon.object_store import ObjectPath
from bon.places import place

pytestmark = pytest.mark.slow
SCORERS = ("-r", "len=rule:length?max=6", "-r", "is=rule:exact")


def address(said: str) -> ObjectPath:
    """Return a place that is on a store."""
    found = place(said)
    assert isinstance(found, ObjectPath)
    return found


def content_of(said: str) -> dict[str, bytes]:
    """Return what lies in a pool on a store, `.bon/` aside."""
    root = address(said)
    found = {str(path.relative_to(root)): path.read_bytes() for path in root.walk()}
    return {name: content for name, content in found.items() if not name.startswith(".bon/")}


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an input and its scored pool `l.pool`, to be read only."""
    folder = tmp_path_factory.mktemp("local")
    write_given(folder / "in.jsonl")
    done = bon("score", "in.jsonl", *SCORERS, *PART, "--pool", "l.pool", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def both(bucket: str, local: Path) -> tuple[Path, str]:
    """That folder, and the address of a copy of the pool on a store."""
    pool = address(f"{bucket}/runs/l.pool")
    for name, content in pool_files(local / "l.pool").items():
        (pool / name).write_bytes(content)
    return local, str(pool)


def test_a_pool_and_its_sets_are_those_of_a_disk_byte_for_byte(both: tuple[Path, str]) -> None:
    folder, pool = both
    made = f"{place(pool).parent}/made.pool"
    done = bon("score", "in.jsonl", *SCORERS, *PART, "--pool", made, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert content_of(made) == pool_files(folder / "l.pool")

    out = str(place(pool).parent)
    for command, name, *flags in (
        ("select", "best.parquet", "--rank-by", "len"),
        ("filter", "kept.jsonl", "--rank-by", "len", "--min-reward", "0.1", "--dropped", "D"),
        ("build-dpo", "pairs.parquet", "--rank-by", "is"),
        ("build-dpo", "lf.jsonl", "--rank-by", "is", "--format", "llama-factory"),
    ):
        here = [one if one != "D" else "dropped.parquet" for one in flags]
        there = [one if one != "D" else f"{out}/dropped.parquet" for one in flags]
        ours = bon_json(command, pool, "-o", f"{out}/{name}", *there, cwd=folder)
        theirs = bon_json(command, "l.pool", "-o", name, *here, cwd=folder)
        assert ours["output"] == f"{out}/{name}"
        assert (folder / name).read_bytes() == address(f"{out}/{name}").read_bytes()
        assert ours["output_rows"] == theirs["output_rows"]
    assert (
        address(f"{out}/dropped.parquet").read_bytes() == (folder / "dropped.parquet").read_bytes()
    )
    assert address(f"{out}/dataset_info.json").is_file()

    ours, theirs = (
        json.loads(bon("inspect", one, "--json", cwd=folder).stdout) for one in (pool, "l.pool")
    )
    assert ours["parts"] == theirs["parts"]
    assert bon("inspect", f"{out}/best.parquet", cwd=folder).returncode == 0


def test_a_folder_is_replaced_and_what_people_added_stays(both: tuple[Path, str]) -> None:
    folder, pool = both
    out = address(f"{place(pool).parent}/set")
    bon_json("select", pool, "--rank-by", "len", "-o", out, "--shard-mb", "1", cwd=folder)
    (out / "data/train-00007-of-00009.parquet").write_text("of an earlier, larger export")
    (out / "notes.txt").write_text("mine")
    bon_json("select", pool, "--rank-by", "is", "-o", out, "--format", "trl-sft", cwd=folder)

    found = {str(path.relative_to(out)) for path in out.walk()}
    assert found == {
        ".bon-export.json",
        "README.md",
        "data/train-00000-of-00001.parquet",
        "notes.txt",
    }
    assert json.loads((out / ".bon-export.json").read_text()) == {"made": ["README.md", "data"]}

    (out / "data/mine.parquet").write_text("x")
    done = bon("select", pool, "--rank-by", "len", "-o", out, cwd=folder)
    assert done.returncode == 1 and "holds other things" in done.stderr


def test_a_damaged_part_is_named_and_made_again(both: tuple[Path, str]) -> None:
    folder, pool = both
    whole = content_of(pool)
    part = address(f"{pool}/scores/len/part-00001.parquet")
    content = bytearray(part.read_bytes())
    content[60] ^= 4
    part.write_bytes(bytes(content))
    done = bon("select", pool, "--rank-by", "len", "-o", "b.parquet", cwd=folder)
    assert done.returncode == 1 and f"where: {part}" in done.stderr

    again = bon("score", "in.jsonl", *SCORERS, *PART, "--pool", pool, "--repair", cwd=folder)
    assert again.returncode == 0, again.stderr
    assert "damaged: scores/len/part-00001.parquet" in again.stderr
    assert content_of(pool) == whole
    moved = address(f"{pool}/.bon/damaged/scores/len/part-00001.parquet")
    assert moved.read_bytes() == bytes(content)


def test_a_second_run_is_refused_and_names_the_first(both: tuple[Path, str]) -> None:
    folder, pool = both
    said = {"pid": "7", "host": "elsewhere", "command": "bon score x", "machine": "?"}
    address(f"{pool}/.bon/locks/7.json").write_text(json.dumps(said))
    done = bon("score", pool, "-r", "b=rule:length?max=3", cwd=folder)

    assert done.returncode == 1
    assert "held by process 7 on elsewhere: bon score x" in done.stderr
    assert f"delete {pool}/.bon/locks/7.json" in done.stderr


def test_nothing_to_inspect_is_told_from_no_bucket(bucket: str, tmp_path: Path) -> None:
    for said, why in (
        ("s3://no-such-bucket/x", "there is no such bucket"),
        ("s3://no-such-bucket", "there is no such bucket"),
        (f"{bucket}/x", "no such file or folder"),
    ):
        done = bon("inspect", said, cwd=tmp_path)
        assert done.returncode == 1
        assert f"where: {said}\n  why:   {why}\n" in done.stderr


@pytest.mark.parametrize(
    ("said", "flags", "code", "text"),
    [
        ("s3://no-such-bucket/p.pool", (), 1, "The specified bucket does not exist"),
        ("s5://bucket/p.pool", (), 2, "s5:// is no object store"),
        ("s3://KEY:SECRET@bucket/p.pool", (), 2, "put keys into the environment"),
    ],
)
def test_a_place_that_cannot_be_is_said(
    bucket: str, tmp_path: Path, said: str, flags: tuple[str, ...], code: int, text: str
) -> None:
    write_given(tmp_path / "in.jsonl")
    done = bon("score", "in.jsonl", *SCORERS, "--pool", said, *flags, cwd=tmp_path)
    assert (done.returncode, text in done.stderr) == (code, True), done.stderr
    assert "SECRET" not in done.stderr and "Traceback" not in done.stderr


def test_a_key_that_the_store_does_not_know_is_said(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = s3.start(tmp_path / "log", checks_keys=True)
    try:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.environment["AWS_ENDPOINT_URL"])
        write_given(tmp_path / "in.jsonl")
        done = bon("score", "in.jsonl", *SCORERS, "--pool", "s3://bucket/p.pool", cwd=tmp_path)
    finally:
        s3.stop(server)
    assert done.returncode == 1
    assert "AWS_ACCESS_KEY_ID" in done.stderr and "Traceback" not in done.stderr


def test_validate_and_dry_run_know_an_address(bucket: str, tmp_path: Path) -> None:
    write_given(tmp_path / "in.jsonl")
    arguments = ("in.jsonl", "-r", "rule:exact", "--pool", f"{bucket}/v.pool")
    done = bon("validate", *arguments, "-o", f"{bucket}/v.parquet", cwd=tmp_path)
    assert done.returncode in (0, 3), done.stdout + done.stderr
    assert f"{bucket}/v.pool" in done.stdout
    planned = bon_json("score", *arguments, "--dry-run", cwd=tmp_path)
    assert planned["settings"]["pool"] == f"{bucket}/v.pool"
    assert not address(f"{bucket}/v.pool").exists(), "nothing was written"


def test_a_config_file_names_an_address_too(bucket: str, tmp_path: Path) -> None:
    write_given(tmp_path / "in.jsonl")
    (tmp_path / "c.toml").write_text(f'pool = "{bucket}/c.pool"\n')
    made = bon_json("score", "in.jsonl", "-r", "rule:exact", "--config", "c.toml", cwd=tmp_path)
    assert made["pool"] == f"{bucket}/c.pool"
    assert address(f"{bucket}/c.pool/pool.json").is_file()
