"""Files of a pool that are damaged, lost or of another pool, and `--repair`: through the real
command line, each kind of damage once."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.commands import bon, pool_files
from support.damage import assert_nothing_lost, flip_bit, parts_of, swap, truncate
from support.given import write_given
from support.server_pool import PART, SCORERS, sampler, write_prompts

Do = Callable[[Path], None]
MINE = """
def rate(prompts, responses, columns):
    return [len(one) for one in responses]
"""


@pytest.fixture(scope="module")
def model() -> Iterator[tuple[str, ...]]:
    with sampler() as flags:
        yield flags


def select(model: tuple[str, ...], *more: object) -> tuple[object, ...]:
    rank = ("--rank-by", "len", "--pool", "a.pool", "-o", "best.parquet")
    return ("select", "in.jsonl", *model, *SCORERS, *PART, *rank, *more)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, model: tuple[str, ...]) -> Path:
    """A folder with an input, its pool and what was selected from it; another pool beside it."""
    folder = tmp_path_factory.mktemp("made")
    write_prompts(folder / "in.jsonl")
    done = bon(*select(model), cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "here"))


def assert_repaired(here: Path, made: Path, model: tuple[str, ...]) -> list[dict[str, str]]:
    """Run the same command with --repair; all files must be as if nothing had happened."""
    (here / "best.parquet").unlink()
    before = parts_of(here / "a.pool")
    done = bon(*select(model, "--repair", "--json"), cwd=here)
    assert done.returncode == 0, done.stderr
    assert_nothing_lost(here / "a.pool", before)
    assert pool_files(here / "a.pool") == pool_files(made / "a.pool")
    assert (here / "best.parquet").read_bytes() == (made / "best.parquet").read_bytes()
    result = json.loads(done.stdout)
    for one in result["repaired"]:
        assert f"damaged: {one['file']} ({one['why']}); moved to {one['moved_to']}" in done.stderr
        assert (here / "a.pool" / one["moved_to"]).is_file()
    return list(result["repaired"])


def test_several_at_once_are_named_set_aside_and_made_again(
    here: Path, made: Path, model: tuple[str, ...]
) -> None:
    pool = here / "a.pool"
    truncate(pool / "prompts/part-00000.parquet", 0)
    flip_bit(pool / "candidates/part-00001.parquet")
    (pool / "scores/len/part-00002.parquet").unlink()
    truncate(pool / "pool.json")
    done = bon("select", "a.pool", "--rank-by", "len", "-o", "out.parquet", cwd=here)
    assert done.returncode == 1
    assert "cannot read pool.json" in done.stderr
    assert "run the command that makes the pool again with --repair" in done.stderr

    repaired = assert_repaired(here, made, model)

    assert [(one["kind"], one["part"]) for one in repaired] == [("prompts", 0), ("candidates", 1)]
    assert (pool / ".bon/damaged/pool.json").stat().st_size < (pool / "pool.json").stat().st_size


def bit(path: Path) -> None:
    flip_bit(path)


def page_bit(path: Path) -> None:
    flip_bit(path, 60)


def footer_bit(path: Path) -> None:
    flip_bit(path, path.stat().st_size - 300)


def cut(path: Path) -> None:
    truncate(path, 0.9)


def empty(path: Path) -> None:
    truncate(path, 0)


def lost(path: Path) -> None:
    path.unlink()


def swapped(path: Path) -> None:
    swap(path, path.with_name("part-00002.parquet"))


@pytest.mark.faults
@pytest.mark.parametrize(
    ("name", "do", "said"),
    [
        ("prompts/part-00001.parquet", page_bit, "cannot read part-00001.parquet back"),
        ("prompts/part-00001.parquet", lost, "interrupted"),
        ("prompts/part-00001.parquet", swapped, "part 2 of prompts"),
        ("candidates/part-00001.parquet", footer_bit, "checksum of its footer"),
        ("candidates/part-00001.parquet", lost, "no candidates yet"),
        ("candidates/part-00000.parquet", swapped, "part 2 of candidates"),
        ("scores/len/part-00001.parquet", cut, "does not end as a Parquet file"),
        ("scores/len/part-00001.parquet", lost, "no scores/len yet"),
        ("scores/len/part-00000.parquet", swapped, "part 2 of scores/len"),
        ("drops/prompts/part-00000.parquet", lost, "1 dropped rows, here are 0"),
        ("drops/candidates/part-00001.parquet", lost, "1 dropped rows, here are 0"),
        ("drops/candidates/part-00001.parquet", empty, "only 0 bytes"),
        ("pool.json", lost, "pool.json is gone"),
        ("pool.json", bit, "pool.json"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_each_damage(
    here: Path, made: Path, model: tuple[str, ...], name: str, do: Do, said: str
) -> None:
    do(here / "a.pool" / name)
    before = pool_files(here / "a.pool")
    done = bon("select", "a.pool", "--rank-by", "len", "-o", "out.parquet", cwd=here)
    assert done.returncode == 1
    assert pool_files(here / "a.pool") == before
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "again" in done.stderr, "what to do next"
    assert not (here / "out.parquet").exists()
    assert_repaired(here, made, model)


@pytest.mark.faults
@pytest.mark.parametrize("kind", ["prompts", "candidates", "scores/len"])
def test_a_part_of_another_pool(
    here: Path, made: Path, model: tuple[str, ...], tmp_path: Path, kind: str
) -> None:
    """It has the same ids, and would fit by them."""
    other = tmp_path / "other"
    other.mkdir()
    text = (here / "in.jsonl").read_text()
    changed = text.replace("question 7", "another") if kind == "prompts" else text
    (other / "in.jsonl").write_text(changed)
    flags = {"candidates": ("--seed", 1), "scores/len": ("-r", "len=rule:length?max=5")}
    scorers = SCORERS if kind != "scores/len" else (*flags[kind], *SCORERS[2:])
    more = flags[kind] if kind == "candidates" else ()
    command = [*select(model)[:8], *scorers, *PART, "--rank-by", "len", "--pool", "a.pool", *more]
    done = bon(*command, cwd=other)
    assert done.returncode == 0, done.stderr
    name = f"a.pool/{kind}/part-00001.parquet"
    assert (other / name).read_bytes() != (here / name).read_bytes()
    shutil.copy(other / name, here / name)
    done = bon("select", "a.pool", "--rank-by", "len", "-o", "out.parquet", cwd=here)
    assert done.returncode == 1
    assert "is not the one that belongs here" in done.stderr
    repaired = assert_repaired(here, made, model)
    assert [(one["kind"], one["part"]) for one in repaired] == [(kind, 1)]


@pytest.mark.faults
def test_bon_score_of_a_pool_makes_scores_again_and_says_who_makes_the_rest(
    here: Path, made: Path, model: tuple[str, ...]
) -> None:
    pool = here / "a.pool"
    flip_bit(pool / "scores/len/part-00001.parquet")
    flip_bit(pool / "scores/is/part-00000.parquet")
    done = bon("score", "a.pool", *SCORERS[:2], "--repair", cwd=here)
    assert done.returncode == 0, done.stderr
    assert "`bon score a.pool -r is=rule:exact --repair`" in done.stderr
    assert bon("score", "a.pool", *SCORERS[2:], "--repair", cwd=here).returncode == 0
    assert pool_files(pool) == pool_files(made / "a.pool")

    flip_bit(pool / "candidates/part-00001.parquet")
    done = bon("score", "a.pool", *SCORERS, "--repair", cwd=here)
    assert done.returncode == 1
    assert "candidates/part-00001.parquet" in done.stderr
    command = shlex.split(done.stderr.split("run `")[1].split("`")[0])
    assert command[:3] == ["bon", "generate", "in.jsonl"]
    at = command.index("server:URL")
    done = bon(*command[1:at], model[1], *command[at + 1 :], cwd=here)
    assert done.returncode == 0, done.stderr
    assert "of candidates that come out otherwise are made again by `bon score" in done.stderr
    assert bon("score", "a.pool", *SCORERS, cwd=here).returncode == 0
    assert pool_files(pool) == pool_files(made / "a.pool")


@pytest.mark.faults
@pytest.mark.parametrize("command", ["select", "filter", "build-dpo"])
def test_where_a_pool_is_only_read_the_flag_says_what_to_do(here: Path, command: str) -> None:
    done = bon(command, "a.pool", "--repair", "-o", "out.parquet", cwd=here)
    assert done.returncode == 2
    assert "give it to the command that made the pool" in done.stderr


@pytest.mark.faults
def test_a_repair_that_finds_nothing_changes_nothing(
    here: Path, made: Path, model: tuple[str, ...]
) -> None:
    before = {name: (here / "a.pool" / name).stat().st_ino for name in pool_files(here / "a.pool")}
    done = bon(*select(model, "--repair"), cwd=here)
    assert "no file of the pool is damaged" in done.stderr
    assert "nothing to do" in done.stderr
    after = {name: (here / "a.pool" / name).stat().st_ino for name in pool_files(here / "a.pool")}
    assert after == before


@pytest.mark.faults
@pytest.mark.parametrize("is_paid", [False, True])
@pytest.mark.parametrize(
    "name", ["prompts/part-00001.parquet", "candidates/part-00001.parquet", "pool.json"]
)
@pytest.mark.parametrize("do", [bit, lost])
def test_pools_of_given_responses(tmp_path: Path, name: str, do: Do, is_paid: bool) -> None:
    """A function of one's own costs nobody knows how much, so its pool is never begun anew."""
    write_given(tmp_path / "in.jsonl")
    (tmp_path / "my.py").write_text(MINE)
    scorer = ("-r", "mine=rule:my.py:rate") if is_paid else SCORERS[:2]
    command = ("score", "in.jsonl", *scorer, *PART, "--pool", "a.pool")
    assert bon(*command, cwd=tmp_path).returncode == 0
    shutil.copytree(tmp_path / "a.pool", tmp_path / "whole")
    kind = "mine" if is_paid else "len"
    before = [path.stat().st_ino for path in sorted((tmp_path / "a.pool/scores" / kind).iterdir())]
    do(tmp_path / "a.pool" / name)
    there = parts_of(tmp_path / "a.pool")
    if is_paid:
        refuse_another_input(tmp_path, command, there)
    done = bon(*command, "--repair", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert pool_files(tmp_path / "a.pool") == pool_files(tmp_path / "whole")
    if is_paid:
        assert_nothing_lost(tmp_path / "a.pool", there)
    after = [path.stat().st_ino for path in sorted((tmp_path / "a.pool/scores" / kind).iterdir())]
    assert after == before, "no response is scored twice"


def refuse_another_input(
    folder: Path, command: tuple[object, ...], there: dict[str, bytes]
) -> None:
    """Repair with one response changed in the part that is damaged: nothing may go with it."""
    good = (folder / "in.jsonl").read_text()
    other = good.replace('7 + 2?", "responses": ["9"', '7 + 2?", "responses": ["0"')
    assert other != good
    (folder / "in.jsonl").write_text(other)
    done = bon(*command, "--repair", cwd=folder)
    assert done.returncode == 2, done.stderr
    assert "the input is not the one" in done.stderr
    assert_nothing_lost(folder / "a.pool", there)
    (folder / "in.jsonl").write_text(good)


@pytest.mark.faults
def test_the_command_that_is_told_reads_the_columns_that_were_read(tmp_path: Path) -> None:
    rows = [json.dumps({"q": f"{n}?", "outs": [f"{n}", "no"]}) + "\n" for n in range(9)]
    (tmp_path / "in.jsonl").write_text("".join(rows))
    columns = ("--prompt-column", "q", "--response-column", "outs")
    made = bon("score", "in.jsonl", *columns, *SCORERS[:2], *PART, "--pool", "a.pool", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    whole = pool_files(tmp_path / "a.pool")
    flip_bit(tmp_path / "a.pool/candidates/part-00001.parquet")
    done = bon("score", "a.pool", *SCORERS[:2], "--repair", cwd=tmp_path)
    assert done.returncode == 1
    command = shlex.split(done.stderr.split("run `")[1].split("`")[0])
    command[command.index("NAME=SPEC")] = SCORERS[1]
    done = bon(*command[1:], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert pool_files(tmp_path / "a.pool") == whole
