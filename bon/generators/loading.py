"""Loading a generator with transformers: model, adapter, limits; no remote code."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from bon.config import INSTALL_ADVICE, GenerateSettings
from bon.errors import ModelError, first_line
from bon.memory import FREE_MEMORY, is_lack_of_memory

__all__ = ["best_device", "cache_bytes", "context_tokens", "end_tokens", "load_model"]

_UNLIMITED = 1 << 30


def best_device() -> Any:
    """Return the first accelerator that there is, else the CPU."""
    import torch

    if torch.cuda.is_available():
        return torch.device("cuda", 0)
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def load_model(
    settings: GenerateSettings,
    path: str,
    lora_path: str | None,
    device: Any,
    device_map: str | None = None,
) -> tuple[Any, Any]:
    """Load a model in evaluation mode, and its tokenizer.

    With `meta` as device and device map, the model is made and checked, but no weight is read.

    Raises:
        ModelError: transformers or peft is not installed, files are damaged, weights are missing,
            or the adapter does not fit.
    """
    try:
        import transformers
    except ImportError as error:
        raise ModelError(
            "transformers is not installed or cannot be imported",
            why=first_line(error),
            next_step=INSTALL_ADVICE,
        ) from error
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(path, trust_remote_code=False)
        config = transformers.AutoConfig.from_pretrained(path, trust_remote_code=False)
        model, info = transformers.AutoModelForCausalLM.from_pretrained(
            path, config=config, dtype=settings.dtype, attn_implementation=_attention(config),
            output_loading_info=True, ignore_mismatched_sizes=True, trust_remote_code=False,
            device_map=device_map,
        )  # fmt: skip
    except Exception as error:  # damaged files raise kinds of their own (SafetensorError)
        raise ModelError(
            "transformers cannot load the generator",
            where=path,
            why=first_line(error),
            next_step=FREE_MEMORY
            if is_lack_of_memory(error)
            else "give a folder saved with save_pretrained; see the worker's log",
        ) from error
    _refuse_random_weights(info, path)
    if lora_path:
        model = _adapted(model, lora_path)
    return model.to(device).eval(), tokenizer


def _attention(config: Any) -> str | None:
    """Return eager attention where scores are soft-capped, which others leave out."""
    capped = getattr(config.get_text_config(), "attn_logit_softcapping", None)
    return "eager" if capped else None


def _refuse_random_weights(info: dict[str, Any], path: str) -> None:
    wrong = sorted(info["missing_keys"]) + sorted(str(key[0]) for key in info["mismatched_keys"])
    if wrong:
        raise ModelError(
            "the generator's checkpoint leaves weights random",
            where=path,
            why=f"missing or of another shape: {', '.join(wrong[:5])}",
            next_step="copy or download the whole folder again",
        )


def _adapted(model: Any, path: str) -> Any:
    """Put a LoRA adapter into a model, beside its weights: merged, they would be rounded again."""
    try:
        import peft
    except ImportError as error:
        raise ModelError(
            "a LoRA adapter needs peft, which is not installed",
            where=path,
            why=first_line(error),
            next_step="pip install peft",
        ) from error
    try:
        with warnings.catch_warnings():
            # an adapter's missing weights are random or zero, and peft only warns of them
            warnings.filterwarnings("error", message="Found missing adapter keys")
            return peft.PeftModel.from_pretrained(model, path).get_base_model()
    except Exception as error:
        raise ModelError(
            "transformers cannot load the LoRA adapter",
            where=path,
            why=first_line(error),
            next_step="give an adapter saved with peft's save_pretrained for this generator",
        ) from error


def end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """Return the tokens that end a response: the tokenizer's, and those of the model's settings."""
    said = model.generation_config.eos_token_id
    found = {tokenizer.eos_token_id, *(said if isinstance(said, list) else [said])}
    return frozenset(int(token) for token in found if token is not None)


def context_tokens(settings: GenerateSettings, config: Any, tokenizer: Any, path: str) -> int:
    """Return the most tokens of a prompt and its response together.

    Raises:
        ModelError: `--max-model-len` is more than the model has positions for.
    """
    positions = getattr(config.get_text_config(), "max_position_embeddings", None) or _UNLIMITED
    most = min(int(positions), int(min(tokenizer.model_max_length, _UNLIMITED)))
    if settings.max_model_len is not None and settings.max_model_len > most:
        raise ModelError(
            f"--max-model-len {settings.max_model_len} is more than the generator takes",
            where=str(Path(path)),
            why=f"its configuration and its tokenizer allow {most} tokens",
            next_step=f"give at most {most}, or leave it out",
        )
    return min(most, settings.max_model_len or most)


def cache_bytes(config: Any, dtype: Any) -> int:
    """Return about how many bytes of keys and values one token takes."""
    text = config.get_text_config()
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return int(2 * text.num_hidden_layers * heads * size * dtype.itemsize)
