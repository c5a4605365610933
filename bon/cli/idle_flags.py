"""Flags of scorers that were typed although none of the scorers reads them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Any

from bon.cli.flags import Invocation
from bon.cli.plans import KINDS, REWARD_MODEL, RULE, SERVER, ScorerKind, kind_of
from bon.config import ScorerSettings, ScoreSettings
from bon.errors import ModelError, SettingsError
from bon.pipeline.models import ResolvedModel, local_folder, read_config
from bon.scorers.families import FAMILIES

__all__ = ["refuse_idle_flags", "refuse_idle_steps"]

_STEPS = ScorerSettings.step_fields


def refuse_idle_flags(
    call: Invocation, scorers: Sequence[ScorerSettings], *, judges: bool = False
) -> None:
    """Refuse what was typed and none of the scorers reads, before any work.

    `judges` says that the command itself asks a rule, which reads all that rules may. What stands
    in a file or in the environment may be meant for other commands.

    Raises:
        SettingsError: with the first such flag.
    """
    read = set(RULE.reads if judges else ())
    read |= {name for one in scorers for name in kind_of(one.spec).reads_of(one)}
    for name in sorted(set(ScoreSettings.model_fields) - read - {"reward"}):
        advice = " or ".join(kind.reads[name] for kind in _readers(name))
        _refuse(call, {name}, _why_idle(name, scorers), f"give -r {advice}")
    specs = [one.spec for one in scorers]
    models = [spec for spec in specs if kind_of(spec) is REWARD_MODEL]
    if all(local_folder(spec) for spec in models):
        why = "a folder has no revisions, and no reward model is a hub id"
        _refuse(call, {"reward_revision"}, why, "give -r the hub id")
    served = any(kind_of(spec) is SERVER for spec in specs)  # the plan tells, once it was asked
    if not served and not any(_may_read_steps(spec) for spec in models):
        refuse_idle_steps(call, _STEPS)


def _readers(name: str) -> list[ScorerKind]:
    return [kind for kind in reversed(KINDS) if name in kind.reads]


def _why_idle(name: str, scorers: Sequence[ScorerSettings]) -> str:
    """Say which scorers do not read it though others of their kind do, or that there is no such
    kind."""
    others = [one.spec for one in scorers if name in kind_of(one.spec).reads]
    if others:
        return f"{' and '.join(others)} {'does' if len(others) == 1 else 'do'} not read it"
    return f"none of the scorers is {' or '.join(kind.noun for kind in _readers(name))}"


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
