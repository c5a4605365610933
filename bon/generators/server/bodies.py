"""What servers are asked: the same sampling as an engine's in this process, as each takes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bon.config import GenerateSettings
from bon.generators.prompting import conversation, raw_text
from bon.records import Drop, GenerationRequest
from bon.serving.models import ServedModel
from bon.serving.sampling import truncation

__all__ = ["Asker"]

_KEEPS_SEEDS = "vllm"
_LOGPROBS_NEED_ANOTHER = "llamacpp"
_SEEDS_ELSEWHERE = 1 << 31


@dataclass(frozen=True, slots=True)
class Asker:
    """Makes the requests for one model."""

    settings: GenerateSettings
    model: ServedModel
    with_logprobs: bool
    is_openai: bool
    """OpenAI's own server, which calls some things otherwise."""

    @property
    def path(self) -> str:
        """Where the requests go."""
        return "/v1/completions" if self.settings.raw else "/v1/chat/completions"

    def prompt(self, request: GenerationRequest) -> dict[str, Any] | Drop:
        """Return the part of a body that says the prompt, or why it cannot be sent."""
        if not self.settings.raw:
            return {"messages": conversation(request, self.settings)}
        text = raw_text(request)
        return text if isinstance(text, Drop) else {"prompt": text}

    def body(self, prompt: dict[str, Any], seed: int, num_candidates: int) -> dict[str, Any]:
        """Return what is asked for so many candidates, the first with this seed."""
        settings = self.settings
        is_vllm = self.model.owner == _KEEPS_SEEDS
        # what is not said would be as the model's generation_config.json has it
        return {
            "model": self.model.id,
            **prompt,
            "n": num_candidates,
            "seed": seed if is_vllm else seed % _SEEDS_ELSEWHERE,
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            self._limit_name: min(settings.max_tokens, self.model.max_length or 1 << 62),
            **({"stop": list(settings.stop)} if settings.stop else {}),
            **self._logprobs(),
            **truncation(self.model.owner, top_k=settings.top_k, min_p=settings.min_p),
            **({"return_token_ids": True} if is_vllm else {}),
        }

    @property
    def _limit_name(self) -> str:
        is_new = self.is_openai and not self.settings.raw
        return "max_completion_tokens" if is_new else "max_tokens"

    def _logprobs(self) -> dict[str, Any]:
        if not self.with_logprobs:
            return {}
        if self.settings.raw:
            return {"logprobs": 1}
        # llama.cpp takes 0 as none at all; of those it gives only the sampled token's is read
        num_others = 1 if self.model.owner == _LOGPROBS_NEED_ANOTHER else 0
        return {"logprobs": True, "top_logprobs": num_others}
