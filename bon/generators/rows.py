"""Candidates while they are sampled: their tokens, their text so far, and when they end."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from bon.records import Candidate, Drop, GenerationRequest

__all__ = ["Ending", "Row", "TextStream", "first_stop", "text_stream"]

_UNFINISHED = "\N{REPLACEMENT CHARACTER}"


class TextStream(Protocol):
    """The text of a response, token by token."""

    def add(self, token: int) -> str:
        """Return all the text so far; a character that is not complete yet is left out."""
        ...


@dataclass
class _FastText:
    """The tokenizers library's own stream, which knows the prompt."""

    tokenizer: Any
    stream: Any
    text: str = ""

    def add(self, token: int) -> str:
        try:
            piece = self.stream.step(self.tokenizer, token)
        except Exception:  # bytes that are no text can break the stream: go on with a new one
            from tokenizers.decoders import DecodeStream

            self.stream = DecodeStream(skip_special_tokens=True)
            piece = self.stream.step(self.tokenizer, token)
        self.text += piece or ""
        return self.text


@dataclass
class _SlowText:
    """For tokenizers written in Python: everything is decoded again for each token."""

    tokenizer: Any
    tokens: list[int] = field(default_factory=list)

    def add(self, token: int) -> str:
        self.tokens.append(token)
        text = str(self.tokenizer.decode(self.tokens, skip_special_tokens=True))
        return text.rstrip(_UNFINISHED)


def text_stream(tokenizer: Any, prompt: Sequence[int]) -> TextStream:
    """Return an empty text for the response to a prompt's token ids."""
    fast = getattr(tokenizer, "backend_tokenizer", None)
    if fast is None:
        return _SlowText(tokenizer)
    from tokenizers.decoders import DecodeStream

    return _FastText(fast, DecodeStream(ids=list(prompt), skip_special_tokens=True))


@dataclass(frozen=True, slots=True)
class Ending:
    """When responses end."""

    end_tokens: frozenset[int]
    stop: tuple[str, ...]
    """Texts at which a response ends; they are not part of it."""
    max_tokens: int
    context_tokens: int

    def room(self, prompt: Sequence[int]) -> int:
        """Return the most tokens that a response to a prompt may have."""
        return min(self.max_tokens, self.context_tokens - len(prompt))


def first_stop(text: str, stop: Sequence[str], before: int) -> int | None:
    """Return where the stop text begins that is complete first, none where there is none.

    `before` is how many characters were searched already.
    """
    found = [
        (place + len(one), number, place)
        for number, one in enumerate(stop)
        if (place := text.find(one, max(0, before - len(one) + 1))) >= 0
    ]
    return min(found)[2] if found else None


@dataclass
class Row:
    """One candidate."""

    request: GenerationRequest
    prompt: list[int]
    number: int
    ending: Ending
    tokenizer: Any
    tokens: list[int] = field(default_factory=list)
    logprob: float = 0.0
    response: str = ""
    finish_reason: str | None = None
    """None as long as it goes on."""

    def __post_init__(self) -> None:
        self._text = text_stream(self.tokenizer, self.prompt)
        # Python's own generator gives the same numbers on every machine and in every version
        self._random = random.Random(self.request.seed + self.number)

    def uniform(self) -> float:
        """Return the number, in [0, 1), that the next token is drawn with."""
        return self._random.random()

    def add(self, token: int, logprob: float) -> None:
        """Take the token that was drawn."""
        self.tokens.append(token)
        self.logprob += logprob
        if not math.isfinite(logprob):
            self.finish_reason = "failed"
        elif token in self.ending.end_tokens:
            self.finish_reason = "stop"
        else:
            self._extend(token)

    def _extend(self, token: int) -> None:
        before = len(self.response)
        self.response = self._text.add(token)
        place = first_stop(self.response, self.ending.stop, before)
        if place is not None:
            self.response = self.response[:place]
            self.finish_reason = "stop"
        elif len(self.tokens) >= self.ending.room(self.prompt):
            self.finish_reason = "length"

    @property
    def failure(self) -> Drop | None:
        """Why there is no candidate, none where there is."""
        if self.finish_reason != "failed":
            return None
        return Drop(
            "non_finite_logits",
            f"the model's probabilities are no numbers after {len(self.tokens)} tokens",
        )

    def candidate(self) -> Candidate:
        """Return the row as what is stored."""
        return Candidate(
            candidate=self.number,
            response=self.response,
            finish_reason=self.finish_reason,
            num_tokens=len(self.tokens),
            logprob=self.logprob,
            seed=None,
            token_ids=tuple(self.tokens),
        )
