"""InternLM2ForRewardModel against a forward pass of its own, queries, keys and values unsplit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.parity import (
    check_bfloat16,
    check_float32,
    conversations,
    read_config,
    refused,
    scores,
)
from support.plain_decoder import Project, Tensors, hidden_states
from support.scoring import groups, largest_difference, reward_scorer
from support.tiny_families import (
    KEYS,
    REWARD_TOKEN,
    SIZE,
    edit_tensors,
    read_checkpoint,
    save_internlm2,
)
from support.tiny_models import CHATML, edit_config

from bon.errors import ModelError
from bon.scorers.families import find_family

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

CHATML_TURN = "<|im_start|>{role}\n{content}<|im_end|>\n"
LAYER = "model.layers.{}."
NAMES = {
    "words": "model.tok_embeddings.weight",
    "last_norm": "model.norm.weight",
    "first_norm": f"{LAYER}attention_norm.weight",
    "second_norm": f"{LAYER}ffn_norm.weight",
    "out": f"{LAYER}attention.wo",
    "gate": f"{LAYER}feed_forward.w1",
    "up": f"{LAYER}feed_forward.w3",
    "down": f"{LAYER}feed_forward.w2",
}


def projection(weights: Tensors) -> Project:
    """Its fused matrix gives, for each key head, its query heads, then the key, then the value."""

    def project(number: int, states: Any) -> tuple[Any, Any, Any]:
        name = LAYER.format(number) + "attention.wqkv"
        fused = states @ weights[f"{name}.weight"].T
        if f"{name}.bias" in weights:
            fused = fused + weights[f"{name}.bias"]
        heads = fused.view(len(states), KEYS, -1, SIZE)
        return heads[:, :, :-2].flatten(1, 2), heads[:, :, -2], heads[:, :, -1]

    return project


def reference_of(folder: Path, sequences: list[list[int]], **changes: Any) -> list[float]:
    """Scores of token ids, each with the reward token behind it."""
    weights, config = read_checkpoint(folder), read_config(folder) | changes
    results = []
    for ids in sequences:
        whole = [*ids, REWARD_TOKEN]
        states = hidden_states(whole, weights, config, NAMES, projection(weights))
        results.append(float(weights["v_head.weight"][0] @ states[-1]))
    return results


def reference(folder: Path) -> list[float]:
    return reference_of(folder, conversations(folder, CHATML_TURN))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_internlm2(tmp_path_factory.mktemp("internlm2"))


@pytest.mark.parametrize("files", ["safetensors", "sharded safetensors", "bin", "sharded bin"])
def test_scores_are_those_of_a_plain_forward(files: Any, tmp_path: Path) -> None:
    check_float32(save_internlm2(tmp_path / "model", files=files), reference)


@pytest.mark.parametrize("keys", [1, 4])
def test_key_heads_of_any_number(keys: int, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("support.tiny_families.KEYS", keys)
    monkeypatch.setitem(globals(), "KEYS", keys)
    folder = save_internlm2(tmp_path / "model", num_key_value_heads=keys)
    check_float32(folder, reference)


def test_biases_and_another_base_of_rotation(tmp_path: Path) -> None:
    folder = save_internlm2(tmp_path / "model", bias=True, rope_theta=1e6, rms_norm_eps=0.01)
    check_float32(folder, reference)


@pytest.mark.parametrize("key", ["type", "rope_type"])
def test_linear_rotary_scaling_divides_positions(key: str, tmp_path: Path) -> None:
    scaling = {key: "linear", "factor": 4.0}
    folder = save_internlm2(tmp_path / "model", rope_scaling=scaling)
    ids = conversations(folder, CHATML_TURN)
    want = reference_of(folder, ids, position_divisor=4)
    assert largest_difference(want, reference(folder)) > 0.1
    assert largest_difference(scores(folder), want) < 1e-4


def test_bfloat16_is_within_the_models_own_rounding(tmp_path: Path) -> None:
    check_bfloat16(save_internlm2(tmp_path / "model", dtype="bfloat16"), reference)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_auto_is_the_checkpoints_own_type(dtype: str, tmp_path: Path) -> None:
    folder = save_internlm2(tmp_path / "model", dtype=dtype)
    edit_config(folder, torch_dtype=None)
    for name in ("auto", "float32", "bfloat16"):
        with reward_scorer(folder, dtype=name) as entered:
            wanted = dtype if name == "auto" else name
            assert str(entered._model.body.dtype) == f"torch.{wanted}"


def test_a_template_that_ends_in_the_reward_token_has_it_once(model: Path) -> None:
    token = "<|reward|>"
    with reward_scorer(model) as entered:
        tokenizer = entered._model.tokenizer
        tokenizer.add_tokens(["<|a|>", "<|b|>", "<|c|>", token], special_tokens=True)
        assert tokenizer.convert_tokens_to_ids(token) == REWARD_TOKEN
        (plain,) = entered.score([groups()[0]])
        entered._encoder.chat.tokenizer.chat_template = CHATML + token
        (ended,) = entered.score([groups()[0]])
    assert ended == plain


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_longer_conversation_keeps_the_reward_token(side: str, model: Path) -> None:
    whole = conversations(model, CHATML_TURN)
    cut = [ids[-59:] if side == "left" else ids[:59] for ids in whole]
    found = scores(model, max_length=60, truncation_side=side)
    assert largest_difference(found, reference_of(model, cut)) < 1e-4


def test_the_models_own_positions_are_the_limit(tmp_path: Path) -> None:
    folder = save_internlm2(tmp_path / "model", max_position_embeddings=100)
    cut = [ids[-99:] for ids in conversations(folder, CHATML_TURN)]
    assert largest_difference(scores(folder), reference_of(folder, cut)) < 1e-4


def test_vllm_needs_the_repositorys_code() -> None:
    config = {"architectures": ["InternLM2ForRewardModel"], "vocab_size": 92544}
    assert find_family(config, "folder").vllm is None


@pytest.mark.parametrize("token", [264, -1, "last", None])
def test_a_reward_token_that_the_model_has_no_row_for_is_refused(token: Any) -> None:
    config = {"architectures": ["InternLM2ForRewardModel"], "vocab_size": 264}
    with pytest.raises(ModelError, match="configuration") as caught:
        find_family(config | {"reward_token_id": token}, "folder")
    assert str(token) in caught.value.why


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"rope_scaling": {"type": "yarn", "factor": 2.0}}, "yarn"),
        ({"rope_scaling": {"type": "linear"}}, "factor"),
        ({"hidden_size": "x"}, "hidden_size"),
        ({"num_key_value_heads": 3}, "3"),
        ({"num_attention_heads": None}, "num_attention_heads"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(
    changes: dict[str, Any], word: str, tmp_path: Path
) -> None:
    folder = save_internlm2(tmp_path / "model", **changes)
    error = refused(folder)
    assert "configuration" in error.what
    assert word in error.why


@pytest.mark.parametrize(
    ("edit", "name"),
    [
        (lambda found: found.pop("v_head.weight"), "v_head.weight"),
        (lambda found: found.pop("model.norm.weight"), "model.norm.weight"),
        (
            lambda found: found.update(
                {"model.layers.1.attention.wqkv.weight": torch.ones(96, 64)}
            ),
            "model.layers.1.attention.wqkv.weight",
        ),
        (lambda found: found.update({"output.weight": torch.ones(264, 64)}), "output.weight"),
        (
            lambda found: found.update({"model.layers.0.attention.wo.bias": torch.ones(64)}),
            "model.layers.0.attention.wo.bias",
        ),
        (
            lambda found: found.update({"model.layers.2.attention.wo.weight": torch.ones(64, 64)}),
            "model.layers.2.attention.wo.weight",
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_by_name(
    edit: Callable[[dict[str, Any]], object], name: str, tmp_path: Path
) -> None:
    folder = save_internlm2(tmp_path / "model")
    edit_tensors(folder, edit)
    assert name in refused(folder).why


@pytest.mark.parametrize("name", ["tokenizer.json", "model.safetensors"])
def test_a_damaged_folder_is_refused(name: str, tmp_path: Path) -> None:
    folder = save_internlm2(tmp_path / "model")
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2])
    refused(folder)
    (folder / name).unlink()
    refused(folder)
