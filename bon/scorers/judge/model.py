"""What answers a judge's questions: a model in this process, or one behind a server."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol, Self

from bon.records import Drop

__all__ = ["Answer", "Asking", "JudgeModel", "thinking_variables"]


@dataclass(frozen=True, slots=True)
class Asking:
    """How every question of a run is asked."""

    words: tuple[str, str] | None
    """The two answers whose probabilities are wanted, in one step; none: the answer is a text."""
    max_tokens: int
    """Longest answer, in tokens."""
    thinking: bool
    """Let a model that can do so think first."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a judge says to one question."""

    num_tokens: int
    """Tokens of the question, its chat template included; 0 where a server does not tell."""
    text: str = ""
    logprobs: tuple[float, float] | None = None
    """Of the two words, in nats; -inf for one that is not among the likeliest."""
    is_cut: bool = False
    """Whether max_tokens ended it, not the judge."""


class JudgeModel(Protocol):
    """Answers questions, greedily."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    @property
    def num_tokens_computed(self) -> int:
        """Tokens computed since it was entered; 0 where nobody counts."""
        ...

    def answer(self, questions: Iterable[str]) -> list[Answer | Drop]:
        """Answer each question, or say why not; in their order. Pulls them as it needs them."""
        ...


def thinking_variables(thinking: bool) -> dict[str, Any]:
    """Return what chat templates read to let a model think first, or not; most read neither."""
    return {"enable_thinking": thinking, "thinking": thinking}
