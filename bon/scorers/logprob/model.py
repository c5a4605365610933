"""A causal language model of transformers, read for the log-probabilities of given tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bon.config import ScorerSettings
from bon.errors import ModelError
from bon.scorers.encoding import Encoded
from bon.scorers.families.base import RewardModel
from bon.scorers.families.loading import (
    load_config,
    load_pretrained,
    load_tokenizer,
    longest_conversation,
)

__all__ = ["OWNER", "LogprobHead", "load_reference", "refuse_other_head"]

OWNER = "reference model"
"""What messages call it."""
_CHUNK_LOGITS = 1 << 25
"""Logits that are there at once, 128 MiB in float32: of a large vocabulary, some hundred tokens."""
_PROBE_TOKENS = 16
_TOLERANCE = 0.01
"""Share of the largest logit by which a probe's may differ, as rounding to bfloat16 goes."""


@dataclass(frozen=True, slots=True)
class LogprobHead:
    """Adds up log p(token | what comes before it), in nats, at temperature 1."""

    linear: Any
    """The model's own head, from D to V."""
    scale: float = 1.0
    """What logits are multiplied with (Cohere; Granite divides)."""
    cap: float | None = None
    """Logits are cap · tanh(logit / cap) (Gemma 2)."""

    def __call__(self, hidden_RD: Any, items: Sequence[Encoded]) -> Any:
        """Return the sum over each conversation's targets, `[B]`, in float64."""
        import torch

        # what measures memory has no targets
        targets = [token for item in items for token in item.targets or (0,) * len(item.reads)]
        target_R = torch.tensor(targets, device=hidden_RD.device)
        counts_B = torch.tensor([len(item.reads) for item in items], device=hidden_RD.device)
        item_R = torch.repeat_interleave(counts_B)
        sums_B = torch.zeros(len(items), dtype=torch.float64, device=hidden_RD.device)
        return sums_B.index_add_(0, item_R, self._logprobs(hidden_RD, target_R).double())

    def _logprobs(self, hidden_RD: Any, target_R: Any) -> Any:
        """Return each target's log-probability, `[R]`; logits are there for some rows at a time."""
        import torch

        num_rows = max(1, _CHUNK_LOGITS // self.linear.weight.shape[0])
        found = []
        for hidden_CD, target_C in zip(
            hidden_RD.split(num_rows), target_R.split(num_rows), strict=True
        ):
            logits_CV = self.logits(hidden_CD)
            chosen_C = logits_CV.gather(1, target_C[:, None])[:, 0]
            found.append(chosen_C - torch.logsumexp(logits_CV, 1))
        return torch.cat(found)

    def logits(self, hidden_RD: Any) -> Any:
        """Return the logits, `[R, V]`, in float32."""
        logits_RV = self.linear(hidden_RD).float()
        if self.scale != 1:
            logits_RV = logits_RV * self.scale
        if self.cap is not None:
            logits_RV = (logits_RV / self.cap).tanh_().mul_(self.cap)
        return logits_RV


def load_reference(path: str, settings: ScorerSettings) -> RewardModel:
    """Load a causal language model with its tokenizer.

    Raises:
        ModelError: files are damaged, or it is no causal language model.
    """
    from transformers import AutoModelForCausalLM

    config = load_config(path, OWNER)
    _refuse_others(config, path)
    tokenizer = load_tokenizer(path, OWNER)
    model = load_pretrained(AutoModelForCausalLM, path, config, settings.dtype, owner=OWNER)
    text = config.get_text_config()
    head = LogprobHead(
        model.get_output_embeddings(), _scale(text), getattr(text, "final_logit_softcapping", None)
    )
    longest = longest_conversation(config, tokenizer)
    return RewardModel(model, model.base_model, _unused, tokenizer, longest, rewards_of=head)


def _scale(text: Any) -> float:
    if text.model_type.startswith("granite"):
        return 1 / float(getattr(text, "logits_scaling", 1.0))
    return float(getattr(text, "logit_scale", None) or 1.0)


def _unused(hidden_RD: Any, counts: Sequence[int]) -> Any:
    raise AssertionError("this head sees the conversations")


def _refuse_others(config: Any, path: str) -> None:
    """Refuse what transformers would load with a random head, and encoders, which read ahead."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    name, kind = (config.architectures or ["none"])[0], config.model_type
    if name != MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(kind) or (
        kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    ):
        raise ModelError(
            f"{name} is not a causal language model that bon can load",
            where=path,
            why=f"log-probabilities come from …ForCausalLM of transformers (its type is {kind})",
            next_step="give the model that the generator was trained from",
        )


def refuse_other_head(model: RewardModel, path: str) -> None:
    """Refuse a loaded model whose logits are not those of its head as it is read here.

    Some tokens are run both by its own class and as responses are.

    Raises:
        ModelError: they differ.
    """
    import torch

    head = model.rewards_of
    assert isinstance(head, LogprobHead)
    device = head.linear.weight.device
    ids_1T = (torch.arange(_PROBE_TOKENS) % head.linear.weight.shape[0])[None].to(device)
    with torch.inference_mode():
        own_TV = model.module(input_ids=ids_1T, use_cache=False).logits[0].float()
        hidden_TD = model.body(input_ids=ids_1T, use_cache=False).last_hidden_state[0]
        difference = (head.logits(hidden_TD) - own_TV).abs().max()
    if difference > _TOLERANCE * own_TV.abs().max():
        raise ModelError(
            f"{type(model.module).__name__} is not a model whose log-probabilities bon can read",
            where=path,
            why=f"its logits differ from its head's by up to {float(difference):.3g}",
            next_step="give the model that the generator was trained from, if it is another",
        )
