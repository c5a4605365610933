"""InternLM2's reward models: their tensors on a Llama body, and a head of one row.

The score is the head at the last token, which must be the reward token: it is put after every
conversation. InternLM2's model is Llama's under other names, with queries, keys and values in one
matrix.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bon.config import ScorerSettings
from bon.errors import ModelError, first_line
from bon.scorers.encoding import WholeConversation
from bon.scorers.families.base import Family, RewardModel
from bon.scorers.families.loading import (
    load_head,
    load_mapped,
    longest_conversation,
    misfits,
    read_tensors,
    refuse_misfits,
)
from bon.scorers.families.sentencepiece_tokenizer import load_tokenizer_of

__all__ = ["FAMILY"]

_REWARD_TOKEN = 92527
_HEAD = "v_head.weight"
_WHOLE_NAMES = {
    "model.tok_embeddings.weight": "embed_tokens.weight",
    "model.norm.weight": "norm.weight",
}
_LAYER_NAMES = {
    "attention.wo": "self_attn.o_proj",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w3": "mlp.up_proj",
    "feed_forward.w2": "mlp.down_proj",
}
_FUSED = "attention.wqkv"
_NEEDED = (
    *("vocab_size", "hidden_size", "intermediate_size"),
    *("num_hidden_layers", "num_attention_heads"),
)


def _check(config: dict[str, Any], path: str) -> None:
    token, words = config.get("reward_token_id", _REWARD_TOKEN), config.get("vocab_size")
    if not (isinstance(token, int) and isinstance(words, int) and 0 <= token < words):
        raise _unusable(path, f"reward_token_id is {token!r} in a vocabulary of {words!r}")


def _form(config: dict[str, Any], tokenizer: Any, settings: ScorerSettings) -> WholeConversation:
    return WholeConversation(suffix=(config.get("reward_token_id", _REWARD_TOKEN),))


def _load(path: str, settings: ScorerSettings) -> RewardModel:
    import torch
    from torch import nn
    from transformers import LlamaModel

    config = _llama_config(path)
    tokenizer = load_tokenizer_of(path)
    tensors = read_tensors(path, ".*")
    refuse_misfits(path, misfits(_shapes(config), tensors))
    v_head = nn.Linear(config.hidden_size, 1, bias=False)
    head_tensors = {_HEAD: tensors.pop(_HEAD)}
    body = load_mapped(LlamaModel, path, config, settings.dtype, dict(_mapped(tensors, config)))
    head = load_head(nn.ModuleDict({"v_head": v_head}), path, head_tensors, torch.float32)

    def rewards(hidden_RD: Any, counts: Sequence[int]) -> Any:
        return v_head(hidden_RD.float())[:, 0]

    module = nn.ModuleDict({"body": body, "head": head})
    return RewardModel(module, body, rewards, tokenizer, longest_conversation(config, tokenizer))


def _llama_config(path: str) -> Any:
    """Make Llama's configuration from config.json, whose model type transformers does not know."""
    from transformers import LlamaConfig

    try:
        found = json.loads((Path(path) / "config.json").read_text(encoding="utf-8"))
        wrong = [name for name in _NEEDED if not isinstance(found.get(name), int)]
        if wrong:
            raise ValueError(f"no whole number: {', '.join(wrong)}")
        heads = found["num_attention_heads"]
        keys = found.get("num_key_value_heads") or heads
        if heads % keys or found["hidden_size"] % heads:
            raise ValueError(f"{heads} heads, {keys} of them keys, in {found['hidden_size']}")
        return LlamaConfig(
            **{name: found[name] for name in _NEEDED},
            num_key_value_heads=keys,
            hidden_act=found.get("hidden_act", "silu"),
            max_position_embeddings=found.get("max_position_embeddings", 2048),
            rms_norm_eps=found.get("rms_norm_eps", 1e-6),
            attention_bias=found.get("bias", True),
            rope_parameters=_rope(found),
            dtype=found.get("dtype", found.get("torch_dtype")),
            tie_word_embeddings=False,
        )
    except Exception as error:  # its checks raise kinds of their own
        raise _unusable(path, f"{type(error).__name__}: {first_line(error)}") from error


def _rope(found: dict[str, Any]) -> dict[str, Any]:
    """Return Llama's rotary settings.

    Dynamic scaling starts behind `max_position_embeddings`, which no conversation passes.
    """
    scaling = found.get("rope_scaling") or {"type": "default"}
    kind = scaling.get("type", scaling.get("rope_type"))
    theta = {"rope_theta": float(found.get("rope_theta", 10000))}
    if kind in ("default", "dynamic"):
        return {"rope_type": "default", **theta}
    if kind == "linear":
        return {"rope_type": "linear", "factor": float(scaling["factor"]), **theta}
    raise ValueError(f"its rotary scaling is {kind!r}; known: linear, dynamic")


def _shapes(config: Any) -> dict[str, tuple[int, ...]]:
    """Return every tensor that the checkpoint must have, by its own name."""
    wide, inner = config.hidden_size, config.intermediate_size
    heads = config.num_attention_heads + 2 * config.num_key_value_heads
    fused = heads * config.head_dim
    layer: dict[str, tuple[int, ...]] = {
        "attention.wqkv.weight": (fused, wide),
        "attention.wo.weight": (wide, wide),
        "attention_norm.weight": (wide,),
        "ffn_norm.weight": (wide,),
        "feed_forward.w1.weight": (inner, wide),
        "feed_forward.w3.weight": (inner, wide),
        "feed_forward.w2.weight": (wide, inner),
    }
    if config.attention_bias:
        layer |= {"attention.wqkv.bias": (fused,), "attention.wo.bias": (wide,)}
    shapes: dict[str, tuple[int, ...]] = {
        "model.tok_embeddings.weight": (config.vocab_size, wide),
        "model.norm.weight": (wide,),
        _HEAD: (1, wide),
    }
    for number in range(config.num_hidden_layers):
        shapes |= {f"model.layers.{number}.{name}": shape for name, shape in layer.items()}
    return shapes


def _mapped(tensors: dict[str, Any], config: Any) -> Iterator[tuple[str, Any]]:
    """Yield Llama's tensors and empty `tensors`, so that no matrix is held twice."""
    for name, wanted in _WHOLE_NAMES.items():
        yield wanted, tensors.pop(name)
    for number in range(config.num_hidden_layers):
        for kind in ("weight", "bias") if config.attention_bias else ("weight",):
            fused = tensors.pop(f"model.layers.{number}.{_FUSED}.{kind}")
            for part, tensor in _split(fused, config).items():
                yield f"layers.{number}.self_attn.{part}_proj.{kind}", tensor
        for name, wanted in _LAYER_NAMES.items():
            for kind in ("weight", "bias"):
                tensor = tensors.pop(f"model.layers.{number}.{name}.{kind}", None)
                if tensor is not None:
                    yield f"layers.{number}.{wanted}.{kind}", tensor


def _split(fused: Any, config: Any) -> dict[str, Any]:
    """Split `[K (G + 2) d, …]`: for each of K key heads its G query heads, the key, the value."""
    keys, size = config.num_key_value_heads, config.head_dim
    group = config.num_attention_heads // keys
    heads = fused.view(keys, group + 2, size, *fused.shape[1:])
    parts = {"q": heads[:, :group], "k": heads[:, group], "v": heads[:, group + 1]}
    return {name: part.reshape(-1, *fused.shape[1:]) for name, part in parts.items()}


def _unusable(path: str, why: str) -> ModelError:
    return ModelError(
        "the reward model's configuration cannot be used",
        where=path,
        why=why,
        next_step="copy or download the model's config.json again",
    )


FAMILY = Family(
    name="InternLM2 reward model",
    architectures=("InternLM2ForRewardModel",),
    load=_load,
    check=_check,
    form=_form,
    load_tokenizer=load_tokenizer_of,
    body_type="llama",
)
