"""Qwen2.5-Math-PRM (arXiv:2501.07301): a Qwen2 body, and a head read at a token after each step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bon.chat import ChatTemplate
from bon.config import ScorerSettings
from bon.errors import ModelError
from bon.records import Drop, Message
from bon.scorers.families.base import Family, RewardModel, VllmUse
from bon.scorers.families.loading import load_tokenizer
from bon.scorers.families.qwen2 import load_qwen2
from bon.scorers.families.steps import rewards_of_steps, separator_of, split_steps

__all__ = ["FAMILY", "MarkedSteps"]

STEP_TOKEN = "<extra_0>"
"""What the model's card puts after each step."""
DEFAULT_SEPARATOR = "\n\n"


@dataclass(frozen=True, slots=True)
class MarkedSteps:
    """The templated conversation whose response has the step token after each step."""

    separator: str
    token: str
    token_id: int

    def stepped_tokens(
        self, chat: ChatTemplate, messages: Sequence[Message], response: str
    ) -> tuple[list[int], list[int]] | Drop:
        """Template the messages with the marked response; the head reads the tokens put there."""
        steps = split_steps(response, self.separator)
        if not steps:
            return Drop("no_steps", "the response is empty")
        marked = "".join(step + self.token for step in steps)
        tokens = chat.tokens([*messages, {"role": "assistant", "content": marked}])
        places = [place for place, token in enumerate(tokens) if token == self.token_id]
        typed = sum(message["content"].count(self.token) for message in messages)
        written = typed + marked.count(self.token)
        if len(places) != written:
            return Drop(
                "template_error",
                f"the template gives {len(places)} step tokens where {written} were written",
            )
        return tokens, self._own(places[typed:], steps)

    def _own(self, places: Sequence[int], steps: Sequence[str]) -> list[int]:
        """Return, of the step tokens in the response, those that its author did not type."""
        own, index = [], -1
        for step in steps:
            index += step.count(self.token) + 1
            own.append(places[index])
        return own


def _form(config: dict[str, Any], tokenizer: Any, settings: ScorerSettings) -> MarkedSteps:
    separator = separator_of(settings, DEFAULT_SEPARATOR)
    return MarkedSteps(separator, STEP_TOKEN, tokenizer.convert_tokens_to_ids(STEP_TOKEN))


def _load(path: str, settings: ScorerSettings) -> RewardModel:
    tokenizer = load_tokenizer(path)
    _refuse_without_step_token(tokenizer, path)

    def rewards(logits_R2: Any, counts: Sequence[int]) -> Any:
        return rewards_of_steps(logits_R2, counts, settings.step_aggregate)

    return load_qwen2(path, settings, tokenizer, 2, rewards)


def _refuse_without_step_token(tokenizer: Any, path: str) -> None:
    if len(tokenizer.encode(STEP_TOKEN, add_special_tokens=False)) != 1:
        raise ModelError(
            f"the tokenizer has no token {STEP_TOKEN}",
            where=path,
            why="the model's rewards are read at it, one after each step",
            next_step="copy the tokenizer's files from the model's own repository",
        )


FAMILY = Family(
    name="process reward model (Qwen2.5-Math-PRM)",
    architectures=("Qwen2ForProcessRewardModel",),
    load=_load,
    form=_form,
    vllm=VllmUse("token_classify", per_step=True),
    step_separator=DEFAULT_SEPARATOR,
)
