"""The scorer of reward models on transformers."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bon.config import ScorerSettings
from bon.errors import ModelError
from bon.records import CandidateGroup, Scores
from bon.scorers.conversations import make_encoder, score_conversations
from bon.scorers.families.base import Family
from bon.scorers.running import ForwardRunner

__all__ = ["RewardModelScorer", "find_device"]


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

    @property
    def halved_batch_tokens(self) -> int | None:
        """Most tokens of a batch since memory ran out; none where it has not."""
        return self._runner.halved_tokens

    def __enter__(self) -> RewardModelScorer:
        device = self._device = find_device(self.settings.device)
        self._model = self.family.load(self.model_path, self.settings)
        self._model.module.to(device).eval()
        self._runner = ForwardRunner(self._model, device, self.settings.batch_tokens, self.alone)
        self._encoder = make_encoder(
            self._model, self.family, self.config, self.settings, self.template, self.model_path
        )
        return self

    def __exit__(self, *_: object) -> None:
        import torch

        del self._model, self._runner
        gc.collect()
        if self._device == "cuda":
            torch.cuda.empty_cache()

    def score(self, groups: Sequence[CandidateGroup]) -> list[Scores]:
        """Score every response of every group; a failed one is none, with its reason."""
        import torch

        with torch.inference_mode():
            return score_conversations(self._encoder, groups, self._runner.rewards)


def find_device(wanted: str) -> str:
    """Return what `auto` stands for here; a GPU that torch does not see is refused."""
    import torch

    has_gpu = torch.cuda.is_available()
    if wanted == "cuda" and not has_gpu:
        raise ModelError(
            "torch sees no GPU",
            where="--reward-device cuda",
            why="there is none, or this torch is built for another CUDA version or for CPUs",
            next_step="leave the flag out to score on the CPU, or install torch for your GPU",
        )
    return ("cuda" if has_gpu else "cpu") if wanted == "auto" else wanted
