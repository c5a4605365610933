"""Flags of scorers that were typed although none of the scorers reads them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Any

from bon.cli.flags import Invocation
from bon.config import ScorerSettings, ScoreSettings
from bon.errors import ModelError, SettingsError
from bon.pipeline.models import ResolvedModel, local_folder, read_config
from bon.scorers.families import FAMILIES
from bon.scorers.rules import PREFIX

__all__ = ["refuse_idle_flags", "refuse_idle_steps"]

_RULE = frozenset({"rule_answer_column", "rule_timeout_s"})
_STEPS = ScorerSettings.step_fields
_MODEL = frozenset(ScoreSettings.model_fields) - _RULE - _STEPS - {"reward"}


def refuse_idle_flags(
    call: Invocation, scorers: Sequence[ScorerSettings], *, judges: bool = False
) -> None:
    """Refuse what was typed for a kind of scorer that is not among them, before any work.

    `judges` says that the command itself asks a rule. What stands in a file or in the environment
    may be meant for other commands.

    Raises:
        SettingsError: with the first such flag.
    """
    models = [one.spec for one in scorers if not one.spec.startswith(PREFIX)]
    if not models:
        why = "none of the scorers is a reward model"
        _refuse(call, _MODEL | _STEPS, why, "give -r a reward model")
    if len(models) == len(scorers) and not judges:
        _refuse(call, _RULE, "none of the scorers is a rule", "give -r rule:math or rule:exact")
    if all(local_folder(spec) for spec in models):
        why = "a folder has no revisions, and no reward model is a hub id"
        _refuse(call, {"reward_revision"}, why, "give -r the hub id")
    if not any(_may_read_steps(spec) for spec in models):
        refuse_idle_steps(call, _STEPS)


def refuse_idle_steps(call: Invocation, names: Collection[str]) -> None:
    """Refuse those settings of steps that were typed: no scorer reads steps."""
    why = "none of the scorers is a process reward model"
    _refuse(call, names, why, "give -r a process reward model")


def _refuse(call: Invocation, names: Collection[str], why: str, advice: str) -> None:
    for name in sorted(call.typed & set(names)):
        raise SettingsError(
            f"--{name.replace('_', '-')} does nothing here",
            why=why,
            next_step=f"leave it out, or {advice}",
        )


def _may_read_steps(spec: str) -> bool:
    """Tell from a folder's config.json; of what is not here yet, and of adapters, it may be so."""
    folder = local_folder(spec)
    if folder is None or (folder / "adapter_config.json").is_file():
        return True
    config: dict[str, Any] = {}
    with suppress(ModelError):  # the run says what is wrong with it
        config = read_config(ResolvedModel(spec, str(folder), ""))
    names = config.get("architectures")
    if not isinstance(names, list) or not names:
        return True
    return any(family.reads_steps and family.has(str(names[0])) for family in FAMILIES)
