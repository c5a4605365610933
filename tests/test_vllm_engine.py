from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from bon.errors import ModelError
from bon.vllm_engine import checkpoint_dtype, device_arguments, import_llm


@pytest.mark.parametrize(
    ("config", "dtype"),
    [
        ({"dtype": "bfloat16"}, "bfloat16"),
        ({"torch_dtype": "torch.float32"}, "float32"),
        ({"text_config": {"dtype": "float16"}}, "float16"),
        ({}, "auto"),
        (None, "auto"),
    ],
)
def test_the_dtype_is_the_checkpoints_own(tmp_path: Path, config: Any, dtype: str) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))
    assert checkpoint_dtype(str(tmp_path)) == dtype


def fake_platform(monkeypatch: pytest.MonkeyPatch, *, is_cpu: bool) -> None:
    platforms = ModuleType("vllm.platforms")
    platforms.current_platform = SimpleNamespace(is_cpu=lambda: is_cpu)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", ModuleType("vllm"))
    monkeypatch.setitem(sys.modules, "vllm.platforms", platforms)


def test_a_cpu_is_given_room_and_a_gpu_a_share(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_platform(monkeypatch, is_cpu=True)
    found = device_arguments(gpu_memory_utilization=0.5, kv_cache_gib=0.25)
    assert found["kv_cache_memory_bytes"] == 1 << 28
    assert (found["enforce_eager"], found["enable_chunked_prefill"]) == (True, False)
    fake_platform(monkeypatch, is_cpu=False)
    found = device_arguments(gpu_memory_utilization=0.5, kv_cache_gib=0.25)
    assert found == {"gpu_memory_utilization": 0.5, "enforce_eager": False}


def test_who_has_no_vllm_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ModelError, match="vLLM is not installed") as caught:
        import_llm("ask a server")
    assert caught.value.next_step == "ask a server"
