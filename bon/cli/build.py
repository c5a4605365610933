"""Joins names to classes: from settings to the generator, scorers and reader of a run."""

from __future__ import annotations

import hashlib
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bon.config import (
    GenerateSettings,
    InputSettings,
    ResponseSettings,
    ScorerSettings,
    ScoreSettings,
)
from bon.errors import SettingsError
from bon.generators.vllm import VllmGenerator
from bon.pipeline.given import GivenPlan
from bon.pipeline.models import (
    read_config,
    resolve_adapter,
    resolve_model,
    resolve_reward_model,
)
from bon.pipeline.run import GenerationPlan, PromptsPlan, ScoringPlan
from bon.scorers.adapters import adapter_family
from bon.scorers.encoding import ENCODER_VERSION
from bon.scorers.engine_choice import choose_engine
from bon.scorers.families import Family, find_family
from bon.scorers.families.steps import separator_of
from bon.scorers.reward_model import RewardModelScorer
from bon.scorers.rules import PREFIX, RuleScorer, find_rule
from bon.scorers.running import can_pack
from bon.scorers.vllm import VllmRewardScorer
from bon.sources.prompts import PromptReader, input_digest
from bon.sources.responses import ResponseReader

__all__ = ["generation_plan", "given_plan", "prompts_plan", "scorer_settings", "scoring_plans"]

_NAMED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)=(.+)", re.DOTALL)
_NOT_YET = ("server:", "judge:")


def prompts_plan(source: str, settings: InputSettings, part_size: int | None) -> PromptsPlan:
    """Plan the reading of a prompt file; its first row is read here, so that a wrong file fails
    before anything is written."""
    digest = input_digest(source)
    rows = PromptReader(source, settings)
    next(iter(rows), None)
    return PromptsPlan(
        name=Path(source).name,
        rows=rows,
        fingerprint=settings.fingerprint(),
        digest=digest,
        limit=settings.limit,
        part_size=part_size,
    )


def given_plan(
    source: str,
    inputs: InputSettings,
    responses: ResponseSettings,
    part_size: int | None,
    *,
    group: bool,
) -> GivenPlan:
    """Plan the reading of an input with responses; its first row is read here."""
    digest = input_digest(source)
    rows = ResponseReader(source, inputs, responses, group=group)
    next(iter(rows), None)
    return GivenPlan(
        name=Path(source).name,
        rows=rows,
        fingerprint=inputs.fingerprint() | responses.fingerprint() | {"group": group},
        digest=digest,
        limit=inputs.limit,
        part_size=part_size,
    )


def generation_plan(settings: GenerateSettings) -> GenerationPlan:
    """Plan the sampling; the model is found (and downloaded) here, not loaded.

    Raises:
        SettingsError, ModelError: the settings contradict each other, or there is no such model.
    """
    if settings.raw and (settings.system_prompt or settings.chat_template):
        raise SettingsError(
            "--raw excludes --system-prompt and --chat-template",
            why="raw prompts go to the model as they are",
        )
    model = resolve_model(settings.model, settings.model_revision)
    lora = resolve_adapter(settings.lora) if settings.lora else None
    template = _read(settings.chat_template, "--chat-template")
    fingerprint = settings.fingerprint() | {
        "model": model.name,
        "model_digest": model.digest,
        "lora": lora and lora.digest,
        "chat_template": _hash(template),
        "engine": "vllm",
    }
    generator = VllmGenerator(settings, model.path, lora.path if lora else None, template)
    return GenerationPlan(generator, fingerprint, settings.num_candidates, settings.seed)


def scoring_plans(settings: ScoreSettings) -> list[ScoringPlan]:
    """Plan the scorers, in the order in which they were given."""
    return [
        _rule_plan(one) if one.spec.startswith(PREFIX) else _model_plan(one)
        for one in scorer_settings(settings)
    ]


def _rule_plan(settings: ScorerSettings) -> ScoringPlan:
    scorer = RuleScorer(settings, find_rule(settings.spec.removeprefix(PREFIX)))
    return ScoringPlan(settings.name, scorer, scorer.fingerprint())


def _model_plan(settings: ScorerSettings) -> ScoringPlan:
    model, adapter = resolve_reward_model(settings.spec, settings.revision)
    config = read_config(model)
    template = _read(settings.template, "--reward-template")
    fingerprint = {"spec": model.name, "digest": model.digest, "template": _hash(template)}
    if adapter is None:
        family = find_family(config, model.path)
    else:
        said = read_config(adapter, "adapter_config.json")
        family, config = adapter_family(said, config, adapter.path)
        fingerprint |= {"spec": adapter.name, "digest": adapter.digest}
        fingerprint |= {"base": model.name, "base_digest": model.digest}
    fingerprint = _reading(settings, family) | fingerprint
    choice = choose_engine(
        settings,
        family,
        config,
        takes_tries=can_pack(
            {**config, "model_type": family.body_type or config.get("model_type")}
        ),
        has_vllm=find_spec("vllm") is not None,
        is_adapter=adapter is not None,
    )
    kind = VllmRewardScorer if choice.engine == "vllm" else RewardModelScorer
    scorer = kind(settings, model.path, family, config, template)
    reference = RewardModelScorer(settings, model.path, family, config, template, alone=True)
    typed = {"step_separator": settings.step_separator} if family.reads_steps else {}
    return ScoringPlan(
        settings.name, scorer, fingerprint, reference, choice.engine, choice.why, typed
    )


def _reading(settings: ScorerSettings, family: Family) -> dict[str, Any]:
    """Return how conversations are read, as it is understood."""
    found = settings.fingerprint(reads_steps=family.reads_steps)
    if family.step_separator is not None:
        found["step_separator"] = separator_of(settings, family.step_separator)
    return found | {"family_version": family.version, "encoder_version": ENCODER_VERSION}


def scorer_settings(settings: ScoreSettings) -> list[ScorerSettings]:
    """Resolve each `[NAME=]SPEC`; without a name it is the last part of the spec.

    Raises:
        SettingsError: a name stands twice, or a kind of scorer that this version has not.
        UnknownChoiceError: there is no such rule.
        EngineError: a rule needs a package that is not installed.
    """
    result = [_one_scorer(settings, said) for said in settings.reward]
    names = [one.name for one in result]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise SettingsError(
            f"two scorers are named {sorted(twice)[0]!r}", next_step="name them: -r NAME=SPEC"
        )
    return result


def _one_scorer(settings: ScoreSettings, said: str) -> ScorerSettings:
    named = _NAMED.fullmatch(said)
    spec = named[2] if named else said
    if spec.startswith(_NOT_YET):
        raise SettingsError(
            f"this version has no scorer {spec.split(':')[0]!r}",
            where=f"-r {said}",
            next_step="give a reward model (a hub id or a folder), rule:math or rule:exact",
        )
    if spec.startswith(PREFIX):
        find_rule(spec.removeprefix(PREFIX))
    default = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(spec).resolve().name).strip("-.")
    return ScorerSettings(
        name=named[1] if named else default or "reward",
        spec=spec,
        revision=settings.reward_revision,
        dtype=settings.reward_dtype,
        max_length=settings.reward_max_length,
        truncation_side=settings.reward_truncation_side,
        template=settings.reward_template,
        batch_tokens=settings.reward_batch_tokens,
        device=settings.reward_device,
        engine=settings.scorer_engine,
        step_separator=settings.step_separator,
        step_aggregate=settings.step_aggregate,
        answer_column=settings.rule_answer_column,
        rule_timeout_s=settings.rule_timeout_s,
    )


def _read(path: Path | None, flag: str) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"cannot read the file of {flag}", where=str(path), why=str(error)
        ) from None


def _hash(text: str | None) -> Any:
    return text and hashlib.sha256(text.encode()).hexdigest()[:16]
