"""Conversations as token ids, through a model's own chat template: never as text in between.

Text that is templated first and tokenized later gets a second BOS from tokenizers that add one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bon.errors import ModelError, first_line
from bon.records import Drop, Message

__all__ = ["ChatTemplate", "check_vocabulary", "prompt_tokens"]


def check_vocabulary(tokenizer: Any, owner: str, model_path: str) -> None:
    """Refuse the empty tokenizer that transformers makes up where its files are missing.

    Raises:
        ModelError: it knows no words.
    """
    if not set(tokenizer.encode("hello 1", add_special_tokens=False)) - {tokenizer.unk_token_id}:
        raise ModelError(
            f"the {owner}'s tokenizer knows no words",
            where=model_path,
            why="its vocabulary file is missing or empty",
            next_step="give a folder that holds the model's tokenizer as well as its weights",
        )


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """A tokenizer of transformers with the template that it applies."""

    tokenizer: Any
    override: str | None
    """Jinja source in place of the tokenizer's own template."""
    owner: str
    """Whose it is, for messages: `generator` or `reward model`."""
    flag: str
    """The flag that gives the override."""

    def tokens(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = False,
        variables: Mapping[str, Any] | None = None,
    ) -> list[int]:
        """Return the conversation's token ids; raises whatever the template raises.

        `variables` are further ones that the template may read, such as `enable_thinking`.
        """
        result: list[int] = self.tokenizer.apply_chat_template(
            list(messages),
            chat_template=self.override,
            add_generation_prompt=add_generation_prompt,
            tokenize=True,
            return_dict=False,
            **(variables or {}),
        )
        return result

    def check(self, model_path: str, otherwise: str = "") -> None:
        """Refuse a model that can template no conversation; `otherwise` is a further way out.

        Raises:
            ModelError: there is no template, or it is not valid Jinja.
        """
        own = getattr(self.tokenizer, "chat_template", None)
        if not (own if self.override is None else self.override):
            raise ModelError(
                f"the {self.owner} has no chat template",
                where=model_path,
                why="its tokenizer defines none, so messages cannot be turned into tokens",
                next_step=f"give {self.flag} FILE with the one it was trained with{otherwise}",
            )
        self._check_syntax(model_path)

    def _check_syntax(self, model_path: str) -> None:
        from jinja2 import TemplateSyntaxError

        try:
            self.tokens([{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}])
        except TemplateSyntaxError as error:
            raise ModelError(
                f"the {self.owner}'s chat template is not valid Jinja",
                where=model_path,
                why=f"line {error.lineno}: {error.message}",
                next_step=f"correct the file given with {self.flag}, or the model's own",
            ) from error
        except Exception:
            return  # it may take other conversations; those that it does not are drops


def prompt_tokens(
    chat: ChatTemplate,
    messages: Sequence[Message],
    *,
    system_prompt: str | None = None,
    raw: bool = False,
) -> list[int] | Drop:
    """Return the token ids that a response to these messages follows, or why there are none.

    `system_prompt` goes before messages that have none of their own; `raw` takes one message's text
    as it is, without a template.
    """
    if raw:
        if len(messages) != 1:
            return Drop("not_raw", f"--raw takes one message, not {len(messages)}")
        return list(chat.tokenizer.encode(messages[0]["content"]))
    first = messages[0]["role"] if messages else ""
    system: list[Message] = []
    if system_prompt and first not in ("system", "developer"):
        system = [{"role": "system", "content": system_prompt}]
    try:
        return chat.tokens([*system, *messages], add_generation_prompt=True)
    except Exception as error:
        # Jinja's own errors and those that a template raises; the row is at fault
        return Drop("template_error", first_line(error))
