"""From a group's responses to the tokens whose log-probabilities are added up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bon.chat import ChatTemplate, prompt_tokens
from bon.records import Candidate, CandidateGroup, Drop
from bon.scorers.encoding import Encoded

__all__ = ["ENCODER_VERSION", "ResponseEncoder", "end_token"]

ENCODER_VERSION = 1
"""Goes up when other tokens are read: what another version scored is not resumed."""


@dataclass(frozen=True, slots=True)
class ResponseEncoder:
    """Puts a response's own tokens behind the prompt as the generator was given it."""

    chat: ChatTemplate
    """The reference's own tokenizer and template."""
    end: int | None
    """The token that ends a response, where the sampled tokens are not known."""
    raw_end: int | None
    """Likewise, of prompts without a template."""
    max_length: int
    """Longest prompt and response together, in tokens."""
    vocab_size: int
    """Tokens that the model has a row for."""

    def encode(self, group: CandidateGroup) -> list[Encoded | Drop]:
        """Encode a group's responses, each with the positions that its tokens are read at."""
        said = group.generation
        prompt = prompt_tokens(
            self.chat,
            group.messages,
            system_prompt=said.get("system_prompt"),
            raw=bool(said.get("raw")),
        )
        if not prompt:
            prompt = Drop("empty_prompt", "no tokens after templating")
        if isinstance(prompt, Drop):
            return [prompt] * len(group.responses)
        candidates = group.candidates or tuple(map(_given, group.responses))
        return [self._encode(prompt, one, said) for one in candidates]

    def _encode(
        self, prompt: list[int], candidate: Candidate, said: Mapping[str, Any]
    ) -> Encoded | Drop:
        response = candidate.token_ids
        if response is None:
            found = self._tokens(candidate, said)
            if isinstance(found, Drop):
                return found
            response = found
        if not response:
            return Drop("no_tokens", "the response is empty, and no end token was sampled")
        num_tokens = len(prompt) + len(response)
        if num_tokens > self.max_length:
            detail = f"{num_tokens} tokens do not fit into a context of {self.max_length}"
            return Drop("too_long", detail)
        highest = max(*prompt, *response)
        if highest >= self.vocab_size:
            return Drop(
                "unknown_token",
                f"token {highest} is not in the model's vocabulary of {self.vocab_size}",
            )
        first = len(prompt) - 1
        return Encoded(
            (*prompt, *response[:-1]), False, tuple(range(first, first + len(response))), response
        )

    def _tokens(self, candidate: Candidate, said: Mapping[str, Any]) -> tuple[int, ...] | Drop:
        """Tokenise a response whose sampled tokens nobody knows; its text may stand for others."""
        ids = self.chat.tokenizer.encode(candidate.response, add_special_tokens=False)
        end = self.raw_end if said.get("raw") else self.end
        if candidate.finish_reason == "stop":
            if said.get("stop"):
                why = "nobody knows whether an end token or --stop ended it"
                return Drop("other_tokens", f"the sampled tokens are not known: {why}")
            ids = [*ids, *([] if end is None else [end])]
        if candidate.num_tokens not in (None, len(ids)):
            return Drop(
                "other_tokens",
                f"its text is {len(ids)} tokens, but {candidate.num_tokens} were sampled",
            )
        return tuple(ids)


def end_token(chat: ChatTemplate, ends: Sequence[int]) -> int | None:
    """Return which of the tokens that end a response the template puts behind one.

    Where it puts none there, the tokenizer's own end of a text.
    """
    own: int | None = chat.tokenizer.eos_token_id
    try:
        tokens = chat.tokens(
            [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]
        )
    except Exception:  # it may take other conversations
        return own
    return next((token for token in reversed(tokens) if token in ends), own)


def _given(response: str) -> Candidate:
    """Return a response of which nothing else is known."""
    return Candidate(0, response, None, None, None, None)
