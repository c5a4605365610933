from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
from support.tiny_models import tokenizer

from bon.errors import ModelError
from bon.scorers.judge.words import find_word_tokens, log_sum


def with_words(*words: str) -> Any:
    """Return a byte-level tokenizer that has these texts as tokens besides the bytes."""
    result = tokenizer()
    result.add_tokens(list(words))
    return result


def test_a_word_with_and_without_a_space(capsys: pytest.CaptureFixture[str]) -> None:
    found = with_words("Yes", " Yes", "No")
    first, second = find_word_tokens(found, ("Yes", "No"), "here")
    assert [found.decode([one]) for one in first] == ["Yes", " Yes"]
    assert [found.decode([one]) for one in second] == ["No"]
    assert "'Yes' is read as" in capsys.readouterr().out


def test_the_case_counts() -> None:
    with pytest.raises(ModelError, match="'Yes' is not one token"):
        find_word_tokens(with_words("yes", "no"), ("Yes", "No"), "here")
    assert find_word_tokens(with_words("yes", "no"), ("yes", "no"), "here")


def test_a_word_of_several_tokens_is_refused_with_advice() -> None:
    with pytest.raises(ModelError) as caught:
        find_word_tokens(with_words("Yes"), ("Yes", "No"), "the/folder")
    assert "'No' is not one token" in caught.value.what
    assert "words=" in caught.value.next_step
    assert caught.value.where == "the/folder"


def test_the_unknown_token_is_no_word() -> None:
    nothing = SimpleNamespace(
        encode=lambda text, add_special_tokens: [3],
        convert_tokens_to_ids=lambda token: 3,
        unk_token_id=3,
        decode=str,
    )
    with pytest.raises(ModelError):
        find_word_tokens(nothing, ("Yes", "No"), "here")


def test_a_spelling_that_only_the_vocabulary_has() -> None:
    """SentencePiece: a text begins with ▁, so the word without it is never encoded alone."""
    ids = {"▁Yes": 1, "Yes": 2, "▁No": 3}
    piece = SimpleNamespace(
        encode=lambda text, add_special_tokens: [ids["▁" + text]] if text[0] != " " else [9, 9],
        convert_tokens_to_ids=lambda token: ids.get(token, 0),
        unk_token_id=0,
        decode=str,
    )
    assert find_word_tokens(piece, ("Yes", "No"), "here") == ((1, 2), (3,))


def test_probabilities_are_added() -> None:
    assert log_sum([math.log(0.1), math.log(0.3)]) == pytest.approx(math.log(0.4))
    assert log_sum([-2000.0, -2000.0]) == pytest.approx(-2000 + math.log(2))
    assert log_sum([-math.inf, -math.inf]) == log_sum([]) == -math.inf
