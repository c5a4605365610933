"""What will rank, said before any work is done."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from bon.cli.flags import Invocation
from bon.cli.plans import LOGPROB, kind_of
from bon.config import RankingSettings, ScorerSettings
from bon.pipeline.recipes import Recipe, plan_recipe

__all__ = ["recipe_to_be"]


def recipe_to_be(
    call: Invocation, scorers: Sequence[ScorerSettings], known: Collection[str] = ()
) -> Recipe:
    """Decide how the scorers of this run rank, before they do; `known` can be named besides.

    Raises:
        SettingsError: as `plan_recipe`.
    """
    verdicts = [one.name for one in scorers if kind_of(one.spec).gives_verdicts(one)]
    names = [one.name for one in scorers if kind_of(one.spec) is not LOGPROB]
    known = [*(one.name for one in scorers), *known]
    return plan_recipe(call.settings(RankingSettings), names, known=known, verdicts=verdicts)
