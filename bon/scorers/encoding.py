"""From a group of candidates to the token ids that a reward model reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bon.chat import ChatTemplate
from bon.errors import first_line
from bon.records import CandidateGroup, Drop, Message

__all__ = ["ConversationEncoder", "Encoded"]


@dataclass(frozen=True, slots=True)
class Encoded:
    """One conversation as token ids, after truncation."""

    tokens: tuple[int, ...]
    truncated: bool


@dataclass(frozen=True, slots=True)
class ConversationEncoder:
    """Applies the reward model's own chat template and cuts what is too long."""

    chat: ChatTemplate
    max_length: int
    truncation_side: Literal["left", "right"]
    vocab_size: int
    """Rows of the model's embedding; a token beyond them would end the run."""

    def encode(self, group: CandidateGroup) -> list[Encoded | Drop]:
        """Encode a group's conversations, one for each response."""
        return [self._encode(group.messages, response) for response in group.responses]

    def _encode(self, messages: tuple[Message, ...], response: str) -> Encoded | Drop:
        try:
            tokens = self.chat.tokens([*messages, {"role": "assistant", "content": response}])
        except Exception as error:
            # Jinja's own errors and those that a template raises; the conversation is at fault
            return Drop("template_error", first_line(error))
        if not tokens:
            return Drop("template_error", "the template gives no tokens")
        if max(tokens) >= self.vocab_size:
            return Drop(
                "unknown_token",
                f"token {max(tokens)} is not in the model's vocabulary of {self.vocab_size}",
            )
        if len(tokens) <= self.max_length:
            return Encoded(tuple(tokens), False)
        left = self.truncation_side == "left"
        kept = tokens[-self.max_length :] if left else tokens[: self.max_length]
        return Encoded(tuple(kept), True)
