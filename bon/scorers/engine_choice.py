"""Which engine runs a reward model: transformers or vLLM's pooling."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from bon.config import INSTALL_ADVICE, ScorerSettings
from bon.errors import ModelError
from bon.scorers.families.base import Family

__all__ = ["EngineChoice", "choose_engine", "refuse_for_vllm", "vllm_refusal"]

FASTER_IN_VLLM: frozenset[str] = frozenset({"bert", "modernbert", "roberta"})
"""Model types that padded batches score slower than vLLM's pooling: those that were measured (6
layers, 512 wide, bfloat16, 2 CPU cores: 3.0, 3.8 and 3.1 times as long).

`auto` takes vLLM for them where it is installed and transformers for all others."""

_ROTATES_BY_LENGTH = frozenset({"longrope", "su"})
"""Rope types with factors for short and for long conversations; `su` is the older name."""


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """What runs a reward model, and why, for people."""

    engine: Literal["transformers", "vllm"]
    why: str


def choose_engine(
    settings: ScorerSettings,
    family: Family,
    config: dict[str, Any],
    *,
    takes_tries: bool,
    has_vllm: bool,
    is_adapter: bool = False,
) -> EngineChoice:
    """Choose from a model's config.json; nothing is loaded.

    `takes_tries` says whether transformers' engine packs its conversations into token tries.

    Raises:
        ModelError: vLLM was asked for and cannot run this model, or is not installed.
    """
    refusal = vllm_refusal(family, config, is_adapter=is_adapter)
    if settings.engine == "transformers":
        way = "token tries" if takes_tries else "padded batches"
        return EngineChoice("transformers", f"{way}, as --scorer-engine says")
    if settings.engine == "vllm":
        _refuse_vllm(settings, refusal, has_vllm)
        return EngineChoice("vllm", "as --scorer-engine says")
    if takes_tries:
        return EngineChoice("transformers", "token tries are the faster way for this kind of model")
    if refusal is not None:
        why = f"padded batches; vLLM's pooling cannot run it: {refusal}"
        return EngineChoice("transformers", why)
    if config.get("model_type") not in FASTER_IN_VLLM:
        return EngineChoice("transformers", "padded batches; vLLM's pooling is not known as faster")
    if not has_vllm:
        return EngineChoice("transformers", "padded batches; the faster vLLM is not installed")
    return EngineChoice("vllm", "faster than padded batches for this kind of model")


def vllm_refusal(family: Family, config: dict[str, Any], *, is_adapter: bool = False) -> str | None:
    """Return why vLLM's pooling cannot give a model's scores, none where it can."""
    use, kind = family.vllm, config.get("model_type")
    if is_adapter:
        return "a LoRA adapter's head is not among what it merges"
    if use is None:
        return f"it has no class for this family ({family.name}) that needs no remote code"
    if use.decoder_types is not None and kind not in use.decoder_types | use.encoder_types:
        return f"it is not known to give the scores of {kind}"
    if _ROTATES_BY_LENGTH & set(_rope_types(config)):
        return "it rotates short conversations as long ones where the rope type is longrope"
    return None


def _rope_types(config: dict[str, Any]) -> Iterator[Any]:
    """Yield the rotary kinds that a config.json names, of old and new form, also by layer type."""
    for name in ("rope_scaling", "rope_parameters"):
        said = config.get(name)
        parts = [said, *said.values()] if isinstance(said, dict) else []
        for part in parts:
            if isinstance(part, dict):
                yield from (part.get("rope_type"), part.get("type"))


def refuse_for_vllm(refusal: str | None, where: str) -> None:
    """Say why vLLM's pooling cannot run the reward model that lies `where`, if so.

    Raises:
        ModelError: it cannot.
    """
    if refusal is not None:
        raise ModelError(
            "vLLM's pooling cannot run this reward model",
            where=where,
            why=refusal,
            next_step="give --scorer-engine transformers, or leave the flag out",
        )


def _refuse_vllm(settings: ScorerSettings, refusal: str | None, has_vllm: bool) -> None:
    refuse_for_vllm(refusal, settings.spec)
    if not has_vllm:
        raise ModelError(
            "vLLM is not installed",
            where=f"--scorer-engine {settings.engine}",
            next_step=f"{INSTALL_ADVICE}; or give --scorer-engine transformers",
        )
