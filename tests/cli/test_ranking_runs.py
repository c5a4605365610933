"""Several scorers of a pool, put together by the commands that read it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from support.commands import bon_json
from support.fakes import FakeScorer, Run, add_scores, input_rows
from typer.testing import CliRunner

import bon.cli.build_dpo
import bon.cli.filter
import bon.cli.select  # noqa: F401  (registers the command)
from bon.cli.app import app
from bon.pool.pool import Pool

REWARD = {f"p{row}": [float(row), 5.0, 3.0] for row in range(6)}
MATH = {f"p{row}": [1.0, 0.0, float(row % 2)] for row in range(6)}


def refused(*arguments: object) -> str:
    """Run a command that must be refused in this process, which is quick; return what it says."""
    done = CliRunner().invoke(app, [str(one) for one in arguments])
    assert done.exit_code == 2, done.output
    return done.stderr


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
    output = pool.parent / "out.parquet"
    assert message in refused("select", pool, *flags, "-o", output)
    assert not output.exists()


def test_before_anything_is_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recipe that cannot be is refused before the engine starts."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ask.jsonl").write_text('{"prompt": "hi", "answer": "3"}\n')
    for flags, message in (
        (["-r", "rule:exact", "-r", "rule:math"], "several scorers"),
        (["-r", "rule:exact", "--aggregate", "uwo"], "but one scorer"),
        (["-r", "rule:exact", "--gate", "math>=1"], "there is no scorer 'math'"),
    ):
        assert message in refused("select", "ask.jsonl", *flags)
        assert not (tmp_path / "ask.pool").exists()


def test_the_weight_of_one_scorer(pool: Path) -> None:
    shown = bon_json("select", pool, "--weight", "rm=-2", "-o", "out.parquet", cwd=pool.parent)
    assert shown["scorer"] == "sum(-2 rm)"
    assert chosen(pool.parent / "out.parquet") == [0, 0, 0, 0, 2, 2]


@pytest.mark.parametrize("strategy", ["majority", "weighted-majority", "soft", "top-k"])
def test_what_a_gate_keeps_out_is_chosen_by_no_strategy(pool: Path, strategy: str) -> None:
    flags = ("--gate", "math>=1", "--strategy", strategy)
    bon_json("select", pool, *flags, "-o", "out.parquet", cwd=pool.parent)
    rows = pq.read_table(pool.parent / "out.parquet").to_pylist()
    assert rows
    assert all(MATH[row["prompt_id"]][row["candidate"]] == 1 for row in rows)


def test_what_a_gate_keeps_out_is_in_no_verified_pair(pool: Path) -> None:
    flags = ("--strategy", "verified", "--rule", "label", "--rank-by", "rm", "--gate", "rm>=100")
    add_scores(Pool.open(pool), "label", MATH)
    none = ("--max-drops", "100%")
    shown = bon_json("build-dpo", pool, *flags, *none, "-o", "out.parquet", cwd=pool.parent)
    assert shown["pairs"] == 0
    bare = bon_json("build-dpo", pool, *flags[:-2], "-o", "out.parquet", cwd=pool.parent)
    assert bare["pairs"] > 0


def test_verdicts_that_are_to_come_are_ranked_as_those_that_are_there(pool: Path) -> None:
    """The rule is asked by the first of two equal commands."""
    flags = ("--rule", "exact", "--rank-by", "rm,rule-exact", "--weight", "rm=2")
    first = bon_json("build-dpo", pool, *flags, "-o", "1.parquet", cwd=pool.parent)
    second = bon_json("build-dpo", pool, *flags, "-o", "2.parquet", cwd=pool.parent)
    assert first["scorer"] == second["scorer"] == "sum(2 rm, rule-exact)"
    assert first["ranking"] == second["ranking"]
    assert first["output_rows"] == second["output_rows"]


def test_a_rule_runs_no_reference_model(pool: Path) -> None:
    (pool.parent / "bon.toml").write_text('ref_model = "/nonexistent/model"\n')
    flags = ("--rank-by", "rm", "--rule", "exact", "--config", "bon.toml", "--max-drops", "100%")
    bon_json("build-dpo", pool, *flags, "-o", "out.parquet", cwd=pool.parent)


def test_a_bound_takes_rewards_that_reach_it(pool: Path) -> None:
    """0.1 is not what float32 stores for 0.1."""
    flags = ("--weight", "math=0.1", "--weight", "rm=0", "-o", "out.parquet")
    threshold = ("--strategy", "threshold", "--threshold", "0.1")
    assert bon_json("select", pool, *flags, *threshold, cwd=pool.parent)["kept_rows"] == 6
    shown = bon_json("build-dpo", pool, *flags, "--min-chosen", "0.1", cwd=pool.parent)
    assert "below_min_chosen" not in shown["pair_drops"]


@pytest.mark.parametrize(
    ("command", "flags", "message"),
    [
        ("select", ["--uwo-penalty", "3"], "--uwo-penalty does nothing"),
        ("select", ["--gate", "rm>=3", "--gate", "rm>=0"], "'rm' is there twice"),
        ("select", ["--weight", "rm=3", "--weight", "rm=1"], "'rm' is there twice"),
        ("select", ["--rank-by", "rm,rm"], "'rm' is there twice"),
        ("select", ["--rank-by", "math", "--length-debias", "linear"], "says only right or wrong"),
        ("filter", ["--gate", "math>=1"], "--filter reward:scorer=NAME"),
        ("filter", ["--rank-by", "rm,math", "--aggregate", "lexicographic"], "different prompts"),
        (
            "select",
            ["--rank-by", "rm,math", "--aggregate", "lexicographic", "--strategy", "threshold",
             "--threshold", "1"],
            "different prompts",
        ),
        (
            "build-dpo",
            ["--rank-by", "rm,math", "--aggregate", "lexicographic", "--min-margin", "10%"],
            "different prompts",
        ),
    ],
)  # fmt: skip
def test_what_would_do_nothing_or_mislead_is_refused(
    pool: Path, command: str, flags: list[str], message: str
) -> None:
    assert message in refused(command, pool, *flags, "-o", pool.parent / "out.parquet")


def test_a_reward_that_is_called_ref_is_no_reference(pool: Path) -> None:
    add_scores(Pool.open(pool), "ref", REWARD)
    flags = ("--rank-by", "rm", "--kl-beta", "0.1")
    said = refused("select", pool, *flags, "-o", pool.parent / "out.parquet")
    assert "gives no log-probabilities" in said


def test_a_kl_that_overflows_is_json(pool: Path) -> None:
    far = {name: [-2_000.0, 0.0, -1.0] for name in REWARD}
    add_scores(Pool.open(pool), "ref", {name: [4_000.0] * 3 for name in far}, kind="logprob")
    flags = ("--rank-by", "rm", "--kl-beta", "0.1")
    shown = bon_json("select", pool, *flags, "-o", "out.parquet", cwd=pool.parent)
    assert shown["ranking"]["kl"]["k3"] is None
    assert shown["ranking"]["kl"]["k1"] < -3_000


def test_a_dataset_is_ranked_as_its_pool_is(tmp_path: Path) -> None:
    """Verdicts that the input brings are verdicts, whether it is read or its pool is."""
    rows = [
        {"prompt": f"q{row}", "responses": ["a", "bb", "ccc"], "scores": [1.0, 2.0, 4.0 * row],
         "is_correct": [True, False, True]}
        for row in range(4)
    ]  # fmt: skip
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "in.jsonl").write_text(text)
    flags = ("--rank-by", "given,label", "--aggregate", "sum", "--length-debias", "linear")
    read = bon_json("filter", "in.jsonl", "--pool", "in.pool", "-r", "rule:exact", *flags,
                    "-o", "1.parquet", cwd=tmp_path)  # fmt: skip
    again = bon_json("filter", "in.pool", *flags, "-o", "2.parquet", cwd=tmp_path)
    assert read["ranking"] == again["ranking"]
    assert read["ranking"]["length_debias"] == {"given": "linear"}
