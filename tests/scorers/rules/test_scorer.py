from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from bon.config import ScorerSettings
from bon.errors import UnknownChoiceError
from bon.records import CandidateGroup, Drop
from bon.scorers.rules import RULES, RuleScorer, find_rule

MESSAGES = ({"role": "user", "content": "1 + 2?"},)


def settings(rule: str = "exact", **fields: Any) -> ScorerSettings:
    return ScorerSettings(name="r", spec=f"rule:{rule}", **fields)


def scorer(rule: str = "exact", **fields: Any) -> RuleScorer:
    return RuleScorer(settings(rule, **fields), RULES[rule])


def group(prompt_id: str, responses: tuple[str, ...], **extra: Any) -> CandidateGroup:
    return CandidateGroup(prompt_id, MESSAGES, responses, extra)


@pytest.mark.parametrize("rule", RULES)
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


@dataclass
class Moody:
    """A rule that cannot tell some responses."""

    settings: ScorerSettings
    version: ClassVar[int] = 3
    settings_read: ClassVar[frozenset[str]] = frozenset({"rule_timeout_s"})

    def __enter__(self) -> Moody:
        return self

    def __exit__(self, *_: object) -> None: ...

    @classmethod
    def check(cls) -> None: ...

    def reference(self, value: Any) -> str | None:
        return str(value)

    def verdict(self, response: str, reference: str) -> bool | Drop:
        return Drop("rule_timeout", "too long") if response == "?" else response == reference


def test_a_drop_is_the_reason_of_its_own_candidate() -> None:
    with RuleScorer(settings(), Moody) as entered:
        (result,) = entered.score([group("p", ("3", "?", "4"), answer=3)])
    assert result.scores == (1.0, None, 0.0)
    assert result.reasons == {1: Drop("rule_timeout", "too long")}


def test_the_fingerprint_holds_what_decides_the_scores() -> None:
    assert scorer("exact").fingerprint() == {
        "name": "r", "spec": "rule:exact", "answer_column": "answer", "rule_version": 2,
    }  # fmt: skip
    base = scorer("math").fingerprint()
    assert base["rule_timeout_s"] == 5.0
    assert base == scorer("math", dtype="bfloat16", max_length=9).fingerprint()
    assert base != scorer("math", rule_timeout_s=6.0).fingerprint()
    assert base != scorer("math", answer_column="solution").fingerprint()
    assert RuleScorer(settings(), Moody).fingerprint()["rule_version"] == 3


def test_a_scorer_can_be_sent_to_a_worker() -> None:
    with pickle.loads(pickle.dumps(scorer("exact"))) as entered:
        (result,) = entered.score([group("p", ("3",), answer=3)])
    assert result.scores == (1.0,)


def test_every_rule_is_found_by_its_name_and_says_what_it_does() -> None:
    for name, rule in RULES.items():
        assert find_rule(name) is rule
        assert (rule.__doc__ or "").startswith("Right is ")
    with pytest.raises(UnknownChoiceError, match="no rule 'mth'") as caught:
        find_rule("mth")
    assert caught.value.next_step == "did you mean 'math'?"
