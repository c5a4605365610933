"""What servers answer, as candidates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bon.records import Candidate, Drop
from bon.shown import encodable

__all__ = ["Answered", "read_answer"]

_ENDINGS = {"eos": "stop", "end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length"}
"""Names that some servers have for what OpenAI calls stop and length."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The candidates of one answer, or why there are none."""

    candidates: tuple[Candidate, ...]
    num_prompt_tokens: int
    drop: Drop | None = None


def read_answer(body: Any) -> Answered:
    """Read a completion or chat completion.

    A message without content is an empty response: a server that keeps a model's thoughts apart
    may have nothing else. Calls of tools are no response.

    Raises:
        ValueError, KeyError, TypeError: it is neither.
    """
    choices = body["choices"]
    if not isinstance(choices, list) or not all(isinstance(one, dict) for one in choices):
        raise TypeError("choices is no list of objects")
    usage = body.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    num_prompt_tokens = _count(usage.get("prompt_tokens")) or 0
    ordered = sorted(choices, key=lambda choice: choice.get("index") or 0)
    if not ordered:
        return _none("no_choices", "the server's answer has no choices", num_prompt_tokens)
    if any(_calls_tools(choice) for choice in ordered):
        return _none(
            "tool_calls", "the model calls a tool in place of answering", num_prompt_tokens
        )
    num_tokens = _count(usage.get("completion_tokens")) if len(ordered) == 1 else None
    candidates = tuple(_candidate(choice, num_tokens) for choice in ordered)
    return Answered(candidates, num_prompt_tokens)


def _none(reason: str, detail: str, num_prompt_tokens: int) -> Answered:
    return Answered((), num_prompt_tokens, Drop(reason, detail))


def _calls_tools(choice: Mapping[str, Any]) -> bool:
    message = choice.get("message")
    return isinstance(message, dict) and bool(
        message.get("tool_calls") or message.get("function_call")
    )


def _candidate(choice: Mapping[str, Any], num_tokens: int | None) -> Candidate:
    ending = choice.get("finish_reason")
    token_ids = _token_ids(choice.get("token_ids"))
    logprobs = _logprobs(choice.get("logprobs"))
    counted = token_ids if token_ids is not None else logprobs
    return Candidate(
        candidate=0,
        response=_text(choice),
        finish_reason=None if ending is None else _ENDINGS.get(ending, str(ending)),
        num_tokens=num_tokens if counted is None else len(counted),
        logprob=None if logprobs is None or None in logprobs else sum(map(float, logprobs)),
        seed=None,
        token_ids=token_ids,
    )


def _text(choice: Mapping[str, Any]) -> str:
    if "message" in choice:
        message = dict(choice["message"])
        text = message.get("content")
        text = message.get("refusal") if text is None else text
    else:
        text = choice["text"]
    if not isinstance(text, str | None):
        raise TypeError("the response is no text")
    return encodable(text or "")


def _logprobs(said: Any) -> list[Any] | None:
    """Return each token's log-probability, none where the server gives none."""
    if not isinstance(said, dict):
        return None
    if isinstance(said.get("content"), list):
        return [entry["logprob"] for entry in said["content"]]
    found = said.get("token_logprobs")
    return found if isinstance(found, list) else None


def _token_ids(said: Any) -> tuple[int, ...] | None:
    return tuple(int(token) for token in said) if isinstance(said, list) else None


def _count(said: Any) -> int | None:
    return said if isinstance(said, int) and not isinstance(said, bool) and said >= 0 else None
