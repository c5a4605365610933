"""From a request's messages to what a model is given: shared by all generators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bon.chat import ChatTemplate, check_vocabulary, prompt_tokens
from bon.config import GenerateSettings
from bon.records import Candidate, Drop, GenerationRequest, Message

__all__ = ["PromptEncoder", "conversation", "is_greedy", "numbered", "raw_text"]

_GREEDY_BELOW = 1e-5  # vLLM's own line; it refuses more than one candidate below it


def is_greedy(settings: GenerateSettings) -> bool:
    """Tell whether all candidates of a prompt are the one likeliest response."""
    return settings.temperature < _GREEDY_BELOW


def conversation(request: GenerationRequest, settings: GenerateSettings) -> list[Message]:
    """Return the prompt's messages, with the system prompt before those that have none."""
    messages = list(request.messages)
    first = messages[0]["role"] if messages else ""
    if settings.system_prompt and first not in ("system", "developer"):
        messages.insert(0, {"role": "system", "content": settings.system_prompt})
    return messages


def raw_text(request: GenerationRequest) -> str | Drop:
    """Return the one message's text, or why `--raw` cannot take the prompt."""
    if len(request.messages) != 1:
        return Drop("not_raw", f"--raw takes one message, not {len(request.messages)}")
    return request.messages[0]["content"]


def numbered(request: GenerationRequest, sampled: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Return a prompt's candidates with their numbers and seeds; a greedy one stands for all."""
    if len(sampled) == 1:
        sampled = [*sampled] * request.num_candidates
    return tuple(
        replace(one, candidate=index, seed=request.seed + index)
        for index, one in enumerate(sampled)
    )


@dataclass(frozen=True, slots=True)
class PromptEncoder:
    """Prompts as token ids, for engines in this process."""

    settings: GenerateSettings
    chat: ChatTemplate
    context_tokens: int
    """Most tokens of a prompt and its response together."""
    vocab_size: int
    """Tokens that the model has a row for."""

    def check(self, model_path: str) -> None:
        """Refuse a model whose tokenizer or template cannot be used.

        Raises:
            ModelError: the tokenizer knows no words, or there is no usable template.
        """
        check_vocabulary(self.chat.tokenizer, "generator", model_path)
        if not self.settings.raw:
            self.chat.check(model_path, otherwise=", or --raw for a base model")

    def encode(self, request: GenerationRequest) -> list[int] | Drop:
        """Return the prompt's token ids, or why it cannot be sampled from."""
        tokens = prompt_tokens(
            self.chat,
            request.messages,
            system_prompt=self.settings.system_prompt,
            raw=self.settings.raw,
        )
        return tokens if isinstance(tokens, Drop) else self._checked(tokens)

    def _checked(self, tokens: list[int]) -> list[int] | Drop:
        """Return the tokens, or why an engine cannot take them: it would fail all prompts."""
        if not tokens:
            return Drop("empty_prompt", "no tokens after templating")
        if len(tokens) >= self.context_tokens:
            return Drop(
                "prompt_too_long",
                f"{len(tokens)} tokens leave no room in a context of {self.context_tokens}",
            )
        if max(tokens) >= self.vocab_size:
            return Drop(
                "unknown_token",
                f"token {max(tokens)} is not in the model's vocabulary of {self.vocab_size}",
            )
        return tokens
