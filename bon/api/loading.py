"""From a spec and keyword arguments to a reward function, by the planners of the command line."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import Any

from pydantic import ValidationError

from bon.api.reward_function import RewardFunction
from bon.cli.build import scorer_settings
from bon.cli.plans import REWARD_MODEL, kind_of
from bon.config import ScorerSettings, ScoreSettings
from bon.config.base import reason
from bon.errors import SettingsError, UnknownChoiceError, did_you_mean
from bon.pipeline.models import local_folder

__all__ = ["load_scorer"]

_PREFIXES = ("", "reward_", "scorer_", "rule_")
_SPECS = ("reward", "ref_model")
"""Fields of `ScoreSettings` that name scorers."""


def load_scorer(spec: str | os.PathLike[str], **settings: Any) -> RewardFunction:
    """Return a scorer as a function of prompts and completions.

    `spec` is what `-r` takes: `[NAME=]SPEC`, SPEC a reward model's hub id or folder, or
    `KIND:WHAT?KEY=VALUE&…`. `settings` are the fields of `ScoreSettings`, so the flags of
    `bon score`; `reward_`, `scorer_` and `rule_` may be left out (`dtype="float32"`). A hub model
    is downloaded here; it is loaded when the function is entered (`with`) or first called.

    Raises:
        SettingsError: a value is out of range, or nothing that this scorer reads.
        UnknownChoiceError: there is no such setting, rule, ….
        ModelError: there is no such model, or none that can be scored with.
        EngineError: a package that it needs is not installed.
        ServerError: a server that it needs is not reached.
    """
    said = os.fspath(spec)
    names = {name: _full_name(name, said) for name in settings}
    wanted = _score_settings(said, {names[name]: settings[name] for name in settings}, names)
    (one,) = scorer_settings(wanted)
    kind = kind_of(one.spec)
    _refuse_unread(said, names, one)
    if kind is REWARD_MODEL and local_folder(one.spec):
        _refuse_idle(said, names, {"reward_revision"}, "a folder has no revisions")
    plan = kind.plan(one)
    idle = ScorerSettings.step_fields - plan.fingerprint.keys()
    _refuse_idle(said, names, idle, "this is no process reward model")
    return RewardFunction(plan)


def _full_name(name: str, spec: str) -> str:
    """Return the name of the field of `ScoreSettings` that is meant."""
    known = {
        full.removeprefix(prefix): full
        for prefix in reversed(_PREFIXES)  # a full name wins
        for full in ScoreSettings.model_fields
        if full not in _SPECS and full.startswith(prefix)
    }
    if name not in known:
        raise UnknownChoiceError(
            f"there is no setting {name!r}",
            where=f"load_scorer({spec!r})",
            next_step="name it in the spec: 'NAME=SPEC'"
            if name == "name"
            else did_you_mean(name, known),
        )
    return known[name]


def _refuse_unread(spec: str, names: Mapping[str, str], scorer: ScorerSettings) -> None:
    """Refuse what is for scorers of another kind, or for others of its own."""
    kind = kind_of(scorer.spec)
    for full in sorted(set(names.values()) - set(kind.reads_of(scorer))):
        what, advice = kind.noun, "leave it out"
        if full in kind.reads:
            what, advice = scorer.spec, f"leave it out, or take {kind.reads[full]}"
        _refuse_idle(spec, names, {full}, f"{what} does not read {full}", advice)


def _refuse_idle(
    spec: str,
    names: Mapping[str, str],
    idle: Collection[str],
    why: str,
    next_step: str = "leave it out",
) -> None:
    for name, full in names.items():
        if full in idle:
            raise SettingsError(
                f"{name!r} does nothing here",
                where=f"load_scorer({spec!r})",
                why=why,
                next_step=next_step,
            )


def _score_settings(
    spec: str, values: Mapping[str, Any], names: Mapping[str, str]
) -> ScoreSettings:
    try:
        return ScoreSettings.model_validate({**values, "reward": (spec,)})
    except ValidationError as error:
        first = error.errors()[0]
        full = str(first["loc"][0])
        short = next((name for name in names if names[name] == full), full)
        raise SettingsError(
            f"bad value for {short!r}: {first.get('input')!r}",
            where=f"load_scorer({spec!r})",
            why=reason(first),
        ) from None
