"""Runs of filters: their order, their counts, and the books, which always close."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.fakes import FakeScorer, Run, input_rows

from bon.config.filters import parse_filter
from bon.errors import InputError, PoolIncompleteError, SettingsError, UnknownChoiceError
from bon.guards import margin_threshold
from bon.pipeline.filtering.plan import run_filters
from bon.pipeline.rewards import Ranking


def test_no_rows_and_no_filters(filtered, row):
    nothing = filtered([], "length:min_chars=1", "exact_dedup", "near_dedup")
    assert (nothing.kept, nothing.report["input_rows"]) == ([], 0)
    all_of_it = filtered([row(["a", "b"]), row(["c"])])
    assert all_of_it.kept == ["a", "b", "c"]
    assert all_of_it.report["candidates_kept"] == 3


def test_one_row_with_one_candidate_through_every_filter(filtered, row, tmp_path):
    data = tmp_path / "eval.txt"
    data.write_text("nothing of this sort is in there\n")
    text = "Paris is the capital of France, and has been for a long time."
    specs = [
        "reward:min=0,min_quantile=0.5,top_k=1,by=prompt",
        "difficulty",
        "length:min_words=3,max_tokens=20",
        "finish_reason",
        "language:allowed=en",
        "repetition",
        "refusal",
        "regex:pattern=Paris",
        "exact_dedup",
        "near_dedup",
        "diversity",
        {"name": "decontaminate", "files": str(data)},
    ]
    rows = [row([text], [1.0], finish=["stop"], num_tokens=[14], label=[1.0])]
    result = filtered(rows, *specs)
    assert result.kept == [text]
    assert [one["num_in"] for one in result.report["filters"]] == [1] * 12


def test_absolute_rewards_and_missing_ones(filtered, row):
    rows = [row(["a", "b", "c", "d"], [0.1, 2.0, None, math.nan])]
    result = filtered(rows, "reward:min=0.1,max=1")
    assert result.kept == ["a"]
    assert result.details == [
        "its reward by reward, 2, is above 1",
        "it has no reward by reward",
        "it has no reward by reward",
    ]


def test_quantiles_over_all_within_prompts_and_by_a_column(filtered, row):
    rows = [
        row(["a", "b", "c"], [1, 2, 3], extra={"topic": "x"}),
        row(["d", "e", "f"], [10, 20, 30], extra={"topic": "y"}),
        row(["g"], [4], extra={"topic": "x"}),
    ]
    # 1 2 3 4 10 20 30: the median is 4
    assert filtered(rows, "reward:min_quantile=0.5").kept == ["d", "e", "f", "g"]
    assert filtered(rows, "reward:min_quantile=0.5,by=prompt").kept == ["b", "c", "e", "f", "g"]
    # x: 1 2 3 4, median 2.5; y: 20
    assert filtered(rows, "reward:min_quantile=0.5,by=topic").kept == ["c", "e", "f", "g"]
    assert filtered(rows, "reward:top_k=1,by=topic").kept == ["f", "g"]
    assert filtered(rows, "reward:top_k=2").kept == ["e", "f"]
    with pytest.raises(UnknownChoiceError, match="did you mean 'topic'"):
        filtered(rows, "reward:top_k=1,by=topik")


def test_bounds_come_before_ranks_within_one_filter(filtered, row):
    rows = [row(["a", "b", "c"], [1, 2, 3])]
    result = filtered(rows, "reward:max=2,top_k=1")
    assert result.kept == ["b"]
    assert sorted(result.details) == [
        "its reward by reward, 1, is not one of the 1 highest of all",
        "its reward by reward, 3, is above 2",
    ]


def test_difficulty_is_the_share_of_right_candidates(filtered, row):
    rows = [
        row(["a", "b"], label=[1, 0]),
        row(["c", "d", "e"], label=[1, 1, None]),
        row(["f"], label=[None]),
        row(["g", "h"], label=[0, 0]),
    ]
    assert filtered(rows, "difficulty:min=0.1,max=0.9").kept == ["a", "b"]
    assert filtered(rows, "difficulty:min=1").kept == ["c", "d", "e"]
    result = filtered(rows, "difficulty")
    assert result.kept == ["a", "b", "c", "d", "e", "g", "h"]
    assert result.details == ["label has a verdict on none of its prompt's candidates"]
    with pytest.raises(SettingsError, match="not right or wrong"):
        filtered([row(["a"], [0.3])], "difficulty:scorer=reward")


def test_lengths_in_characters_words_and_tokens(filtered, row):
    texts = ["", " one ", "naïve 日本 a", "four words are here"]
    rows = [row(texts, num_tokens=[0, 1, 9, 4])]
    assert filtered(rows, "length:min_chars=5,max_chars=10").kept == texts[1:3]
    assert filtered(rows, "length:min_words=1,max_words=3").kept == texts[1:3]
    assert filtered(rows, "length:min_tokens=4").kept == texts[2:]
    result = filtered(rows, "length:min_words=1,max_tokens=4")
    assert result.details == [
        "a response of 0 words, fewer than 1",
        "a response of 9 tokens, more than 4",
    ]
    with pytest.raises(InputError, match="cannot count tokens"):
        filtered([row(["a"])], "length:max_tokens=3")


def test_finish_reasons(filtered, row):
    rows = [row(["a", "b", "c"], finish=["stop", "length", None])]
    assert filtered(rows, "finish_reason").kept == ["a", "c"]
    assert filtered(rows, "finish_reason:keep_unknown=false").kept == ["a"]
    assert filtered(rows, 'finish_reason:keep=["length"],keep_unknown=false').kept == ["b"]


def test_order_matters(filtered, row):
    rows = [row(["long one", "x"], [1.0, 9.0])]
    assert filtered(rows, "length:min_chars=3", "reward:top_k=1").kept == ["long one"]
    assert filtered(rows, "reward:top_k=1", "length:min_chars=3").kept == []


def test_exact_dedup_keeps_the_best_then_the_first(filtered, row):
    rows = [
        row(["same  text", "same text", "Same text"], [1.0, 3.0, 9.0]),
        row(["same text", "other"], [3.0, None]),
        row(["same text"], [5.0], prompt="Another question?"),
    ]
    result = filtered(rows, "exact_dedup")
    assert result.kept == ["same text", "Same text", "other", "same text"]
    assert result.report["candidate_drops"] == {"exact_dedup": 2}
    place = "candidate 1 of input row 0 (counted from 0)"
    assert result.details == [f"the same text as {place}, which was kept"] * 2
    assert filtered(rows, "exact_dedup:on=response").kept == ["Same text", "other", "same text"]
    assert len(filtered(rows, "exact_dedup:scope=prompt").kept) == 5
    no_case = filtered(rows, "exact_dedup:ignore_case=true", scorer=None)
    assert no_case.kept == ["same  text", "other", "same text"]


def test_exact_dedup_of_prompts_keeps_one_prompt_with_all_it_has(filtered, row):
    rows = [row(["a", "b"], [1.0, 2.0]), row(["c", "d"], [0.0, 7.0]), row(["e"], prompt="New?")]
    rows[2].scores = [None]
    result = filtered(rows, "exact_dedup:on=prompt")
    assert result.kept == ["c", "d", "e"]
    assert result.report["drops"] == {"exact_dedup": 1}
    place = "candidate 0 of input row 1 (counted from 0)"
    assert result.details[0] == f"the same text as {place}, which was kept"


def test_near_dedup_keeps_the_best_of_each_cluster(filtered, row):
    base = [f"w{i}" for i in range(60)]
    texts = [" ".join([*base, f"end{i}"]) for i in range(3)]
    other = " ".join(f"v{i}" for i in range(60))
    rows = [row([texts[0], other], [1.0, 0.0]), row([texts[1]], [5.0]), row([texts[2]], [2.0])]
    result = filtered(rows, "near_dedup")
    assert result.kept == [other, texts[1]]
    assert result.report["drops"] == {"near_dedup": 1}
    assert len(filtered(rows, "near_dedup:scope=prompt").kept) == 4
    assert filtered(rows, "near_dedup:bands=16,rows=8").kept == [other, texts[1]]


def test_diversity_walks_down_the_scores(filtered, row):
    base = [f"w{i}" for i in range(40)]
    alike = [" ".join([*base, f"end{i}"]) for i in range(2)]
    other = " ".join(f"v{i}" for i in range(40))
    rows = [row([alike[0]], [1.0]), row([other], [0.5]), row([alike[1]], [2.0])]
    result = filtered(rows, "diversity:on=response")
    assert result.kept == [other, alike[1]]
    assert result.details == [
        "too much like candidate 0 of input row 2 (counted from 0), which comes before it by score"
    ]
    assert filtered(rows, "diversity:on=response,max_rows=1").kept == [alike[1]]


def test_margins_absolute_and_as_a_share(filtered, row):
    rows = [row([f"c{i}", f"r{i}"], [m, 0.0]) for i, m in enumerate([3.0, 0.2, -1.0, 1.0, 2.0])]
    rows.append(row(["c5", "r5"], [None, 0.0]))
    result = filtered(rows, "margin:min=0.2", kind="pairs")
    assert result.kept == ["c0|r0", "c1|r1", "c3|r3", "c4|r4"]
    assert result.details[1] == "it has no margin by reward"
    share = filtered(rows, "margin:min=40%", kind="pairs")  # of -1 .2 1 2 3 two
    assert share.kept == ["c0|r0", "c3|r3", "c4|r4"]
    assert share.details[0] == (
        "its margin by reward, 0.2, is among the smallest 40%: not above 0.2"
    )


@pytest.mark.parametrize(
    ("said", "kept"),
    [("0%", 5), ("10%", 5), ("20%", 4), ("39.9%", 4), ("99%", 1), ("100%", 0)],
)
def test_a_share_of_margins_means_what_it_means_to_build_dpo(filtered, row, said, kept):
    margins = [1.0, 2.0, 3.0, 4.0, 5.0]
    threshold = margin_threshold(said, np.array(margins))
    assert sum(margin > threshold for margin in margins) == kept
    rows = [row([str(m), "r"], [m, 0.0]) for m in margins]
    expected = [f"{m}|r" for m in margins if m > threshold]
    assert filtered(rows, f"margin:min={said}", kind="pairs").kept == expected
    # of equal ones none or all
    equal = [row([str(i), "r"], [1.0, 0.0]) for i in range(4)]
    assert len(filtered(equal, f"margin:min={said}", kind="pairs").kept) == (4 if kept else 0)


def test_agreement_drops_or_flips(filtered, row):
    # sigmoid(2) = .881, sigmoid(.1) = .525
    rows = [
        row(["a", "b"], [2.0, 0.0]),
        row(["c", "d"], [0.0, 2.0], num_tokens=[1, 2]),
        row(["e", "f"], [0.0, 0.1]),
        row(["g", "h"], [0.0, None]),
    ]
    dropped = filtered(rows, "agreement:min_prob=0.8", kind="pairs")
    assert dropped.kept == ["a|b"]
    flipped = filtered(rows, "agreement:min_prob=0.8,action=flip", "margin:min=1", kind="pairs")
    assert flipped.kept == ["a|b", "d|c"]
    (agreement, margin) = flipped.report["filters"]
    assert (agreement["num_flipped"], agreement["num_dropped"], margin["num_dropped"]) == (1, 2, 0)
    (_, second) = flipped.table().to_pylist()
    assert (second["score_chosen"], second["score_rejected"], second["margin"]) == (2, 0, 2)
    assert (second["candidate_chosen"], second["candidate_rejected"]) == (1, 0)
    assert (second["num_tokens_chosen"], second["num_tokens_rejected"]) == (2, 1)


def test_books_tell_prompts_from_candidates(filtered, row):
    rows = [
        row(["a", "bb"], [1, 2]),
        row(["c", "d"], [0, 0]),
        row(["e", "ff"], [0, 0]),
        row(["gg", "hh"], [5, 0]),
    ]
    result = filtered(rows, "length:min_chars=2", "reward:min=1", limit=4)
    assert result.kept == ["bb", "gg"]
    assert result.report["drops"] == {"length": 1, "all_filtered": 1}
    assert result.report["candidate_drops"] == {"length": 1, "reward": 1}
    assert (result.report["input_rows"], result.report["kept_rows"]) == (4, 2)
    (first, second) = result.report["drop_examples"]
    assert (first["reason"], first["where"], first["id"]) == ("length", "in.jsonl:2", "p1")
    assert second["detail"] == "a response of 1 characters, fewer than 2"


def test_a_candidate_without_a_score_is_counted_by_the_filter_that_drops_it(tmp_path):
    scorer = FakeScorer({"p1": [None, 1.0, None], "p2": [None, None, None]})
    pool = Run(input_rows(4), num_candidates=3, scorer=scorer).scores(tmp_path / "p.pool")
    assert sum(drop.candidate is not None for drop in pool.read_drops("scores/reward")) == 5
    for specs, kept, drops, candidate_drops in (
        (["reward:min=-1e9"], 7, {"reward": 1}, {"reward": 2}),
        (["reward:top_k=1,by=prompt"], 3, {"reward": 1}, {"reward": 6}),
        (['finish_reason:keep_unknown=false,keep=["stop","length"]'], 12, {}, {}),
    ):
        filters = [parse_filter(spec) for spec in specs]
        decision = run_filters(
            pool, filters, kind="candidates", ranking=Ranking.of("reward"), limit=None, seed=0
        )
        report = decision.report.as_json()
        assert report["candidates_kept"] == kept
        assert report["drops"] == drops
        assert report["candidate_drops"] == candidate_drops
        assert_candidates_add_up(decision)


def assert_candidates_add_up(decision):
    """Each candidate is kept, dropped by one filter, or its prompt is; and no count says more."""
    report, units = decision.report.as_json(), decision.units
    num_in = len(units.alive_U)
    for one in report["filters"]:
        assert one["num_in"] == num_in == one["num_kept"] + one["num_dropped"]
        num_in = one["num_kept"]
    assert num_in == report["candidates_kept"]
    alive_P = np.add.reduceat(units.alive_U, units.start_P) if len(units.count_P) else []
    of_dropped_prompts = int(units.count_P[np.equal(alive_P, 0)].sum())
    dropped = sum(report["candidate_drops"].values())
    assert dropped + of_dropped_prompts + report["candidates_kept"] == report["candidates"]


def test_the_same_filter_twice_is_told_apart(filtered, row):
    result = filtered([row(["ab", "a"])], "regex:pattern=a", "regex:pattern=b")
    assert [one["name"] for one in result.report["filters"]] == ["regex", "regex_2"]
    assert result.dropped == [("a", "regex_2")]


def test_limit_sees_the_first_rows_only(filtered, row):
    rows = [row([f"r{i}", "copy"]) for i in range(5)]
    result = filtered(rows, "exact_dedup:on=response", limit=3)
    assert result.kept == ["r0", "copy", "r1", "r2"]
    assert result.report["input_rows"] == 3


@pytest.mark.parametrize(
    ("spec", "kind", "message"),
    [
        ("margin:min=1", "candidates", "is for pairs, these are candidates"),
        ("reward:min=1", "pairs", "is for candidates, these are pairs"),
        ("reward:min=1", "candidates", "needs scores, and there are none"),
        ("reward:min=1,scorer=rewrad", "candidates", "there is no scorer 'rewrad'"),
        ("difficulty", "candidates", "there is no scorer 'label'"),
    ],
)
def test_what_cannot_run_is_said_before_anything_is_read(filtered, row, spec, kind, message):
    with pytest.raises(SettingsError, match=message):
        filtered([row(["a", "b"])], spec, kind=kind)


def test_pairs_have_two_responses(filtered, row):
    with pytest.raises(InputError, match="no preference pairs"):
        filtered([row(["a", "b", "c"])], kind="pairs")


def test_a_part_without_scores_stops_the_run(filtered, row):
    pool = filtered([row(["a"], [1.0])] * 3).pool
    (pool.layout.root / "scores" / "reward" / "part-00001.parquet").unlink()
    with pytest.raises(PoolIncompleteError):
        run_filters(
            pool,
            [parse_filter("refusal")],
            kind="candidates",
            ranking=Ranking.of("reward"),
            limit=None,
            seed=0,
        )


ROWS = st.lists(
    st.lists(
        st.tuples(
            st.sampled_from(["", "yes", "no", "I cannot help", "yes yes yes yes", "日本語 é"]),
            st.sampled_from([None, -1.0, 0.0, 0.5, 2.0]),
        ),
        min_size=1,
        max_size=3,
    ),
    max_size=5,
)
SPECS = st.lists(
    st.sampled_from(
        [
            "length:min_chars=3",
            "reward:min=0",
            "reward:top_k=2,by=prompt",
            "reward:min_quantile=0.5",
            "repetition:min_words=0",
            "refusal",
            "regex:pattern=s",
            "exact_dedup",
            "exact_dedup:on=prompt",
            "near_dedup:num_perm=16",
            "diversity:num_perm=16,max_rows=3",
        ]
    ),
    max_size=4,
)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(ROWS, SPECS, st.integers(0, 2))
def test_kept_and_dropped_are_all_there_is(filtered, row, groups, specs, prompts):
    rows = [
        row([t for t, _ in group], [s for _, s in group], prompt=f"Q{number % (prompts + 1)}?")
        for number, group in enumerate(groups)
    ]
    result = filtered(rows, *specs, scorer="reward" if rows else None) if rows else None
    if result is None:
        return
    report = result.report
    texts = [text for group in groups for text, _ in group]
    assert sorted([*result.kept, *(text for text, _ in result.dropped)]) == sorted(texts)
    assert report["input_rows"] == report["kept_rows"] + sum(report["drops"].values())
    assert len(result.dropped) == sum(one["num_dropped"] for one in report["filters"])
    assert all(result.details)
    num_in = len(texts)
    for one in report["filters"]:
        assert one["num_in"] == num_in
        num_in = one["num_kept"]
    assert num_in == len(result.kept) == report["output_rows"]
    assert_candidates_add_up(result.decision)
