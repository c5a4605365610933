"""Scores from scripted answers; the judge is a real HTTP server that a test speaks for."""

from __future__ import annotations

import pickle
import re
import tracemalloc
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.judges import ChatServer, Said, group, judge_of
from support.servers import FakeServer

from bon.bradley_terry import fit_bradley_terry
from bon.records import CandidateGroup, Drop, Scores
from bon.scorers.judge import JudgeOptions, JudgeScorer, read_question
from bon.scorers.judge.model import Answer

POINT = "<{{ response }}>"
PAIR = "<{{ response_a }}|{{ response_b }}>"


@pytest.fixture
def score(tmp_path: Path) -> Callable[..., tuple[list[Scores], list[str]]]:
    """Score groups with a judge that says `say` to the text between < and >."""

    def run(
        say: Callable[..., Said], *groups: CandidateGroup, template: str = POINT, options: str = ""
    ) -> tuple[list[Scores], list[str]]:
        (tmp_path / "t.jinja").write_text(template)

        def said(question: str) -> Said:
            return say(*re.fullmatch(r".*<(.*)>.*", question, re.DOTALL)[1].split("|"))  # type: ignore[index]

        chat = ChatServer(said)
        with FakeServer(chat) as server:
            path = f"template={tmp_path / 't.jinja'}"
            with judge_of(f"judge:server:{server.url}?{path}{options}") as judge:
                return judge.score(groups), chat.questions

    return run


def better(first: str, second: str) -> Said:
    """Prefer the larger number; both orders agree."""
    return {"A": 0.9, "B": 0.1} if float(first) > float(second) else {"A": 0.2, "B": 0.7}


def test_yes_by_hand_in_the_order_of_groups_and_responses(score: Any) -> None:
    chances = {"a": (0.6, 0.2), "b": (0.1, 0.3), "c": (0.5, 0.5)}

    def say(response: str) -> Said:
        yes, no = chances[response]
        return {"maybe": 0.01, "Yes": yes / 2, " Yes": yes / 2, "No": no}

    groups = (group("a", "b"), group(prompt_id="none"), group("c", "a", prompt_id="q"))
    results, _ = score(say, *groups)
    assert [one.prompt_id for one in results] == ["p", "none", "q"]
    flat = [value for one in results for value in one.scores]
    assert flat == pytest.approx([0.75, 0.25, 0.5, 0.75])
    assert [one.num_tokens for one in results] == [(3, 3), (), (3, 3)]
    assert [one.truncated for one in results] == [(False, False), (), (False, False)]
    assert all(one.reasons == {} for one in results)


def test_equal_responses_are_asked_about_once(score: Any) -> None:
    results, asked = score(lambda response: {"Yes": 0.5, "No": 0.4}, group("a", "b", "a"))
    assert results[0].scores[0] == results[0].scores[2]
    assert sorted(asked) == ["<a>", "<b>"]


def test_one_word_among_the_likeliest_is_enough_none_is_not(score: Any) -> None:
    said: dict[str, Said] = {
        "yes": {"Yes": 0.9},
        "no": {"No": 0.9},
        "else": {"yes": 0.9, "Hm": 0.1},
    }
    results, _ = score(lambda response: said.get(response, {}), group("yes", "no", "else", "empty"))
    assert results[0].scores == (1.0, 0.0, None, None)
    assert {place: one.reason for place, one in results[0].reasons.items()} == {
        2: "judge_unparseable",
        3: "judge_unparseable",
    }
    assert "'yes', 'Hm'" in results[0].reasons[2].detail
    assert results[0].num_tokens[2] == 0


def test_a_rubric_and_what_cannot_be_read(score: Any) -> None:
    said = {"good": "Fine.\nScore: 9", "odd": "It is green.", "beyond": "Score: 12", "mute": None}
    results, _ = score(said.__getitem__, group(*said), options="&mode=rubric")
    assert results[0].scores == (9.0, None, None, None)
    assert "'It is green.'" in results[0].reasons[1].detail
    assert "12" in results[0].reasons[2].detail
    assert {one.reason for one in results[0].reasons.values()} == {"judge_unparseable"}


def test_pattern_and_scale_are_a_users_own(score: Any) -> None:
    options = "&mode=rubric&pattern=grade (\\d)&scale=0-5"
    results, _ = score(lambda response: f"grade {response}", group("0", "5", "6"), options=options)
    assert results[0].scores == (0.0, 5.0, None)


def test_a_row_that_the_template_cannot_take(score: Any) -> None:
    groups = (group("a", key="k"), group("b"))
    results, asked = score(
        lambda response: {"Yes": 1.0}, *groups, template="{{ key }} <{{ response }}>"
    )
    assert asked == ["k <a>"]
    assert [one.scores for one in results] == [(1.0,), (None,)]
    assert results[1].reasons[0].reason == "template_error"


def pairwise(score: Any, say: Any, *groups: CandidateGroup, options: str = "") -> Any:
    return score(say, *groups, template=PAIR, options=f"&mode=pairwise{options}")


def test_pairs_in_both_orders_become_strengths(score: Any) -> None:
    """3 beats 2 beats 1, each once: the strengths of that record, mean 0."""
    results, asked = pairwise(score, better, group("2", "3", "1"))
    record = np.array([[0.0, 0, 1], [1, 0, 1], [0, 0, 0]])
    assert results[0].scores == pytest.approx(tuple(fit_bradley_terry(record, ridge=0.1)), abs=1e-6)
    assert sum(results[0].scores) == pytest.approx(0, abs=1e-5)
    texts = "123"
    assert sorted(asked) == sorted(f"<{a}|{b}>" for a in texts for b in texts if a != b)
    # a question's tokens are counted where its first response stands
    assert results[0].num_tokens == (10, 10, 10)


@pytest.mark.parametrize(
    ("say", "options"),
    [
        (lambda first, second: {"A": 0.9, "B": 0.1}, ""),
        (lambda first, second: {"B": 0.9}, ""),
        (lambda first, second: {"A": 0.5, "B": 0.5}, ""),
        (lambda first, second: "Verdict: A", "&max_tokens=9"),
        (lambda first, second: "Verdict: tie", "&max_tokens=9"),
        (lambda first, second: "tie" if first < second else "A", "&max_tokens=9"),
    ],
)
def test_a_win_that_only_one_order_gives_is_a_tie(score: Any, say: Any, options: str) -> None:
    results, _ = pairwise(score, say, group("1", "2", "3"), options=options)
    assert results[0].scores == (0.0, 0.0, 0.0)


def test_agreement_in_text(score: Any) -> None:
    def say(first: str, second: str) -> str:
        return f"I see.\nVerdict: {'A' if first > second else 'B'}"

    results, _ = pairwise(score, say, group("1", "2"), options="&max_tokens=50")
    # one win at ridge 0.1: 1 / (1 + e^2r) = r / 10 has its root at 1.0640
    assert results[0].scores == pytest.approx((-1.064, 1.064), abs=1e-3)


def test_equal_responses_are_one_and_never_compared(score: Any) -> None:
    results, asked = pairwise(score, better, group("1", "2", "1"))
    low, high, same = results[0].scores
    assert low == same < high
    assert low + high + same == pytest.approx(0, abs=1e-5)
    assert sorted(asked) == ["<1|2>", "<2|1>"]
    assert results[0].num_tokens == (5, 5, 5)


@pytest.mark.parametrize("responses", [(), ("1",), ("1", "1", "1")])
def test_nothing_to_compare(score: Any, responses: tuple[str, ...]) -> None:
    results, asked = pairwise(score, better, group(*responses))
    assert results[0].scores == (0.0,) * len(responses)
    assert asked == []


def test_a_comparison_without_a_verdict_does_not_count(score: Any) -> None:
    """All of those with x fail in one order: x has no score, and the others have theirs."""

    def say(first: str, second: str) -> Said:
        return (
            {"Hm": 1.0} if first == "x" else {"A": 0.9} if second == "x" else better(first, second)
        )

    results, _ = pairwise(score, say, group("1", "x", "2"))
    low, none, high = results[0].scores
    assert none is None
    assert results[0].reasons[1].reason == "judge_unparseable"
    assert list(results[0].reasons) == [1]
    assert (low, high) == (pytest.approx(-high), pytest.approx(1.064, abs=1e-3))


def test_all_comparisons_fail(score: Any) -> None:
    results, _ = pairwise(score, lambda *_: {"Hm": 1.0}, group("1", "2"))
    assert results[0].scores == (None, None)
    assert set(results[0].reasons) == {0, 1}


def test_many_candidates_in_fewer_pairs_keep_their_order(score: Any) -> None:
    numbers = [str(number) for number in range(12)]
    results, asked = pairwise(score, better, group(*numbers), options="&max_pairs=30")
    assert len(asked) == 60
    found = results[0].scores
    assert np.corrcoef(found, range(12))[0, 1] > 0.9
    shuffled = numbers[::-1]
    again, _ = pairwise(score, better, group(*shuffled), options="&max_pairs=30")
    assert again[0].scores == pytest.approx(found[::-1], abs=1e-5)


def test_words_that_a_judge_would_not_say_are_noted(
    score: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    score(lambda response: {"Yes": 0.02, "No": 0.01, "Hm": 0.9}, group("a", "b"))
    assert "'Yes' and 'No' have 3.0% of the probability" in capsys.readouterr().out
    score(lambda response: {"Yes": 0.5, "No": 0.1}, group("a"))
    assert capsys.readouterr().out == ""


class Pulling:
    """Answers as the questions come, and knows how many it has seen, and of what length."""

    num_tokens_computed = 0

    def __init__(self) -> None:
        self.calls: list[int] = []

    def answer(self, questions: Iterable[str]) -> list[Answer | Drop]:
        tracemalloc.start()
        first = tracemalloc.get_traced_memory()[0]
        answers: list[Answer | Drop] = []
        for question in questions:
            answers.append(Answer(1, logprobs=(-0.1, -2.0)))
            held = tracemalloc.get_traced_memory()[0] - first
            assert held < 4 * len(question) + 100_000 + 1000 * len(answers)
        tracemalloc.stop()
        self.calls.append(len(answers))
        return answers


@pytest.mark.parametrize(("mode", "asked"), [("yes-no", 12), ("pairwise", 96)])
def test_questions_are_pulled_one_by_one_not_held(mode: Any, asked: int) -> None:
    """A part may have millions of questions: only what is asked right now lies in the memory."""
    options = JudgeOptions(mode=mode)
    model: Any = Pulling()
    scorer = JudgeScorer(options, read_question(options), model)
    texts = [f"{number} " + "x" * 50_000 for number in range(12)]
    (result,) = scorer.score([group(*texts)])
    assert model.calls == [asked]
    assert len(result.scores) == 12


@pytest.mark.parametrize(("mode", "calls"), [("yes-no", [6, 3]), ("pairwise", [12, 6])])
def test_groups_are_judged_in_slices(
    monkeypatch: pytest.MonkeyPatch, mode: Any, calls: list[int]
) -> None:
    monkeypatch.setattr("bon.scorers.judge.scorer._QUESTIONS_A_SLICE", calls[0])
    options = JudgeOptions(mode=mode)
    model: Any = Pulling()
    scorer = JudgeScorer(options, read_question(options), model)
    groups = [group(f"{name}1", f"{name}2", f"{name}3", prompt_id=name) for name in "abc"]
    results = scorer.score([*groups, group(prompt_id="none")])
    assert model.calls == [*calls, 0][: len(model.calls)]
    assert [one.prompt_id for one in results] == ["a", "b", "c", "none"]
    assert [len(one.scores) for one in results] == [3, 3, 3, 0]


def test_it_can_be_sent_to_a_worker() -> None:
    with FakeServer(ChatServer(lambda question: None)) as server:
        judge = judge_of(f"judge:server:{server.url}?mode=rubric")
    again = pickle.loads(pickle.dumps(judge))
    assert (again.options, again.question, again.model) == (
        judge.options,
        judge.question,
        judge.model,
    )


def test_a_pattern_that_takes_for_ever_costs_the_answer_not_the_run(
    score: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bon.scorers.judge.scorer._PATTERN_S", 0.3)
    said = {"slow": "a" * 60, "quick": "score aa: 7", "none": "b"}
    options = "&mode=rubric&pattern=(?:a+)+: (\\d)"
    results, _ = score(lambda one: said[one], group("quick", "slow", "none"), options=options)
    assert results[0].scores == (7.0, None, None)
    assert [results[0].reasons[place].reason for place in (1, 2)] == [
        "rule_timeout",
        "judge_unparseable",
    ]
