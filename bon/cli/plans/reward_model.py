"""`-r MODEL`: a reward model in this process."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from bon.cli.plans.files import read_text, text_digest
from bon.cli.plans.kinds import ScorerKind, pickles_of
from bon.config import ScorerSettings, ScoreSettings
from bon.pipeline.models import read_config, resolve_reward_model
from bon.pipeline.plans import ScoringPlan
from bon.scorers.adapters import adapter_family
from bon.scorers.encoding import ENCODER_VERSION
from bon.scorers.engine_choice import choose_engine
from bon.scorers.families import Family, find_family
from bon.scorers.families.steps import separator_of
from bon.scorers.reward_model import RewardModelScorer
from bon.scorers.running import can_pack
from bon.scorers.vllm import VllmRewardScorer

__all__ = ["REWARD_MODEL"]

_READS = {
    name: "a reward model (a hub id or a folder)"
    for name in ScoreSettings.model_fields
    if name.startswith(("reward_", "scorer_", "step_"))
}


def check(settings: ScorerSettings) -> None:
    """Only planning tells: the model may have to be downloaded."""


def plan(settings: ScorerSettings) -> ScoringPlan:
    """Plan a reward model; it is found (and downloaded) here, not loaded.

    Raises:
        ModelError: there is no such model, or none that can be scored with.
        SettingsError: the settings do not fit it.
    """
    model, adapter = resolve_reward_model(settings.spec, settings.revision, pickles_of(settings))
    config = read_config(model)
    template = read_text(settings.template, "--reward-template")
    fingerprint = {"spec": model.name, "digest": model.digest, "template": text_digest(template)}
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


REWARD_MODEL = ScorerKind(
    prefix="",
    noun="a reward model",
    reads=_READS,
    reads_of=lambda settings: _READS,
    gives_verdicts=lambda settings: False,
    check=check,
    plan=plan,
)
