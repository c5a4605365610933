"""`--placement`: whether parts are scored while others are sampled, or once all are."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from bon.cli.flags import Invocation
from bon.config import RunSettings
from bon.errors import SettingsError
from bon.pipeline.plans import GenerationPlan, ScoringPlan
from bon.protocols import Engine

__all__ = ["is_streamed", "refuse_idle_placement", "refuse_no_room"]

_log = logging.getLogger(__name__)
_ALONE = "on one machine each stage takes all of it, unless --placement stream asks for both"


def refuse_no_room(
    call: Invocation, engine: Engine, generation: GenerationPlan, scorings: Sequence[ScoringPlan]
) -> None:
    """Make sure of what `--placement stream` asks for; else no engine is asked, no cluster either.

    Raises:
        SettingsError: there is no room for all models at once.
    """
    if call.settings(RunSettings).placement != "stream" or not scorings:
        return
    why = _why_in_turn(engine, generation, scorings)
    if why is not None:
        raise SettingsError(
            "sampling and scoring cannot run side by side here",
            where="--placement stream",
            why=why,
            next_step="give fewer workers, or --placement in-turn",
        )


def is_streamed(
    call: Invocation, engine: Engine, generation: GenerationPlan, scorings: Sequence[ScoringPlan]
) -> bool:
    """Decide how the stages of a run that samples and scores are placed, and log why."""
    if not scorings:
        return False
    run = call.settings(RunSettings)
    if run.placement == "stream":
        return _streamed("it was asked for")
    if run.placement == "in-turn":
        return _in_turn("it was asked for")
    if run.engine != "ray":
        return _in_turn(_ALONE)
    why = _why_in_turn(engine, generation, scorings)
    return _streamed("the cluster has room for all stages") if why is None else _in_turn(why)


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


def _why_in_turn(
    engine: Engine, generation: GenerationPlan, scorings: Sequence[ScoringPlan]
) -> str | None:
    return engine.why_in_turn([generation.needs, *(plan.needs for plan in scorings)])


def _streamed(why: str) -> bool:
    _log.info("each part is scored as soon as it is sampled: %s", why)
    return True


def _in_turn(why: str) -> bool:
    _log.info("scoring begins once all candidates are there: %s", why)
    return False
