"""What servers take beside the fields that OpenAI has, and what they call the longest answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bon.serving.addresses import is_openai

__all__ = ["TRUNCATES", "limit_name", "truncation"]

TRUNCATES = frozenset({"vllm", "sglang", "llamacpp"})
"""Servers, as they call themselves, that take top_k, min_p and repetition_penalty."""


def truncation(owner: str, *, top_k: int = 0, min_p: float = 0.0) -> dict[str, Any]:
    """Return the fields that only `TRUNCATES` take; by default those that change nothing.

    What is not said would be as the model's generation_config.json has it.
    """
    if owner not in TRUNCATES:
        return {}
    return {"top_k": top_k or -1, "min_p": min_p, "repetition_penalty": 1.0}


def limit_name(urls: Sequence[str]) -> str:
    """Return the field of chat completions that says the most tokens of an answer."""
    return "max_completion_tokens" if any(map(is_openai, urls)) else "max_tokens"
