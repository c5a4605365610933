"""Attention over tries against a dense softmax under the mask, in double precision."""

from __future__ import annotations

import random
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bon.scorers import trie_attention as module
from bon.scorers.flex_attention import block_masks
from bon.scorers.trie_attention import attention_of_rows, plan_attention, trie_attention
from bon.trie import TrieBatch, pack

torch = pytest.importorskip("torch")

HEADS, GROUPS, WIDTH, SCALE = 4, 2, 16, 0.3
FLOAT32, BFLOAT16 = 1e-5, 0.04


def visible(batch: TrieBatch, window: int | None = None) -> Any:
    """Which keys each query sees, `[T, T]`, from the definition."""
    place = np.arange(len(batch.end))
    seen = (place[None] <= place[:, None]) & (place[:, None] < batch.end[None])
    if window is not None:
        seen &= batch.positions[:, None] - batch.positions[None] < window
    return torch.from_numpy(seen)


def dense(query: Any, key: Any, value: Any, seen: Any, softcap: float | None = None) -> Any:
    key, value = (x.repeat_interleave(HEADS // GROUPS, 1).double() for x in (key, value))
    scores = query.double() @ key.transpose(2, 3) * SCALE
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
    return (weights @ value).transpose(1, 2)


def inputs(length: int, dtype: Any, sharpness: float = 1.0, seed: int = 0) -> tuple[Any, Any, Any]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(1, heads, length, WIDTH) for heads in (HEADS, GROUPS, GROUPS)]
    query, key, value = (torch.randn(shape, generator=generator) for shape in shapes)
    return (query * sharpness).to(dtype), (key * sharpness).to(dtype), value.to(dtype)


def own_products(query: Any, key: Any) -> Any:
    return (query * key.repeat_interleave(HEADS // GROUPS, 0)).sum(-1)


def conversations(seed: int = 0, prompts: int = 3, candidates: int = 6) -> list[list[int]]:
    """Prompts of 1 to 90 tokens with responses of 1 to 60; some begin alike, some are equal."""
    draw = random.Random(seed)
    result = []
    for _ in range(prompts):
        prompt = draw.choices(range(50), k=draw.randint(1, 90))
        result += [
            prompt + draw.choices(range(3), k=draw.randint(1, 60)) for _ in range(candidates)
        ]
    return result


def one_batch(sequences: list[list[int]], cost: float = 0.0) -> TrieBatch:
    (batch,) = pack(sequences, 1 << 20, sharing_cost=cost)
    return batch


def last_of(batch: TrieBatch) -> Any:
    """Where the last token of each sequence lies, `[B]`."""
    return batch.index(np.arange(len(batch.lengths)), batch.lengths - 1)


def error(batch: TrieBatch, dtype: Any, sharpness: float = 1.0, cap: float | None = None) -> float:
    """Return the largest error, of the whole layout and of some of its rows by themselves."""
    query, key, value = inputs(len(batch.tokens), dtype, sharpness)
    plan = plan_attention(batch)
    found = trie_attention(query, key, value, plan, SCALE, cap)
    rows = torch.from_numpy(np.unique(last_of(batch)))
    of_rows = attention_of_rows(query, key, value, plan, SCALE, cap, rows)
    want = dense(query, key, value, visible(batch), cap)
    for result in (found, of_rows):
        assert result.shape == (1, len(batch.tokens), HEADS, WIDTH)
        assert result.dtype == dtype
    errors = [found.double() - want, (of_rows.double() - want)[:, rows]]
    return max(float(each.abs().max()) for each in errors)


@pytest.mark.parametrize("cost", [0.0, 0.05, 0.3, float("inf")])
@pytest.mark.parametrize("cap", [None, 2.0, 50.0])
def test_the_result_is_that_of_a_dense_mask(cost: float, cap: float | None) -> None:
    batch = one_batch(conversations(), cost)
    assert error(batch, torch.float32, cap=cap) < FLOAT32
    assert error(batch, torch.bfloat16, cap=cap) < BFLOAT16


@given(
    st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), min_size=1, max_size=14),
    st.sampled_from([0.0, 0.2]),
)
@settings(max_examples=40, deadline=None)
def test_any_trie(sequences: list[list[int]], cost: float) -> None:
    batch = one_batch(sequences, cost)
    assert error(batch, torch.float32) < FLOAT32
    assert error(batch, torch.bfloat16) < BFLOAT16


@pytest.mark.parametrize("sharpness", [3.0, 6.0])
def test_scores_far_above_what_was_sampled_lose_no_precision(sharpness: float) -> None:
    sequences = conversations(seed=1)
    for cost in (0.0, 0.1):
        assert error(one_batch(sequences, cost), torch.bfloat16, sharpness) < BFLOAT16


def test_heads_whose_reference_was_too_low_are_computed_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    batch = one_batch(conversations(seed=2))
    calls = []
    sums = module._weighted_sums

    def counting(*arguments: Any) -> Any:
        calls.append(arguments[0].shape[0])
        return sums(*arguments)

    def too_low(query: Any, key: Any, plan: Any) -> Any:
        reference = own_products(query, key)
        reference[1] = reference[1] - 100
        return reference

    monkeypatch.setattr(module, "_weighted_sums", counting)
    monkeypatch.setattr(module, "_references", too_low)
    assert error(batch, torch.bfloat16) < BFLOAT16
    assert calls[0] == HEADS
    assert len(calls) == 2


def test_exponentials_that_overflow_go_to_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        module, "_references", lambda query, key, plan: own_products(query, key) - 5000
    )
    assert error(one_batch(conversations(seed=3)), torch.bfloat16) < BFLOAT16


def test_what_is_not_finite_stays_in_its_own_conversation() -> None:
    batch = one_batch([[1, 2, 3, 4], [1, 2, 5, 6], [1, 2, 7]])
    for dtype in (torch.float32, torch.bfloat16):
        query, key, value = inputs(len(batch.tokens), dtype)
        bad = int(batch.index(1, 3))
        for tensor in (query, key, value):
            tensor[:, :, bad] = torch.inf
        plan = plan_attention(batch)
        found = trie_attention(query, key, value, plan, SCALE, None)
        last = torch.from_numpy(last_of(batch))
        of_rows = attention_of_rows(query, key, value, plan, SCALE, None, last)
        for result in (found, of_rows):
            assert not torch.isfinite(result[0, bad]).any()
            for row in (0, 2):
                assert torch.isfinite(result[0, last[row]]).all()


@pytest.mark.parametrize("changed", ["key", "value"])
def test_rows_that_see_what_is_not_finite_are_not_finite(changed: str) -> None:
    batch = one_batch([[1, 2, 3, 4], [1, 2, 5, 6], [1, 2, 7]])
    query, key, value = inputs(len(batch.tokens), torch.float32)
    parts = {"query": query, "key": key, "value": value}
    parts[changed][:, 0, int(batch.index(1, 2))] = torch.nan
    plan, last = plan_attention(batch), torch.from_numpy(last_of(batch))
    found = attention_of_rows(**parts, plan=plan, scale=SCALE, softcap=None, rows=last)
    assert torch.isfinite(found[0, last]).all(-1).all(-1).tolist() == [True, False, True]


def test_a_cap_that_would_overflow_is_refused() -> None:
    batch = one_batch([[1, 2]])
    with pytest.raises(ValueError, match=r"capped at 90\.0"):
        trie_attention(*inputs(2, torch.float32), plan_attention(batch), SCALE, 90.0)


def test_long_segments_are_cut_into_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK_SCORES", 512)
    batch = one_batch(conversations(seed=4))
    assert error(batch, torch.bfloat16) < BFLOAT16


def test_one_long_path_never_has_all_its_scores_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK_SCORES", 1 << 15)
    sizes, weights = [], module._weights

    def noting(*arguments: Any) -> Any:
        sizes.append(arguments[0].shape[0] * arguments[0].shape[1] * arguments[1].shape[1])
        return weights(*arguments)

    monkeypatch.setattr(module, "_weights", noting)
    length = 3000
    batch = one_batch([list(range(length)), list(range(length))[: length // 2]])
    assert error(batch, torch.bfloat16, sharpness=0.3) < BFLOAT16  # no head is computed twice
    assert max(sizes) <= HEADS * module._FEWEST_ROWS * length
    assert sum(sizes) < HEADS * length**2 * 0.6  # nothing but the triangle


@pytest.mark.parametrize("window", [None, 7])
def test_the_gpus_mask_is_the_definition(window: int | None) -> None:
    from torch.nn.attention.flex_attention import create_mask, flex_attention
    from transformers import MistralConfig

    batch = one_batch(conversations(seed=5, prompts=2, candidates=3))
    length = len(batch.tokens)
    mask = block_masks(batch, MistralConfig(sliding_window=window), "cpu")
    dense_mask = create_mask(mask.mask_mod, None, None, length, length, device="cpu")[0, 0]
    assert dense_mask.bool().equal(visible(batch, window))
    query, key, value = inputs(length, torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # once per process: that it is not compiled
        found = flex_attention(query, key, value, block_mask=mask, scale=SCALE, enable_gqa=True)
    want = dense(query, key, value, visible(batch, window))
    assert float((found.transpose(1, 2).double() - want).abs().max()) < FLOAT32


def test_a_model_with_two_kinds_of_layers_gets_both_masks() -> None:
    from transformers import Gemma2Config, Qwen3Config

    batch = one_batch([[1, 2, 3], [1, 4]])
    both = block_masks(batch, Gemma2Config(num_hidden_layers=2, sliding_window=2), "cpu")
    assert set(both) == {"full_attention", "sliding_attention"}
    assert not isinstance(block_masks(batch, Qwen3Config(num_hidden_layers=2), "cpu"), dict)
