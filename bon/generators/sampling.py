"""The next token of each row, drawn from its logits: pure tensor arithmetic.

Each row brings a random number of its own, so what it draws depends on no neighbour.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from bon.config import GenerateSettings
from bon.generators.prompting import is_greedy

__all__ = ["draw", "truncated"]


def draw(
    logits: Any, settings: GenerateSettings, uniforms: Sequence[float]
) -> tuple[list[int], list[float]]:
    """Draw one token a row.

    `logits` is [rows, vocabulary], `uniforms` one number in [0, 1) a row. Temperature, min-p, top-k
    and top-p apply in this order, which is vLLM's. Returns the tokens and their log-probabilities
    (nats) under the logits as they are, before all of these; a row whose logits are not finite has
    one that is not finite either.
    """
    logits = logits.float()
    if is_greedy(settings):
        tokens = logits.argmax(-1)
    else:
        tokens = _inverse(truncated(logits, settings), uniforms)
    logprobs = logits.gather(-1, tokens[:, None])[:, 0] - logits.logsumexp(-1)
    return tokens.tolist(), logprobs.tolist()


def truncated(logits: Any, settings: GenerateSettings) -> Any:
    """Return the logits after temperature, what is never drawn at minus infinity."""
    scaled = logits / settings.temperature
    if settings.min_p > 0:
        least = scaled.amax(-1, keepdim=True) + math.log(settings.min_p)
        scaled = scaled.masked_fill(scaled < least, -math.inf)
    if 0 < settings.top_k < scaled.shape[-1]:
        least = scaled.topk(settings.top_k).values[:, -1:]
        scaled = scaled.masked_fill(scaled < least, -math.inf)
    if settings.top_p < 1:
        ascending, order = scaled.sort(-1)
        unlikely = ascending.softmax(-1).cumsum(-1) <= 1 - settings.top_p
        unlikely[:, -1] = False  # the likeliest stays, whatever the rounding
        scaled = scaled.masked_fill(unlikely.scatter(-1, order, unlikely), -math.inf)
    return scaled


def _inverse(logits: Any, uniforms: Sequence[float]) -> Any:
    """Return each row's first token whose cumulative probability passes the row's number."""
    import torch

    # in float32, tokens below 1e-7 would be lost in the sum
    dtype = torch.float32 if logits.device.type == "mps" else torch.float64
    sums = logits.to(dtype).softmax(-1).cumsum(-1)
    total = sums[:, -1:]
    wanted = torch.tensor(uniforms, dtype=dtype, device=logits.device)[:, None] * total
    wanted = wanted.minimum(torch.nextafter(total, torch.zeros_like(total)))
    # right: a token of no probability adds nothing to the sum and is stepped over
    found = torch.searchsorted(sums, wanted, right=True)[:, 0]
    return found.clamp(max=logits.shape[-1] - 1)  # only where sums are not finite
