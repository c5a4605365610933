"""Reward models on the real vLLM, in a `Worker` process: one engine at a time, kept while asked.

An engine that is left and another one that is started after it take two seconds; the first, ten.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bon.config import ScorerSettings
from bon.pipeline.models import ResolvedModel, read_config
from bon.records import CandidateGroup, Scores
from bon.scorers.families import find_family
from bon.scorers.vllm import VllmRewardScorer

CUT = 60


@dataclass(frozen=True, slots=True)
class Scored:
    """Results, and the tokens that they took."""

    results: list[Scores]
    num_tokens_computed: int


_entered: dict[str, VllmRewardScorer] = {}


def vllm_scorer(folder: Path, template: str | None = None, **settings: Any) -> VllmRewardScorer:
    """Return the scorer of a folder's family, not entered yet."""
    values = {"name": "reward", "spec": str(folder), "engine": "vllm"} | settings
    config = read_config(ResolvedModel("reward", str(folder), ""))
    family = find_family(config, str(folder))
    return VllmRewardScorer(ScorerSettings(**values), str(folder), family, config, template)


def score(
    groups: Sequence[CandidateGroup], folder: Path, template: str | None = None, **settings: Any
) -> Scored:
    """Score groups with the engine of these settings, which is started if another one runs."""
    return _scored(_ready(folder, template, **settings), groups)


def score_without_cache(groups: Sequence[CandidateGroup], folder: Path) -> Scored:
    """Score groups as if nothing had been computed before, each conversation by itself."""
    scorer = _ready(folder, None)
    parameters = scorer._pooling_parameters
    return _patched(scorer, "_pooling_parameters", lambda _: parameters(False), groups)


def score_longer_than_the_engine(groups: Sequence[CandidateGroup], folder: Path) -> Scored:
    """Score groups with an encoder that cuts nothing, on an engine that takes `CUT` tokens."""
    scorer = _ready(folder, None, max_length=CUT, truncation_side="left")
    return _patched(scorer, "_encoder", replace(scorer._encoder, max_length=2048), groups)


def engine_facts(folder: Path, **settings: Any) -> dict[str, Any]:
    """Give what the engine was really started with."""
    config = _ready(folder, None, **settings)._llm.llm_engine.vllm_config
    return {
        "dtype": str(config.model_config.dtype),
        "max_model_len": config.model_config.max_model_len,
        "prefix_caching": config.cache_config.enable_prefix_caching,
        "block_size": config.cache_config.block_size,
        "max_num_batched_tokens": config.scheduler_config.max_num_batched_tokens,
    }


def _ready(folder: Path, template: str | None, **settings: Any) -> VllmRewardScorer:
    key = f"{folder} {template} {sorted(settings.items())}"
    if key not in _entered:
        while _entered:  # two engines in one process break each other
            _entered.popitem()[1].__exit__()
        _entered[key] = vllm_scorer(folder, template, **settings).__enter__()
    return _entered[key]


def _scored(scorer: VllmRewardScorer, groups: Sequence[CandidateGroup]) -> Scored:
    before = scorer.num_tokens_computed
    return Scored(scorer.score(groups), scorer.num_tokens_computed - before)


def _patched(
    scorer: VllmRewardScorer, name: str, value: Callable[..., Any] | Any, groups: Any
) -> Scored:
    before = getattr(scorer, name)
    setattr(scorer, name, value)
    try:
        return _scored(scorer, groups)
    finally:
        setattr(scorer, name, before)
