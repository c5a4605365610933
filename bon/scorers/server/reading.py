"""How a served model's conversations are read: from its tokenizer's folder, without weights."""

from __future__ import annotations

from typing import Any

from bon.config import ScorerSettings
from bon.errors import ModelError
from bon.scorers.conversations import conversation_encoder
from bon.scorers.encoding import ConversationEncoder
from bon.scorers.families import FAMILIES, Family, find_family
from bon.scorers.families.loading import UNLIMITED, load_config, longest_conversation

__all__ = ["family_of", "served_encoder"]


def family_of(config: dict[str, Any], path: str) -> Family:
    """Return the family of a served model; of one that bon could not load itself, the usual one.

    Raises:
        ModelError: it is of a family that it cannot be of.
    """
    names = config.get("architectures")
    known = isinstance(names, list) and any(
        family.has(str(name)) for name in names[:1] for family in FAMILIES
    )
    return find_family(config, path) if known else FAMILIES[0]


def served_encoder(
    path: str,
    family: Family,
    config: dict[str, Any],
    settings: ScorerSettings,
    template: str | None,
    max_length: int | None,
) -> ConversationEncoder:
    """Return what turns conversations into the token ids that the local scorer would give.

    `config` is the model's config.json, empty where the folder `path` has none; `max_length` the
    longest conversation that the server takes.

    Raises:
        ModelError: the tokenizer cannot be loaded, or has no chat template.
    """
    tokenizer = family.load_tokenizer(path)
    own = _longest(path, config, tokenizer)
    text = config.get("text_config")
    vocabulary = config.get("vocab_size") or (text or {}).get("vocab_size") or len(tokenizer)
    return conversation_encoder(
        tokenizer,
        min(own, max_length or own),
        int(vocabulary),
        family,
        config,
        settings,
        template,
        path,
    )


def _longest(path: str, config: dict[str, Any], tokenizer: Any) -> int:
    try:
        return longest_conversation(load_config(path), tokenizer)
    except ModelError:  # no config.json, or a type that transformers does not know
        positions = config.get("max_position_embeddings") or UNLIMITED
        return min(int(positions), int(min(tokenizer.model_max_length, UNLIMITED)))
