"""Rewards made of several scores when a pool is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.fakes import FakeScorer, InlineEngine, Run, add_scores, ignore, input_rows
from support.ranked import ranked_prompts

from bon.aggregation import fit_linear
from bon.config import PairSettings, RankingSettings, SelectSettings
from bon.config.filters import parse_filter
from bon.errors import InputError, SettingsError
from bon.pipeline.build_dpo import PairBuilder
from bon.pipeline.filtering.plan import run_filters
from bon.pipeline.plans import ScoringPlan
from bon.pipeline.ranked import is_verdict, pool_recipe
from bon.pipeline.rewards import Ranking, fit_ranking, ranked_reading
from bon.pipeline.run import score
from bon.pipeline.select import Selector
from bon.pool.pool import CANDIDATES, Pool

REWARD = {"p0": [1.0, 5.0, 3.0], "p1": [2.0, None, 4.0], "p2": [0.0, 0.0, 0.0]}
MATH = {"p0": [1.0, 0.0, 1.0], "p1": [0.0, 1.0, 0.0], "p2": [0.0, 0.0, 1.0]}


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    """Three prompts of three candidates in two parts, scored by a reward model and a rule."""
    run = Run(input_rows(3), part_size=2, scorer=FakeScorer(REWARD), scorer_name="rm")
    return add_scores(run.scores(tmp_path / "p"), "math", MATH, is_rule=True)


def ranking(pool: Pool, limit: int | None = None, **said: Any) -> Ranking:
    return fit_ranking(pool, pool_recipe(pool, RankingSettings(**said)), limit)


def rewards(pool: Pool, **said: Any) -> dict[str, list[float | None]]:
    ranked = ranked_prompts(pool, ranking(pool, **said), None)
    return {one.prompt.prompt_id: list(one.rewards) for one in ranked}


def test_a_plain_ranking_is_the_scores(pool: Pool) -> None:
    assert rewards(pool) == REWARD
    assert rewards(pool, rank_by="math") == MATH


def test_a_rule_first_and_the_reward_model_breaks_ties(pool: Pool) -> None:
    found = rewards(pool, aggregate="lexicographic")
    assert found["p0"] == pytest.approx([1.0, 2 / 3, 1 + 1 / 3])
    assert found["p1"] == [0.0, None, 0.5]
    assert found["p2"] == [0.0, 0.0, 1.0]


def test_weights_gates_and_missing_scores(pool: Pool) -> None:
    assert rewards(pool, weight=("rm=0.5", "math=2"))["p0"] == [2.5, 2.5, 3.5]
    assert rewards(pool, weight=("rm=0.5", "math=2"))["p1"] == [1.0, None, 2.0]
    assert rewards(pool, gate=("math>=1",)) == {
        "p0": [1.0, None, 3.0], "p1": [None, None, None], "p2": [None, None, 0.0]
    }  # fmt: skip
    assert rewards(pool, aggregate="min")["p0"] == [1.0, 0.0, 1.0]


def test_normalising_over_all_sees_all_parts_and_only_the_limits_rows(pool: Pool) -> None:
    scores = np.array([one for row in REWARD.values() for one in row if one is not None])
    found = rewards(pool, normalize=("global-z",))
    assert found["p0"] == pytest.approx((np.array(REWARD["p0"]) - scores.mean()) / scores.std())
    first = np.array(REWARD["p0"], np.float64)
    limited = ranking(pool, limit=1, normalize=("global-z",))
    (one,) = ranked_prompts(pool, limited, 1)
    assert list(one.rewards) == pytest.approx((first - first.mean()) / first.std())


def test_each_scorer_is_normalised_before_the_sum(pool: Pool) -> None:
    found = rewards(pool, aggregate="sum", normalize=("rank", "math=none"))
    assert found["p0"] == [0.0 + 1, 1.0 + 0, 0.5 + 1]
    assert found["p1"] == [0.0, None, 1.0]
    assert found["p2"] == [0.5, 0.5, 1.5]


def test_length_is_taken_out_of_rewards_in_tokens_or_in_characters(pool: Pool) -> None:
    plain = list(ranked_prompts(pool, Ranking.of("rm"), None))
    pairs = [
        (reward, candidate)
        for one in plain
        for reward, candidate in zip(one.rewards, one.candidates, strict=True)
        if reward is not None
    ]
    score_C = np.array([reward for reward, _ in pairs])
    debiased = ranking(pool, length_debias=("linear",))
    assert debiased.length_unit == "tokens"
    length_C = np.array([float(candidate.num_tokens or 0) for _, candidate in pairs])
    expected = fit_linear(score_C, length_C)
    found = [
        one
        for prompt in ranked_prompts(pool, debiased, None)
        for one in prompt.rewards
        if one is not None
    ]
    assert found == pytest.approx(expected.residual(score_C, length_C).tolist())
    assert debiased.as_json()["length_slopes"] == {"rm": pytest.approx(expected.slope)}
    _change_candidates(pool, "num_tokens", None)
    assert ranking(pool, length_debias=("linear",)).length_unit == "characters"


def test_the_kl_penalty_takes_the_pools_log_probabilities(pool: Pool) -> None:
    plain = {one.prompt.prompt_id: one for one in ranked_prompts(pool, Ranking.of("rm"), None)}
    reference = {name: [-1.0, -2.0, None] for name in REWARD}
    pool = add_scores(pool, "ref", reference, kind="logprob")
    penalised = ranking(pool, kl_beta=0.5)
    assert penalised.name == "rm - 0.5 KL"
    found = {one.prompt.prompt_id: one.rewards for one in ranked_prompts(pool, penalised, None)}
    ratios = []
    for name, one in plain.items():
        for number, candidate in enumerate(one.candidates):
            known, reward = reference[name][number], one.rewards[number]
            if known is None or reward is None:
                assert found[name][number] is None
                continue
            assert found[name][number] == pytest.approx(
                reward - 0.5 * (candidate.logprob or 0.0) + 0.5 * known, abs=1e-6
            )
        ratios += [(one.candidates[i].logprob or 0.0) - (-1.0, -2.0)[i] for i in (0, 1)]
    said = penalised.as_json()["kl"]
    assert said["candidates"] == 6
    assert said["k1"] == pytest.approx(np.mean(ratios))
    assert said["k2"] == pytest.approx(np.mean(np.square(ratios) / 2))
    assert said["k3"] == pytest.approx(np.mean(np.exp(-np.array(ratios)) + ratios - 1))


def test_responses_without_log_probabilities_have_no_kl(pool: Pool) -> None:
    pool = add_scores(pool, "ref", {name: [-1.0] * 3 for name in REWARD}, kind="logprob")
    _change_candidates(pool, "logprob", None)
    with pytest.raises(InputError, match="log-probabilities") as caught:
        ranking(pool, kl_beta=0.1)
    assert "leave --kl-beta out" in caught.value.next_step


def test_select_pairs_and_filters_read_the_same_rewards(pool: Pool) -> None:
    lexicographic = ranking(pool, aggregate="lexicographic")
    selector = Selector(pool, SelectSettings(), ranking=lexicographic, seed=0, limit=None)
    chosen = [row for table in selector.tables() for row in table.to_pylist()]
    assert [row["candidate"] for row in chosen] == [2, 2, 2]
    assert chosen[0]["reward"] == pytest.approx(1 + 1 / 3)
    assert selector.report.scorer == "lexicographic(math, rm)"
    builder = PairBuilder(
        pool, PairSettings(), ranking=lexicographic, rule=None, seed=0, limit=None
    )
    pairs = [row for table in builder.tables() for row in table.to_pylist()]
    assert [(row["prompt_id"], row["candidate_rejected"]) for row in pairs] == [
        ("p0", 1),
        ("p2", 0),  # p1's chosen one was cut off
    ]
    assert builder.report.pair_drops.total() == 1
    assert pairs[0]["margin"] == pytest.approx(2 / 3)
    filters = [parse_filter("reward:min=1"), parse_filter("difficulty:scorer=math")]
    decision = run_filters(
        pool, filters, kind="candidates", ranking=lexicographic, limit=None, seed=0
    )
    assert np.flatnonzero(decision.units.alive_U).tolist() == [0, 2, 8]
    assert decision.report.scorer == "lexicographic(math, rm)"


def test_a_frame_has_the_scores_beside_the_rewards(pool: Pool) -> None:
    summed = ranking(pool, aggregate="sum")
    for frame in ranked_reading(pool, summed, scorers=["math", summed.name]).frames():
        assert set(frame.scores) == {"rm", "math", "sum(rm, math)"}
        both = frame.scores["rm"].astype(np.float64) + frame.scores["math"]
        np.testing.assert_array_equal(frame.scores["sum(rm, math)"], both)


def test_order_that_float32_could_not_hold_is_kept(tmp_path: Path) -> None:
    near = float(np.nextafter(np.float32(1000), np.float32(2000)))
    table = {"p0": [1000.0, 1000.0, near]}
    pool = Run(input_rows(1), scorer=FakeScorer(table), scorer_name="a").scores(tmp_path / "p")
    pool = add_scores(pool, "b", {"p0": [1.0, 2.0, 0.0]})
    (found,) = rewards(pool, aggregate="lexicographic").values()
    assert sorted(range(3), key=lambda number: found[number] or 0.0) == [0, 1, 2]


def test_scorers_come_in_the_order_in_which_they_scored(pool: Pool) -> None:
    pool = add_scores(pool, "a", MATH)
    with pytest.raises(SettingsError, match="several") as caught:
        ranking(pool)
    assert caught.value.why == "rm, a"
    assert ranking(pool, aggregate="mean").name == "mean(rm, math, a)"


def test_verdicts_of_older_pools_and_rules_that_give_none(pool: Pool) -> None:
    said = {"spec": "rule:length", "rule_version": 1, "is_verdict": False}
    plan = ScoringPlan("length", FakeScorer(MATH), said)
    score(pool, plan, InlineEngine(), None, ignore)
    pool = Pool.open(pool.layout.root)
    assert is_verdict(pool, "math")
    assert not is_verdict(pool, "length")
    assert not is_verdict(pool, "rm")


def test_a_pool_without_rows(tmp_path: Path) -> None:
    pool = Run([]).scores(tmp_path / "p")
    for said in ({"normalize": ("global-z",)}, {"length_debias": ("lowess",)}):
        assert rewards(pool, **said) == {}


def _change_candidates(pool: Pool, column: str, value: object) -> None:
    for part in pool.parts():
        rows = [{**row, column: value} for row in pool.read(CANDIDATES, part).to_pylist()]
        table = pool.read(CANDIDATES, part)
        changed = type(table).from_pylist(rows, table.schema)
        pool.commit(CANDIDATES, part, changed, [], pool.covers(CANDIDATES, part))


def test_candidates_below_a_gate_are_counted(pool: Pool) -> None:
    assert ranking(pool, gate=("math>=1",)).as_json()["num_gated"] == 5
    assert ranking(pool, limit=1, gate=("math>=0.5", "rm>=2")).as_json()["num_gated"] == 2
    assert "num_gated" not in ranking(pool).as_json()
