"""What ranks, decided from what was said and the scorers that there are."""

from __future__ import annotations

from typing import Any

import pytest

from bon.config import RankingSettings
from bon.errors import SettingsError, UnknownChoiceError
from bon.pipeline.recipes import Recipe, plan_recipe

NAMES = ["rm", "math"]


def plan(*names: str, **said: Any) -> Recipe:
    return plan_recipe(RankingSettings(**said), names or NAMES, verdicts=["math"])


def test_one_reward_ranks_beside_verdicts() -> None:
    assert plan() == Recipe(("rm",))
    assert plan("math") == Recipe(("math",))
    assert plan().is_plain
    assert plan().name == "rm"


def test_what_is_no_reward_ranks_only_where_it_is_named() -> None:
    with pytest.raises(SettingsError, match="no scorer that ranks") as caught:
        plan_recipe(RankingSettings(), [], known=["ref"])
    assert caught.value.why == "there are only ref"
    assert plan_recipe(RankingSettings(rank_by="ref"), [], known=["ref"]).name == "ref"


def test_several_rewards_need_a_word() -> None:
    with pytest.raises(SettingsError, match="several scorers") as caught:
        plan("a", "b")
    assert caught.value.why == "a, b"
    assert "--rank-by" in caught.value.next_step
    assert "--aggregate" in caught.value.next_step
    assert plan("a", "b", rank_by="b") == Recipe(("b",))
    with pytest.raises(SettingsError, match="several scorers"):
        plan("a", "b", rank_by="b,a")


@pytest.mark.parametrize("aggregate", ["sum", "mean", "min", "uwo"])
def test_put_together_all_scorers_count_in_their_order(aggregate: str) -> None:
    recipe = plan(aggregate=aggregate)
    assert recipe.scorers == ("rm", "math")
    assert recipe.name == f"{aggregate}(rm, math)"
    assert not recipe.is_plain


def test_lexicographic_takes_verdicts_first_unless_told() -> None:
    assert plan(aggregate="lexicographic").scorers == ("math", "rm")
    assert plan(aggregate="lexicographic", rank_by="rm, math").scorers == ("rm", "math")


def test_weights_alone_are_a_sum_of_those_that_have_one() -> None:
    recipe = plan("a", "b", "c", weight=("c=0.5", "a=-1e-1"))
    assert (recipe.aggregate, recipe.scorers) == ("sum", ("a", "c"))
    assert recipe.name == "sum(-0.1 a, 0.5 c)"
    assert plan("a", "b", aggregate="mean", weight=("a=3",)).scorers == ("a", "b")
    assert plan("rm", weight=("rm=2",)).name == "sum(2 rm)"


def test_a_gate_is_no_scorer_that_ranks() -> None:
    recipe = plan(gate=("math>=1",))
    assert recipe.scorers == ("rm",)
    assert recipe.reads == ("rm", "math")
    assert recipe.name == "rm where math >= 1"
    assert plan("a", "b", gate=("a >= 0.5",)).scorers == ("b",)
    assert plan("a", gate=("a>=0.5",)).scorers == ("a",)


def test_kinds_are_said_for_all_or_for_one() -> None:
    recipe = plan(aggregate="sum", normalize=("math=none", "prompt-z"), length_debias=("linear",))
    assert recipe.normalize == {"rm": "prompt-z"}
    assert recipe.length_debias == {"rm": "linear"}  # of a verdict, only where it is named
    named = plan(aggregate="sum", length_debias=("math=lowess",))
    assert named.length_debias == {"math": "lowess"}


def test_scores_that_are_changed_have_another_name_than_those_in_the_pool() -> None:
    assert plan(normalize=("rank",)).name == "rank(rm)"
    assert plan(length_debias=("linear",)).name == "linear-debiased(rm)"
    both = plan(
        aggregate="sum", weight=("rm=2",), normalize=("rm=prompt-z",), length_debias=("rm=lowess",)
    )
    assert both.name == "sum(2 prompt-z(lowess-debiased(rm)), math)"


def test_the_kl_penalty_reads_the_reference() -> None:
    settings = RankingSettings(kl_beta=0.1)
    recipe = plan_recipe(settings, ["rm"], known=["rm", "ref"], references=["ref"])
    assert recipe.reads == ("rm", "ref")
    assert recipe.name == "rm - 0.1 KL"
    with pytest.raises(SettingsError, match="reference model") as caught:
        plan(kl_beta=0.1)
    assert "--ref-model" in caught.value.next_step


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"rank_by": "rn"}, "there is no scorer 'rn'"),
        ({"gate": ("mth>=1",)}, "there is no scorer 'mth'"),
        ({"gate": ("math>1",)}, "bad value for --gate"),
        ({"gate": ("math>=x",)}, "bad value for --gate"),
        ({"weight": ("rm",)}, "bad value for --weight"),
        ({"weight": ("rm=inf",)}, "bad value for --weight"),
        ({"weight": ("x=1",)}, "there is no scorer 'x'"),
        ({"aggregate": "min", "weight": ("rm=1",)}, "--weight does nothing"),
        ({"aggregate": "sum", "rank_by": "rm,math", "weight": ("ref=1",)}, "no scorer 'ref'"),
        ({"aggregate": "mean", "weight": ("rm=0", "math=0")}, "sum above 0"),
        ({"aggregate": "sum", "rank_by": "rm"}, "but one scorer: rm"),
        ({"normalize": ("zscore",)}, "bad value for --normalize"),
        ({"normalize": ("math=rank",)}, "there is no scorer 'math'"),
        ({"length_debias": ("rm=cubic",)}, "bad value for --length-debias"),
    ],
)
def test_what_cannot_be_is_said(said: dict[str, Any], message: str) -> None:
    with pytest.raises((SettingsError, UnknownChoiceError), match=message) as caught:
        plan(**said)
    assert caught.value.exit_code == 2
    assert caught.value.next_step or caught.value.why or caught.value.where


def test_an_idle_weight_is_named() -> None:
    with pytest.raises(SettingsError, match="--weight math does nothing"):
        plan("rm", "ref2", "math", aggregate="sum", rank_by="rm,ref2", weight=("math=2",))


def test_json_holds_what_was_set() -> None:
    recipe = plan("a", "b", aggregate="uwo", gate=(), uwo_penalty=0.25)
    assert recipe.as_json() == {"scorers": ["a", "b"], "aggregate": "uwo", "uwo_penalty": 0.25}
