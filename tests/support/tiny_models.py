"""Tiny random models on disk, made with the real classes: a generator and reward models."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
BOS_CHATML = "{{ '<|bos|>' }}" + CHATML
SPECIALS = ("<|pad|>", "<|im_start|>", "<|im_end|>", "<|bos|>")

KINDS: dict[str, dict[str, Any]] = {
    "mistral": {"sliding_window": 16},
    "gemma2": {"sliding_window": 16, "query_pre_attn_scalar": 32, "attn_logit_softcapping": 0.5},
    "gemma3_text": {"sliding_window": 16, "query_pre_attn_scalar": 32},
    "phi3": {"sliding_window": 16},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    "qwen3_5_text": {
        "full_attention_interval": 2,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 2,
        "linear_key_head_dim": 32,
        "linear_value_head_dim": 32,
    },
    "modernbert": {"local_attention": 16, "global_attn_every_n_layers": 2},
    "deberta-v2": {
        "relative_attention": True,
        "pos_att_type": ["c2p", "p2c"],
        "position_buckets": 32,
        "position_biased_input": False,
        "type_vocab_size": 0,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
    },
}
"""What makes a kind itself (windows shorter than a conversation, soft-capping that bites, …)."""


def tokenizer(
    *, template: str | None = CHATML, bos: bool = False, pad: str | None = "<|pad|>"
) -> Any:
    """Return a byte-level tokenizer; with `bos` it puts one before every text, as Llama's does."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: index for index, token in enumerate([*SPECIALS, *alphabet])}
    inner = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    inner.add_special_tokens(list(SPECIALS))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    if bos:
        inner.post_processor = processors.TemplateProcessing(
            single="<|bos|> $A", special_tokens=[("<|bos|>", vocab["<|bos|>"])]
        )
    result = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        eos_token="<|im_end|>",
        pad_token=pad,
        bos_token="<|bos|>" if bos else None,
        model_max_length=2048,
    )
    result.chat_template = template
    return result


def config(kind: str, **changes: Any) -> Any:
    """Return a tiny configuration of a transformers model type."""
    from transformers import AutoConfig

    sizes = {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "intermediate_size": 128,
        "vocab_size": 264,
        "max_position_embeddings": 2048,
        "pad_token_id": 0,
        "eos_token_id": 2,
        "bos_token_id": None,
    }
    values = {**sizes, **KINDS.get(kind, {}), **changes}
    if values["head_dim"] is None:  # falcon computes it
        del values["head_dim"]
    return AutoConfig.for_model(kind, **values)


def save_generator(
    folder: Path, *, seed: int = 0, template: str | None = CHATML, scale: float = 1,
    dtype: str = "float32", **changes: Any,
) -> Path:  # fmt: skip
    """Save a random Qwen3 generator and return its folder; `scale` makes it less of a die."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config("qwen3", tie_word_embeddings=True, **changes))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(scale)
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    tokenizer(template=template).save_pretrained(folder)
    return folder


def save_reward(
    folder: Path, *, kind: str = "qwen3", seed: int = 1, num_labels: int = 1,
    dtype: str = "float32", tokenizer_options: dict[str, Any] | None = None, **changes: Any,
) -> Path:  # fmt: skip
    """Save a random reward model and return its folder; its scores spread over a few units."""
    import torch
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_config(
        config(kind, num_labels=num_labels, **changes)
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
        for name, parameter in model.named_parameters():
            if name.startswith("classifier"):  # an encoder's, which would spread less
                parameter.normal_(std=0.5)
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    tokenizer(**(tokenizer_options or {})).save_pretrained(folder)
    return folder


def work_with(models: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Go to a folder with copies of the models `gen` and `rm`, which a fault may change."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder.parent / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("gen", "rm"):
        shutil.copytree(models / name, folder / name)


def edit_weights(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Change the tensors of a saved model, by name."""
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    edit(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def edit_config(folder: Path, **changes: Any) -> None:
    """Change keys of a saved model's configuration."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
