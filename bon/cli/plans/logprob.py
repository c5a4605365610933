"""`-r [NAME=]logprob:MODEL`: log-probabilities under a reference model in this process."""

from __future__ import annotations

from pathlib import Path

from bon.cli.plans.files import read_text, text_digest
from bon.cli.plans.kinds import ScorerKind, pickles_of
from bon.cli.plans.language_models import refuse_others
from bon.config import ScorerSettings
from bon.config.base import Settings
from bon.config.scorer_spec import parse_options
from bon.errors import SettingsError
from bon.pipeline.models import read_config, resolve_model
from bon.pipeline.plans import ScoringPlan
from bon.scorers.logprob import PREFIX, LogprobScorer
from bon.scorers.logprob.encoding import ENCODER_VERSION
from bon.scorers.running import can_pack

__all__ = ["LOGPROB"]

_READS = dict.fromkeys(
    ("ref_model", "reward_allow_pickle", "reward_dtype", "reward_batch_tokens", "reward_device"),
    "logprob:MODEL",
)


class LogprobOptions(Settings):
    """What stands behind `logprob:MODEL?`."""

    revision: str | None = None
    """Branch, tag or commit of the model on the hub."""
    template: Path | None = None
    """File with a Jinja chat template, in place of the model's own."""


def check(settings: ScorerSettings) -> None:
    """Raise where there is no model in the spec, or an option is none of its own."""
    _options(settings)
    if not settings.spec.removeprefix(PREFIX):
        raise SettingsError(
            "there is no model in this scorer's spec",
            where=f"-r {settings.name}={settings.spec}",
            next_step="give logprob:MODEL, a hub id or a folder",
        )


def plan(settings: ScorerSettings) -> ScoringPlan:
    """Plan a reference model; it is found (and downloaded) here, not loaded.

    Raises:
        ModelError: there is no such model, or it is no language model.
        SettingsError: an option or the template's file cannot be used.
    """
    options = _options(settings)
    model = resolve_model(
        settings.spec.removeprefix(PREFIX), options.revision, pickles_of(settings)
    )
    config = read_config(model, owner="reference model")
    refuse_others(
        config,
        model.path,
        "a reference model gives log-probabilities of tokens: …ForCausalLM",
        "give the model that the generator was trained from",
    )
    template = read_text(options.template, "logprob:MODEL?template=")
    fingerprint = {
        "kind": "logprob",
        "name": settings.name,
        "spec": f"{PREFIX}{model.name}",
        "revision": options.revision,
        "digest": model.digest,
        "dtype": settings.dtype,
        "template": text_digest(template),
        "encoder_version": ENCODER_VERSION,
    }
    scorer = LogprobScorer(settings, model.path, template)
    return ScoringPlan(
        settings.name,
        scorer,
        fingerprint,
        LogprobScorer(settings, model.path, template, alone=True),
        "transformers",
        "token tries" if can_pack(config) else "padded batches",
        reads_candidates=True,
        check_sampling=scorer.check_sampling,
    )


def _options(settings: ScorerSettings) -> LogprobOptions:
    return parse_options(LogprobOptions, settings.options, f"-r {settings.name}={settings.spec}")


LOGPROB = ScorerKind(
    prefix=PREFIX,
    noun="a reference model",
    reads=_READS,
    reads_of=lambda settings: _READS,
    gives_verdicts=lambda settings: False,
    check=check,
    plan=plan,
)
