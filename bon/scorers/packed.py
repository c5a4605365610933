"""Forward passes over token tries: every distinct token once, nothing padded (design, section 6).

Linear layers run over a whole batch of many prompts; attention is by shared prefix, through
transformers' AttentionInterface on a CPU and as FlexAttention on a GPU. No model's code is touched.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bon.scorers.encoding import Encoded
from bon.scorers.families.base import RewardModel
from bon.scorers.flex_attention import block_masks
from bon.scorers.trie_attention import (
    AttentionPlan,
    attention_of_rows,
    plan_attention,
    trie_attention,
)
from bon.trie import TrieBatch

__all__ = ["PACKED_TYPES", "PackedForward"]

PACKED_TYPES = frozenset(
    {"gemma2", "gemma3_text", "gpt2", "gpt_neox", "llama", "mistral", "opt", "phi3", "qwen2"}
    | {"qwen3", "qwen3_moe"}
)
"""Model types whose scores were measured to be those of plain forward passes."""
_NAME = "bon_token_trie"


@dataclass
class PackedForward:
    """Runs a model over token tries; one for each loaded model."""

    model: RewardModel
    device: str

    def __post_init__(self) -> None:
        self._config = self.model.body.config
        self._last_layer = _LastLayer.of(self.model.body)
        if self.device == "cpu":
            _register()

    def rewards(self, batch: TrieBatch, items: Sequence[Encoded]) -> Any:
        """Return the rewards of a batch's conversations, `[B]`, of items in its order."""
        import torch

        sequence_R = [row for row, item in enumerate(items) for _ in item.reads]
        position_R = [position for item in items for position in item.reads]
        rows_R = torch.from_numpy(batch.index(sequence_R, position_R)).to(self.device)
        read_R = torch.unique(rows_R)
        with self._attention(batch, read_R) as mask, self._last_layer.computing(read_R):
            hidden_TD = self.model.body(
                input_ids=torch.from_numpy(batch.tokens)[None].to(self.device),
                position_ids=torch.from_numpy(batch.positions)[None].to(self.device),
                attention_mask=mask,
                use_cache=False,
            ).last_hidden_state[0]
        return self.model.head(hidden_TD[rows_R], items)

    @contextmanager
    def _attention(self, batch: TrieBatch, read_R: Any) -> Iterator[Any]:
        """Switch the model to attention over this batch's trie; gives the mask it takes."""
        before = self._config._attn_implementation
        try:
            if self.device == "cpu":
                _current.plan, _current.read_R = plan_attention(batch), read_R
                self._config._attn_implementation = _NAME
                yield None
            else:
                self._config._attn_implementation = "flex_attention"
                yield block_masks(batch, self._config, self.device)
        finally:
            self._config._attn_implementation = before
            _current.plan = _current.read_R = None


@dataclass
class _Current:
    """The batch whose forward pass is running: models hand nothing of ours down to attention."""

    plan: AttentionPlan | None = None
    read_R: Any = None
    """[R] the rows that are read in the end."""


_current = _Current()


def _register() -> None:
    from transformers import AttentionInterface

    AttentionInterface.register(_NAME, _attention_function)


def _attention_function(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, *,
    scaling: float | None = None, dropout: float = 0.0, softcap: float | None = None, **_: Any,
) -> tuple[Any, None]:  # fmt: skip
    """What models call in place of their own attention; shapes as in `trie_attention`."""
    assert _current.plan is not None
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    read_R = _current.read_R
    if module.layer_idx == module.config.num_hidden_layers - 1 and _few(read_R, query.shape[2]):
        found = attention_of_rows(query, key, value, _current.plan, scale, softcap, read_R)
    else:
        found = trie_attention(query, key, value, _current.plan, scale, softcap)
    return found, None


def _few(rows_R: Any, length: int) -> bool:
    """Tell whether some rows against all keys are less work than all rows by blocks."""
    return len(rows_R) * 8 <= length


@dataclass
class _LastLayer:
    """Has the last layer compute only rows that are read: nothing reads the others'.

    Hooks on what follows its attention do it; of a model that names its parts otherwise, all rows
    are computed.
    """

    rows: Any = None
    length: int = 0

    @classmethod
    def of(cls, body: Any) -> _LastLayer:
        """Put the hooks on a model's last layer."""
        self = cls()
        layers = getattr(body, "layers", None)
        if layers is not None:
            attention = getattr(layers[-1], "self_attn", None)
            for part in (getattr(attention, "o_proj", None), getattr(layers[-1], "mlp", None)):
                if part is not None:
                    part.register_forward_pre_hook(self._take)
                    part.register_forward_hook(self._put_back)
        return self

    @contextmanager
    def computing(self, rows_R: Any) -> Iterator[None]:
        """Compute these rows alone until the end."""
        self.rows = rows_R
        try:
            yield
        finally:
            self.rows = None

    def _take(self, module: Any, inputs: tuple[Any, ...]) -> Any:
        if self.rows is None:
            return None
        hidden_1TD = inputs[0]
        self.length = hidden_1TD.shape[1]
        return (hidden_1TD[:, self.rows], *inputs[1:])

    def _put_back(self, module: Any, inputs: tuple[Any, ...], output_1RD: Any) -> Any:
        if self.rows is None:
            return None
        full = output_1RD.new_zeros(1, self.length, output_1RD.shape[-1])
        full[:, self.rows] = output_1RD
        return full
