"""A decoder of Llama's kind written out from raw tensors: one conversation, one head at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from support.tiny_families import SIZE

Tensors = dict[str, Any]
Project = Callable[[int, Any], tuple[Any, Any, Any]]
"""From a layer's number and its input `[T, D]` to queries `[T, H, d]`, keys, values `[T, K, d]`."""


def hidden_states(
    ids: list[int],
    weights: Tensors,
    config: dict[str, Any],
    names: dict[str, str],
    project: Project,
) -> Any:
    """Return the hidden states `[T, D]` behind the last norm; `names` are the checkpoint's own."""
    import torch

    def norm(states: Any, name: str) -> Any:
        mean = states.pow(2).mean(-1, keepdim=True)
        return states * torch.rsqrt(mean + config["rms_norm_eps"]) * weights[name]

    states = weights[names["words"]][torch.tensor(ids)]
    for number in range(config["num_hidden_layers"]):
        layer = {key: name.format(number) for key, name in names.items()}

        def linear(inputs: Any, key: str, layer: dict[str, str] = layer) -> Any:
            bias = weights.get(f"{layer[key]}.bias", torch.zeros(()))
            return inputs @ weights[f"{layer[key]}.weight"].T + bias

        attended = _attend(*project(number, norm(states, layer["first_norm"])), config)
        states = states + linear(attended, "out")
        inner = norm(states, layer["second_norm"])
        gate = linear(inner, "gate")
        states = states + linear(gate * torch.sigmoid(gate) * linear(inner, "up"), "down")
    return norm(states, names["last_norm"])


def _attend(queries: Any, keys: Any, values: Any, config: dict[str, Any]) -> Any:
    """Causal attention, `[T, H d]`; each key head serves a run of query heads."""
    import torch

    queries, keys = _rotated(queries, config), _rotated(keys, config)
    group = queries.shape[1] // keys.shape[1]
    hidden = torch.triu(torch.ones(len(queries), len(queries), dtype=torch.bool), diagonal=1)
    outputs = []
    for head in range(queries.shape[1]):
        logits = queries[:, head] @ keys[:, head // group].T / math.sqrt(queries.shape[2])
        shares = logits.masked_fill(hidden, -math.inf).softmax(-1)
        outputs.append(shares @ values[:, head // group])
    return torch.cat(outputs, dim=1)


def _rotated(heads: Any, config: dict[str, Any]) -> Any:
    """Rotate the pairs (i, i + d/2) of `[T, H, d]` by position times theta^(-2i/d)."""
    import torch

    half = heads.shape[2] // 2
    steps = config["rope_theta"] ** (-torch.arange(half).double() / half)
    places = torch.arange(len(heads)).double() / config.get("position_divisor", 1)
    angles = (places[:, None] * steps)[:, None]
    turns = torch.polar(torch.ones_like(angles), angles)
    rotated = torch.complex(heads[..., :half].double(), heads[..., half:].double()) * turns
    return torch.cat([rotated.real, rotated.imag], dim=-1).to(heads.dtype)


def llama_names() -> dict[str, str]:
    """Return a Llama or Qwen2 checkpoint's own names, of layers with a place for the number."""
    layer = "model.layers.{}."
    return {
        "words": "model.embed_tokens.weight",
        "last_norm": "model.norm.weight",
        "first_norm": f"{layer}input_layernorm.weight",
        "second_norm": f"{layer}post_attention_layernorm.weight",
        "out": f"{layer}self_attn.o_proj",
        "gate": f"{layer}mlp.gate_proj",
        "up": f"{layer}mlp.up_proj",
        "down": f"{layer}mlp.down_proj",
    }


def llama_projection(weights: Tensors) -> Project:
    """Return a Llama or Qwen2 checkpoint's queries, keys and values, with or without biases."""

    def project(number: int, states: Any) -> tuple[Any, Any, Any]:
        def heads(part: str) -> Any:
            name = f"model.layers.{number}.self_attn.{part}_proj"
            found = states @ weights[f"{name}.weight"].T
            if f"{name}.bias" in weights:
                found = found + weights[f"{name}.bias"]
            return found.view(len(states), -1, SIZE)

        return heads("q"), heads("k"), heads("v")

    return project
