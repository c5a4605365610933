"""Tiny random reward models whose code lives only in their repositories, as those save them."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from support.tiny_models import tokenizer

Files = Literal["safetensors", "sharded safetensors", "bin", "sharded bin"]
WIDE, INNER, LAYERS, HEADS, KEYS, WORDS = 64, 96, 2, 4, 2, 264
SIZE = WIDE // HEADS
REWARD_TOKEN = 263
LLAMA3_SPECIALS = ("<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>")
LLAMA3 = (
    "{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' }}"
    "{{ m['content'] + '<|eot_id|>' }}{% endfor %}"
)
BASE_CONFIG = {
    "hidden_size": WIDE, "intermediate_size": INNER, "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS, "num_key_value_heads": KEYS, "vocab_size": WORDS,
    "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
    "hidden_act": "silu", "initializer_range": 0.02, "use_cache": True,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "tie_word_embeddings": False,
}  # fmt: skip

Shapes = dict[str, tuple[int, ...]]


def random_tensors(shapes: Shapes, seed: int, dtype: str) -> dict[str, Any]:
    """Draw tensors under which scores spread over a few units and every bias and norm counts."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in shapes.items():
        tensor = torch.randn(shape, generator=generator)
        if len(shape) == 2 and "embed" not in name:
            tensor *= 1.5 / shape[1] ** 0.5
        elif "norm" in name or "scale" in name:
            tensor = 1 + tensor / 4
        tensors[name] = tensor.to(getattr(torch, dtype))
    return tensors


def write_tensors(folder: Path, tensors: dict[str, Any], files: Files) -> None:
    """Write a checkpoint's tensors, in one file or in three with an index."""
    import torch
    from safetensors.torch import save_file

    stem, end = ("pytorch_model", "bin") if files.endswith("bin") else ("model", "safetensors")
    parts: dict[str, list[str]] = {f"{stem}.{end}": list(tensors)}
    if files.startswith("sharded"):
        parts = {f"{stem}-0000{i + 1}-of-00003.{end}": list(tensors)[i::3] for i in range(3)}
        index = {name: file for file, names in parts.items() for name in names}
        text = json.dumps({"metadata": {"total_size": 1}, "weight_map": index})
        (folder / f"{stem}.{end}.index.json").write_text(text)
    for file, names in parts.items():
        part = {name: tensors[name] for name in names}
        if end == "bin":
            torch.save(part, folder / file)
        else:
            save_file(part, folder / file, metadata={"format": "pt"})


def read_checkpoint(folder: Path) -> dict[str, Any]:
    """Return all tensors of a checkpoint, whatever its files, in float32."""
    import torch
    from safetensors.torch import load_file

    files = [(file, load_file) for file in sorted(folder.glob("*.safetensors"))]
    files += [(file, torch.load) for file in sorted(folder.glob("*.bin"))]
    return {name: tensor.float() for file, read in files for name, tensor in read(file).items()}


def save_checkpoint(
    folder: Path, config: dict[str, Any], tensors: dict[str, Any], tokens: Any, files: Files
) -> Path:
    """Save a model as its repository does, with code there that leaves `it ran` behind if run."""
    folder.mkdir(parents=True, exist_ok=True)
    tokens.save_pretrained(folder)
    write_tensors(folder, tensors, files)
    for name in ("configuration_evil", "modeling_evil", "tokenization_evil"):
        code = f"import pathlib\npathlib.Path({str(folder / 'it ran')!r}).touch()\n"
        (folder / f"{name}.py").write_text(code)
    auto_map = {
        "AutoConfig": "configuration_evil.EvilConfig",
        "AutoModel": "modeling_evil.EvilForReward",
        "AutoModelForSequenceClassification": "modeling_evil.EvilForReward",
    }
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": auto_map}))
    return folder


def edit_tensors(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Change the tensors of a model that was saved in one safetensors file."""
    from safetensors.torch import load_file

    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    write_tensors(folder, tensors, "safetensors")


def save_internlm2(
    folder: Path, *, seed: int = 1, dtype: str = "float32", files: Files = "safetensors",
    bias: bool = False, **changes: Any,
) -> Path:  # fmt: skip
    """Save an InternLM2ForRewardModel, whose configuration and tokenizer are its own classes."""
    fused = (HEADS + 2 * KEYS) * SIZE
    shapes: Shapes = {"model.tok_embeddings.weight": (WORDS, WIDE)}
    for number in range(LAYERS):
        layer: Shapes = {
            "attention.wqkv.weight": (fused, WIDE),
            "attention.wo.weight": (WIDE, WIDE),
            "feed_forward.w1.weight": (INNER, WIDE),
            "feed_forward.w3.weight": (INNER, WIDE),
            "feed_forward.w2.weight": (WIDE, INNER),
            "attention_norm.weight": (WIDE,),
            "ffn_norm.weight": (WIDE,),
        }
        if bias:
            layer |= {"attention.wqkv.bias": (fused,), "attention.wo.bias": (WIDE,)}
        shapes |= {f"model.layers.{number}.{name}": shape for name, shape in layer.items()}
    shapes |= {"model.norm.weight": (WIDE,), "v_head.weight": (1, WIDE)}
    config = {
        **BASE_CONFIG, "model_type": "internlm2", "architectures": ["InternLM2ForRewardModel"],
        "bias": bias, "reward_token_id": REWARD_TOKEN, "torch_dtype": dtype,
        "rope_scaling": {"type": "dynamic", "factor": 2.0}, "attn_implementation": "eager",
        **changes,
    }  # fmt: skip
    save_checkpoint(folder, config, random_tensors(shapes, seed, dtype), tokenizer(), files)
    path = folder / "tokenizer_config.json"
    classes = ["tokenization_evil.EvilTokenizer", "tokenization_evil.EvilTokenizerFast"]
    named = {"tokenizer_class": "InternLM2Tokenizer", "auto_map": {"AutoTokenizer": classes}}
    path.write_text(json.dumps(json.loads(path.read_text()) | named))
    return folder


def _body_shapes(bias: bool) -> Shapes:
    """Shapes of a Llama or (with biases) a Qwen2 body."""
    shapes: Shapes = {"model.embed_tokens.weight": (WORDS, WIDE), "model.norm.weight": (WIDE,)}
    for number in range(LAYERS):
        sizes = {"q": WIDE, "k": KEYS * SIZE, "v": KEYS * SIZE}
        layer: Shapes = {f"self_attn.{p}_proj.weight": (n, WIDE) for p, n in sizes.items()}
        if bias:
            layer |= {f"self_attn.{part}_proj.bias": (size,) for part, size in sizes.items()}
        layer |= {
            "self_attn.o_proj.weight": (WIDE, WIDE),
            "mlp.gate_proj.weight": (INNER, WIDE),
            "mlp.up_proj.weight": (INNER, WIDE),
            "mlp.down_proj.weight": (WIDE, INNER),
            "input_layernorm.weight": (WIDE,),
            "post_attention_layernorm.weight": (WIDE,),
        }
        shapes |= {f"model.layers.{number}.{name}": shape for name, shape in layer.items()}
    return shapes


def save_qwen2_reward(
    folder: Path, *, seed: int = 1, dtype: str = "float32", files: Files = "safetensors",
    **changes: Any,
) -> Path:  # fmt: skip
    """Save a Qwen2ForRewardModel."""
    shapes = {
        **_body_shapes(bias=True),
        "score.0.weight": (WIDE, WIDE), "score.0.bias": (WIDE,),
        "score.2.weight": (1, WIDE), "score.2.bias": (1,),
    }  # fmt: skip
    config = {
        **BASE_CONFIG, "model_type": "qwen2", "architectures": ["Qwen2ForRewardModel"],
        "use_sliding_window": False, "sliding_window": None, "max_window_layers": LAYERS,
        "torch_dtype": dtype, **changes,
    }  # fmt: skip
    tensors = random_tensors(shapes, seed, dtype)
    return save_checkpoint(folder, config, tensors, tokenizer(), files)


def save_armorm(
    folder: Path, *, seed: int = 1, dtype: str = "float32", files: Files = "safetensors",
    objectives: int = 19, gate_width: int = 1024, gate_depth: int = 3, **changes: Any,
) -> Path:  # fmt: skip
    """Save a LlamaForRewardModelWithGating; `changes` tell config.json of other sizes."""
    widths = [WIDE, *[gate_width] * gate_depth, objectives]
    shapes = {
        **_body_shapes(bias=False),
        "regression_layer.weight": (objectives, WIDE),
        "reward_transform_matrix": (objectives, objectives),
        "gating.logit_scale": (1,),
    }
    for number, (wide, to) in enumerate(pairwise(widths)):
        shapes[f"gating.layers.{number}.weight"] = (to, wide)
        shapes[f"gating.layers.{number}.bias"] = (to,)
    config = {
        **BASE_CONFIG, "model_type": "llama", "architectures": ["LlamaForRewardModelWithGating"],
        "attention_bias": False, "num_labels": objectives, "torch_dtype": dtype, **changes,
    }  # fmt: skip
    tensors = random_tensors(shapes, seed, dtype)
    return save_checkpoint(folder, config, tensors, llama3_tokenizer(), files)


def llama3_tokenizer() -> Any:
    """Return a byte-level tokenizer with the special tokens and the template of Llama 3."""
    tokens = tokenizer(template=LLAMA3)
    tokens.add_special_tokens({"additional_special_tokens": list(LLAMA3_SPECIALS)})
    return tokens


def sentencepiece_model(
    folder: Path, *, rule: str = "identity", prefix: bool = False, spaces: bool = False,
    size: int = 400, kind: str = "bpe", symbols: tuple[str, ...] = (),
) -> Path:  # fmt: skip
    """Train a tiny sentencepiece model with byte fallback; return its tokenizer.model."""
    import sentencepiece

    text = folder / "text.txt"
    words = "the quick brown fox jumps over the lazy dog and then the other foxes  jumped too"
    lines = [f"{words} {n * 7919} {words[n:]}{words[: n // 2]}" for n in range(len(words))]
    text.write_text("\n".join(lines), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(folder / "tokenizer"), model_type=kind, vocab_size=size,
        byte_fallback=True, normalization_rule_name=rule, add_dummy_prefix=prefix,
        remove_extra_whitespaces=spaces, user_defined_symbols=list(symbols), pad_id=-1,
        minloglevel=2, hard_vocab_limit=False,
    )  # fmt: skip
    return folder / "tokenizer.model"
