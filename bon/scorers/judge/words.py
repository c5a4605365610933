"""The tokens of the two words whose probabilities are a judge's answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from bon.errors import ModelError

__all__ = ["find_word_tokens", "log_sum", "no_token", "spellings"]


def spellings(word: str) -> tuple[str, str]:
    """Return a word as it may begin an answer: with and without a space before it."""
    return word, f" {word}"


def find_word_tokens(
    tokenizer: Any, words: tuple[str, str], where: str
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the tokens that each word is, alone or with a space before it.

    Raises:
        ModelError: a word is not a token of its own, so no single step can give it.
    """
    first, second = (_tokens(tokenizer, word) for word in words)
    for word, tokens in zip(words, (first, second), strict=True):
        if not tokens:
            raise no_token(word, where)
        said = ", ".join(f"{token} {tokenizer.decode([token])!r}" for token in tokens)
        print(f"judge: {word!r} is read as the token(s) {said}")
    return first, second


def no_token(word: str, where: str) -> ModelError:
    """Return the error of a word that is not a token of its own."""
    return ModelError(
        f"{word!r} is not one token of the judge's vocabulary",
        where=where,
        why="its probability is read in one step, so the word must be one token, with or "
        "without a space before it",
        next_step="give two words that are, as in ?words=Y,N (the template must ask "
        "for them), or ask for a number instead: ?mode=rubric",
    )


def _tokens(tokenizer: Any, word: str) -> tuple[int, ...]:
    found = {
        encoded[0]
        for text in spellings(word)
        if len(encoded := tokenizer.encode(text, add_special_tokens=False)) == 1
    }
    # SentencePiece puts a space before every text: the word without one is only in the vocabulary
    found.add(tokenizer.convert_tokens_to_ids(word))
    return tuple(sorted(found - {None, tokenizer.unk_token_id}))


def log_sum(logprobs: Sequence[float]) -> float:
    """Return the log of a sum of probabilities; -inf for none of them."""
    largest = max(logprobs, default=-math.inf)
    if largest == -math.inf:
        return largest
    return largest + math.log(sum(math.exp(one - largest) for one in logprobs))
