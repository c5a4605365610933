"""What of a model's folder could run code when it is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bon.errors import ModelError
from bon.pipeline.trust import NO_PICKLES, Pickles, pickled_weights, refuse_modules


@pytest.mark.parametrize(
    ("names", "pickles"),
    [
        (["model.safetensors"], []),
        (["model.safetensors", "pytorch_model.bin", "other.pt"], []),
        (["model.safetensors.index.json", "pytorch_model.bin"], []),
        (["pytorch_model.bin"], ["pytorch_model.bin"]),
        (["pytorch_model-00001-of-00002.bin"], ["pytorch_model-00001-of-00002.bin"]),
        (["weights.pt"], ["weights.pt"]),
        (["consolidated.safetensors", "tokenizer.bin"], []),
        (["consolidated.safetensors", "pytorch_model.bin"], ["pytorch_model.bin"]),
        (["adapter_model.safetensors"], []),
        (["adapter_model.bin"], ["adapter_model.bin"]),
        (["adapter_model.safetensors", "adapter_model.bin"], []),
        (["model.safetensors", "adapter_model.bin"], ["adapter_model.bin"]),
        (["model.safetensors", "training_args.bin", "optimizer.pt"], []),
        (["training_args.bin"], []),
    ],
)
def test_pickles_that_loading_would_read(
    names: list[str], pickles: list[str], tmp_path: Path
) -> None:
    for name in names:
        (tmp_path / name).write_bytes(b"")
    assert pickled_weights(tmp_path) == pickles


def test_an_index_of_safetensors_may_not_lead_to_a_pickle(tmp_path: Path) -> None:
    index = {"weight_map": {"a": "model-1.safetensors", "b": "../../evil.bin"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert pickled_weights(tmp_path) == ["../../evil.bin"]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"weight_map": 1}', "[" * 100_000])
def test_an_index_that_cannot_be_read_is_left_to_what_loads(content: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(content)
    assert pickled_weights(tmp_path) == []


def test_pickles_are_refused_with_the_ways_out_unless_they_are_allowed(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelError, match="pickles") as caught:
        NO_PICKLES.refuse(tmp_path)
    assert "pytorch_model.bin" in caught.value.why
    assert "--allow-pickle" in caught.value.next_step
    assert "save_pretrained" in caught.value.next_step
    Pickles(are_allowed=True, flag="--x").refuse(tmp_path)


@pytest.mark.parametrize("said", [{}, {"megatron_config": None, "megatron_core": "megatron.core"}])
def test_an_adapter_that_names_no_module_is_taken(said: dict[str, Any]) -> None:
    refuse_modules(said, "x")


def test_an_adapter_that_names_a_module_to_import_is_refused() -> None:
    with pytest.raises(ModelError, match="Python module") as caught:
        refuse_modules({"megatron_config": {"a": 1}, "megatron_core": "evil"}, "x")
    assert "evil" in caught.value.why
