"""From groups to their scores, whatever computes them: encoding, equal ones once, assembly."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from bon.chat import ChatTemplate
from bon.config import ScorerSettings
from bon.heartbeat import beat
from bon.records import CandidateGroup, Drop, Scores
from bon.scorers.encoding import ConversationEncoder, Encoded
from bon.scorers.families.base import Family, RewardModel

__all__ = [
    "Encoder",
    "conversation_encoder",
    "make_encoder",
    "reward_scores",
    "score_conversations",
]


class Encoder(Protocol):
    """Turns a group's responses into what a model reads."""

    def encode(self, group: CandidateGroup) -> list[Encoded | Drop]:
        """Return one for each response, or why there is none."""
        ...


def make_encoder(
    model: RewardModel,
    family: Family,
    config: dict[str, Any],
    settings: ScorerSettings,
    template: str | None,
    path: str,
) -> ConversationEncoder:
    """Return what turns conversations into a loaded model's token ids.

    `config` is the model's config.json, `path` its folder.

    Raises:
        ModelError: there is no chat template where one is needed, or it is not valid.
    """
    vocab_size = model.body.get_input_embeddings().weight.shape[0]
    return conversation_encoder(
        model.tokenizer, model.max_length, vocab_size, family, config, settings, template, path
    )


def conversation_encoder(
    tokenizer: Any,
    max_length: int,
    vocab_size: int,
    family: Family,
    config: dict[str, Any],
    settings: ScorerSettings,
    template: str | None,
    path: str,
) -> ConversationEncoder:
    """Return what turns conversations into token ids, for a model that may be loaded elsewhere.

    Raises:
        ModelError: there is no chat template where one is needed, or it is not valid.
    """
    chat = ChatTemplate(tokenizer, template, "reward model", "--reward-template")
    if template is not None or not family.reads_plain_text:
        chat.check(path)
    return ConversationEncoder(
        chat,
        min(max_length, settings.max_length or max_length),
        settings.truncation_side,
        vocab_size,
        family.form(config, tokenizer, settings),
    )


def score_conversations(
    encoder: Encoder,
    groups: Sequence[CandidateGroup],
    rewards: Callable[[Sequence[Encoded]], Sequence[float | Drop]],
) -> list[Scores]:
    """Score every response of every group; a failed one is none, with its reason.

    `rewards` gives one raw reward, or why there is none, for each of the conversations that it is
    given. Equal conversations are computed once, so equal responses get equal scores to the bit.
    """
    encoded = []
    for group in groups:
        beat()
        encoded.append(encoder.encode(group))
    flat = [item for items in encoded for item in items]
    distinct = list(dict.fromkeys(item for item in flat if isinstance(item, Encoded)))
    values = dict(zip(distinct, rewards(distinct) if distinct else (), strict=True))
    return [
        reward_scores(
            group, items, [item if isinstance(item, Drop) else values[item] for item in items]
        )
        for group, items in zip(groups, encoded, strict=True)
    ]


def reward_scores(
    group: CandidateGroup, items: Sequence[Encoded | Drop], values: Sequence[float | Drop]
) -> Scores:
    """Put a group's rewards together; one that is not finite is none, with its reason."""
    reasons: dict[int, Drop] = {}
    scores: list[float | None] = []
    for index, value in enumerate(values):
        if not isinstance(value, Drop) and not math.isfinite(value):
            value = Drop("non_finite_score", f"the reward model gave {value}")
        if isinstance(value, Drop):
            reasons[index] = value
        scores.append(None if isinstance(value, Drop) else value)
    return Scores(
        group.prompt_id,
        tuple(scores),
        tuple(item.num_tokens if isinstance(item, Encoded) else 0 for item in items),
        tuple(isinstance(item, Encoded) and item.truncated for item in items),
        reasons,
    )
