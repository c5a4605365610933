"""Tokens that were sampled are those of the reference's vocabulary, or the run ends."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from support.tiny_causal import candidate, group
from support.tiny_models import tokenizer

from bon.errors import ModelError
from bon.records import CandidateGroup
from bon.scorers.logprob.vocabulary import refuse_other_vocabulary

USER = {"role": "user", "content": "?"}


def sampled(rows: Sequence[tuple[Sequence[int] | None, str]]) -> list[CandidateGroup]:
    return [group("p", (USER,), [candidate(n, ids, text) for n, (ids, text) in enumerate(rows)])]


def ids_of(text: str) -> list[int]:
    return list(tokenizer().encode(text))


def test_texts_that_engines_write_otherwise_are_the_same() -> None:
    broken = ids_of("é")[:1]
    rows = [
        (ids_of(" It is 12"), "It is 12"),
        ([*ids_of("12"), 2], "12"),
        (ids_of("one STOP"), "one "),
        ([*ids_of("a"), *broken], "a"),
        ([*ids_of("a"), *broken, *ids_of("b")], "a\ufffdb"),
    ]
    assert refuse_other_vocabulary(tokenizer(), sampled(rows), "here")


def test_another_vocabulary_is_refused_with_an_example() -> None:
    shifted = [([one + 1 for one in ids_of("abc")], "abc"), (ids_of("abc"), "abd")]
    with pytest.raises(ModelError, match="another vocabulary") as caught:
        refuse_other_vocabulary(tokenizer(), sampled([*shifted, (ids_of("e"), "e")]), "here")
    assert caught.value.where == "here"
    assert "'abc' are 'bcd'" in caught.value.why
    assert "2 of 3 responses" in caught.value.why


def test_single_texts_may_differ() -> None:
    rows = [(ids_of("abc"), "abx"), (ids_of("abc"), "abc")]
    assert refuse_other_vocabulary(tokenizer(), sampled(rows), "here")


def test_where_no_tokens_are_known_nothing_is_told() -> None:
    assert not refuse_other_vocabulary(tokenizer(), sampled([(None, "abc"), ((2,), "")]), "here")
    assert not refuse_other_vocabulary(tokenizer(), [CandidateGroup("p", (USER,), ("a",))], "here")
    assert not refuse_other_vocabulary(tokenizer(), [], "here")
