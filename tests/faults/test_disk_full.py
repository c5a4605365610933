"""A full disk, forced by a tiny tmpfs (bytes, then inodes) and by RLIMIT_FSIZE, at every write.

Each time: exit code and message; what was committed is that of the fault-free run; nothing is left
in staging; and once there is room, the same command ends with the same bytes.
"""

from __future__ import annotations

import json
import resource
import shutil
from pathlib import Path

import pytest
from support.commands import GENERATOR, bon, pool_files
from support.damage import assert_nothing_lost, parts_of
from support.given import PART, write_given
from support.killing import MINE
from support.system_faults import bon_under, mounted, remount

from bon.pipeline.models import resolve_tokenizer

SCORE = ("score", "in.jsonl", "-r", "rule:length?max=20", "--part-size", 4, "--max-drops", "50%")
SUFFIXES = (".parquet", ".jsonl", ".jsonl.gz", ".jsonl.zst", ".csv", "")
COMMANDS = {
    "select": ("select", "free/p.pool"),
    "build-dpo": ("build-dpo", "free/p.pool"),
    "filter": ("filter", "free/p.pool", "--filter", "length:max_chars=60"),
    "convert": ("convert", "in.jsonl", "--max-drops", "50%"),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an input of 12 rows, two of them bad, and its fault-free pool."""
    folder = tmp_path_factory.mktemp("full")
    rows = [
        {"prompt": f"{n} + {n}?", "responses": [f"{n + n}, {k} " * (k * 4 + 1) for k in range(3)]}
        for n in range(12)
    ]
    rows[2], rows[9] = {"prompt": "", "responses": ["x"]}, {"prompt": 7, "responses": ["x"]}
    (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "free").mkdir()
    done = bon(*SCORE, "--pool", "free/p.pool", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def assert_clean_failure(code: int, stderr: str, why: str) -> None:
    assert code == 1, stderr
    assert "error: cannot write" in stderr
    assert "  where: " in stderr
    assert f"  why:   {why}\n" in stderr
    assert "  next:  " in stderr
    assert "Traceback" not in stderr


def assert_nothing_half_done(pool: Path, expected: Path) -> int:
    """Assert that every part is that of the fault-free run; return how many there are."""
    found = pool_files(pool) if pool.exists() else {}
    wanted = pool_files(expected)
    parts = [name for name in found if name.endswith(".parquet")]
    assert all(found[name] == wanted[name] for name in parts)
    assert [path for path in pool.rglob("*.tmp") if path.is_file()] == []
    return len(parts)


def fill_and_go_on(place: Path, disk: Path, size: str, room: str) -> int:
    """Run on a tiny disk, then give it room; return how many parts the tiny disk took."""
    with mounted(disk, size):
        first = bon(*SCORE, "--pool", disk / "p.pool", cwd=place)
        num_parts = 0
        if first.returncode != 0:
            assert_clean_failure(first.returncode, first.stderr, "No space left on device")
            assert "make room" in first.stderr
            num_parts = assert_nothing_half_done(disk / "p.pool", place / "free" / "p.pool")
            remount(disk, room)
            again = bon(*SCORE, "--pool", disk / "p.pool", cwd=place)
            assert again.returncode == 0, again.stderr
        assert pool_files(disk / "p.pool") == pool_files(place / "free" / "p.pool")
    return num_parts if first.returncode else -1


def test_a_disk_that_is_full_in_the_middle(place: Path, tmp_path: Path) -> None:
    assert fill_and_go_on(place, tmp_path / "disk", "size=32k", "size=10m") > 1


@pytest.mark.faults
@pytest.mark.parametrize("pages", range(1, 24))
def test_a_disk_that_is_full_after_so_many_pages(place: Path, tmp_path: Path, pages: int) -> None:
    fill_and_go_on(place, tmp_path / "disk", f"size={4 * pages}k", "size=10m")


@pytest.mark.faults
@pytest.mark.parametrize("inodes", range(2, 34, 2))
def test_a_disk_without_inodes(place: Path, tmp_path: Path, inodes: int) -> None:
    options = f"size=10m,nr_inodes={inodes}"
    fill_and_go_on(place, tmp_path / "disk", options, "size=10m,nr_inodes=1000")


@pytest.mark.faults
@pytest.mark.parametrize("most_bytes", [0, 700, 1500, 2500])
def test_what_was_paid_for_outlives_a_disk_that_is_full_when_its_input_grows(
    tmp_path: Path, most_bytes: int
) -> None:
    write_given(tmp_path / "in.jsonl")
    (tmp_path / "my.py").write_text(MINE)
    command = ("score", "in.jsonl", "-r", "mine=rule:my.py:rate", *PART, "--pool", "p.pool")
    assert bon(*command, "--limit", 6, cwd=tmp_path).returncode == 0
    before = parts_of(tmp_path / "p.pool")
    shutil.copytree(tmp_path / "p.pool", tmp_path / "free.pool")
    free = bon(*command[:-1], "free.pool", cwd=tmp_path)
    assert free.returncode == 0, free.stderr

    failed = bon_under(*command, cwd=tmp_path, limits={resource.RLIMIT_FSIZE: most_bytes})

    assert_clean_failure(failed.returncode, failed.stderr, "File too large")
    assert_nothing_lost(tmp_path / "p.pool", before, parts_of(tmp_path / "free.pool"))
    again = bon(*command, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert pool_files(tmp_path / "p.pool") == pool_files(tmp_path / "free.pool")


@pytest.mark.faults
@pytest.mark.parametrize("most_bytes", [0, 100, 700, 1500, 2500, 3200, 4000])
def test_a_limit_on_file_sizes(place: Path, tmp_path: Path, most_bytes: int) -> None:
    pool = tmp_path / "p.pool"
    limits = {resource.RLIMIT_FSIZE: most_bytes}
    first = bon_under(*SCORE, "--pool", pool, cwd=place, limits=limits)
    if first.returncode:
        assert_clean_failure(first.returncode, first.stderr, "File too large")
        assert "ulimit -f" in first.stderr
    assert_nothing_half_done(pool, place / "free" / "p.pool")
    again = bon(*SCORE, "--pool", pool, cwd=place)
    assert again.returncode == 0, again.stderr
    assert pool_files(pool) == pool_files(place / "free" / "p.pool")


@pytest.mark.faults
@pytest.mark.parametrize(
    ("command", "suffix"),
    [(command, suffix) for command in COMMANDS for suffix in SUFFIXES],
)
def test_an_output_that_does_not_fit_leaves_the_old_one(
    place: Path, tmp_path: Path, command: str, suffix: str
) -> None:
    words = [*COMMANDS[command], "-o", tmp_path / f"out{suffix}"]
    first = bon(*words, cwd=place)
    assert first.returncode == 0, first.stderr
    before = contents(tmp_path)
    for most_bytes in (0, 60, 300):  # of gzip, opening, header and end of the file
        limits = {resource.RLIMIT_FSIZE: most_bytes}
        failed = bon_under(*words, cwd=place, limits=limits)
        assert_clean_failure(failed.returncode, failed.stderr, "File too large")
        assert contents(tmp_path) == before
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    again = bon(*words, cwd=place)
    assert again.returncode == 0, again.stderr
    assert contents(tmp_path) == before


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in sorted(folder.rglob("*"))
    }


@pytest.mark.faults
def test_the_second_file_that_does_not_fit(place: Path, tmp_path: Path) -> None:
    """What was dropped is written first, elsewhere; it does not appear without the other."""
    words = (*COMMANDS["filter"], "--dropped", tmp_path / "dropped.jsonl")
    done = bon(*words, "-o", tmp_path / "kept.jsonl", cwd=place)
    assert done.returncode == 0, done.stderr
    expected = contents(tmp_path)
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    with mounted(tmp_path / "disk", "size=16k"):
        full = (tmp_path / "disk" / "filler").open("wb", buffering=0)
        with full, pytest.raises(OSError, match="No space"):
            while True:
                full.write(b"x" * 4096)
        failed = bon(*words, "-o", tmp_path / "disk" / "kept.jsonl", cwd=place)
        assert_clean_failure(failed.returncode, failed.stderr, "No space left on device")
        assert not (tmp_path / "dropped.jsonl").exists()
        (tmp_path / "disk" / "filler").unlink()
        again = bon(*words, "-o", tmp_path / "disk" / "kept.jsonl", cwd=place)
        assert again.returncode == 0, again.stderr
        assert (tmp_path / "disk" / "kept.jsonl").read_bytes() == expected["kept.jsonl"]
        assert (tmp_path / "dropped.jsonl").read_bytes() == expected["dropped.jsonl"]


def test_full_logs_change_nothing(place: Path, tmp_path: Path) -> None:
    """`run.log` and `worker.log` take no more, and a rule prints megabytes all the same."""
    rule = tmp_path / "loud.py"
    rule.write_text(
        "import os, sys\n"
        "def reward(prompts, responses, columns):\n"
        "    print('x' * 300_000)\n"
        "    print('y' * 300_000, file=sys.stderr, flush=True)\n"
        "    return [float(len(text)) for text in responses]\n"
    )
    spec = ("-r", f"loud=rule:{rule}:reward")
    free = bon(*SCORE[:2], *SCORE[4:], *spec, "--pool", tmp_path / "free.pool", cwd=place)
    assert free.returncode == 0, free.stderr
    pool = tmp_path / "p.pool"
    (pool / ".bon").mkdir(parents=True)
    for name in ("run.log", ".bon/worker.log"):
        (pool / name).write_bytes(b"x" * 6000)
    shutil.copy(tmp_path / "free.pool" / "pool.json", pool)
    limits = {resource.RLIMIT_FSIZE: 6000}
    done = bon_under(*SCORE[:2], *SCORE[4:], *spec, "--pool", pool, cwd=place, limits=limits)
    assert done.returncode == 0, done.stderr
    assert without_log(pool) == without_log(tmp_path / "free.pool")


def without_log(pool: Path) -> dict[str, bytes]:
    return {name: found for name, found in pool_files(pool).items() if name != "run.log"}


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.parametrize("size", ["8k", "20k", "28k"])
def test_a_disk_that_is_full_while_sampling(tmp_path: Path, size: str) -> None:
    words = "generate in.txt --generator-engine transformers -n 2 --max-tokens 8 --part-size 2"
    command = (*words.split(), "-m", GENERATOR)
    (tmp_path / "in.txt").write_text("".join(f"What is {n} + {n}?\n" for n in range(6)))
    free = bon(*command, "--pool", "free.pool", cwd=tmp_path)
    assert free.returncode == 0, free.stderr
    with mounted(tmp_path / "disk", f"size={size}"):
        failed = bon(*command, "--pool", "disk/p.pool", cwd=tmp_path)
        assert_clean_failure(failed.returncode, failed.stderr, "No space left on device")
        assert_nothing_half_done(tmp_path / "disk" / "p.pool", tmp_path / "free.pool")
        remount(tmp_path / "disk", "size=10m")
        again = bon(*command, "--pool", "disk/p.pool", cwd=tmp_path)
        assert again.returncode == 0, again.stderr
        assert pool_files(tmp_path / "disk" / "p.pool") == pool_files(tmp_path / "free.pool")


def test_a_digest_that_cannot_be_kept_is_computed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    with (model / "model.safetensors").open("wb") as file:
        file.truncate(17 << 20)  # small files are not worth a cache
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "room"))
    expected = resolve_tokenizer(str(model), None).digest
    with mounted(tmp_path / "cache", "size=4k") as cache:
        (cache / "filler").write_bytes(b"x" * 4096)
        monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
        assert resolve_tokenizer(str(model), None).digest == expected
        assert [path.name for path in cache.rglob("*") if path.is_file()] == ["filler"]
