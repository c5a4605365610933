"""The scorer of reward models on transformers."""

from __future__ import annotations

import gc
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bon.chat import ChatTemplate
from bon.config import ScorerSettings
from bon.records import CandidateGroup, Drop, Scores
from bon.scorers.encoding import ConversationEncoder, Encoded
from bon.scorers.families.base import Family
from bon.scorers.running import ForwardRunner

__all__ = ["RewardModelScorer", "reward_scores"]


@dataclass
class RewardModelScorer:
    """`Scorer` whose scores are those of one conversation at a time."""

    settings: ScorerSettings
    model_path: str
    """Folder of the model."""
    family: Family
    config: dict[str, Any]
    """Its config.json."""
    template: str | None = None
    """Jinja source in place of the model's own template."""
    alone: bool = False
    """One conversation at a time by a plain forward pass: the reference that others are held to."""

    @property
    def num_tokens_computed(self) -> int:
        """Tokens that forward passes computed since the scorer was entered, padding included."""
        return self._runner.num_tokens_computed

    def __enter__(self) -> RewardModelScorer:
        import torch

        wanted = self.settings.device
        available = "cuda" if torch.cuda.is_available() else "cpu"
        device = self._device = available if wanted == "auto" else wanted
        self._model = self.family.load(self.model_path, self.settings)
        self._model.module.to(device).eval()
        self._runner = ForwardRunner(self._model, device, self.settings.batch_tokens, self.alone)
        self._encoder = self._make_encoder()
        return self

    def __exit__(self, *_: object) -> None:
        import torch

        del self._model, self._runner
        gc.collect()
        if self._device == "cuda":
            torch.cuda.empty_cache()

    def score(self, groups: Sequence[CandidateGroup]) -> list[Scores]:
        """Score every response of every group; a failed one is none, with its reason.

        Equal conversations are computed once, so equal responses get equal scores to the bit.
        """
        import torch

        encoded = [self._encoder.encode(group) for group in groups]
        flat = [item for items in encoded for item in items]
        distinct = list(dict.fromkeys(item for item in flat if isinstance(item, Encoded)))
        with torch.inference_mode():
            values = dict(zip(distinct, self._runner.rewards(distinct), strict=True))
        return [
            reward_scores(
                group,
                items,
                [values[item] if isinstance(item, Encoded) else None for item in items],
            )
            for group, items in zip(groups, encoded, strict=True)
        ]

    def _make_encoder(self) -> ConversationEncoder:
        model, wanted = self._model, self.settings.max_length
        chat = ChatTemplate(model.tokenizer, self.template, "reward model", "--reward-template")
        chat.check(self.model_path)
        return ConversationEncoder(
            chat,
            min(model.max_length, wanted) if wanted else model.max_length,
            self.settings.truncation_side,
            model.body.get_input_embeddings().weight.shape[0],
            self.family.form(self.config, model.tokenizer, self.settings),
        )


def reward_scores(
    group: CandidateGroup, items: Sequence[Encoded | Drop], values: Sequence[float | None]
) -> Scores:
    """Put a group's rewards together; one that is not finite is none, with its reason."""
    reasons = {index: item for index, item in enumerate(items) if isinstance(item, Drop)}
    finite = list(values)
    for index, value in enumerate(values):
        if value is not None and not math.isfinite(value):
            reasons[index] = Drop("non_finite_score", f"the reward model gave {value}")
            finite[index] = None
    return Scores(
        group.prompt_id,
        tuple(finite),
        tuple(len(item.tokens) if isinstance(item, Encoded) else 0 for item in items),
        tuple(isinstance(item, Encoded) and item.truncated for item in items),
        reasons,
    )
