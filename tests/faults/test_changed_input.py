"""An input that has changed since its pool was made: refused, unless it only grew at its end."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.commands import bon, pool_files
from support.given import write_given
from support.server_pool import PART, SCORERS, sampler, write_prompts

MINE = """
def rate(prompts, responses, columns):
    return [len(one) for one in responses]
"""
Kind = str
"""`prompts`, whose candidates were sampled, or `responses`, which a function of unknown cost
scored: what was paid for is never mixed with another input."""


@pytest.fixture(scope="module")
def model() -> Iterator[tuple[str, ...]]:
    with sampler() as flags:
        yield flags


def command(kind: Kind, model: tuple[str, ...], source: str = "in.jsonl") -> list[object]:
    scorers = SCORERS[:2] if kind == "prompts" else ("-r", "mine=rule:my.py:rate")
    flags = model if kind == "prompts" else ()
    return ["score", source, *flags, *scorers, *PART, "--pool", "a.pool"]


def write_input(folder: Path, kind: Kind, num_rows: int) -> Path:
    (folder / "my.py").write_text(MINE)
    write = write_prompts if kind == "prompts" else write_given
    return write(folder / "in.jsonl", num_rows)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, model: tuple[str, ...]) -> dict[Kind, Path]:
    """Pools of ten rows, and of thirteen, made from the start."""
    folders = {}
    for kind in ("prompts", "responses"):
        for num_rows in (10, 13):
            folder = tmp_path_factory.mktemp(f"{kind}-{num_rows}")
            write_input(folder, kind, num_rows)
            done = bon(*command(kind, model), cwd=folder)
            assert done.returncode == 0, done.stderr
            folders[f"{kind}-{num_rows}"] = folder
    return folders


def change_row(lines: list[str]) -> list[str]:
    row = json.loads(lines[7])
    row["prompt"] = "something else"
    return [*lines[:7], json.dumps(row), *lines[8:]]


def change_column(lines: list[str]) -> list[str]:
    return [*lines[:7], json.dumps({**json.loads(lines[7]), "answer": "x"}), *lines[8:]]


def reorder(lines: list[str]) -> list[str]:
    return [*lines[:7], lines[8], lines[7], *lines[9:]]


def lose_the_middle(lines: list[str]) -> list[str]:
    return [*lines[:7], *lines[8:]]


def lose_the_end(lines: list[str]) -> list[str]:
    return lines[:-1]


def mend_the_bad_row(lines: list[str]) -> list[str]:
    """The row is good now, and was dropped before."""
    return [
        one if "}" in one else json.dumps({**json.loads(lines[0]), "id": "q", "prompt": "new"})
        for one in lines
    ]


Change = Callable[[list[str]], list[str]]
CHANGES = [
    (change_row, ":8"), (change_column, ":8"), (reorder, ":8"), (lose_the_middle, ":8"),
    (lose_the_end, "the pool has"), (mend_the_bad_row, ":3"),
]  # fmt: skip


@pytest.mark.faults
@pytest.mark.parametrize("kind", ["prompts", "responses"])
@pytest.mark.parametrize(("change", "where"), CHANGES, ids=lambda v: getattr(v, "__name__", None))
def test_another_input_is_refused_with_the_first_row_that_differs(
    made: dict[Kind, Path],
    model: tuple[str, ...],
    tmp_path: Path,
    kind: Kind,
    change: Change,
    where: str,
) -> None:
    folder = Path(shutil.copytree(made[f"{kind}-10"], tmp_path / "here"))
    before = pool_files(folder / "a.pool")
    lines = (folder / "in.jsonl").read_text().splitlines()
    (folder / "in.jsonl").write_text("\n".join(change(lines)) + "\n")
    done = bon(*command(kind, model), cwd=folder)
    assert done.returncode == 2, done.stderr
    assert "the input is not the one that this pool was made" in done.stderr
    assert "restore the input" in done.stderr
    if kind == "responses":
        where = {":8": "in.jsonl:8", ":3": "in.jsonl:"}.get(where, where)
    assert where in done.stderr
    assert pool_files(folder / "a.pool") == before

    (folder / "in.jsonl").write_text("\n".join(lines) + "\n")
    assert bon(*command(kind, model), cwd=folder).returncode == 0
    assert pool_files(folder / "a.pool") == before


@pytest.mark.faults
@pytest.mark.parametrize("kind", ["prompts", "responses"])
def test_an_input_that_grew_at_its_end_goes_on(
    made: dict[Kind, Path], model: tuple[str, ...], tmp_path: Path, kind: Kind
) -> None:
    folder = Path(shutil.copytree(made[f"{kind}-10"], tmp_path / "here"))
    inodes = {
        name: (folder / "a.pool" / name).stat().st_ino for name in pool_files(folder / "a.pool")
    }
    write_input(folder, kind, 13)
    done = bon(*command(kind, model), "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert pool_files(folder / "a.pool") == pool_files(made[f"{kind}-13"] / "a.pool")
    for name, inode in inodes.items():
        if "part-00000" in name or "part-00001" in name:
            assert (folder / "a.pool" / name).stat().st_ino == inode, f"{name} was made again"
    stages = {one["name"]: one for one in json.loads(done.stdout)["stages"]}
    if kind == "prompts":
        assert stages["generate"]["num_candidates"] == 9, "only new rows are sampled"


@pytest.mark.faults
@pytest.mark.parametrize("kind", ["prompts", "responses"])
@pytest.mark.parametrize("grows", [False, True])
def test_an_input_under_another_name_and_compressed_is_the_same(
    made: dict[Kind, Path], model: tuple[str, ...], tmp_path: Path, kind: Kind, grows: bool
) -> None:
    folder = Path(shutil.copytree(made[f"{kind}-10"], tmp_path / "here"))
    before = pool_files(folder / "a.pool")
    path = write_input(folder, kind, 13 if grows else 10)
    (folder / "renamed.jsonl.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    done = bon(*command(kind, model, "renamed.jsonl.gz"), "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    after = pool_files(folder / "a.pool")
    if grows:
        old = {name for name in before if "part-00000" in name or "part-00001" in name}
    else:
        old = before.keys() - {"pool.json"}
        assert [one["num_parts_done"] for one in json.loads(done.stdout)["stages"]] in ([0, 0], [0])
    assert all(before[name] == after[name] for name in old)
