"""What vLLM is started with; no engine is."""

from __future__ import annotations

from typing import Any

import pytest
from support.tiny_models import config

from bon.scorers.families.base import VllmUse
from bon.scorers.vllm_arguments import engine_arguments

pytest.importorskip("transformers")

USE = VllmUse(
    "classify",
    decoder_types=frozenset({"qwen3", "gemma3_text"}),
    encoder_types=frozenset({"bert"}),
    classes=(("gemma3_text", "Gemma3ForCausalLM"),),
)
TOKEN_BYTES = 2 * 2 * 1 * 32 * 4
"""Keys and values of the tiny model's two layers, one head of 32, float32."""


def arguments(kind: str = "qwen3", use: VllmUse = USE, **facts: Any) -> dict[str, Any]:
    values = {"longest": 2048, "batch_tokens": None, "is_cpu": True} | facts
    dtype = values.pop("dtype", "float32")
    changes = values.pop("changes", {})
    return engine_arguments("folder", config(kind, **changes), dtype, use, **values)


def test_scores_are_raw_and_the_type_is_the_models() -> None:
    found = arguments(dtype="bfloat16")
    assert found["pooler_config"] == {"task": "classify", "use_activation": False}
    assert (found["runner"], found["dtype"], found["max_model_len"]) == (
        "pooling",
        "bfloat16",
        2048,
    )


def test_rows_of_all_tokens_keep_the_prefix_cache() -> None:
    found = arguments(use=VllmUse("token_classify"))
    assert found["pooler_config"]["tok_pooling_type"] == "ALL"
    assert found["enable_prefix_caching"]


def test_an_encoder_has_no_prefix_cache_and_reads_a_conversation_in_one_pass() -> None:
    assert not arguments("bert")["enable_prefix_caching"]
    assert arguments("bert", batch_tokens=64)["max_num_batched_tokens"] == 2048
    assert arguments("bert", batch_tokens=4096)["max_num_batched_tokens"] == 4096


def test_the_tokens_of_a_pass_bound_its_conversations() -> None:
    few, many = arguments(batch_tokens=64), arguments(batch_tokens=4096)
    assert (few["max_num_batched_tokens"], few["max_num_seqs"]) == (64, 64)
    assert (many["max_num_batched_tokens"], many["max_num_seqs"]) == (4096, 256)
    assert "max_num_batched_tokens" not in arguments()


def test_a_class_that_vllm_has_under_another_name() -> None:
    found = arguments("gemma3_text")
    assert found["hf_overrides"] == {"architectures": ["Gemma3ForCausalLM"]}
    assert found["convert"] == "classify"
    assert "convert" not in arguments()


def test_the_cache_of_a_cpu_has_room_for_the_longest_conversation() -> None:
    tiny, long = arguments(), arguments(longest=1 << 20)
    assert tiny["kv_cache_memory_bytes"] == TOKEN_BYTES << 17
    assert long["kv_cache_memory_bytes"] >= TOKEN_BYTES << 20
    wide = arguments(changes={"num_hidden_layers": 64, "num_key_value_heads": 2, "head_dim": 128})
    assert wide["kv_cache_memory_bytes"] == 2 << 30
    assert arguments(longest=1 << 30)["max_model_len"] is None
    assert arguments(longest=1 << 30)["kv_cache_memory_bytes"] == TOKEN_BYTES << 17
    half = arguments(longest=1 << 20, dtype="bfloat16")["kv_cache_memory_bytes"]
    assert half == long["kv_cache_memory_bytes"] // 2


def test_a_gpu_sizes_its_cache_by_itself_and_compiles() -> None:
    found = arguments(is_cpu=False)
    assert not found["enforce_eager"]
    assert not {"kv_cache_memory_bytes", "block_size"} & found.keys()
    assert arguments()["enforce_eager"]
