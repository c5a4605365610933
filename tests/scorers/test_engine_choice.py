"""Which engine is chosen, and what is said of it; a table."""

from __future__ import annotations

from typing import Any

import pytest

from bon.config import INSTALL_ADVICE, ScorerSettings
from bon.errors import ModelError
from bon.scorers import engine_choice
from bon.scorers.engine_choice import choose_engine, vllm_refusal
from bon.scorers.families import find_family

NAMES = {"bert": "Bert", "deberta-v2": "DebertaV2", "gpt_neox": "GPTNeoX", "qwen3": "Qwen3"}
NAMES |= {"phi3": "Phi3"}

SAID = "as --scorer-engine says"


def classifier(kind: str) -> dict[str, Any]:
    name = f"{NAMES[kind]}ForSequenceClassification"
    return {"model_type": kind, "architectures": [name], "num_labels": 1}


def choose(config: dict[str, Any], engine: str, **facts: Any) -> tuple[str, str]:
    settings = ScorerSettings.model_validate({"name": "r", "spec": "some/model", "engine": engine})
    facts = {"takes_tries": False, "has_vllm": True} | facts
    choice = choose_engine(settings, find_family(config, "x"), config, **facts)
    return choice.engine, choice.why


@pytest.mark.parametrize(
    ("kind", "engine", "facts", "wanted", "said"),
    [
        ("qwen3", "auto", {"takes_tries": True}, "transformers", "token tries"),
        ("qwen3", "auto", {}, "transformers", "padded batches; vLLM's pooling is not known as"),
        ("bert", "auto", {}, "vllm", "faster than padded batches"),
        ("bert", "auto", {"has_vllm": False}, "transformers", "the faster vLLM is not installed"),
        ("deberta-v2", "auto", {}, "transformers", "padded batches; vLLM's pooling cannot run it"),
        ("gpt_neox", "auto", {"takes_tries": True}, "transformers", "token tries"),
        ("qwen3", "auto", {"is_adapter": True}, "transformers", "adapter"),
        ("qwen3", "transformers", {"takes_tries": True}, "transformers", f"token tries, {SAID}"),
        ("deberta-v2", "transformers", {}, "transformers", f"padded batches, {SAID}"),
        ("deberta-v2", "transformers", {"has_vllm": False}, "transformers", SAID),
        ("qwen3", "vllm", {"takes_tries": True}, "vllm", SAID),
        ("bert", "vllm", {}, "vllm", SAID),
    ],
)
def test_the_engine_and_its_reason(
    kind: str, engine: str, facts: dict[str, Any], wanted: str, said: str
) -> None:
    found, why = choose(classifier(kind), engine, **facts)
    assert found == wanted
    assert said in why
    assert "\n" not in why


@pytest.mark.parametrize(
    ("facts", "wanted"),
    [
        ({}, "vllm"),
        ({"has_vllm": False}, "transformers"),
        ({"is_adapter": True}, "transformers"),
        ({"takes_tries": True}, "transformers"),
    ],
)
def test_auto_takes_vllm_where_it_was_measured_to_be_faster(
    facts: dict[str, Any], wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_choice, "FASTER_IN_VLLM", frozenset({"bert"}))
    assert choose(classifier("bert"), "auto", **facts)[0] == wanted
    assert choose(classifier("qwen3"), "auto", **facts)[0] == "transformers"


@pytest.mark.parametrize(
    ("kind", "facts", "why"),
    [
        ("deberta-v2", {}, "deberta-v2"),
        ("gpt_neox", {}, "gpt_neox"),
        ("qwen3", {"is_adapter": True}, "LoRA"),
    ],
)
def test_what_vllm_cannot_run_is_refused(kind: str, facts: dict[str, Any], why: str) -> None:
    with pytest.raises(ModelError, match="cannot run") as caught:
        choose(classifier(kind), "vllm", **facts)
    assert caught.value.where == "some/model"
    assert why in caught.value.why
    assert "--scorer-engine transformers" in caught.value.next_step


@pytest.mark.parametrize(
    ("kind", "changes", "why"),
    [
        ("phi3", {"rope_scaling": {"type": "longrope"}}, "longrope"),
        ("phi3", {"rope_scaling": {"type": "su"}}, "longrope"),
        ("phi3", {"rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4}}, "longrope"),
        ("phi3", {"rope_parameters": {"full_attention": {"rope_type": "longrope"}}}, "longrope"),
        ("phi3", {"rope_scaling": None, "rope_parameters": {"rope_type": "default"}}, None),
        ("qwen3", {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, None),
    ],
)
def test_settings_that_vllm_reads_otherwise_are_refused(
    kind: str, changes: dict[str, Any], why: str | None
) -> None:
    config = classifier(kind) | changes
    refusal = vllm_refusal(find_family(config, "x"), config)
    assert refusal is None if why is None else why in (refusal or "")


def test_vllm_that_is_not_installed_is_refused() -> None:
    with pytest.raises(ModelError, match="not installed") as caught:
        choose(classifier("qwen3"), "vllm", has_vllm=False)
    assert INSTALL_ADVICE in caught.value.next_step


@pytest.mark.parametrize(
    ("architecture", "kind", "can"),
    [
        ("Qwen2ForRewardModel", "qwen2", True),
        ("Qwen2ForProcessRewardModel", "qwen2", True),
        ("InternLM2ForRewardModel", "internlm2", False),
        ("LlamaForRewardModelWithGating", "llama", False),
    ],
)
def test_families_of_their_own_code(architecture: str, kind: str, can: bool) -> None:
    config = {"model_type": kind, "architectures": [architecture], "vocab_size": 100_000}
    assert (vllm_refusal(find_family(config, "x"), config) is None) == can
