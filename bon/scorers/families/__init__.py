"""The families of reward models that bon loads, without any code of their repositories.

To add one: a file here with a `Family`, its line in `FAMILIES`, a parity test in
`tests/scorers/families/`, a row in docs/reward-models.md.
"""

from __future__ import annotations

from typing import Any

from bon.errors import ModelError
from bon.scorers.families import (
    armorm,
    internlm2,
    qwen2_process,
    qwen2_reward,
    sequence_classification,
    token_classification,
)
from bon.scorers.families.base import Family, RewardModel, VllmUse

__all__ = ["FAMILIES", "Family", "RewardModel", "VllmUse", "find_family"]

FAMILIES: tuple[Family, ...] = (
    sequence_classification.FAMILY,
    internlm2.FAMILY,
    qwen2_reward.FAMILY,
    qwen2_process.FAMILY,
    token_classification.FAMILY,
    armorm.FAMILY,
)
"""The first that has the architecture is taken."""


def find_family(config: dict[str, Any], path: str) -> Family:
    """Return the family of a model's config.json, having checked it.

    Raises:
        ModelError: no family has its architecture, or it cannot be a reward model.
    """
    names = config.get("architectures")
    architecture = str(names[0]) if isinstance(names, list) and names else "none"
    for family in FAMILIES:
        if family.has(architecture):
            family.check(config, path)
            return family
    known = ", ".join(name.replace("*", "…") for one in FAMILIES for name in one.architectures)
    raise ModelError(
        f"{architecture} is not a reward model that bon can load",
        where=path,
        why=f"known: {known} (its model type is {config.get('model_type')})",
        next_step="give -r a reward model, not the generator; to add a family, see "
        "bon/scorers/families and CONTRIBUTING.md",
    )
