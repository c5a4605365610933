"""Best of N end to end on small pools whose every reward is known."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.fakes import FakeGenerator, FakeScorer, Run, bad_row, input_rows, prompt

from bon.config import ExportSettings, SelectSettings
from bon.errors import AccountingError, PoolCorruptError, PoolIncompleteError
from bon.exports.formats import choose_format
from bon.pipeline.accounting import Accounting
from bon.pipeline.export import NativeSet, write_set
from bon.pipeline.ranked import open_books
from bon.pipeline.rewards import Ranking
from bon.pipeline.select import Selector, SelectReport
from bon.pool.pool import Pool
from bon.records import (
    RESPONSE_FIELDS,
    Candidate,
    Drop,
    GenerationRequest,
    GenerationResult,
    Prompt,
)


@dataclass
class Scripted(FakeGenerator):
    """Gives the responses of a script, by prompt id."""

    script: dict[str, list[str]] = field(default_factory=dict)

    def stream(self, requests: Iterable[GenerationRequest]) -> Iterator[GenerationResult]:
        for request in requests:
            texts = self.script[request.prompt_id]
            candidates = (
                Candidate(n, t, "stop", len(t.split()), None, n) for n, t in enumerate(texts)
            )
            yield GenerationResult(request.prompt_id, tuple(candidates))


SCRIPT = {
    "p0": ["it is 4", "it is 5", "it is 4", "no idea"],
    "p1": ["7", "8", "7", "7"],
    "p2": ["1", "2", "3", "4"],
    "p3": ["none", "none", "none", "none"],
    "p5": ["9", "9", "9", "8"],
}
REWARDS: dict[str, list[float | None]] = {
    "p0": [0.25, 1.0, 0.5, 0.125],
    "p1": [2.0, 4.0, 0.5, None],
    "p2": [1.0, 3.0, 3.0, -1.0],
    "p3": [-1.0, -2.0, -3.0, -4.0],
    "p5": [None, None, None, None],
}
ANSWERS = {"p0": 4, "p1": "#### 8", "p2": 3, "p3": "none", "p5": 9}
TEXT = pa.string()


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    """Six rows (p4 malformed) with four scripted candidates each; p5 has no reward at all."""
    rows: list[Prompt | Drop] = [
        bad_row(n) if n == 4 else prompt(n, answer=ANSWERS[f"p{n}"]) for n in range(6)
    ]
    run = Run(rows, num_candidates=4, generator=Scripted(script=SCRIPT), scorer=FakeScorer(REWARDS))
    return run.scores(tmp_path_factory.mktemp("pool") / "p")


def run_select(
    pool: Pool, output: Path, *, limit: int | None = None, seed: int = 0, **settings: Any
) -> tuple[SelectReport, list[dict[str, Any]]]:
    selector = Selector(
        pool, SelectSettings(**settings), ranking=Ranking.of("reward"), seed=seed, limit=limit
    )
    report = selector.report
    rows = NativeSet(selector.tables(), selector.schema, "responses", report.accounting)
    write_set(rows, output, choose_format("bon", "responses"), ExportSettings(), seed=seed)
    return report, pq.read_table(output, page_checksum_verification=True).to_pylist()


@pytest.mark.parametrize(
    ("settings", "kept", "drops", "ties"),
    [
        ({}, {"p0": [1], "p1": [1], "p2": [1], "p3": [0]}, {"no_scored_candidate": 1}, 1),
        ({"strategy": "top-k", "k": 2},
         {"p0": [1, 2], "p1": [1, 0], "p2": [1, 2], "p3": [0, 1]}, {"no_scored_candidate": 1}, 0),
        ({"strategy": "top-k", "k": 9},
         {"p0": [1, 2, 0, 3], "p1": [1, 0, 2], "p2": [1, 2, 0, 3], "p3": [0, 1, 2, 3]},
         {"no_scored_candidate": 1}, 0),
        ({"strategy": "threshold", "threshold": 1.0}, {"p0": [1], "p1": [1], "p2": [1]},
         {"below_threshold": 1, "no_scored_candidate": 1}, 1),
        ({"strategy": "threshold", "threshold": 3.5}, {"p1": [1]},
         {"below_threshold": 3, "no_scored_candidate": 1}, 0),
        ({"strategy": "majority"}, {"p0": [2], "p1": [0], "p2": [1], "p5": [0]},
         {"no_answer": 1}, 1),
        # p0: 4 has 0.75, 5 has 1.0; p1: 7 has 2.5, 8 has 4.0; p2: 2 and 3 have 3.0 each
        ({"strategy": "weighted-majority"}, {"p0": [1], "p1": [1], "p2": [1]},
         {"no_answer": 1, "no_scored_candidate": 1}, 1),
        ({"strategy": "soft", "soft_lambda": 1e-6},
         {"p0": [1], "p1": [1], "p2": [2], "p3": [0]}, {"no_scored_candidate": 1}, 0),
    ],
)  # fmt: skip
def test_strategy_end_to_end(
    pool: Pool, tmp_path: Path, settings: dict[str, Any], kept: dict[str, list[int]],
    drops: dict[str, int], ties: int,
) -> None:  # fmt: skip
    report, rows = run_select(pool, tmp_path / "o.parquet", seed=SOFT_SEED, **settings)

    chosen: dict[str, list[int]] = {}
    for row in rows:
        chosen.setdefault(row["prompt_id"], []).append(row["candidate"])
        assert row["response"] == SCRIPT[row["prompt_id"]][row["candidate"]]
        assert row["reward"] == REWARDS[row["prompt_id"]][row["candidate"]]
        assert row["rewards"] == REWARDS[row["prompt_id"]]
        assert row["num_candidates"] == 4
    assert chosen == kept
    books = report.accounting
    assert books.drops == {**drops, "malformed_json": 1}
    assert books.input_rows == 6 == books.kept_rows + books.num_drops
    assert books.kept_rows == len(kept)
    assert books.output_rows == len(rows)
    assert report.num_ties == ties
    assert report.num_candidates == 20
    assert books.candidate_drops == {"non_finite_score": 5}


def soft_uniform(prompt_id: str, seed: int) -> float:
    """The number in [0, 1) that soft draws with, worked out from its description."""
    digest = hashlib.sha256(f"select\0{seed}\0{prompt_id}".encode()).digest()
    own = int.from_bytes(digest[:8], "big")
    digest = hashlib.sha256(f"bon-soft:{own}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


SOFT_SEED = next(seed for seed in count() if soft_uniform("p2", seed) >= 0.5)
"""With a tiny λ soft takes one of p2's two best with equal chance: here the second."""


@pytest.mark.parametrize("seed", range(4))
def test_soft_draws_by_seed_and_prompt(pool: Pool, tmp_path: Path, seed: int) -> None:
    _, rows = run_select(pool, tmp_path / "o.parquet", strategy="soft", soft_lambda=1e-6, seed=seed)
    expected = 2 if soft_uniform("p2", seed) >= 0.5 else 1
    assert [r["candidate"] for r in rows if r["prompt_id"] == "p2"] == [expected]


def test_rewards_and_accuracies_worked_out_by_hand(pool: Pool, tmp_path: Path) -> None:
    report, _ = run_select(pool, tmp_path / "o.parquet")
    told = report.as_json()

    # kept are p0 to p3, each counting once: 4, 3, 4 and 4 rewards that sum to 1.875, 6.5, 6, -10
    expected = (1.875 / 4 + 6.5 / 3 + 6 / 4 - 10 / 4) / 4
    assert told["mean_reward_all"] == pytest.approx(expected)
    assert told["mean_reward_chosen"] == pytest.approx((1 + 4 + 3 - 1) / 4)
    assert told["lift"] == pytest.approx(7 / 4 - expected)
    # right of four: p0 2, p1 1 (8), p2 1 (3), p3 4; chosen: p0 wrong, p1 right, p2 wrong, p3 right
    assert told["accuracy_random"] == pytest.approx((2 + 1 + 1 + 4) / 16)
    assert told["accuracy_chosen"] == pytest.approx(2 / 4)
    assert told["strategy"] == "best"
    assert told["scorer"] == "reward"
    json.dumps(told, allow_nan=False)


def test_accuracy_of_several_chosen_is_the_mean_over_prompts(pool: Pool, tmp_path: Path) -> None:
    report, _ = run_select(pool, tmp_path / "o.parquet", strategy="top-k", k=2)
    # p0 [1, 2] one of two, p1 [1, 0] one of two, p2 [1, 2] one of two, p3 both
    assert report.accuracy_chosen.value == pytest.approx((0.5 + 0.5 + 0.5 + 1) / 4)


def test_no_answer_column_no_accuracy(pool: Pool, tmp_path: Path) -> None:
    report, _ = run_select(pool, tmp_path / "o.parquet", answer_column="solution")
    assert report.as_json()["accuracy_random"] is report.as_json()["accuracy_chosen"] is None


def test_schema_and_a_whole_row(pool: Pool, tmp_path: Path) -> None:
    run_select(pool, tmp_path / "o.parquet")
    table = pq.read_table(tmp_path / "o.parquet")
    assert table.schema == pa.schema([*RESPONSE_FIELDS, pa.field("answer", pa.string())])
    assert table.slice(1, 1).to_pylist() == [
        {
            "answer": "#### 8", "prompt_id": "p1", "prompt": "question 1", "response": "8",
            "messages": [{"role": "user", "content": "question 1"},
                         {"role": "assistant", "content": "8"}],
            "reward": 4.0, "candidate": 1, "num_candidates": 4, "rewards": [2.0, 4.0, 0.5, None],
            "finish_reason": "stop", "num_tokens": 1,
        }
    ]  # fmt: skip
    assert pq.read_metadata(tmp_path / "o.parquet").row_group(0).column(0).compression == "ZSTD"


def test_unscored_winner_of_a_vote_has_a_null_reward(pool: Pool, tmp_path: Path) -> None:
    report, rows = run_select(pool, tmp_path / "o.parquet", strategy="majority")
    assert rows[-1]["prompt_id"] == "p5"
    assert rows[-1]["reward"] is None
    assert report.reward_chosen.count == 3


@pytest.mark.parametrize("strategy", ["best", "soft", "top-k", "weighted-majority"])
def test_repeated_run_gives_the_same_bytes(pool: Pool, tmp_path: Path, strategy: str) -> None:
    run_select(pool, tmp_path / "a.parquet", strategy=strategy)
    first = (tmp_path / "a.parquet").read_bytes()
    run_select(pool, tmp_path / "a.parquet", strategy=strategy)
    assert (tmp_path / "a.parquet").read_bytes() == first
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"], "no leftover"


@pytest.mark.parametrize("limit", range(8))
def test_limit_is_a_view_like_a_pool_of_so_many_rows(tmp_path: Path, limit: int) -> None:
    rows: list[Prompt | Drop] = [
        bad_row(n) if n == 4 else prompt(n, late=n) if n > 5 else prompt(n, n=n) for n in range(8)
    ]
    large = Run(rows).scores(tmp_path / "large")
    small = Run(rows, limit=limit).scores(tmp_path / "small")
    one, _ = run_select(large, tmp_path / "1.parquet", limit=limit)
    two, _ = run_select(small, tmp_path / "2.parquet")
    assert one.as_json() == two.as_json()
    assert (tmp_path / "1.parquet").read_bytes() == (tmp_path / "2.parquet").read_bytes()


def test_frames_and_parts_do_not_change_a_result_of_many_row_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bon.exports.streams.ROW_GROUP_BYTES", 1500)
    rows: list[Prompt | Drop] = [
        prompt(n, answer=n % 10, note=None if n % 3 else "x" * n) for n in range(45)
    ]
    failed = {f"p{n}": [None, 1.0, 0.1] for n in range(0, 45, 7)}
    results = set()
    for size, frame_rows in ((5, 1), (7, 30), (16, 100_000)):
        monkeypatch.setattr("bon.pipeline.frames._FRAME_ROWS", frame_rows)
        run = Run(rows, part_size=size, scorer=FakeScorer(failed))
        pool = run.scores(tmp_path / f"p{size}")
        report, _ = run_select(pool, tmp_path / "o.parquet", strategy="top-k", k=2)
        told = json.dumps(report.as_json())
        results.add(((tmp_path / "o.parquet").read_bytes(), told))
    assert len(results) == 1
    assert pq.ParquetFile(tmp_path / "o.parquet").num_row_groups > 5


def test_part_size_does_not_change_the_result(tmp_path: Path) -> None:
    rows: list[Prompt | Drop] = [prompt(0, x=2**60 + 1), prompt(1, x=0.5), prompt(2, y=[])]
    for size in (1, 2, 3):
        pool = Run(rows, part_size=size).scores(tmp_path / f"p{size}")
        run_select(pool, tmp_path / f"{size}.parquet")
    results = {(tmp_path / f"{size}.parquet").read_bytes() for size in (1, 2, 3)}
    assert len(results) == 1


def test_one_candidate_of_one_row(tmp_path: Path) -> None:
    pool = Run([prompt(0)], num_candidates=1).scores(tmp_path / "p")
    report, rows = run_select(pool, tmp_path / "deep" / "er" / "o.parquet", strategy="top-k", k=2)
    assert [(r["candidate"], r["num_candidates"]) for r in rows] == [(0, 1)]
    assert report.as_json()["lift"] == 0.0
    assert report.num_ties == 0


@pytest.mark.parametrize("num_rows", [0, 3, 9])
def test_nothing_left_is_an_empty_file_with_all_columns(tmp_path: Path, num_rows: int) -> None:
    pool = Run(input_rows(num_rows, bad=range(num_rows))).scores(tmp_path / "p")
    report, rows = run_select(pool, tmp_path / "o.parquet")
    assert rows == []
    assert pq.read_schema(tmp_path / "o.parquet") == pa.schema(RESPONSE_FIELDS)
    assert report.accounting.num_drops == num_rows
    assert report.as_json()["lift"] is None


def test_all_dropped_by_the_generator(tmp_path: Path) -> None:
    gone = FakeGenerator(too_long=frozenset(f"p{n}" for n in range(5)))
    pool = Run(input_rows(5), generator=gone).scores(tmp_path / "p")
    report, rows = run_select(pool, tmp_path / "o.parquet")
    assert rows == []
    assert report.accounting.drops == {"prompt_too_long": 5}


def test_nan_in_a_pool_ranks_last_and_spoils_no_mean(tmp_path: Path) -> None:
    table: dict[str, list[float | None]] = {
        "p0": [float("nan"), 1.0, 2.0], "p1": [float("inf")] * 3,
    }  # fmt: skip
    pool = Run([prompt(0), prompt(1)], scorer=FakeScorer(table)).scores(tmp_path / "p")
    report, rows = run_select(pool, tmp_path / "o.parquet")
    assert [(r["prompt_id"], r["candidate"]) for r in rows] == [("p0", 2)]
    assert report.as_json()["lift"] == pytest.approx(0.5)
    assert report.accounting.drops == {"no_scored_candidate": 1}


def test_more_rows_than_one_batch(tmp_path: Path) -> None:
    pool = Run(input_rows(600), part_size=256).scores(tmp_path / "p")
    _, rows = run_select(pool, tmp_path / "o.parquet")
    assert [r["prompt_id"] for r in rows] == [f"p{n}" for n in range(600)]


def test_books_that_do_not_close_give_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_row_more(*args: Any) -> Accounting:
        return replace(open_books(*args), input_rows=7)

    monkeypatch.setattr("bon.pipeline.select.open_books", one_row_more)
    pool = Run(input_rows(6, bad=[2])).scores(tmp_path / "p")
    (tmp_path / "o.parquet").write_text("old")
    with pytest.raises(AccountingError, match="7 input rows, but 5 kept and 1 dropped"):
        run_select(pool, tmp_path / "o.parquet")
    assert (tmp_path / "o.parquet").read_text() == "old"


def test_incomplete_pool(tmp_path: Path) -> None:
    pool = Run(input_rows(6)).scores(tmp_path / "p")
    pool.layout.part("scores/reward", 1).unlink()
    with pytest.raises(PoolIncompleteError):
        run_select(pool, tmp_path / "o.parquet")
    assert not (tmp_path / "o.parquet").exists()


def test_damaged_pool_leaves_no_result(tmp_path: Path) -> None:
    pool = Run(input_rows(6)).scores(tmp_path / "p")
    path = pool.layout.part("candidates", 1)
    damaged = bytearray(path.read_bytes())
    damaged[60] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(PoolCorruptError):
        run_select(pool, tmp_path / "o.parquet")
    assert {path.name for path in tmp_path.iterdir()} == {"p"}


def test_taken_names_and_mixed_columns_load_in_datasets(tmp_path: Path) -> None:
    import datasets

    extras: list[dict[str, Any]] = [
        {"reward": 1, "mixed": 1, "number": 1, "deep": {"a": [{"b": 1}]}, "huge": 2**70,
         "nothing": None, "empty": {}, "list": []},
        {"reward": 2, "mixed": "x", "number": 2.5, "deep": {"c": "ä"}, "huge": 1, "list": [1]},
        {"mixed": [1], "only_here": True, "empty": {}, "deep": None},
    ]  # fmt: skip
    rows: list[Prompt | Drop] = [prompt(n, **extra) for n, extra in enumerate(extras)]
    pool = Run(rows, part_size=2).scores(tmp_path / "p")
    run_select(pool, tmp_path / "o.parquet")

    loaded = datasets.load_dataset(
        "parquet", data_files=str(tmp_path / "o.parquet"), cache_dir=str(tmp_path / "cache")
    )["train"]

    value = datasets.Value
    message = {"role": value("string"), "content": value("string")}
    expected = {
        "input_reward": value("int64"), "mixed": value("string"), "number": value("float64"),
        "deep": {"a": datasets.List({"b": value("int64")}), "c": value("string")},
        "huge": value("string"), "nothing": value("string"), "empty": value("string"),
        "list": datasets.List(value("int64")), "only_here": value("bool"),
        "prompt_id": value("string"), "prompt": value("string"), "response": value("string"),
        "messages": datasets.List(message), "reward": value("float32"),
        "candidate": value("int32"), "num_candidates": value("int32"),
        "rewards": datasets.List(value("float32")), "finish_reason": value("string"),
        "num_tokens": value("int32"),
    }  # fmt: skip
    assert loaded.features == datasets.Features(expected)
    assert loaded["mixed"][:] == ["1", "x", "[1]"]
    assert loaded["number"][:] == [1.0, 2.5, None]
    assert loaded["huge"][:] == [str(2**70), "1", None]
    assert loaded["empty"][:] == ["{}", None, "{}"]
    assert loaded["list"][:] == [[], [1], None]
    assert loaded["input_reward"][:] == [1, 2, None]
    assert loaded["deep"][1] == {"a": None, "c": "ä"}
