"""With which arguments vLLM's pooling engine gives a reward model's own scores."""

from __future__ import annotations

from typing import Any

from bon.scorers.families.base import VllmUse
from bon.scorers.families.loading import UNLIMITED
from bon.vllm_engine import weights_arguments

__all__ = ["engine_arguments"]

_CPU_BLOCK_TOKENS = 32
"""The CPU default of 128 never caches a shorter shared prefix; 32 was measured to be the best."""
_CPU_CACHE_BYTES = 2 << 30
_CPU_CACHE_TOKENS = 1 << 17
_MAX_NUM_SEQS = 256


def engine_arguments(
    path: str,
    config: Any,
    dtype: str,
    use: VllmUse,
    *,
    longest: int,
    batch_tokens: int | None,
    is_cpu: bool,
) -> dict[str, Any]:
    """Return the arguments of `vllm.LLM` for a model whose longest conversation is known.

    `config` is transformers' configuration object; `dtype` is never auto, which in vLLM halves
    float32; `batch_tokens` are those of one forward pass, none: as many as vLLM likes.
    """
    is_encoder = config.model_type in use.encoder_types
    arguments: dict[str, Any] = {
        "model": path,
        "runner": "pooling",
        "dtype": dtype,
        "max_model_len": longest if longest < UNLIMITED else None,
        "pooler_config": _pooler(use),
        "enable_prefix_caching": not is_encoder,
        "max_num_seqs": _MAX_NUM_SEQS,
        "disable_log_stats": True,
        "enforce_eager": is_cpu,
        "seed": 0,
        **weights_arguments(path),
    }
    architecture = dict(use.classes).get(config.model_type)
    if architecture:
        arguments |= {"hf_overrides": {"architectures": [architecture]}, "convert": "classify"}
    if batch_tokens:
        # an encoder reads a conversation in one pass
        num_tokens = max(batch_tokens, longest if is_encoder else 1)
        arguments["max_num_batched_tokens"] = num_tokens
        arguments["max_num_seqs"] = min(_MAX_NUM_SEQS, num_tokens)
    if is_cpu:
        arguments["block_size"] = _CPU_BLOCK_TOKENS
        arguments["kv_cache_memory_bytes"] = _cache_bytes(config, longest, dtype)
    return arguments


def _pooler(use: VllmUse) -> dict[str, Any]:
    pooler: dict[str, Any] = {"task": use.task, "use_activation": False}
    if use.task == "token_classify":
        # rows of all tokens: a model's own choice of rows would turn the prefix cache off
        pooler["tok_pooling_type"] = "ALL"
    return pooler


def _cache_bytes(config: Any, longest: int, dtype: str) -> int:
    """Return room for the longest conversation, and for more of them where that is cheap."""
    text = config.get_text_config()
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    a_token: int = 2 * text.num_hidden_layers * heads * width * (4 if dtype == "float32" else 2)
    num_blocks = -(-longest // _CPU_BLOCK_TOKENS) + 2  # the engine keeps one for itself
    needed = num_blocks * _CPU_BLOCK_TOKENS * a_token if longest < UNLIMITED else 0
    return max(needed, min(_CPU_CACHE_BYTES, _CPU_CACHE_TOKENS * a_token))
