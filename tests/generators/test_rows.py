from __future__ import annotations

from typing import Any

import pytest
from support.tiny_models import tokenizer

from bon.generators.rows import Ending, Row, first_stop
from bon.records import GenerationRequest

END = 2


@pytest.fixture(scope="module")
def words() -> Any:
    return tokenizer()


def row(words: Any, text: str, *, max_tokens: int = 99, stop: tuple[str, ...] = ()) -> Row:
    """A row that is given a text's tokens until it ends."""
    ending = Ending(frozenset({END}), stop, max_tokens, context_tokens=40)
    request = GenerationRequest("p", ({"role": "user", "content": "x"},), 1, seed=7)
    made = Row(request, words.encode("prompt"), 0, ending, words)
    for token in words.encode(text, add_special_tokens=False):
        if made.finish_reason is None:
            made.add(token, -0.5)
    return made


def test_an_end_token_is_counted_and_not_written(words: Any) -> None:
    made = row(words, "two<|im_end|>more")
    assert (made.response, made.finish_reason) == ("two", "stop")
    assert made.candidate().num_tokens == 4
    assert made.candidate().logprob == -2.0
    assert made.candidate().token_ids == (*words.encode("two"), END)


@pytest.mark.parametrize(("max_tokens", "length"), [(5, 5), (99, 34)])
def test_a_response_ends_at_the_limit_or_with_the_context(
    max_tokens: int, length: int, words: Any
) -> None:
    made = row(words, "a" * 60, max_tokens=max_tokens)
    assert (made.response, made.finish_reason) == ("a" * length, "length")


def test_an_end_token_that_is_the_last_one_allowed_is_an_end(words: Any) -> None:
    assert row(words, "abc<|im_end|>", max_tokens=4).finish_reason == "stop"


def test_a_character_of_several_tokens_is_written_when_it_is_whole(words: Any) -> None:
    assert row(words, "é🙂").response == "é🙂"
    assert row(words, "é🙂", max_tokens=4).response == "é"


def test_special_tokens_are_not_written(words: Any) -> None:
    assert row(words, "a<|im_start|>b").response == "ab"


def test_bytes_that_are_no_text_do_not_stop_it(words: Any) -> None:
    first_of_two = words.encode("é", add_special_tokens=False)[0]
    made = row(words, "ok")
    for token in [first_of_two] * 20 + words.encode(" then", add_special_tokens=False):
        made.finish_reason = None
        made.add(token, 0.0)
    assert made.response.startswith("ok")
    assert made.response.endswith(" then")


def test_a_stop_text_ends_a_response_and_is_not_part_of_it(words: Any) -> None:
    made = row(words, "one END two", stop=("END",))
    assert (made.response, made.finish_reason) == ("one ", "stop")
    assert made.candidate().num_tokens == len("one END")


@pytest.mark.parametrize(
    ("text", "stop", "before", "place"),
    [
        ("abcd", (), 0, None),
        ("abcd", ("x",), 0, None),
        ("abcd", ("cd", "b"), 0, 1),  # b is complete first
        ("abcd", ("abcd", "d"), 0, 0),  # complete together: the one that was said first
        ("abcd", ("d", "abcd"), 0, 3),
        ("abab", ("ab",), 2, 2),  # what was searched already is not found again
        ("abcd", ("bc",), 2, 1),  # but it may have begun there
    ],
)
def test_the_first_stop_text(
    text: str, stop: tuple[str, ...], before: int, place: int | None
) -> None:
    assert first_stop(text, stop, before) == place


def test_a_tokenizer_written_in_python_gives_the_same_text(words: Any) -> None:
    class Slow:
        """Only what such a tokenizer has."""

        def decode(self, tokens: list[int], **options: bool) -> str:
            return str(words.decode(tokens, **options))

    for text in ("two<|im_end|>", "é🙂", "a<|im_start|>b"):
        fast = row(words, text)
        slow = Row(fast.request, fast.prompt, 0, fast.ending, Slow())
        for token in fast.tokens:
            slow.add(token, -0.5)
        assert slow.candidate() == fast.candidate()


def test_numbers_that_are_not_finite_end_a_row(words: Any) -> None:
    made = row(words, "")
    made.add(5, float("nan"))
    assert made.finish_reason is not None
    assert made.failure is not None
    assert made.failure.reason == "non_finite_logits"
    assert row(words, "abc").failure is None


def test_a_candidates_numbers_come_from_its_seed(words: Any) -> None:
    first, second = row(words, "a"), row(words, "b")
    assert [first.uniform() for _ in range(3)] == [second.uniform() for _ in range(3)]
    other = Row(first.request, first.prompt, 1, first.ending, words)
    same = Row(
        GenerationRequest("q", first.request.messages, 1, seed=8), [5], 0, first.ending, words
    )
    assert [other.uniform(), other.uniform()] == [same.uniform(), same.uniform()]
