"""Pairs of small pools whose every reward is known: who is chosen, who is dropped, and why."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from support.fakes import FakeGenerator, FakeScorer, Run, add_scores, bad_row, input_rows, prompt

from bon.config import PairSettings
from bon.errors import PoolIncompleteError, SettingsError, UnknownChoiceError
from bon.guards import GUARDS
from bon.pairs import STRATEGIES
from bon.pipeline.accounting import Accounting
from bon.pipeline.build_dpo import PairBuilder, PairReport, check_pairs
from bon.pipeline.pairing import Tokenize
from bon.pipeline.rewards import Ranking
from bon.pool.pool import CANDIDATES, PROMPTS, Pool
from bon.records import CANDIDATES_SCHEMA, PAIR_FIELDS, Drop, Message, Prompt

Rewards = dict[str, list[float | None]]


def scripted_pool(
    root: Path, script: dict[str, list[str]], rewards: Rewards, rows: Sequence[Prompt | Drop] = ()
) -> Pool:
    """A pool of these responses and rewards, by default with the prompts p0, p1, …"""
    prompts = list(rows) or [prompt(number) for number in range(len(script))]
    run = Run(prompts, scorer=FakeScorer(rewards))
    pool = run.prompts(root)
    for part in pool.parts():
        ids = pool.read(PROMPTS, part)["prompt_id"].to_pylist()
        candidates = [row for one in ids for row in scripted(one, script[one])]
        table = pa.Table.from_pylist(candidates, CANDIDATES_SCHEMA)
        pool.commit(CANDIDATES, part, table, [], covers=len(ids))
    return run.scores(root)


def scripted(prompt_id: str, texts: list[str]) -> list[dict[str, Any]]:
    """The responses of a script as candidates; one that ends with … was cut off."""
    return [
        {
            "prompt_id": prompt_id,
            "candidate": number,
            "response": text,
            "finish_reason": "length" if text.endswith("…") else "stop",
            "num_tokens": len(text.split()),
            "seed": number,
        }
        for number, text in enumerate(texts)
    ]


def build(
    pool: Pool,
    *,
    scorer: str | None = "reward",
    rule: str | None = None,
    seed: int = 0,
    limit: int | None = None,
    tokenize: Tokenize | None = None,
    **settings: Any,
) -> tuple[PairReport, list[dict[str, Any]]]:
    """Build all pairs; the books must close and JSON must hold them."""
    builder = PairBuilder(
        pool, PairSettings(**settings), ranking=None if scorer is None else Ranking.of(scorer),
        rule=rule, seed=seed, limit=limit, tokenize=tokenize,
    )  # fmt: skip
    tables = list(builder.tables())
    assert all(table.schema.equals(builder.schema) for table in tables)
    rows = pa.concat_tables(tables).to_pylist() if tables else []
    report = builder.report
    report.accounting.close()
    assert report.accounting.output_rows == len(rows)
    assert report.num_pairs == len(rows) + report.pair_drops.total()
    json.dumps(report.as_json(), allow_nan=False)
    return report, rows


def who(rows: list[dict[str, Any]]) -> list[tuple[str, int, int]]:
    """Of each pair its prompt, chosen and rejected."""
    return [(r["prompt_id"], r["candidate_chosen"], r["candidate_rejected"]) for r in rows]


TROUBLE: dict[str, list[str]] = {
    "p0": ["one two", "a longer answer", "b"],
    "p1": ["alone"],
    "p2": ["same", "rewards", "everywhere"],
    "p3": ["no", "reward", "at all"],
    "p4": ["only", "one", "reward"],
    "p5": ["Equal  text", " equal\nTEXT ", "EQUAL text"],
    "p6": ["good", "   "],
    "p7": ["it was cut off …", "short"],
    "p9": ["9", "8", "7"],
}
TROUBLE_REWARDS: Rewards = {
    "p0": [1.0, 3.5, 2.0],
    "p1": [1.0],
    "p2": [2.0, 2.0, 2.0],
    "p3": [None, None, None],
    "p4": [None, 5.0, None],
    "p5": [3.0, 1.0, 2.0],
    "p6": [2.0, 1.0],
    "p7": [2.0, 1.0],
    "p9": [0.25, float("nan"), 0.0],
}
DROPS = {
    "malformed_json": 1,
    "one_candidate": 1,
    "all_tied": 1,
    "no_scored_candidate": 1,
    "one_scored_candidate": 1,
    "same_text": 1,
    "empty_response": 1,
    "chosen_truncated": 1,
}


@pytest.fixture(scope="module")
def trouble(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    """Ten rows, one malformed, and of the others all but two in some trouble."""
    rows: list[Prompt | Drop] = [
        bad_row(n) if n == 8 else prompt(n, answer=n, tags=[f"t{n}"]) for n in range(10)
    ]
    root = tmp_path_factory.mktemp("trouble") / "pool"
    return scripted_pool(root, TROUBLE, TROUBLE_REWARDS, rows)


def test_every_row_becomes_a_pair_or_a_named_drop(trouble: Pool) -> None:
    report, rows = build(trouble)

    assert who(rows) == [("p0", 1, 0), ("p9", 0, 2)]
    books = report.accounting
    assert books.drops == DROPS
    assert (books.input_rows, books.kept_rows, books.num_drops) == (10, 2, 8)
    assert report.num_pairs == 5
    assert report.pair_drops == {"same_text": 1, "empty_response": 1, "chosen_truncated": 1}
    assert report.num_candidates == sum(map(len, TROUBLE.values()))
    assert books.candidate_drops == {"non_finite_score": 5}


def test_a_whole_row(trouble: Pool) -> None:
    _, rows = build(trouble)
    assert rows[0] == {
        "prompt": [{"role": "user", "content": "question 0"}],
        "chosen": [{"role": "assistant", "content": "a longer answer"}],
        "rejected": [{"role": "assistant", "content": "one two"}],
        "score_chosen": 3.5, "score_rejected": 1.0, "margin": 2.5,
        "prompt_id": "p0", "candidate_chosen": 1, "candidate_rejected": 0,
        "num_tokens_chosen": 3, "num_tokens_rejected": 2,
        "answer": 0, "tags": ["t0"],
    }  # fmt: skip


def test_a_drop_says_where_it_was(trouble: Pool) -> None:
    report, _ = build(trouble, limit=3)
    assert report.accounting.examples == [
        Drop("one_candidate", "the prompt has one candidate only", "in.jsonl:2", "p1", 1),
        Drop("all_tied", "all rewards are equal", "in.jsonl:3", "p2", 2),
    ]


def test_means_are_of_the_pairs_that_are_written(trouble: Pool) -> None:
    told = build(trouble)[0].as_json()
    assert told["mean_margin"] == pytest.approx((2.5 + 0.25) / 2)
    assert told["mean_score_chosen"] == pytest.approx((3.5 + 0.25) / 2)
    assert told["mean_score_rejected"] == pytest.approx((1.0 + 0.0) / 2)
    assert told["mean_num_tokens_chosen"] == pytest.approx((3 + 1) / 2)
    assert told["mean_num_tokens_rejected"] == pytest.approx((2 + 1) / 2)
    assert (told["strategy"], told["scorer"], told["rule"]) == ("best-worst", "reward", None)


VERDICTS: Rewards = {
    "p0": [0.0, 1.0, 1.0],
    "p1": [1.0],
    "p2": [1.0, 0.0, 0.0],
    "p3": [0.0, 0.0, 1.0],
    "p4": [1.0, 1.0, 1.0],
    "p5": [0.0, 0.0, 0.0],
    "p6": [1.0, 0.0],
    "p7": [0.0, 1.0],
    "p9": [0.0, 0.0, 0.0],
}


@pytest.fixture(scope="module")
def judged(trouble: Pool) -> Pool:
    return add_scores(trouble, "right", VERDICTS, is_rule=True)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("limit", [None, 0, 1, 5, 9, 10, 99])
def test_books_close_for_every_strategy_and_limit(
    judged: Pool, strategy: str, limit: int | None
) -> None:
    rule = "right" if strategy == "verified" else None
    report, rows = build(judged, strategy=strategy, rule=rule, limit=limit)

    assert report.accounting.input_rows == (10 if limit is None else min(limit, 10))
    assert report.accounting.kept_rows == len({row["prompt_id"] for row in rows})
    for row in rows:
        texts, rewards = TROUBLE[row["prompt_id"]], TROUBLE_REWARDS[row["prompt_id"]]
        high, low = row["candidate_chosen"], row["candidate_rejected"]
        assert row["chosen"] == [{"role": "assistant", "content": texts[high]}]
        assert row["rejected"] == [{"role": "assistant", "content": texts[low]}]
        assert row["prompt"][0]["content"] == f"question {row['prompt_id'][1:]}"
        assert row["tags"] == [f"t{row['prompt_id'][1:]}"]
        assert (row["score_chosen"], row["score_rejected"]) == (rewards[high], rewards[low])
        if strategy == "verified":
            assert VERDICTS[row["prompt_id"]][high] == 1.0
            assert VERDICTS[row["prompt_id"]][low] == 0.0
        else:
            assert row["margin"] == row["score_chosen"] - row["score_rejected"] > 0


@pytest.mark.parametrize(
    ("strategy", "pairs"),
    [
        ("best-worst", [("p0", 1, 0), ("p9", 0, 2)]),
        ("best-second", [("p0", 1, 2), ("p9", 0, 2)]),
        ("best-median", [("p0", 1, 2), ("p9", 0, 2)]),
        # p0: μ 13/6, σ 1.027; μ - 2σ is 0.11, next to 1.0
        ("sigma", [("p0", 1, 0), ("p9", 0, 2)]),
        # p0: the quantile 0.1 of 1, 2, 3.5 is 1.2
        ("quantile", [("p0", 1, 0), ("p9", 0, 2)]),
        # p0: sigmoid of 2.5 is .924, of 1.5 is .818, of 1 is .731
        ("max-margin", [("p0", 1, 0)]),
        ("k-vs-k", [("p0", 1, 0), ("p9", 0, 2)]),
    ],
)
def test_strategy_end_to_end(
    trouble: Pool, strategy: str, pairs: list[tuple[str, int, int]]
) -> None:
    assert who(build(trouble, strategy=strategy)[1]) == pairs


def test_verified_by_hand(judged: Pool) -> None:
    report, rows = build(judged, strategy="verified", rule="right")

    # p0's rights have 3.5 and 2.0; p2 is tied, p3 has no reward: the lowest numbers, margin null
    assert who(rows) == [("p0", 1, 0), ("p2", 0, 1), ("p3", 2, 0), ("p7", 1, 0)]
    assert [row["margin"] for row in rows] == [2.5, 0.0, None, -1.0]
    assert rows[2]["score_chosen"] is rows[2]["score_rejected"] is None
    assert report.accounting.drops == {
        "malformed_json": 1, "one_candidate": 1, "no_wrong": 1, "no_right": 2, "empty_response": 1,
    }  # fmt: skip
    assert report.as_json()["mean_margin"] == pytest.approx(0.5), "of those that are known"


def test_verified_takes_a_margin_only_where_it_is_asked_for(judged: Pool) -> None:
    report, rows = build(judged, strategy="verified", rule="right", min_margin="0")
    assert who(rows) == [("p0", 1, 0), ("p3", 2, 0)]
    assert report.pair_drops == {"low_margin": 2, "empty_response": 1}


def test_verified_without_any_reward(judged: Pool) -> None:
    report, rows = build(judged, strategy="verified", rule="right", scorer=None)
    assert who(rows) == [("p0", 1, 0), ("p2", 0, 1), ("p3", 2, 0), ("p7", 1, 0)]
    assert all(
        row["margin"] is row["score_chosen"] is row["score_rejected"] is None for row in rows
    )
    assert "mean_margin" not in report.as_json()


def test_a_rule_guards_the_other_strategies(judged: Pool) -> None:
    report, rows = build(judged, rule="right", allow=("empty_response", "chosen_truncated"))
    # p5 and p9 both wrong; nothing else of the formed ones has equal verdicts
    assert who(rows) == [("p0", 1, 0), ("p6", 0, 1), ("p7", 0, 1)]
    assert report.pair_drops == {"same_text": 1, "both_wrong": 1}
    report, _ = build(judged, rule="right", strategy="best-second", allow=tuple(GUARDS))
    assert report.pair_drops == {}
    report, _ = build(judged, rule="right", strategy="best-second", limit=1)
    assert report.accounting.drops == {"both_right": 1}


def words(conversations: Sequence[Sequence[Message]]) -> list[list[int]]:
    """A tokenizer with a token a word, known by its length."""
    return [
        [len(word) for message in one for word in message["content"].split()]
        for one in conversations
    ]


GUARDED: dict[str, list[str]] = {
    "p0": ["one two three", "one two four"],
    "p1": ["a b c d e f", "a b"],
    "p2": ["fine", "bad"],
}
GUARDED_REWARDS: Rewards = {"p0": [5.0, 1.0], "p1": [2.0, 1.0], "p2": [3.0, 2.75]}


@pytest.mark.parametrize(
    ("guard", "settings", "dropped"),
    [
        ("low_margin", {"min_margin": "1"}, ["p1", "p2"]),
        ("low_margin", {"min_margin": "0.25"}, ["p2"]),
        ("low_margin", {"min_margin": "34%"}, ["p2"]),
        ("low_margin", {"min_margin": "33%"}, []),
        ("low_margin", {"min_margin": "67%"}, ["p1", "p2"]),
        ("low_margin", {"min_margin": "100%"}, ["p0", "p1", "p2"]),
        ("below_min_chosen", {"min_chosen": 3.0}, ["p1"]),
        ("below_min_chosen", {"min_chosen": 3.01}, ["p1", "p2"]),
        ("length_ratio", {"max_length_ratio": 2.9}, ["p1"]),
        ("length_ratio", {"max_length_ratio": 3.0}, []),
        # "question 0 one two three": the fifth word tells three from four
        ("same_after_truncation", {"max_length": 4, "tokenizer": "words"}, ["p0", "p1"]),
        ("same_after_truncation", {"max_length": 5, "tokenizer": "words"}, []),
    ],
)
def test_guard_and_its_allow(
    tmp_path: Path, guard: str, settings: dict[str, Any], dropped: list[str]
) -> None:
    pool = scripted_pool(tmp_path / "p", GUARDED, GUARDED_REWARDS)
    tokenize = words if "max_length" in settings else None

    report, rows = build(pool, tokenize=tokenize, **settings)

    assert [row["prompt_id"] for row in rows] == [p for p in GUARDED if p not in dropped]
    assert report.accounting.drops == ({guard: len(dropped)} if dropped else {})
    assert report.pair_drops == report.accounting.drops
    if dropped:
        assert report.accounting.examples[0].detail == GUARDS[guard]
    _, rows = build(pool, tokenize=tokenize, allow=(guard,), **settings)
    assert [row["prompt_id"] for row in rows] == list(GUARDED)


@pytest.mark.parametrize("guard", ["same_text", "empty_response", "chosen_truncated"])
def test_allow_switches_off_one_guard_only(trouble: Pool, guard: str) -> None:
    report, rows = build(trouble, allow=(guard,))
    assert report.accounting.drops == {name: 1 for name in DROPS if name != guard}
    assert len(rows) == 3


def test_match_length_rejects_another_one(tmp_path: Path) -> None:
    script = {"p0": ["a b c d e", "a", "a b c d"], "p1": ["a b c d e", "a", "b"]}
    rewards: Rewards = {"p0": [3.0, 1.0, 2.0], "p1": [3.0, 1.0, 2.0]}
    pool = scripted_pool(tmp_path / "p", script, rewards)
    report, rows = build(pool, match_length=0.2)
    assert who(rows) == [("p0", 0, 2)]
    assert report.accounting.drops == {"no_similar_length": 1}
    for share in ("0%", "10%"):  # takes a first pass, which needs lengths too
        assert who(build(pool, match_length=0.2, min_margin=share)[1]) == [("p0", 0, 2)]


def test_several_pairs_of_a_prompt_and_the_reason_of_the_first(tmp_path: Path) -> None:
    script = {"p0": ["a", "b", "c"], "p1": ["a", "A", " a"], "p2": ["a", "b …", "c …"]}
    rewards: Rewards = {"p0": [9.0, 5.0, 1.0], "p1": [9.0, 5.0, 1.0], "p2": [1.0, 5.0, 9.0]}
    pool = scripted_pool(tmp_path / "p", script, rewards)

    report, rows = build(pool, strategy="max-margin", max_pairs=3)

    assert who(rows) == [("p0", 0, 2), ("p0", 0, 1), ("p0", 1, 2)], "the widest first"
    assert report.accounting.drops == {"same_text": 1, "chosen_truncated": 1}
    assert report.pair_drops == {"same_text": 3, "chosen_truncated": 3}
    assert (report.num_pairs, report.accounting.kept_rows) == (9, 1)
    assert who(build(pool, strategy="max-margin", max_pairs=1)[1]) == [("p0", 0, 2)]


def test_a_prompt_that_loses_its_widest_pair_is_kept_with_the_next(tmp_path: Path) -> None:
    pool = scripted_pool(tmp_path / "p", {"p0": ["a", "b", ""]}, {"p0": [9.0, 5.0, 1.0]})
    report, rows = build(pool, strategy="max-margin")
    assert who(rows) == [("p0", 0, 1)]
    assert report.accounting.drops == {}
    assert report.pair_drops == {"empty_response": 2}


def test_duplicates_only(tmp_path: Path) -> None:
    script = {f"p{n}": ["the same", "The  SAME", "the\tsame "] for n in range(3)}
    rewards: Rewards = {p: [1.0, 2.0, 3.0] for p in script}
    pool = scripted_pool(tmp_path / "p", script, rewards)
    for strategy in ("best-worst", "max-margin", "k-vs-k", "best-random"):
        report, rows = build(pool, strategy=strategy, min_preference_prob=0.5)
        assert rows == []
        assert report.accounting.drops == {"same_text": 3}


@pytest.mark.parametrize("num_candidates", [1, 2])
def test_few_candidates_from_every_strategy(tmp_path: Path, num_candidates: int) -> None:
    script = {"p0": ["a", "b"][:num_candidates]}
    pool = scripted_pool(tmp_path / "p", script, {"p0": [9.0, 1.0][:num_candidates]})
    pool = add_scores(pool, "right", {"p0": [1.0, 0.0][:num_candidates]}, is_rule=True)
    for strategy in STRATEGIES:
        rule = "right" if strategy == "verified" else None
        report, rows = build(pool, strategy=strategy, rule=rule)
        wanted: dict[str, int] = {"one_candidate": 1} if num_candidates == 1 else {}
        assert report.accounting.drops == wanted, strategy
        assert who(rows) == ([("p0", 0, 1)] if num_candidates == 2 else []), strategy


@pytest.mark.parametrize("num_rows", [0, 3, 9])
def test_nothing_left_is_a_schema_and_no_row(tmp_path: Path, num_rows: int) -> None:
    pool = Run(input_rows(num_rows, bad=range(num_rows))).scores(tmp_path / "p")
    report, rows = build(pool)
    assert rows == []
    assert report.accounting.drops == ({"malformed_json": num_rows} if num_rows else {})
    assert report.as_json()["pairs"] == 0
    builder = PairBuilder(pool, PairSettings(), ranking=None, rule=None, seed=0, limit=None)
    assert builder.schema == pa.schema(PAIR_FIELDS)


def test_all_dropped_by_the_generator(tmp_path: Path) -> None:
    gone = FakeGenerator(too_long=frozenset(f"p{n}" for n in range(5)))
    pool = Run(input_rows(5), generator=gone).scores(tmp_path / "p")
    report, rows = build(pool, min_margin="10%")
    assert rows == []
    assert report.accounting.drops == {"prompt_too_long": 5}


@pytest.mark.parametrize("strategy", ["best-worst", "best-random", "k-vs-k", "max-margin"])
def test_part_size_changes_nothing(tmp_path: Path, strategy: str) -> None:
    rows = input_rows(30, bad=[4, 17])
    results = []
    for size in (1, 7, 30):
        pool = Run(rows, part_size=size, num_candidates=5).scores(tmp_path / f"{size}")
        report, pairs = build(pool, strategy=strategy, min_margin="20%")
        results.append((pairs, report.accounting.as_json()["drops"], report.pair_drops))
    assert results[0] == results[1] == results[2]
    assert len(results[0][0]) >= 10


@pytest.mark.parametrize("limit", range(9))
def test_limit_is_a_view_like_a_pool_of_so_many_rows(tmp_path: Path, limit: int) -> None:
    rows: list[Prompt | Drop] = [
        bad_row(n) if n == 4 else prompt(n, late=n) if n > 5 else prompt(n, n=n) for n in range(8)
    ]
    large = Run(rows).scores(tmp_path / "large")
    small = Run(rows, limit=limit).scores(tmp_path / "small")
    one, ones = build(large, limit=limit, min_margin="30%")
    two, twos = build(small, min_margin="30%")
    assert one.as_json() == two.as_json()
    assert ones == twos


def test_random_follows_the_seed_and_the_prompt_alone(tmp_path: Path) -> None:
    script = {f"p{n}": [f"{n} {c}" for c in "abcdefgh"] for n in range(40)}
    rewards: Rewards = {p: [8.0, *map(float, range(7))] for p in script}
    pool = scripted_pool(tmp_path / "p", script, rewards)
    drawn = [who(build(pool, strategy="best-random", seed=seed)[1]) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    rejected = {low for _, _, low in drawn[0]}
    assert rejected == set(range(1, 8)), "40 draws of 7: the chance to miss one is below 2 %"
    few = scripted_pool(tmp_path / "few", dict(list(script.items())[:3]), rewards)
    assert who(build(few, strategy="best-random")[1]) == drawn[0][:3]


def test_messages_come_out_as_they_went_in(tmp_path: Path) -> None:
    turns: tuple[Message, ...] = (
        {"role": "system", "content": "Sei höflich.\u2028\n\t"},
        {"role": "user", "content": "日本語 🙂 e\u0301 \u0000 end"},
        {"role": "assistant", "content": "ja\r\n"},
        {"role": "user", "content": " und? "},
    )
    rows: list[Prompt | Drop] = [Prompt("id \u2028 ü", turns, {"ключ": "знач\x00"}, 0, "in:1")]
    script = {"id \u2028 ü": ["🙂\u0000", "\ufeff \u200b x"]}
    pool = scripted_pool(tmp_path / "p", script, {"id \u2028 ü": [2.0, 1.0]}, rows)
    _, (row,) = build(pool)
    assert row["prompt"] == list(turns)
    assert row["chosen"] == [{"role": "assistant", "content": "🙂\u0000"}]
    assert row["rejected"] == [{"role": "assistant", "content": "\ufeff \u200b x"}]
    assert (row["prompt_id"], row["ключ"]) == ("id \u2028 ü", "знач\x00")


def test_two_prompts_of_one_text_are_two_prompts(tmp_path: Path) -> None:
    rows: list[Prompt | Drop] = [prompt(0, "the same"), prompt(1, "the same")]
    script = {"p0": ["a", "b"], "p1": ["a", "b"]}
    pool = scripted_pool(tmp_path / "p", script, {"p0": [2.0, 1.0], "p1": [1.0, 2.0]}, rows)
    assert who(build(pool)[1]) == [("p0", 0, 1), ("p1", 1, 0)]


def test_another_scorer_ranks(trouble: Pool) -> None:
    other: Rewards = {
        p: [-(r or 0.0) for r in rs] for p, rs in TROUBLE_REWARDS.items() if p != "p9"
    }
    pool = add_scores(trouble, "other", {**other, "p9": [0.0, 1.0, 2.0]})
    report, rows = build(pool, scorer="other")
    assert ("p0", 0, 1) in who(rows)
    assert ("p9", 2, 0) in who(rows)
    assert report.as_json()["scorer"] == "other"


def test_missing_parts_are_said_before_anything_is_built(tmp_path: Path) -> None:
    pool = Run(input_rows(6)).scores(tmp_path / "p")
    pool.layout.part("scores/reward", 1).unlink()
    with pytest.raises(PoolIncompleteError):
        build(pool)
    build(pool, limit=4)


def test_margins_beyond_float32_are_no_number_in_json() -> None:
    report = PairReport(Accounting(2), "best-worst", "reward", None)
    report.add({"mean_margin": (float("inf"), 2)})
    assert report.as_json()["mean_margin"] is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rule": "lable"}, "--rule"),
        ({"allow": ("ties",)}, "unknown guard 'ties'"),
        ({"max_length": 9}, "--max-length and --tokenizer"),
        ({"tokenizer": "x"}, "--max-length and --tokenizer"),
        ({"strategy": "quantile", "chosen_quantile": 0.5, "rejected_quantile": 0.5}, "above"),
        ({"min_margin": "101%"}, "--min-margin"),
    ],
)
def test_settings_that_contradict_each_other(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        check_pairs(PairSettings(**settings))
    check_pairs(PairSettings())


def test_a_misspelt_rule_is_named_with_the_nearest() -> None:
    with pytest.raises(UnknownChoiceError) as caught:
        check_pairs(PairSettings(rule="lable"))
    assert caught.value.next_step == "did you mean 'label'?"
