"""The real vLLM as a judge, held to plain forward passes of transformers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import judge_engine
from support.commands import GENERATOR
from support.judge_engine import MAX_MODEL_LEN, QUESTION, Plain
from support.judges import group
from support.vllm_worker import Worker

from bon.errors import ModelError
from bon.records import CandidateGroup, Scores

pytest.importorskip("torch")
pytest.importorskip("vllm")
pytestmark = [pytest.mark.vllm, pytest.mark.slow]

SPEC = f"judge:{GENERATOR}"
ASKS = ("What is 47 + 85?", "Say no.", "x", "Is it 3?", "Sort 31542.", "é🙂")


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    with Worker(tmp_path_factory.mktemp("engine") / "log") as started:
        yield started


@pytest.fixture(scope="module")
def plain() -> Plain:
    return Plain(GENERATOR)


@pytest.fixture
def score(worker: Worker, tmp_path: Path) -> Any:
    def ask(
        *groups: CandidateGroup, options: str = "", template: str = QUESTION
    ) -> tuple[list[Scores], int]:
        (tmp_path / "t.jinja").write_text(template)
        options = f"&template={tmp_path / 't.jinja'}{options}"
        answer: tuple[list[Scores], int] = worker.ask(judge_engine.score, groups, SPEC, options)
        return answer

    return ask


@pytest.mark.parametrize(
    ("words", "first", "second"),
    [("Y,N", ["Y"], ["N"]), ("That,0", ["That"], ["0"]), ("it,no", ["it", " it"], ["no"])],
)
def test_yes_is_the_softmax_over_the_words_logits(
    score: Any, plain: Plain, words: str, first: list[str], second: list[str]
) -> None:
    (result,), _ = score(group(*ASKS), options=f"&words={words}")
    assert result.scores == pytest.approx(
        [plain.share(one, first, second) for one in ASKS], abs=1e-4
    )
    assert result.num_tokens == tuple(len(plain.tokens(one)) for one in ASKS)


def test_what_candidates_share_is_computed_once(score: Any) -> None:
    start = "the same words " * 12
    (result,), computed = score(group(start + "a", start + "b"), options="&words=Y,N")
    assert computed <= sum(result.num_tokens) + 2 - 32
    (again,), computed = score(group(start + "a", start + "a"), options="&words=Y,N")
    assert again.scores == (result.scores[0],) * 2


def test_text_is_the_greedy_answer(score: Any, plain: Plain) -> None:
    """A pattern that takes no answer for a number shows what was said."""
    options = "&mode=rubric&max_tokens=8&pattern=never"
    (result,), _ = score(group(*ASKS[:4]), options=options)
    assert result.scores == (None,) * 4
    for place, ask in enumerate(ASKS[:4]):
        assert result.reasons[place].reason == "judge_unparseable"
        assert repr(plain.says(ask, 8).strip()) in result.reasons[place].detail


def test_a_number_is_the_score(score: Any, plain: Plain) -> None:
    """The sample model answers a sum with a number."""
    (result,), _ = score(group(ASKS[0]), options="&mode=rubric&max_tokens=16&scale=0-999")
    assert result.scores == (float(plain.says(ASKS[0], 16)),)


def test_a_number_that_was_cut_is_no_score(score: Any, plain: Plain) -> None:
    """Its first token alone would be another number."""
    assert plain.says(ASKS[0], 1) != plain.says(ASKS[0], 16)
    (result,), _ = score(group(ASKS[0]), options="&mode=rubric&max_tokens=1&scale=0-999")
    assert result.scores == (None,)
    assert "cut at max_tokens" in result.reasons[0].detail


def test_pairs_are_compared_by_the_likelier_word(score: Any, plain: Plain) -> None:
    responses = ("1", "22", "3 3", "no")
    (result,), _ = score(
        group(*responses),
        options="&mode=pairwise&words=That,0",
        template="{{ response_a }} {{ response_b }}",
    )
    assert sum(result.scores) == pytest.approx(0, abs=1e-5)
    wins = {
        (a, b): plain.share(f"{a} {b}", ["That"], ["0"]) > 0.5
        for a in responses
        for b in responses
        if a != b
    }
    beaten = {(a, b) for a, b in wins if wins[a, b] and not wins[b, a]}
    net = [sum((a, b) in beaten for b in responses) - sum((b, a) in beaten for b in responses)
           for a in responses]  # fmt: skip
    # all pairs are compared, so strengths are in the order of wins less losses
    assert [sorted(net).index(one) for one in net] == [
        sorted(result.scores).index(one) for one in result.scores
    ]


def test_a_question_that_is_too_long_is_null_and_the_others_are_not(score: Any) -> None:
    (result,), _ = score(group("x", "9" * MAX_MODEL_LEN, "y"), options="&words=Y,N")
    assert result.scores[1] is None
    assert result.reasons[1].reason == "prompt_too_long"
    assert str(MAX_MODEL_LEN) in result.reasons[1].detail
    assert None not in (result.scores[0], result.scores[2])
    (result,), _ = score(group("9" * 60), options="&mode=rubric&max_tokens=100")
    assert result.reasons[0].reason == "prompt_too_long"


def test_more_questions_than_the_engine_runs_at_once(score: Any) -> None:
    """On a CPU it runs 256; a few that are too long stand among them."""
    asks = [f"{number}" if number % 100 else "9" * MAX_MODEL_LEN for number in range(1, 1001)]
    (result,), _ = score(group(*asks), options="&words=Y,N")
    assert [value is None for value in result.scores] == [len(ask) > 9 for ask in asks]
    (alone,), _ = score(group(asks[511]), options="&words=Y,N")
    assert result.scores[511] == pytest.approx(alone.scores[0], abs=1e-5)


def test_nothing_to_judge(score: Any) -> None:
    results, computed = score(group(), options="&words=Y,N")
    assert (results[0].scores, computed) == ((), 0)


def test_words_that_are_no_tokens_are_refused_with_advice(worker: Worker) -> None:
    with pytest.raises(ModelError, match="'Yes' is not one token") as caught:
        worker.ask(judge_engine.score, [group("x")], SPEC)
    assert "words=" in caught.value.next_step


def test_a_chat_template_that_is_missing_is_refused(worker: Worker, tmp_path: Path) -> None:
    for file in GENERATOR.iterdir():
        if file.name != "chat_template.jinja":
            (tmp_path / file.name).symlink_to(file)
    with pytest.raises(ModelError, match="no chat template") as caught:
        worker.ask(judge_engine.score, [group("x")], f"judge:{tmp_path}", "&words=Y,N")
    assert "chat_template=" in caught.value.next_step
