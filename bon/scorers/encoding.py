"""From a group of candidates to the token ids that a reward model reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from bon.chat import ChatTemplate
from bon.errors import first_line
from bon.records import CandidateGroup, Drop, Message

__all__ = [
    "ENCODER_VERSION",
    "ConversationEncoder",
    "Encoded",
    "Form",
    "SteppedForm",
    "WholeConversation",
]

ENCODER_VERSION = 2
"""Goes up when what is cut, or where a cut conversation is read, changes. The first lost BOS and
`[CLS]` with what was cut on the left, and `[SEP]` on the right."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """One conversation as token ids, after truncation."""

    tokens: tuple[int, ...]
    truncated: bool
    reads: tuple[int, ...]
    """Positions whose hidden states the model's head reads, ascending; at least one."""
    targets: tuple[int, ...] = ()
    """Of log-probabilities: the token that follows each position read. The last is not among
    `tokens`, since nothing reads what the model makes of it."""

    @property
    def num_tokens(self) -> int:
        """Tokens of the whole conversation, after truncation."""
        return len(self.tokens) + bool(self.targets)


class Form(Protocol):
    """How a family of reward models wants a conversation, and where its head reads it."""

    @property
    def suffix(self) -> tuple[int, ...]:
        """Tokens that must come last, after truncation too; often none."""
        ...

    def tokens(self, chat: ChatTemplate, messages: Sequence[Message], response: str) -> list[int]:
        """Return the conversation's token ids; raises whatever the template raises."""
        ...

    def reads(
        self, kept: Sequence[int], whole: Sequence[int], gap: range
    ) -> tuple[int, ...] | Drop:
        """Return the positions in what is `kept` that the head reads, or why there are none.

        `whole` is the conversation as `tokens` gave it, of which `gap` was cut out.
        """
        ...


@runtime_checkable
class SteppedForm(Protocol):
    """A form whose head reads places that only whoever puts the conversation together knows."""

    def stepped_tokens(
        self, chat: ChatTemplate, messages: Sequence[Message], response: str
    ) -> tuple[list[int], list[int]] | Drop:
        """Return the token ids and the positions of the steps' ends, ascending, or why there are
        none; raises whatever the template raises."""
        ...


@dataclass(frozen=True, slots=True)
class WholeConversation:
    """The templated conversation; the head reads its last token."""

    suffix: tuple[int, ...] = ()

    def tokens(self, chat: ChatTemplate, messages: Sequence[Message], response: str) -> list[int]:
        """Template the messages with the response as the assistant's turn."""
        return chat.tokens([*messages, {"role": "assistant", "content": response}])

    def reads(
        self, kept: Sequence[int], whole: Sequence[int], gap: range
    ) -> tuple[int, ...] | Drop:
        """Return the last position."""
        return (len(kept) - 1,)


@dataclass(frozen=True, slots=True)
class ConversationEncoder:
    """Applies the reward model's own chat template and cuts what is too long."""

    chat: ChatTemplate
    max_length: int
    truncation_side: Literal["left", "right"]
    vocab_size: int
    """Rows of the model's embedding; a token beyond them would end the run."""
    form: Form | SteppedForm = WholeConversation()

    def encode(self, group: CandidateGroup) -> list[Encoded | Drop]:
        """Encode a group's conversations, one for each response."""
        return [self._encode(group.messages, response) for response in group.responses]

    def _encode(self, messages: tuple[Message, ...], response: str) -> Encoded | Drop:
        try:
            found = self._tokens(messages, response)
        except Exception as error:
            # Jinja's own errors and those that a template raises; the conversation is at fault
            return Drop("template_error", first_line(error))
        if isinstance(found, Drop):
            return found
        tokens, ends = found
        if not tokens:
            return Drop("template_error", "the template gives no tokens")
        if max(tokens) >= self.vocab_size:
            return Drop(
                "unknown_token",
                f"token {max(tokens)} is not in the model's vocabulary of {self.vocab_size}",
            )
        kept, gap = self._cut(tokens)
        reads = self._reads(kept, tokens, ends, gap)
        return reads if isinstance(reads, Drop) else Encoded(tuple(kept), len(gap) > 0, reads)

    def _tokens(
        self, messages: tuple[Message, ...], response: str
    ) -> tuple[list[int], list[int]] | Drop:
        if isinstance(self.form, SteppedForm):
            return self.form.stepped_tokens(self.chat, messages, response)
        return self.form.tokens(self.chat, messages, response), []

    def _reads(
        self, kept: Sequence[int], whole: Sequence[int], ends: Sequence[int], gap: range
    ) -> tuple[int, ...] | Drop:
        """Return the positions read in what was kept of a conversation."""
        if not isinstance(self.form, SteppedForm):
            return self.form.reads(kept, whole, gap)
        reads = tuple(end if end < gap.start else end - len(gap) for end in ends if end not in gap)
        return reads or Drop("no_steps", "no step's end is left of the conversation that was cut")

    def _cut(self, tokens: list[int]) -> tuple[list[int], range]:
        """Cut to the limit, the suffix included, which stands at the end once.

        Returns what is kept and the places that are left out.
        """
        suffix = [] if isinstance(self.form, SteppedForm) else list(self.form.suffix)
        if suffix and tokens[-len(suffix) :] == suffix:
            tokens = tokens[: -len(suffix)]
        gap = self._gap(tokens, max(self.max_length - len(suffix), 0))
        return tokens[: gap.start] + tokens[gap.stop :] + suffix, gap

    def _gap(self, tokens: Sequence[int], room: int) -> range:
        """Return the places to leave out. As where a tokenizer cuts by itself, BOS or `[CLS]` stay
        in front, which encoders are read at, and `[SEP]` at the end."""
        excess = len(tokens) - room
        if excess <= 0:
            return range(0)
        own = self.chat.tokenizer
        if self.truncation_side == "left":
            stays = room > 1 and tokens[0] in (own.bos_token_id, own.cls_token_id)
            return range(int(stays), int(stays) + excess)
        stays = room > 1 and tokens[-1] == own.sep_token_id
        return range(room - stays, len(tokens) - stays)
