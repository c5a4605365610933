"""Process reward models that TRL trained: `…ForTokenClassification` with two labels.

TRL's PRMTrainer (trl.experimental.prm of TRL 1.9; 1.16 has it no more) takes the prompt as plain
text behind BOS, tokenizes each step as it is and by itself, puts the separator's ids after each,
the last one too, and labels the last of these ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bon.chat import ChatTemplate
from bon.config import ScorerSettings
from bon.errors import ModelError
from bon.records import Drop, Message
from bon.scorers.families.base import Family, RewardModel, VllmUse, refuse_label_count
from bon.scorers.families.loading import (
    load_config,
    load_pretrained,
    load_tokenizer,
    longest_conversation,
)
from bon.scorers.families.steps import rewards_of_steps, separator_of, split_steps

__all__ = ["FAMILY", "SeparatedSteps", "check", "reward_model"]

DEFAULT_SEPARATOR = "\n"
_BETWEEN_MESSAGES = "\n\n"
"""TRL's data has one text before the steps and no rule for several messages; nor has it roles."""
_DECODERS = frozenset(
    {"gemma", "gemma2", "glm4", "gpt_oss", "llama", "mistral", "mixtral", "nemotron", "phi", "phi3"}
    | {"qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "smollm3", "stablelm", "starcoder2"}
)
"""Those that the parity test runs; an encoder would see steps that come later."""
_VLLM_DECODERS = frozenset({"llama", "qwen2", "qwen3"})
"""Those whose rewards were measured to be the same in vLLM."""


@dataclass(frozen=True, slots=True)
class SeparatedSteps:
    """The prompt's text, then each step and the separator, tokenized one by one.

    A template given in place of the tokenizer's own (which is the base model's) is for the prompt.
    """

    separator: str
    separator_ids: tuple[int, ...]

    def stepped_tokens(
        self, chat: ChatTemplate, messages: Sequence[Message], response: str
    ) -> tuple[list[int], list[int]] | Drop:
        """Join the ids; the head reads the last one of each separator."""
        steps = split_steps(response, self.separator, strip=False)
        if not steps:
            return Drop("no_steps", "the response is empty")
        tokens = self._prompt(chat, messages)
        ends = []
        for step in steps:
            tokens += chat.tokenizer.encode(step, add_special_tokens=False)
            tokens += self.separator_ids
            ends.append(len(tokens) - 1)
        return tokens, ends

    def _prompt(self, chat: ChatTemplate, messages: Sequence[Message]) -> list[int]:
        if chat.override is not None:
            return list(chat.tokens(messages, add_generation_prompt=True))
        text = _BETWEEN_MESSAGES.join(message["content"] for message in messages)
        bos = chat.tokenizer.bos_token_id
        ids: list[int] = chat.tokenizer.encode(text, add_special_tokens=False)
        return ids if bos is None else [bos, *ids]


def check(config: dict[str, Any], path: str) -> None:
    """Refuse another number of labels, and what is no decoder known to be read right.

    Raises:
        ModelError: it cannot be a process reward model.
    """
    why = "a process reward model tells right steps (label 1) from wrong ones (label 0)"
    refuse_label_count(config, path, 2, why)
    if config.get("model_type") not in _DECODERS:
        raise ModelError(
            "not a process reward model that bon can load",
            where=path,
            why=f"its type is {config.get('model_type')}; known: " + ", ".join(sorted(_DECODERS)),
            next_step="give -r a decoder of these; to add one, see bon/scorers/families",
        )


def reward_model(model: Any, tokenizer: Any, path: str, settings: ScorerSettings) -> RewardModel:
    """Return how a loaded token classifier is read; `path` is for messages."""
    model.score.float()  # in bfloat16 it would round close scores to ties

    def rewards(hidden_RD: Any, counts: Sequence[int]) -> Any:
        logits_R2 = model.score(hidden_RD.float())
        return rewards_of_steps(logits_R2, counts, settings.step_aggregate)

    longest = longest_conversation(model.config, tokenizer)
    return RewardModel(model, model.base_model, rewards, tokenizer, longest)


def _form(config: dict[str, Any], tokenizer: Any, settings: ScorerSettings) -> SeparatedSteps:
    separator = separator_of(settings, DEFAULT_SEPARATOR)
    ids = tuple(tokenizer.encode(separator, add_special_tokens=False))
    if not ids:
        raise ModelError(
            f"the reward model's tokenizer has no tokens for the step separator {separator!r}",
            where=settings.spec,
            why="the rewards of steps are read there",
            next_step="give the one it was trained with: --step-separator TEXT",
        )
    return SeparatedSteps(separator, ids)


def _load(path: str, settings: ScorerSettings) -> RewardModel:
    from transformers import AutoModelForTokenClassification

    config = load_config(path)
    _refuse_foreign(config, path)
    tokenizer = load_tokenizer(path)
    model = load_pretrained(AutoModelForTokenClassification, path, config, settings.dtype)
    return reward_model(model, tokenizer, path, settings)


def _refuse_foreign(config: Any, path: str) -> None:
    """Refuse a class of a repository's own, which transformers would load as its own one."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES as CLASSES,
    )

    name = config.architectures[0]
    if name != CLASSES.get(config.model_type):
        raise ModelError(
            f"{name} is not a reward model that bon can load",
            where=path,
            why=f"transformers calls it {CLASSES.get(config.model_type)} (type "
            f"{config.model_type})",
            next_step="give -r a model whose class is transformers' own",
        )


FAMILY = Family(
    name="process reward model (token classification)",
    architectures=("*ForTokenClassification",),
    load=_load,
    check=check,
    form=_form,
    vllm=VllmUse("token_classify", decoder_types=_VLLM_DECODERS, per_step=True),
    step_separator=DEFAULT_SEPARATOR,
    reads_plain_text=True,
    version=2,  # the first one put the base model's chat template around the prompt
)
