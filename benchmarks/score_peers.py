"""The model of bench_score.py, and who runs it in its process: bon and plain transformers code."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

__all__ = ["Contender", "Ours", "Plain", "Run", "build_model", "small_sizes"]

SMALL = {"vocab_size": 4096, "head_dim": 64, "max_position_embeddings": 16384}
SHAPE_8B = {
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
}
"""Qwen3-8B's own sizes."""
SCORE_SPREAD = 1.8
"""Weights are drawn so that scores spread over a few units, as those of real reward models do."""


class Run(NamedTuple):
    """What a contender did with a list of conversations: seconds, and scores in their order."""

    seconds: float
    scores: list[float]


class Contender(Protocol):
    """Scores lists of token ids."""

    def run(self, conversations: Sequence[tuple[int, ...]]) -> Run:
        """Score conversations and take the time."""
        ...


def build_model(sizes: dict[str, int], dtype: str, device: str, seed: int = 0) -> Any:
    """Make a Qwen3 reward model of random weights, right on its device."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    config = AutoConfig.for_model(
        "qwen3", num_labels=1, pad_token_id=0, bos_token_id=None, eos_token_id=None,
        initializer_range=SCORE_SPREAD / sizes["hidden_size"] ** 0.5, **sizes,
    )  # fmt: skip
    torch.manual_seed(seed)
    with torch.device(device):
        model = AutoModelForSequenceClassification.from_config(
            config, dtype=getattr(torch, dtype), attn_implementation="sdpa"
        )
    return model.eval()


def small_sizes(hidden: int, layers: int) -> dict[str, int]:
    """Return the sizes of a small model of Qwen3's proportions: heads of 64, two to a key head."""
    heads = max(2, hidden // 64)
    return SMALL | {
        "hidden_size": hidden,
        "intermediate_size": 3 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads // 2,
    }


@dataclass
class Plain:
    """Right-padded batches in plain transformers code: mask, and the model's own pooling."""

    model: Any
    device: str
    batch_size: int
    by_length: bool = False

    def run(self, conversations: Sequence[tuple[int, ...]]) -> Run:
        """Score them in batches, in order of arrival or the longest first."""
        import torch

        started = time.perf_counter()
        order = list(range(len(conversations)))
        if self.by_length:
            order.sort(key=lambda number: -len(conversations[number]))
        starts = range(0, len(order), self.batch_size)
        batches = [order[start : start + self.batch_size] for start in starts]
        with torch.inference_mode():
            found = [self._batch([conversations[n] for n in batch]) for batch in batches]
            values = torch.cat(found).float().tolist()
        scores = dict(zip(order, values, strict=True))
        seconds = time.perf_counter() - started
        return Run(seconds, [scores[number] for number in range(len(order))])

    def _batch(self, rows: list[tuple[int, ...]]) -> Any:
        import torch

        width = max(map(len, rows))
        padded = [[*row, *[0] * (width - len(row))] for row in rows]
        masks = [[1] * len(row) + [0] * (width - len(row)) for row in rows]
        return self.model(
            input_ids=torch.tensor(padded, device=self.device),
            attention_mask=torch.tensor(masks, device=self.device),
            use_cache=False,
        ).logits[:, 0]


@dataclass
class Ours:
    """bon's runner, packing included, on the same module as the plain code."""

    model: Any
    device: str
    num_tokens_computed: int = field(default=0, init=False)
    """In the last run."""

    def __post_init__(self) -> None:
        from bon.scorers.families.base import RewardModel
        from bon.scorers.running import ForwardRunner

        head = copy.deepcopy(self.model.score).float()  # as bon's family of these models has it
        reward_model = RewardModel(
            module=self.model,
            body=self.model.model,
            rewards=lambda hidden_RD, counts: head(hidden_RD.float())[:, 0],
            tokenizer=None,
            max_length=self.model.config.max_position_embeddings,
        )
        self._runner = ForwardRunner(reward_model, self.device, None)

    def run(self, conversations: Sequence[tuple[int, ...]]) -> Run:
        """Score them in token tries."""
        import torch

        from bon.scorers.encoding import Encoded

        items = [Encoded(tokens, False, (len(tokens) - 1,)) for tokens in conversations]
        before = self._runner.num_tokens_computed
        started = time.perf_counter()
        with torch.inference_mode():
            scores = self._runner.rewards(items)
        seconds = time.perf_counter() - started
        self.num_tokens_computed = self._runner.num_tokens_computed - before
        return Run(seconds, scores)
