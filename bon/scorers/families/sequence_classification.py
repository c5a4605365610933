"""Bradley-Terry reward models: `…ForSequenceClassification` of transformers with one label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bon.config import ScorerSettings
from bon.errors import ModelError
from bon.scorers.families.base import Family, RewardModel, VllmUse, refuse_label_count
from bon.scorers.families.loading import (
    load_config,
    load_pretrained,
    load_tokenizer,
    longest_conversation,
)

__all__ = ["FAMILY", "reward_model"]

_ENCODERS = frozenset(
    {"albert", "bert", "camembert", "deberta", "deberta-v2", "distilbert", "electra", "eurobert"}
    | {"megatron-bert", "modernbert", "nomic_bert", "rembert", "roberta", "roformer"}
    | {"xlm-roberta"}
)
"""Measured to score a padded row as they score it alone (convbert, fnet and others do not)."""
_LAST_TOKEN = frozenset(
    {"biogpt", "bloom", "falcon", "gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox", "gptj", "mpt"}
    | {"openai-gpt", "opt"}
)
"""Decoders with a forward of their own, measured to read the last token as the generic one does."""
_VLLM_DECODERS = frozenset(
    {"gemma2", "gemma3_text", "llama", "mistral", "phi3", "qwen2", "qwen3", "qwen3_moe"}
)
_VLLM_ENCODERS = frozenset({"bert", "modernbert", "roberta", "xlm-roberta"})
"""Measured with vLLM 0.32 (its gpt_neox gives other scores)."""


def _check(config: dict[str, Any], path: str) -> None:
    why = "a Bradley-Terry reward model gives one number; of several, none is the reward"
    refuse_label_count(config, path, 1, why)


def reward_model(model: Any, tokenizer: Any, path: str, settings: ScorerSettings) -> RewardModel:
    """Return how a loaded classifier is read; `path` is for messages.

    Raises:
        ModelError: it is not known where its class reads, or whether padding changes its scores.
    """
    longest = longest_conversation(model.config, tokenizer)
    if not _reads_last_token(model):  # an encoder pools by itself
        _refuse_unmeasured(model, path)

        def logits(**inputs: Any) -> Any:
            return model(**inputs).logits[:, 0]

        return RewardModel(model, model, _unused, tokenizer, longest, logits)

    model.score.float()  # in bfloat16 it would round close scores to ties

    def rewards(hidden_RD: Any, counts: Sequence[int]) -> Any:
        return model.score(hidden_RD.float())[:, 0]

    return RewardModel(model, model.base_model, rewards, tokenizer, longest)


def _load(path: str, settings: ScorerSettings) -> RewardModel:
    from transformers import AutoModelForSequenceClassification

    config = load_config(path)
    _refuse_foreign(config, path)
    tokenizer = load_tokenizer(path)
    model = load_pretrained(AutoModelForSequenceClassification, path, config, settings.dtype)
    return reward_model(model, tokenizer, path, settings)


def _reads_last_token(model: Any) -> bool:
    from transformers.modeling_layers import GenericForSequenceClassification

    is_generic = type(model).forward is GenericForSequenceClassification.forward
    return is_generic or model.config.model_type in _LAST_TOKEN


def _unused(hidden_RD: Any, counts: Sequence[int]) -> Any:
    raise AssertionError("an encoder pools by itself")


def _refuse_foreign(config: Any, path: str) -> None:
    """Refuse what transformers itself would load as something else, and encoders not measured."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as CLASSES,
    )

    name = config.architectures[0]
    if name != CLASSES.get(config.model_type, "") or config.is_encoder_decoder:
        raise ModelError(
            f"{name} is not a reward model that bon can load",
            where=path,
            why="known: …ForSequenceClassification of transformers with one label, decoder or "
            f"encoder (its type is {config.model_type})",
            next_step="give -r a reward model, not the generator",
        )


def _refuse_unmeasured(model: Any, path: str) -> None:
    if model.config.model_type not in _ENCODERS:
        raise ModelError(
            f"{type(model).__name__} is not a reward model that bon can load",
            where=path,
            why=f"scores of type {model.config.model_type} were not measured: padding may change "
            "them, or they are read elsewhere than at the last token",
            next_step="give -r a model of a type that docs/reward-models.md lists",
        )


FAMILY = Family(
    name="sequence classification",
    architectures=("*ForSequenceClassification",),
    load=_load,
    check=_check,
    vllm=VllmUse(
        "classify",
        decoder_types=_VLLM_DECODERS,
        encoder_types=_VLLM_ENCODERS,
        classes=(("gemma3_text", "Gemma3ForCausalLM"),),
    ),
)
