"""What will rank, said before any work is done."""

from __future__ import annotations

from collections.abc import Sequence

from bon.cli.flags import Invocation
from bon.config import RankingSettings, ScorerSettings
from bon.errors import SettingsError
from bon.pipeline.ranked import ScorersThere
from bon.pipeline.recipes import Recipe, plan_recipe
from bon.places import Place
from bon.pool.layout import PoolLayout
from bon.pool.pool import Pool

__all__ = ["check_ranking", "recipe_to_be", "refuse_across_prompts"]


def check_ranking(call: Invocation) -> None:
    """Refuse flags of ranking that were typed and do nothing.

    Raises:
        SettingsError: with the flag.
    """
    aggregate = call.settings(RankingSettings).aggregate
    if "uwo_penalty" in call.typed and aggregate != "uwo":
        raise SettingsError(
            "--uwo-penalty does nothing here",
            why=f"--aggregate is {aggregate or 'not given'}",
            next_step="leave it out, or give --aggregate uwo",
        )


def recipe_to_be(
    call: Invocation,
    scorers: Sequence[ScorerSettings],
    root: Place | None = None,
    coming: Sequence[str] = (),
) -> Recipe:
    """Decide how the scorers of this run rank, before they do.

    Scorers of the pool at `root`, where there is one already, and the verdicts that are `coming`
    can be named besides.

    Raises:
        SettingsError: as `plan_recipe`.
    """
    from bon.cli.plans import LOGPROB, kind_of

    has_pool = root is not None and PoolLayout(root).manifest.is_file()
    there = ScorersThere.of(Pool.open(root)) if root and has_pool else ScorersThere()
    new = {one.name: kind_of(one.spec) for one in scorers}
    verdicts = {one.name for one in scorers if new[one.name].gives_verdicts(one)}
    references = {name for name, kind in new.items() if kind is LOGPROB}
    return plan_recipe(
        call.settings(RankingSettings),
        [name for name in new if name not in references],
        known=list(dict.fromkeys([*new, *there.names, *coming])),
        verdicts=(there.verdicts - new.keys()) | verdicts | set(coming),
        references=(there.references - new.keys()) | references,
    )


def refuse_across_prompts(recipe: Recipe | None, what: str) -> None:
    """Refuse what compares rewards of different prompts where these cannot be compared.

    Raises:
        SettingsError: they are lexicographic, and the first scorer gives any number.
    """
    if recipe is not None and not recipe.is_comparable:
        raise SettingsError(
            f"{what} compares rewards of different prompts, which these cannot be",
            where=recipe.name,
            why=f"{recipe.scorers[0]} comes first and is no verdict",
            next_step="put a verdict first, or take --weight",
        )
