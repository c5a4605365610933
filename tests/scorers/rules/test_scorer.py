from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any, ClassVar

import pytest
from support.rules import ASK, scorer_of

from bon.config import ScorerSettings
from bon.errors import UnknownChoiceError
from bon.records import CandidateGroup, Drop
from bon.scorers.rules import RULES, RuleScorer, find_rule


def scorer(rule: str = "exact", **fields: Any) -> RuleScorer:
    return scorer_of(f"rule:{rule}", **fields)


def group(prompt_id: str, responses: tuple[str, ...], **extra: Any) -> CandidateGroup:
    return CandidateGroup(prompt_id, ASK, responses, extra)


@pytest.mark.parametrize("rule", ["exact", "math"])
def test_scores_come_in_the_order_of_groups_and_responses(rule: str) -> None:
    groups = [
        group("b", ("A: 3", "A: 4", "A: 3.0"), answer="3"),
        group("none", (), answer="3"),
        group("a", ("A: 3", r"\boxed{4}"), answer="#### 4"),
    ]
    with scorer(rule) as entered:
        results = entered.score(groups)
    assert [one.prompt_id for one in results] == ["b", "none", "a"]
    assert [one.scores for one in results] == [(1.0, 0.0, 1.0), (), (0.0, 1.0)]
    assert all(one.reasons == {} for one in results)
    assert results[0].num_tokens == (0, 0, 0)
    assert results[0].truncated == (False, False, False)


@pytest.mark.parametrize(
    ("column", "extra", "score"),
    [
        ("answer", {"answer": "3"}, 1.0),
        ("answer", {"ground_truth": "A: 3"}, 1.0),
        ("answer", {"answer": None, "ground_truth": "3"}, 1.0),
        ("answer", {"answer": "4", "ground_truth": "3"}, 0.0),
        ("answer", {"answer": "", "ground_truth": "3"}, 1.0),  # what a CSV has for null
        ("answer", {"answer": "  ", "ground_truth": "3"}, 1.0),
        ("answer", {"answer": ["3"], "ground_truth": "3"}, 1.0),
        ("answer", {"answer": "", "ground_truth": ""}, None),
        ("answer", {"solution": "3"}, None),
        ("solution", {"solution": "3", "answer": "4"}, 1.0),
        ("solution", {"answer": "3", "ground_truth": "3"}, None),
        ("solution", {"solution": "", "ground_truth": "3"}, None),
    ],
)
def test_which_column_holds_the_answer(
    column: str, extra: dict[str, Any], score: float | None
) -> None:
    with scorer(answer_column=column) as entered:
        (result,) = entered.score([group("p", ("A: 3",), **extra)])
    assert result.scores == (score,)


def test_without_a_reference_each_candidate_says_so() -> None:
    with scorer() as entered:
        (result,) = entered.score([group("p", ("A: 3", "A: 4"))])
    assert result.scores == (None, None)
    drop = Drop("no_reference", "its column 'answer' is missing or holds no answer")
    assert result.reasons == {0: drop, 1: drop}


class Moody:
    """A rule that cannot tell some responses, and takes them all at once."""

    version: ClassVar[int | None] = 3
    settings_read: ClassVar[frozenset[str]] = frozenset({"rule_timeout_s"})
    reads_candidates: ClassVar[bool] = False

    def __init__(self, settings: ScorerSettings, *, is_verdict: bool = True) -> None:
        self.is_verdict = is_verdict

    def __enter__(self) -> Moody:
        return self

    def __exit__(self, *_: object) -> None: ...

    @classmethod
    def check(cls) -> None: ...

    def fingerprint(self) -> dict[str, Any]:
        return {"mood": "odd"}

    def rewards(self, groups: Sequence[CandidateGroup]) -> list[list[float | Drop]]:
        return [[self.reward(response) for response in one.responses] for one in groups]

    def reward(self, response: str) -> float | Drop:
        return Drop("rule_timeout", "too long") if response == "?" else float(response)


SETTINGS = ScorerSettings(name="r", spec="rule:moody")


def test_a_drop_is_the_reason_of_its_own_candidate() -> None:
    with RuleScorer(SETTINGS, Moody(SETTINGS)) as entered:
        (result,) = entered.score([group("p", ("3", "?", "0.5"))])
    assert result.scores == (3.0, None, 0.5)
    assert result.reasons == {1: Drop("rule_timeout", "too long")}


def test_the_fingerprint_holds_what_decides_the_scores() -> None:
    # as pools of the first days have it: they are resumed
    assert scorer("exact").fingerprint() == {
        "name": "r", "spec": "rule:exact", "answer_column": "answer", "rule_version": 2,
    }  # fmt: skip
    base = scorer("math").fingerprint()
    assert base == {
        "name": "r", "spec": "rule:math", "answer_column": "answer", "rule_version": 2,
        "rule_timeout_s": 5.0,
    }  # fmt: skip
    assert base == scorer("math", dtype="bfloat16", max_length=9).fingerprint()
    assert base != scorer("math", rule_timeout_s=6.0).fingerprint()
    assert base != scorer("math", answer_column="solution").fingerprint()
    assert RuleScorer(SETTINGS, Moody(SETTINGS)).fingerprint() == {
        "name": "r", "spec": "rule:moody", "rule_timeout_s": 5.0, "rule_version": 3, "mood": "odd",
    }  # fmt: skip


def test_only_what_gives_no_verdicts_says_so() -> None:
    reward = RuleScorer(SETTINGS, Moody(SETTINGS, is_verdict=False))
    assert reward.fingerprint()["is_verdict"] is False
    verdicts = {
        "exact", "math", "regex?pattern=x", "format?name=boxed", "json", "length?max=3",
    }  # fmt: skip
    for rule in (*verdicts, "length?max=3&soft=2", "repetition"):
        said = scorer(rule).fingerprint()
        assert said.get("is_verdict", True) is (rule in verdicts), rule
        assert "rule_version" in said
        assert scorer(rule).rule.is_verdict is (rule in verdicts)


@pytest.mark.parametrize(
    "rule", ["exact", "math", "regex?pattern=3", "format?pattern=A: .", "json", "repetition"]
)
def test_a_scorer_can_be_sent_to_a_worker(rule: str) -> None:
    with pickle.loads(pickle.dumps(scorer(rule))) as entered:
        (result,) = entered.score([group("p", ("A: 3",), answer=3)])
    assert result.scores == (0.0 if rule == "json" else 1.0,)


@pytest.mark.parametrize(
    "rule", ["exact", "math", "regex?pattern=3", "format?name=boxed", "json", "length?max=3"]
)
def test_rules_without_prompts_or_responses(rule: str) -> None:
    with scorer(rule) as entered:
        assert entered.score([]) == []
        (result,) = entered.score([group("p", (), answer="3")])
    assert result.scores == ()


def test_every_rule_is_found_by_its_name() -> None:
    for name, rule in RULES.items():
        assert find_rule(name) is rule
        assert (rule.__doc__ or "").startswith(("Right is ", "Higher is "))


@pytest.mark.parametrize("spec", ["rule:mth", "rule:mth?x=1", "rule:"])
def test_an_unknown_rule_is_refused_with_the_list_of_all(spec: str) -> None:
    with pytest.raises(UnknownChoiceError, match="there is no rule") as caught:
        scorer_of(spec)
    assert all(name in caught.value.why for name in (*RULES, "FILE.py:FUNCTION"))
    if spec != "rule:":
        assert caught.value.next_step == "did you mean 'math'?"


@pytest.mark.parametrize("rule", [*RULES])
def test_unknown_options_are_refused(rule: str) -> None:
    with pytest.raises(UnknownChoiceError, match="unknown option 'pettern'") as caught:
        scorer_of(f"rule:{rule}?pettern=x")
    assert caught.value.where == f"-r rule:{rule}"
