"""ArmoRM against a forward pass and a gate written out from the checkpoint's tensors."""

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
)
from support.plain_decoder import hidden_states, llama_names, llama_projection
from support.scoring import groups, largest_difference, reward_scorer
from support.tiny_families import edit_tensors, llama3_tokenizer, read_checkpoint, save_armorm
from support.tiny_models import edit_config, tokenizer

from bon.records import CandidateGroup, Drop
from bon.scorers.families import find_family
from bon.scorers.families.armorm import GatedConversation

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

LLAMA3_TURN = "<|start_header_id|>{role}<|end_header_id|>\n\n{content}<|eot_id|>"
HEADER = "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
SMALL = {"num_objectives": 5, "gating_hidden_dim": 12, "gating_n_hidden": 2}
SMALL_SHAPES = {"objectives": 5, "gate_width": 12, "gate_depth": 2}


def score_of(weights: dict[str, Any], states: Any, gate: int, temperature: float) -> float:
    """Score of hidden states `[T, D]`, one objective at a time."""
    state, depth = states[gate], 0
    while f"gating.layers.{depth + 1}.weight" in weights:
        linear = weights[f"gating.layers.{depth}.weight"] @ state
        state = (linear + weights[f"gating.layers.{depth}.bias"]).clamp(min=0)
        depth += 1
    logits = weights[f"gating.layers.{depth}.weight"] @ state
    logits = (logits + weights[f"gating.layers.{depth}.bias"]) / temperature
    shares = logits.exp() / logits.exp().sum() * weights["gating.logit_scale"]
    rewards = weights["regression_layer.weight"] @ states[-1]
    matrix = weights["reward_transform_matrix"]
    return sum(
        float(shares[to] * rewards[of] * matrix[of, to])
        for to in range(len(shares))
        for of in range(len(rewards))
    )


def reference(folder: Path, last: bool = True) -> list[float]:
    """Scores whose gate reads at the last assistant's header, or at the first."""
    weights, config = read_checkpoint(folder), read_config(folder)
    header = llama3_tokenizer().encode(HEADER, add_special_tokens=False)
    scores = []
    for ids in conversations(folder, LLAMA3_TURN):
        places = [n for n in range(len(ids)) if ids[n : n + len(header)] == header]
        states = hidden_states(ids, weights, config, llama_names(), llama_projection(weights))
        gate = places[-1 if last else 0]
        scores.append(score_of(weights, states, gate, config.get("gating_temperature", 10)))
    return scores


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("armorm")
    return save_armorm(folder, **SMALL_SHAPES, **SMALL, gating_temperature=0.5)


@pytest.mark.parametrize("files", ["sharded safetensors", "bin"])
def test_scores_are_those_of_a_plain_forward(files: Any, tmp_path: Path) -> None:
    check_float32(save_armorm(tmp_path / "model", files=files), reference)


def test_sizes_and_temperature_are_the_configurations(small: Path) -> None:
    check_float32(small, reference)


def test_the_reference_sees_where_the_gate_reads(small: Path) -> None:
    assert largest_difference(reference(small), reference(small, last=False)) > 0.1


def test_bfloat16_is_within_the_models_own_rounding(tmp_path: Path) -> None:
    check_bfloat16(save_armorm(tmp_path / "model", dtype="bfloat16"), reference)


def test_a_conversation_whose_prompt_was_cut_off_has_no_score(small: Path) -> None:
    with reward_scorer(small, max_length=120) as entered:
        (result,) = entered.score([groups()[3]])  # a prompt of 200 characters, then 0, 2, 64, 33
        (longer,) = entered.score([groups()[1]])  # the last response has 300
    assert [value is None for value in result.scores] == [False] * 4
    assert [value is None for value in longer.scores] == [False, False, True]
    assert [drop.reason for drop in longer.reasons.values()] == ["no_assistant_turn"]
    assert longer.truncated == (False, False, False)


def test_a_conversation_that_the_assistant_begins_has_no_score(small: Path) -> None:
    with reward_scorer(small) as entered:
        (result,) = entered.score([CandidateGroup("p", (), ("Hello.",))])
    assert [drop.reason for drop in result.reasons.values()] == ["no_assistant_turn"]


def test_positions_are_the_last_turns_start_and_the_last_token() -> None:
    assert read([1, 7, 8, 9, 2, 7, 8, 9, 3, 7, 8]) == (5, 10)
    assert read([7, 8, 9]) == (0, 2)
    for without in ([], [7, 8], [8, 9, 7, 8, 1]):
        assert isinstance(read(without), Drop)


def read(whole: list[int], gap: range = range(0)) -> tuple[int, ...] | Drop:
    kept = whole[: gap.start] + whole[gap.stop :]
    return GatedConversation((7, 8, 9)).reads(kept, whole, gap)


def test_a_last_turn_that_was_cut_off_gives_no_way_to_an_earlier_one() -> None:
    whole = [1, 7, 8, 9, 2, 7, 8, 9, 3, 4]
    for stays in (10, 9, 8):
        assert read(whole, range(stays, 10)) == (5, stays - 1)
    for stays in (7, 5, 4):
        assert isinstance(read(whole, range(stays, 10)), Drop)
    for excess in (1, 4):  # behind a first token that stays
        assert read(whole, range(1, 1 + excess)) == (5 - excess, 9 - excess)
    assert isinstance(read(whole, range(1, 6)), Drop)
    assert read(whole, range(0, 5)) == (0, 4)


def test_a_response_that_was_cut_off_whole_has_no_score(small: Path) -> None:
    messages = (
        {"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"},
        {"role": "user", "content": "why " * 40},
    )  # fmt: skip
    group = CandidateGroup("p", messages, ("a", "b" * 300))
    with reward_scorer(small, max_length=100, truncation_side="right") as entered:
        (result,) = entered.score([group])
    assert [drop.reason for drop in result.reasons.values()] == ["no_assistant_turn"] * 2
    assert result.scores == (None, None)


def test_the_real_tokenizers_header_would_be_the_published_pattern() -> None:
    family = find_family({"architectures": ["LlamaForRewardModelWithGating"]}, "folder")

    ids = {"<|eot_id|>": 128009, "<|start_header_id|>": 128006, "<|end_header_id|>": 128007}
    ids |= {"assistant": 78191, "\n\n": 271}

    class Llama3:
        def encode(self, text: str, add_special_tokens: bool) -> list[int]:
            assert not add_special_tokens
            found = []
            while text:
                (piece,) = (piece for piece in ids if text.startswith(piece))
                found.append(ids[piece])
                text = text[len(piece) :]
            return found

    form = family.form({}, Llama3(), None)  # type: ignore[arg-type]
    assert form == GatedConversation((128009, 128006, 78191, 128007, 271))
    assert family.vllm is None


def test_another_tokenizer_is_refused(small: Path, tmp_path: Path) -> None:
    folder = save_armorm(tmp_path / "model", **SMALL_SHAPES, **SMALL)
    tokenizer().save_pretrained(folder)
    assert "<|eot_id|>" in refused(folder).why


@pytest.mark.parametrize(
    ("name", "value"),
    [("gating_temperature", 0), ("num_objectives", "19"), ("gating_hidden_dim", True)],
)
def test_a_configuration_that_cannot_be_is_refused(name: str, value: Any, tmp_path: Path) -> None:
    folder = save_armorm(tmp_path / "model", **SMALL_SHAPES, **SMALL)
    edit_config(folder, **{name: value})
    assert name in refused(folder).why


@pytest.mark.parametrize(
    ("edit", "name"),
    [
        (lambda found: found.pop("gating.layers.1.bias"), "gating.layers.1.bias"),
        (lambda found: found.pop("gating.logit_scale"), "gating.logit_scale"),
        (lambda found: found.pop("reward_transform_matrix"), "reward_transform_matrix"),
        (
            lambda found: found.update({"regression_layer.weight": torch.ones(4, 64)}),
            "regression_layer.weight",
        ),
        (
            lambda found: found.update({"gating.layers.3.weight": torch.ones(5, 5)}),
            "gating.layers.3.weight",
        ),
        (lambda found: found.pop("model.embed_tokens.weight"), "embed_tokens.weight"),
        (lambda found: found.update({"score.weight": torch.ones(1, 64)}), "score.weight"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_by_name(
    edit: Callable[[dict[str, Any]], object], name: str, tmp_path: Path
) -> None:
    folder = save_armorm(tmp_path / "model", **SMALL_SHAPES, **SMALL)
    edit_tensors(folder, edit)
    assert name in refused(folder).why
