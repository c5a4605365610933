"""`--placement`: whether parts are scored while others are sampled, or once all are."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from bon.cli.flags import Invocation
from bon.config import RunSettings
from bon.errors import SettingsError
from bon.pipeline.plans import GenerationPlan, ScoringPlan
from bon.protocols import Engine

__all__ = ["is_streamed", "refuse_idle_placement"]

_log = logging.getLogger(__name__)


def is_streamed(
    call: Invocation, engine: Engine, generation: GenerationPlan, scorings: Sequence[ScoringPlan]
) -> bool:
    """Decide how the stages of a run are placed, and log why.

    Raises:
        SettingsError: streaming was asked for, and there is no room for all models at once.
    """
    if not scorings:
        return False
    run = call.settings(RunSettings)
    wanted = run.placement
    why = engine.why_in_turn([generation.has_model, *(plan.has_model for plan in scorings)])
    if wanted == "stream" and why is not None:
        raise SettingsError(
            "sampling and scoring cannot run side by side here",
            where="--placement stream",
            why=why,
            next_step="give fewer workers, or --placement in-turn",
        )
    if wanted == "in-turn" or why is not None or (wanted == "auto" and run.engine != "ray"):
        why = "it was asked for" if wanted == "in-turn" else why or _ALONE
        _log.info("scoring begins once all candidates are there: %s", why)
        return False
    why = "it was asked for" if wanted == "stream" else "the cluster has room for all stages"
    _log.info("each part is scored as soon as it is sampled: %s", why)
    return True


_ALONE = "on one machine each stage takes all of it, unless --placement stream asks for both"


def refuse_idle_placement(call: Invocation, why: str) -> None:
    """Refuse `--placement` where it was typed although this run does not both sample and score.

    Raises:
        SettingsError: always, where it was typed.
    """
    if "placement" in call.typed:
        raise SettingsError(
            "--placement does nothing here",
            why=why,
            next_step="leave it out; it places sampling and scoring, where one command does both",
        )
