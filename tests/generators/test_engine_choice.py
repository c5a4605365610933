from __future__ import annotations

from typing import Any

import pytest

from bon.config import GenerateSettings
from bon.errors import ModelError, SettingsError
from bon.generators.engine_choice import choose_engine


@pytest.mark.parametrize(
    ("said", "has_vllm", "engine", "why"),
    [
        ("auto", True, "vllm", "it is installed"),
        ("auto", False, "transformers", "vLLM is not installed"),
        ("vllm", True, "vllm", "as --generator-engine says"),
        ("transformers", True, "transformers", "as --generator-engine says"),
        ("transformers", False, "transformers", "as --generator-engine says"),
    ],
)
def test_vllm_is_taken_where_it_is(said: Any, has_vllm: bool, engine: str, why: str) -> None:
    settings = GenerateSettings(generator_engine=said)
    choice = choose_engine(settings, has_vllm=has_vllm, has_transformers=True)
    assert (choice.engine, choice.why) == (engine, why)


@pytest.mark.parametrize(
    ("said", "has_transformers"), [("vllm", True), ("auto", False), ("transformers", False)]
)
def test_what_is_not_installed_is_refused_with_how_to_install_it(
    said: Any, has_transformers: bool
) -> None:
    settings = GenerateSettings(generator_engine=said)
    with pytest.raises(ModelError, match="is not installed") as caught:
        choose_engine(settings, has_vllm=False, has_transformers=has_transformers)
    assert "pip install" in caught.value.next_step


@pytest.mark.parametrize(
    ("settings", "flag"),
    [
        ({"engine_args": {"max_num_seqs": 4}}, "--engine-args"),
        ({"enforce_eager": False}, "--enforce-eager"),
        ({"tensor_parallel_size": 2}, "--tensor-parallel-size"),
    ],
)
def test_settings_of_vllm_are_refused_by_transformers(settings: Any, flag: str) -> None:
    said = GenerateSettings(**settings)
    assert choose_engine(said, has_vllm=True, has_transformers=True).engine == "vllm"
    with pytest.raises(SettingsError, match=flag):
        choose_engine(said, has_vllm=False, has_transformers=True)
