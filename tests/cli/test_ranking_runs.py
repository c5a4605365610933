"""Several scorers of a pool, put together by the commands that read it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from support.commands import bon, bon_json
from support.fakes import FakeScorer, Run, add_scores, input_rows

REWARD = {f"p{row}": [float(row), 5.0, 3.0] for row in range(6)}
MATH = {f"p{row}": [1.0, 0.0, float(row % 2)] for row in range(6)}


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    run = Run(input_rows(6), scorer=FakeScorer(REWARD), scorer_name="rm")
    add_scores(run.scores(tmp_path / "in.pool"), "math", MATH, is_rule=True)
    return tmp_path / "in.pool"


def chosen(path: Path) -> list[int]:
    return [int(one) for one in pq.read_table(path).column("candidate").to_pylist()]


@pytest.mark.parametrize(
    ("flags", "expected", "name"),
    [
        ([], [1, 1, 1, 1, 1, 0], "rm"),
        (["--rank-by", "math"], [0] * 6, "math"),
        (["--aggregate", "lexicographic"], [0, 2, 0, 0, 0, 0], "lexicographic(math, rm)"),
        (["--weight", "rm=1", "--weight", "math=3"], [1, 2, 0, 0, 0, 0], "sum(rm, 3 math)"),
        (["--gate", "math>=1"], [0, 2, 0, 0, 0, 0], "rm where math >= 1"),
    ],
)
def test_other_weights_choose_otherwise(
    pool: Path, flags: list[str], expected: list[int], name: str
) -> None:
    shown = bon_json("select", pool, *flags, "-o", "out.parquet", cwd=pool.parent)
    assert chosen(pool.parent / "out.parquet") == expected
    assert shown["scorer"] == name
    assert shown["kept_rows"] == 6
    assert shown["stages"] == []


def test_changing_weights_imports_no_model_library(pool: Path) -> None:
    """Nothing that could load a model is even imported, and the pool's files stay as they are."""
    before = {path: path.stat().st_mtime_ns for path in pool.rglob("*.parquet")}
    code = (
        "import json, sys\n"
        "from bon.cli.app import main\n"
        "sys.argv = ['bon', 'select', 'in.pool', '--aggregate', 'mean', '--weight', 'math=9',\n"
        "            '--normalize', 'rm=prompt-z', '--json', '-q', '-o', 'out.parquet']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=pool.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    imported = set(json.loads(done.stderr.splitlines()[-1]))
    assert {"bon", "pyarrow"} <= imported
    assert imported.isdisjoint({"torch", "transformers", "vllm", "math_verify", "httpx"})
    assert chosen(pool.parent / "out.parquet") == [0, 2, 0, 0, 0, 0]
    assert {path: path.stat().st_mtime_ns for path in pool.rglob("*.parquet")} == before


@pytest.mark.parametrize(
    ("command", "flags"),
    [("build-dpo", ["--aggregate", "lexicographic"]), ("filter", ["--min-reward", "1"])],
)
def test_pairs_and_filters_are_ranked_alike(pool: Path, command: str, flags: list[str]) -> None:
    flags = [*flags, "--aggregate", "lexicographic"] if command == "filter" else flags
    shown: dict[str, Any] = bon_json(command, pool, *flags, "-o", "out.parquet", cwd=pool.parent)
    assert shown["scorer"] == "lexicographic(math, rm)"
    assert shown["ranking"] == {"scorers": ["math", "rm"], "aggregate": "lexicographic"}
    rows = pq.read_table(pool.parent / "out.parquet").to_pylist()
    assert rows
    if command == "filter":
        assert sorted({(row["prompt_id"], row["candidate"]) for row in rows}) == sorted(
            (name, number)
            for name, verdicts in MATH.items()
            for number, right in enumerate(verdicts)
            if right
        )
        assert all(row["reward"] >= 1 for row in rows)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--aggregate", "sum", "--rank-by", "rm"], "but one scorer"),
        (["--weight", "rn=1"], "known: math, rm"),
        (["--kl-beta", "0.1"], "--ref-model"),
        (["--gate", "math>=one"], "NAME>=SCORE"),
        (["--normalize", "z"], "known: "),
    ],
)
def test_what_cannot_be_is_a_usage_error(pool: Path, flags: list[str], message: str) -> None:
    done = bon("select", pool, *flags, "-o", "out.parquet", cwd=pool.parent)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (pool.parent / "out.parquet").exists()


def test_before_anything_is_sampled(tmp_path: Path) -> None:
    """A recipe that cannot be is refused before the engine starts."""
    (tmp_path / "ask.jsonl").write_text('{"prompt": "hi", "answer": "3"}\n')
    for flags, message in (
        (["-r", "rule:exact", "-r", "rule:math"], "several scorers"),
        (["-r", "rule:exact", "--aggregate", "uwo"], "but one scorer"),
        (["-r", "rule:exact", "--gate", "math>=1"], "there is no scorer 'math'"),
    ):
        done = bon("select", "ask.jsonl", *flags, cwd=tmp_path)
        assert done.returncode == 2, done.stderr
        assert message in done.stderr
        assert not (tmp_path / "ask.pool").exists()
