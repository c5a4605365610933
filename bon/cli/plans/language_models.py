"""Language models, told from others by their config.json alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bon.errors import ModelError
from bon.scorers.families import FAMILIES

__all__ = ["refuse_others", "refuse_reward_models"]

_CLASSES = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")


def refuse_others(config: Mapping[str, Any], path: str, why: str, next_step: str) -> None:
    """Refuse what loading would refuse as no language model, before anything else is done.

    Raises:
        ModelError: config.json names another kind of model, a reward model for one.
    """
    name = _architecture(config)
    if not name.endswith(_CLASSES):
        raise ModelError(
            f"{name} is not a causal language model", where=path, why=why, next_step=next_step
        )


def refuse_reward_models(config: Mapping[str, Any], path: str) -> None:
    """Refuse what scores, where a model is to sample: with tied embeddings it would seem to.

    Others are left to the engine, whose names of language models are many.

    Raises:
        ModelError: config.json names a reward model.
    """
    name = _architecture(config)
    if any(family.has(name) for family in FAMILIES):
        raise ModelError(
            f"{name} is not a causal language model",
            where=path,
            why="it is a reward model or a classifier, which samples nothing",
            next_step="give -m the generator, and -r the reward model",
        )


def _architecture(config: Mapping[str, Any]) -> str:
    names = config.get("architectures")
    return str(names[0]) if isinstance(names, list) and names else "none"
