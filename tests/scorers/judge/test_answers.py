from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bon.records import Drop
from bon.scorers.judge.answers import (
    Find,
    rubric_score,
    text_verdict,
    word_verdict,
    yes_probability,
)
from bon.scorers.judge.model import Answer
from bon.scorers.rules.pattern_work import prepare


def by(pattern: str) -> Find:
    """The work of the process that a judge's own pattern runs in."""
    return prepare({"how": "verdict", "pattern": pattern, "group": None})


BOUNDS = (1.0, 10.0)
LOGPROBS = st.floats(-1000, 0)


def logs(first: float, second: float) -> Answer:
    return Answer(1, logprobs=(first, second))


def test_yes_by_hand() -> None:
    """0.6 and 0.2 of the probability: 0.6 / 0.8."""
    assert yes_probability(logs(math.log(0.6), math.log(0.2))) == pytest.approx(0.75)
    assert yes_probability(logs(-3.0, -math.inf)) == 1.0
    assert yes_probability(logs(-math.inf, -3.0)) == 0.0
    assert yes_probability(logs(-2000.0, -1.0)) == 0.0


@given(LOGPROBS, LOGPROBS)
def test_the_words_share_what_there_is(first: float, second: float) -> None:
    one, other = yes_probability(logs(first, second)), yes_probability(logs(second, first))
    assert isinstance(one, float)
    assert isinstance(other, float)
    assert one + other == pytest.approx(1.0)
    assert (one > 0.5) <= (word_verdict(logs(first, second)) == 1.0)


def test_the_likelier_word_is_the_verdict() -> None:
    found = [word_verdict(logs(*pair)) for pair in ((-1.0, -2.0), (-2.0, -1.0), (-1.0, -1.0))]
    assert found == [1.0, 0.0, 0.5]
    assert word_verdict(logs(-1.0, -math.inf)) == 1.0


@pytest.mark.parametrize("read", [yes_probability, word_verdict])
def test_what_is_no_number_is_no_score(read: object) -> None:
    for answer in (logs(math.nan, -1.0), logs(-math.inf, -math.inf), Answer(1, "Yes")):
        found = read(answer)  # type: ignore[operator]
        assert isinstance(found, Drop)
        assert found.reason == "non_finite_score"


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("7", 7.0),
        (" **8.5** ", 8.5),
        ("9/10", 9.0),
        ("Good, but late.\nScore: 6", 6.0),
        ("Score: 2. No, wait.\n**Score:** 4/10.", 4.0),
        ("The score is 3", 3.0),
        ("SCORE - 10", 10.0),
        ("<think>Score: 9? Score: 1?</think>\nScore: 5", 5.0),
        ("Fine.\nScore (1-10): 7", 7.0),
        ("Fine.\nScore (1–10): 7", 7.0),
        ("Fine.\n**Score (out of 10):** 8", 8.0),
        ("Score [1-10]: 7", 7.0),
        ("Score: [8]", 8.0),
        ("Score: 9/10 (score 1 = useless)", 9.0),
        ("On this scale score 1 = useless, score 10 = perfect. My score: 9", 9.0),
        ("Score: 8\n\nScore breakdown:\n- 1 point lost", 8.0),
        ("Final score: 8. A score of 1 would be unfair.", 8.0),
        ("Score: 10 out of 10", 10.0),
        ("Score: 7.5/10", 7.5),
        ("Score: 7 - solid", 7.0),
        ("Score 1-10", None),
        ("Score: 7-8", None),
        ("Score 1 = useless", None),
        ("Score 10 = perfect", None),
        ("Score, one of 5 faults", None),
        ("The underscore 3", None),
        ("It is 7 because of two faults", None),
        ("Score: none", None),
        ("Score: 11", None),
        ("Score: 0", None),
        ("<think>Score: 9", None),
        ("", None),
    ],
)
def test_the_last_score_counts(text: str, score: float | None) -> None:
    found = rubric_score(Answer(1, text), None, BOUNDS)
    assert (None if isinstance(found, Drop) else found) == score
    if isinstance(found, Drop):
        assert found.reason == "judge_unparseable"
        assert text[:20] in found.detail


def test_a_pattern_of_ones_own() -> None:
    answer = Answer(1, "grade=2; grade=[4]")
    assert rubric_score(answer, by(r"grade=\[?(\d)"), BOUNDS) == 4.0
    assert rubric_score(answer, by(r"\d(?=;)"), BOUNDS) == 2.0
    assert rubric_score(answer, by(r"x(\d)|(\d)\]"), BOUNDS) == 4.0
    assert isinstance(rubric_score(answer, by(r"(\w+)="), BOUNDS), Drop)


def test_only_the_first_200_characters_of_an_answer_are_kept() -> None:
    found = rubric_score(Answer(1, "ab" * 500), None, BOUNDS)
    assert isinstance(found, Drop)
    assert repr("ab" * 100) in found.detail


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("A", 1.0),
        ("**B**.", 0.0),
        ("Tie", 0.5),
        ("Answer B", 0.0),
        ("Answer B is weak.\nVerdict: A", 1.0),
        ("Verdict: a tie", 0.5),
        ("verdict is **B**", 0.0),
        ("I find [[C]]", 0.5),
        ("Verdict: A, as answer B is wrong", 1.0),
        ("<think>Verdict: A</think>Verdict: B", 0.0),
        ("Verdict (A or B): B", 0.0),
        ("Verdict: [[A]]", 1.0),
        ("Verdict: B is much better", 0.0),
        ("Verdict: B.", 0.0),
        ("Verdict: A and B are equally good", None),
        ("Verdict: A or B", None),
        ("Verdict: Answer A and Answer B tie", None),
        ("Verdict: A/B", None),
        ("Verdict: A = B", None),
        ("Verdict: A is worse than B", None),
        ("Verdict: A close call", None),
        ("Verdict: A. No, verdict: A and B are equal", None),
        ("A and B", None),
        ("A good answer, I think", None),
        ("Verdict: neither", None),
        ("", None),
    ],
)
def test_the_last_verdict_counts(text: str, verdict: float | None) -> None:
    found = text_verdict(Answer(1, text), None)
    assert (None if isinstance(found, Drop) else found) == verdict


@pytest.mark.parametrize(
    "text", ["Strong, clear.\nScore: 1", "I could give Score: 3 but", "7", "A"]
)
def test_an_answer_that_was_cut_is_not_read(text: str) -> None:
    """`Score: 1` may have been on its way to 10; thinking that never ended says nothing."""
    answer = Answer(1, text, is_cut=True)
    for found in (
        rubric_score(answer, None, BOUNDS),
        rubric_score(answer, by(r"\d"), BOUNDS),
        text_verdict(answer, None),
        text_verdict(answer, by("A")),
    ):
        assert isinstance(found, Drop)
        assert found.reason == "judge_unparseable"
        assert "cut at max_tokens" in found.detail
        assert repr(text) in found.detail


def test_a_pattern_for_verdicts() -> None:
    assert text_verdict(Answer(1, "better: b"), by(r"better: (\w+)")) == 0.0
    assert isinstance(text_verdict(Answer(1, "better: first"), by(r"better: (\w+)")), Drop)
