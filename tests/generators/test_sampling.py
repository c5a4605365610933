"""Draws against the definitions, written out for one row at a time."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bon.config import GenerateSettings
from bon.generators.sampling import draw, truncated

torch = pytest.importorskip("torch")

ROWS = st.lists(
    st.lists(st.integers(-40, 40).map(lambda n: n / 8), min_size=7, max_size=7),
    min_size=1,
    max_size=4,
)


def plain(row: list[float], options: GenerateSettings) -> list[float]:
    """The probabilities that a row's next token is drawn with."""
    weights = [math.exp(logit / options.temperature) for logit in row]
    kept = [w if w >= options.min_p * max(weights) * (1 - 1e-6) else 0.0 for w in weights]
    if options.top_k:
        least = sorted(kept, reverse=True)[: options.top_k][-1]
        kept = [w if w >= least else 0.0 for w in kept]
    total, tail = sum(kept), 0.0
    for place in sorted(range(len(kept)), key=lambda place: kept[place])[:-1]:
        tail += kept[place] / total
        if tail <= 1 - options.top_p:
            kept[place] = 0.0
    return [w / sum(kept) for w in kept]


@settings(max_examples=200, deadline=None)
@given(
    ROWS,
    st.sampled_from([0.3, 1.0, 2.0]),
    st.sampled_from([0, 1, 3, 7, 9]),
    st.sampled_from([0.0, 0.05, 0.4, 1.0]),
)
def test_temperature_min_p_and_top_k(
    rows: list[list[float]], temperature: float, top_k: int, min_p: float
) -> None:
    options = GenerateSettings(temperature=temperature, top_k=top_k, min_p=min_p)
    found = truncated(torch.tensor(rows), options).softmax(-1)
    for row, probabilities in zip(rows, found.tolist(), strict=True):
        assert probabilities == pytest.approx(plain(row, options), abs=1e-5)


@pytest.mark.parametrize(
    ("top_p", "kept"), [(1.0, 4), (0.95, 4), (0.85, 3), (0.75, 2), (0.45, 1), (1e-9, 1)]
)
@pytest.mark.parametrize("top_k", [0, 3])
def test_top_p_keeps_the_smallest_set_that_reaches_it(top_p: float, kept: int, top_k: int) -> None:
    logits = torch.tensor([[0.1, 0.5, 0.3, 0.1001]]).log()
    options = GenerateSettings(top_p=top_p, top_k=top_k)
    found = truncated(logits, options).softmax(-1)[0].tolist()
    assert found == pytest.approx(plain(logits[0].tolist(), options), abs=1e-6)
    if not top_k:
        assert sum(p > 0 for p in found) == kept


def test_draws_have_the_probabilities_of_their_tokens() -> None:
    probabilities = [0.25, 0.0, 0.5, 0.125, 0.125]
    logits = torch.tensor([probabilities]).log().expand(800, -1)
    tokens, logprobs = draw(logits, GenerateSettings(), [(i + 0.5) / 800 for i in range(800)])
    assert [tokens.count(token) for token in range(5)] == [200, 0, 400, 100, 100]
    for token, logprob in zip(tokens, logprobs, strict=True):
        assert logprob == pytest.approx(math.log(probabilities[token]), abs=1e-6)


@pytest.mark.parametrize("uniform", [0.0, 0.3, 1 - 2**-53])
def test_what_has_no_probability_is_never_drawn(uniform: float) -> None:
    logits = torch.tensor([[-math.inf, 0.0, -math.inf, 0.0, -math.inf]])
    tokens, _ = draw(logits, GenerateSettings(), [uniform])
    assert tokens == [3 if uniform > 0.5 else 1]


@pytest.mark.parametrize("temperature", [0.0, 0.5, 3.0])
def test_logprobs_are_those_before_temperature_and_truncation(temperature: float) -> None:
    logits = torch.randn(6, 50, generator=torch.Generator().manual_seed(0)) * 4
    options = GenerateSettings(temperature=temperature, top_k=5, top_p=0.9, min_p=0.01)
    tokens, logprobs = draw(logits, options, [0.1 * row for row in range(6)])
    want = logits.double().log_softmax(-1)[range(6), tokens]
    assert logprobs == pytest.approx(want.tolist(), abs=1e-5)
    if not temperature:
        assert tokens == logits.argmax(-1).tolist()


def test_a_row_draws_the_same_beside_others() -> None:
    logits = torch.randn(9, 300, generator=torch.Generator().manual_seed(1)) * 2
    options = GenerateSettings(top_p=0.9, top_k=40)
    uniforms = [0.11 * row for row in range(9)]
    together, _ = draw(logits, options, uniforms)
    alone = [draw(logits[[row]], options, [uniforms[row]])[0][0] for row in range(9)]
    assert together == alone


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_row_that_is_not_finite_says_so_and_spoils_no_other(bad: float) -> None:
    logits: Any = torch.zeros(2, 4)
    logits[0, 1] = bad
    tokens, logprobs = draw(logits, GenerateSettings(), [0.6, 0.6])
    assert not math.isfinite(logprobs[0])
    assert (tokens[1], logprobs[1]) == (2, pytest.approx(-math.log(4)))
