"""Language models, told from others by their config.json alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bon.errors import ModelError

__all__ = ["refuse_others"]

_CLASSES = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")


def refuse_others(config: Mapping[str, Any], path: str, why: str, next_step: str) -> None:
    """Refuse what loading would refuse as no language model, before anything else is done.

    Raises:
        ModelError: config.json names another kind of model, a reward model for one.
    """
    architectures = config.get("architectures")
    name = str(architectures[0]) if isinstance(architectures, list) and architectures else "none"
    if not name.endswith(_CLASSES):
        raise ModelError(
            f"{name} is not a causal language model", where=path, why=why, next_step=next_step
        )
