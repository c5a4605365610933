"""`bon score --verify K` with a real reward model, on responses that are given."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from support.commands import REWARD, bon_json, pool_files
from support.datasets import write_lines
from support.fakes import InlineEngine
from typer.testing import CliRunner, Result

import bon.cli.score  # noqa: F401  (registers the command)
from bon.cli.app import app
from bon.config import known_keys
from bon.pool.pool import Pool, scores_kind

MODEL = f"reward={REWARD}"
KIND = scores_kind("reward")
RESPONSES = ("42", "I do not know.", "It is 42, since 40 + 2 is 42. " * 3, "7")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `in.jsonl`: six prompts in parts of four; models run in this process."""
    monkeypatch.chdir(tmp_path)
    for place in ("bon.cli.engines", "bon.engines.local"):
        monkeypatch.setattr(f"{place}.LocalEngine", lambda log, **limits: InlineEngine())
    rows = [
        {"prompt": f"What is {n} + 2?", "responses": list(RESPONSES), "answer": "42"}
        for n in range(6)
    ]
    write_lines(tmp_path / "in.jsonl", rows)
    return tmp_path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["score", *map(str, arguments)])


def run_json(*arguments: object) -> dict[str, Any]:
    done = run(*arguments, "--json", "-q")
    assert done.exit_code == 0, done.stderr
    return dict(json.loads(done.stdout))


def scored(here: Path) -> Pool:
    run_json("in.jsonl", "-r", MODEL, "--part-size", 4)
    return Pool.open(here / "in.pool")


def tamper(pool: Pool, part: int, row: int, score: float) -> tuple[str, float]:
    """Write another score into one row; return the prompt's id and the score that was there."""
    table = pool.read(KIND, part)
    rows = table.to_pylist()
    before = rows[row]["score"]
    rows[row]["score"] = score
    changed = pa.Table.from_pylist(rows, table.schema)
    pool.commit(KIND, part, changed, [], pool.covers(KIND, part))
    return rows[row]["prompt_id"], before


def test_what_was_just_scored_in_batches_is_confirmed(here: Path) -> None:
    result = run_json("in.jsonl", "-r", MODEL, "--part-size", 4, "--verify", 9, "--seed", 5)

    (stage,) = result["stages"]
    assert stage["num_parts_done"] == 2
    assert stage["num_tokens"] > 0
    assert stage["num_tokens_computed"] > 0
    assert stage["share_saved"] == 1 - stage["num_tokens_computed"] / stage["num_tokens"]
    found = result["verified"]["reward"]
    assert (found["num_candidates"], found["num_failed"], found["seed"]) == (9, 0, 5)
    assert found["largest_difference"] <= 1e-4
    assert found["num_rankings_changed"] == 0


def test_another_score_in_the_pool_is_found_in_a_process_of_its_own(here: Path) -> None:
    pool = scored(here)
    prompt_id, before = tamper(pool, 1, 5, 999.0)
    files = pool_files(pool.layout.root)

    result = bon_json("score", "in.pool", "-r", MODEL, "--verify", 1000, cwd=here)

    assert [stage["num_parts_done"] for stage in result["stages"]] == [0]
    found = result["verified"]["reward"]
    assert (found["num_candidates"], found["num_prompts"]) == (24, 6)
    assert found["largest_difference"] == pytest.approx(999.0 - before, abs=1e-3)
    place = found["largest_at"]
    assert (place["prompt_id"], place["candidate"], place["score"]) == (prompt_id, 1, 999.0)
    assert place["reference"] == pytest.approx(before, abs=1e-4)
    assert found["rankings_changed"] == [prompt_id]
    assert pool_files(pool.layout.root) == files


def test_a_changed_ranking_is_a_warning_and_no_failure(here: Path) -> None:
    tamper(scored(here), 0, 0, -999.0)
    done = run("in.pool", "-r", MODEL, "--verify", 24)
    assert done.exit_code == 0
    assert "warning: scored alone, candidates of reward would rank otherwise" in done.stderr
    assert "--reward-dtype float32" in done.stderr
    assert done.stdout == "in.pool\n"


def test_the_seed_draws_and_is_refused_where_nothing_is_drawn(here: Path) -> None:
    scored(here)
    seeds = [(), ("--seed", 0), ("--seed", 1)]
    drawn = [run_json("in.pool", "-r", MODEL, "--verify", 1, *seed)["verified"] for seed in seeds]
    places = [
        (one["reward"]["largest_at"]["prompt_id"], one["reward"]["largest_at"]["candidate"])
        for one in drawn
    ]
    assert places[0] == places[1] != places[2]
    for off in ((), ("--verify", 0)):
        done = run("in.pool", "-r", MODEL, "--seed", 1, *off)
        assert done.exit_code == 2
        assert "--seed" in done.stderr
    assert "verified" not in run_json("in.pool", "-r", MODEL, "--verify", 0)


def test_rules_have_nothing_to_verify(here: Path) -> None:
    done = run("in.jsonl", "-r", "rule:exact", "--verify", 3, "--json")
    assert done.exit_code == 0, done.stderr
    assert "rule-exact is a rule: there is nothing to verify" in done.stderr
    result = json.loads(done.stdout)
    assert result["verified"] == {}
    assert result["stages"][0]["share_saved"] is None


def test_only_bon_score_verifies(here: Path) -> None:
    assert [command for command, keys in known_keys().items() if "verify" in keys] == ["score"]
    assert run("in.jsonl", "-r", "rule:exact", "--verify", -1).exit_code == 2
    done = run("in.jsonl", "-r", "rule:exact", "--verify", 3, "--dry-run")
    assert "3. nothing to verify for rule-exact: it is a rule" in done.stdout
    done = run("in.jsonl", "-r", "rule:exact", "-r", MODEL, "--verify", 3, "--dry-run")
    assert "4. nothing to verify for rule-exact: it is a rule" in done.stdout
    assert "5. score 3 random candidates again with reward, one at a time" in done.stdout
