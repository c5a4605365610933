"""What all that sample with vLLM in this process give their engines."""

from __future__ import annotations

import gc
import json
import os
from pathlib import Path
from typing import Any

from bon.errors import ModelError, first_line

__all__ = [
    "checkpoint_dtype",
    "device_arguments",
    "free_accelerator",
    "import_llm",
    "weights_arguments",
]

_GIB = 1 << 30
_CPU_BLOCK_TOKENS = 32  # the CPU default of 128 never caches a shorter shared prefix


def import_llm(advice: str) -> Any:
    """Return vLLM's class of engines, to be run in this process; `advice` is for who has none.

    Raises:
        ModelError: vLLM is not installed, or cannot be imported.
    """
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # the worker process is ours
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    try:
        from vllm import LLM
    except ImportError as error:
        raise ModelError(
            "vLLM is not installed or cannot be imported", why=first_line(error), next_step=advice
        ) from error
    return LLM


def device_arguments(
    *, gpu_memory_utilization: float, kv_cache_gib: float, enforce_eager: bool | None = None
) -> dict[str, Any]:
    """Return an engine's arguments for what this vLLM is built for: a GPU, or this CPU.

    `gpu_memory_utilization` is a share of a GPU's memory, `kv_cache_gib` what a CPU's cache takes.
    """
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return {
            "gpu_memory_utilization": gpu_memory_utilization,
            "enforce_eager": bool(enforce_eager),
        }
    return {
        "kv_cache_memory_bytes": int(kv_cache_gib * _GIB),
        "block_size": _CPU_BLOCK_TOKENS,
        # a seeded request that is split in its prefill fails on CPU
        "enable_chunked_prefill": False,
        "enforce_eager": True if enforce_eager is None else enforce_eager,
    }


def checkpoint_dtype(model_path: str) -> str:
    """Return the data type the checkpoint was saved in (vLLM's auto halves float32)."""
    try:
        config = json.loads((Path(model_path) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return "auto"
    nested = config.get("text_config") or {}
    name = config.get("dtype") or config.get("torch_dtype") or nested.get("dtype") or "auto"
    return str(name).removeprefix("torch.")


def weights_arguments(model_path: str) -> dict[str, Any]:
    """Return an engine's arguments with which it reads safetensors, and never pickles beside them.

    Where there are none of transformers' form, vLLM chooses: Mistral's own, or what was allowed.
    """
    folder = Path(model_path)
    is_plain = any(folder.glob("model*.safetensors"))
    is_mistral = any(folder.glob("consolidated*.safetensors"))
    return {"load_format": "safetensors"} if is_plain and not is_mistral else {}


def free_accelerator() -> None:
    """Give back what an engine that was just let go held."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
