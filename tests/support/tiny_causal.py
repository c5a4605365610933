"""Tiny random language models, sampled responses with their token ids, and a plain reference."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from bon.config import ScorerSettings
from bon.records import Candidate, CandidateGroup, Message
from bon.scorers.logprob import LogprobScorer
from support.tiny_models import config, tokenizer

END = 2
"""`<|im_end|>`, which ends a response."""
BITING: dict[str, dict[str, Any]] = {
    # capped or scaled as the real ones are, so much that a head without it is seen
    "gemma2": {"final_logit_softcapping": 2.0, "sliding_window": 4096},
    "gemma3_text": {"final_logit_softcapping": 2.0, "sliding_window": 4096},
    "mistral": {"sliding_window": 4096},
    "phi3": {"sliding_window": 4096},
    "gpt2": {"tie_word_embeddings": True},
    "granite": {"logits_scaling": 4.0},
    "cohere": {"logit_scale": 0.25},
}


def save_causal(
    folder: Path, *, kind: str = "qwen3", seed: int = 1, dtype: str = "float32",
    tokenizer_options: dict[str, Any] | None = None, **changes: Any,
) -> Path:  # fmt: skip
    """Save a random language model whose log-probabilities are far from uniform."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config(kind, **BITING.get(kind, {}) | changes))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    tokenizer(**(tokenizer_options or {})).save_pretrained(folder)
    return folder


def logprob_scorer(
    folder: Path, template: str | None = None, *, alone: bool = False, **settings: Any
) -> LogprobScorer:
    """Return the scorer of a folder's model, not entered yet."""
    values = {"name": "ref", "spec": f"logprob:{folder}", "device": "cpu"} | settings
    return LogprobScorer(ScorerSettings(**values), str(folder), template, alone)


def candidate(number: int, ids: Sequence[int] | None, text: str, **changes: Any) -> Candidate:
    """Return a sampled candidate."""
    values = {
        "candidate": number, "response": text, "finish_reason": "length",
        "num_tokens": None if ids is None else len(ids), "logprob": None, "seed": None,
        "token_ids": None if ids is None else tuple(ids),
    }  # fmt: skip
    return Candidate(**values | changes)


def group(
    prompt_id: str, messages: tuple[Message, ...], candidates: Sequence[Candidate],
    **generation: Any,
) -> CandidateGroup:  # fmt: skip
    """Return a prompt with its candidates as a pool gives them."""
    texts = tuple(one.response for one in candidates)
    return CandidateGroup(prompt_id, messages, texts, {}, tuple(candidates), generation)


@cache
def sampled_groups() -> tuple[CandidateGroup, ...]:
    """Prompts with sampled responses of 1 to 90 tokens: equal ones, and beginnings of others."""
    draws = random.Random(0)
    tokens = tokenizer()

    def sampled(number: int, ids: Sequence[int]) -> Candidate:
        return candidate(number, ids, tokens.decode(ids, skip_special_tokens=True))

    def drawn(length: int) -> list[int]:
        return draws.choices(range(264 - 1), k=length)

    groups = []
    for row, lengths in enumerate([(1, 1, 7, 90), (5, 5, 60), (12,), (1, 2, 64, 33)]):
        user: Message = {"role": "user", "content": "abcd " * (1 + 9 * row)}
        ids = [drawn(length) for length in lengths]
        ids += [ids[0], ids[-1][: lengths[-1] // 2], [END]]
        groups.append(
            group(f"p{row}", (user,), [sampled(n, one) for n, one in enumerate(ids) if one])
        )
    return tuple(groups)


def plain_logprob(model: Any, prompt: Sequence[int], response: Sequence[int]) -> float:
    """Return log p(response | prompt) from one forward pass over all of both."""
    import torch

    with torch.inference_mode():
        logits_TV = model(input_ids=torch.tensor([[*prompt, *response]])).logits[0].double()
    return sum(
        float(torch.log_softmax(logits_TV[len(prompt) - 1 + place], 0)[token])
        for place, token in enumerate(response)
    )


def templated(tokens: Any, messages: Sequence[Message]) -> list[int]:
    """Return a prompt's tokens, its template written out."""
    turns = [f"<|im_start|>{one['role']}\n{one['content']}<|im_end|>\n" for one in messages]
    text = "".join([*turns, "<|im_start|>assistant\n"])
    return list(tokens.encode(text, add_special_tokens=False))


def plain_logprobs(folder: Path, groups: Sequence[CandidateGroup]) -> list[float]:
    """Return the log-probabilities of all sampled responses, one at a time, in float32."""
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype="float32", attn_implementation="eager"
    )
    tokens = PreTrainedTokenizerFast.from_pretrained(folder)
    return [
        plain_logprob(model.eval(), templated(tokens, one.messages), candidate.token_ids or ())
        for one in groups
        for candidate in one.candidates
    ]
