"""Every kind of scorer that -r takes, a file each; a new one is added to `KINDS`."""

from bon.cli.plans.judge import JUDGE
from bon.cli.plans.kinds import ScorerKind
from bon.cli.plans.logprob import LOGPROB
from bon.cli.plans.reward_model import REWARD_MODEL
from bon.cli.plans.rule import RULE
from bon.cli.plans.server import SERVER

__all__ = ["JUDGE", "KINDS", "LOGPROB", "REWARD_MODEL", "RULE", "SERVER", "ScorerKind", "kind_of"]

KINDS: tuple[ScorerKind, ...] = (RULE, JUDGE, LOGPROB, SERVER, REWARD_MODEL)
"""The first whose prefix fits is taken, so reward models, which have none, come last."""


def kind_of(spec: str) -> ScorerKind:
    """Return the kind that a spec is of."""
    return next(kind for kind in KINDS if spec.startswith(kind.prefix))
