"""The scorer whose score is a response's log-probability under a reference model."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bon.chat import ChatTemplate
from bon.config import ScorerSettings
from bon.errors import SettingsError
from bon.records import CandidateGroup, Scores
from bon.scorers.conversations import score_conversations
from bon.scorers.families.base import RewardModel
from bon.scorers.logprob.encoding import ResponseEncoder, end_token
from bon.scorers.logprob.model import OWNER, load_reference, refuse_other_head
from bon.scorers.logprob.vocabulary import refuse_other_vocabulary
from bon.scorers.reward_model import find_device
from bon.scorers.running import ForwardRunner

__all__ = ["PREFIX", "LogprobScorer"]

PREFIX = "logprob:"
"""What the spec of such a scorer begins with."""
_FLAG = "logprob:MODEL?template="


@dataclass
class LogprobScorer:
    """`Scorer` of log p(response | prompt), summed over the response's tokens, in nats."""

    settings: ScorerSettings
    model_path: str
    """Folder of the model."""
    template: str | None = None
    """Jinja source in place of the model's own template."""
    alone: bool = False
    """One response at a time by a plain forward pass: the reference that others are held to."""

    @property
    def num_tokens_computed(self) -> int:
        """Tokens that forward passes computed since the scorer was entered, padding included."""
        return self._runner.num_tokens_computed

    @property
    def halved_batch_tokens(self) -> int | None:
        """Most tokens of a batch since memory ran out; none where it has not."""
        return self._runner.halved_tokens

    def __enter__(self) -> LogprobScorer:
        device = self._device = find_device(self.settings.device)
        self._model = load_reference(self.model_path, self.settings)
        self._model.module.to(device).eval()
        refuse_other_head(self._model, self.model_path)
        self._runner = ForwardRunner(self._model, device, self.settings.batch_tokens, self.alone)
        chat = ChatTemplate(self._model.tokenizer, self.template, OWNER, _FLAG)
        self._encoder = _encoder(self._model, chat)
        self._has_checked_template = self._has_checked_vocabulary = False
        return self

    def __exit__(self, *_: object) -> None:
        import torch

        del self._model, self._runner, self._encoder
        gc.collect()
        if self._device == "cuda":
            torch.cuda.empty_cache()

    def score(self, groups: Sequence[CandidateGroup]) -> list[Scores]:
        """Score every response of every group; a failed one is none, with its reason.

        Raises:
            ModelError: the model's vocabulary or its template cannot be used for these groups.
        """
        import torch

        self._check(groups)
        with torch.inference_mode():
            return score_conversations(self._encoder, groups, self._runner.rewards)

    def check_sampling(self, generation: Mapping[str, Any]) -> None:
        """Refuse candidates that were sampled with a template which this scorer was not given.

        `generation` is a pool's settings; nothing is loaded.

        Raises:
            SettingsError: they were.
        """
        if generation.get("chat_template") and self.template is None:
            said = f"-r {self.settings.name}={self.settings.spec}"
            raise SettingsError(
                "the candidates are sampled with a --chat-template of their own",
                where=said,
                why="under another template, log-probabilities are those of another prompt",
                next_step=f"give the reference the same: {said}?template=FILE",
            )

    def _check(self, groups: Sequence[CandidateGroup]) -> None:
        """Check once what only groups tell."""
        if not self._has_checked_template and any(not one.generation.get("raw") for one in groups):
            self._encoder.chat.check(self.model_path)
            self._has_checked_template = True
        if not self._has_checked_vocabulary:
            self._has_checked_vocabulary = refuse_other_vocabulary(
                self._model.tokenizer, groups, self.model_path
            )


def _encoder(model: RewardModel, chat: ChatTemplate) -> ResponseEncoder:
    own: int | None = model.tokenizer.eos_token_id
    said = getattr(model.module.generation_config, "eos_token_id", None)
    ends = {own, *(said if isinstance(said, list) else [said])} - {None}
    head = model.module.get_output_embeddings().weight
    body = model.body.get_input_embeddings().weight
    return ResponseEncoder(
        chat,
        end_token(chat, [one for one in ends if one is not None]),
        own,
        model.max_length,
        min(head.shape[0], body.shape[0]),
    )
