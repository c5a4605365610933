"""From a conversation to the token ids that a reward model reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from bon.errors import ModelError
from bon.records import CandidateGroup, Drop, Message

__all__ = ["ConversationEncoder", "Encoded"]


@dataclass(frozen=True, slots=True)
class Encoded:
    """One conversation as token ids, after truncation."""

    tokens: tuple[int, ...]
    truncated: bool


@dataclass(frozen=True, slots=True)
class ConversationEncoder:
    """Applies the reward model's own chat template and hands over ids, never text.

    Text that is templated first and tokenized later would get a second BOS from tokenizers that
    add one.
    """

    tokenizer: Any
    template: str | None
    """Jinja source in place of the tokenizer's own template."""
    max_length: int
    truncation_side: Literal["left", "right"]

    def check(self, model_path: str) -> None:
        """Refuse a model that cannot template a conversation.

        Raises:
            ModelError: it has no chat template and none was given, or it is not valid Jinja.
        """
        template = self.template if self.template is not None else self.tokenizer.chat_template
        if not template:
            raise ModelError(
                "the reward model has no chat template",
                where=model_path,
                why="its tokenizer defines none, so a conversation cannot be turned into tokens",
                next_step="give --reward-template FILE with the one it was trained with",
            )
        self._check_syntax(model_path)

    def _check_syntax(self, model_path: str) -> None:
        from jinja2 import TemplateSyntaxError

        try:
            self._apply(({"role": "user", "content": "?"},), "!")
        except TemplateSyntaxError as error:
            raise ModelError(
                "the reward model's chat template is not valid Jinja",
                where=model_path,
                why=f"line {error.lineno}: {error.message}",
                next_step="correct the file given with --reward-template, or the model's own",
            ) from error
        except Exception:
            return  # it may take other conversations; those that it does not are drops

    def encode(self, group: CandidateGroup) -> list[Encoded | Drop]:
        """Encode a group's conversations, one for each response."""
        return [self._encode(group.messages, response) for response in group.responses]

    def _encode(self, messages: tuple[Message, ...], response: str) -> Encoded | Drop:
        try:
            tokens = self._apply(messages, response)
        except Exception as error:
            # Jinja's own errors and those that a template raises; the conversation is at fault
            return Drop("template_error", str(error).splitlines()[0] if str(error) else "?")
        if not tokens:
            return Drop("template_error", "the template gives no tokens")
        if len(tokens) <= self.max_length:
            return Encoded(tuple(tokens), False)
        left = self.truncation_side == "left"
        kept = tokens[-self.max_length :] if left else tokens[: self.max_length]
        return Encoded(tuple(kept), True)

    def _apply(self, messages: tuple[Message, ...], response: str) -> list[int]:
        tokens: list[int] = self.tokenizer.apply_chat_template(
            [*messages, {"role": "assistant", "content": response}],
            chat_template=self.template,
            tokenize=True,
            return_dict=False,
        )
        return tokens
