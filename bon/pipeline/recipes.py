"""What was said about putting scores together, checked against the scorers that there are."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Literal, TypeAlias, get_args

from bon.config import RankingSettings
from bon.errors import EngineError, SettingsError, UnknownChoiceError, did_you_mean

__all__ = ["REFERENCE", "Debias", "Normalize", "Recipe", "plan_recipe"]

REFERENCE = "ref"
"""The scorer that --ref-model makes: log-probabilities of the responses, not a reward."""

Normalize: TypeAlias = Literal["none", "prompt-z", "global-z", "rank"]
Debias: TypeAlias = Literal["none", "linear", "lowess"]
_NUMBER = r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?"
_WEIGHT = re.compile(rf"([^=]+)=({_NUMBER})", re.ASCII)
_GATE = re.compile(rf"(.+?)\s*>=\s*({_NUMBER})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How scores become rewards."""

    scorers: tuple[str, ...]
    """Whose scores are put together, in order."""
    aggregate: str | None = None
    """A value of `RankingSettings.aggregate`; none where there is one scorer."""
    weights: Mapping[str, float] = field(default_factory=dict)
    gates: Mapping[str, float] = field(default_factory=dict)
    normalize: Mapping[str, Normalize] = field(default_factory=dict)
    length_debias: Mapping[str, Debias] = field(default_factory=dict)
    uwo_penalty: float = 0.5
    kl_beta: float = 0.0
    is_comparable: bool = True
    """Whether rewards of different prompts can be compared."""

    @property
    def reads(self) -> tuple[str, ...]:
        """All scorers whose scores are needed."""
        reference = [REFERENCE] if self.kl_beta else []
        return tuple(dict.fromkeys([*self.scorers, *self.gates, *reference]))

    @property
    def is_plain(self) -> bool:
        """Tell whether one scorer's scores are the rewards."""
        extras = (self.aggregate, self.gates, self.normalize, self.length_debias, self.kl_beta)
        return len(self.scorers) == 1 and not any(extras)

    @property
    def name(self) -> str:
        """What reports call the reward: the scorer's name, or how several make it."""
        weighted = [self._part(one) for one in self.scorers]
        text = weighted[0] if self.aggregate is None else f"{self.aggregate}({', '.join(weighted)})"
        if self.kl_beta:
            text += f" - {self.kl_beta:g} KL"
        conditions = [f"{name} >= {lowest:g}" for name, lowest in self.gates.items()]
        return text + (f" where {' and '.join(conditions)}" if conditions else "")

    def _part(self, scorer: str) -> str:
        """Say what is done to one scorer's scores: another name than the scores as they are."""
        text, weight = scorer, self.weights.get(scorer, 1.0)
        if scorer in self.length_debias:
            text = f"{self.length_debias[scorer]}-debiased({text})"
        if scorer in self.normalize:
            text = f"{self.normalize[scorer]}({text})"
        return text if weight == 1 else f"{weight:g} {text}"

    def as_json(self) -> dict[str, Any]:
        """Return what was set, for `--json` and the dataset card."""
        said: dict[str, Any] = {"scorers": list(self.scorers), "aggregate": self.aggregate}
        for key in ("weights", "gates", "normalize", "length_debias"):
            if getattr(self, key):
                said[key] = dict(getattr(self, key))
        if self.aggregate == "uwo":
            said["uwo_penalty"] = self.uwo_penalty
        return said | ({"kl_beta": self.kl_beta} if self.kl_beta else {})


def plan_recipe(
    settings: RankingSettings,
    names: Sequence[str],
    *,
    known: Collection[str] = (),
    verdicts: Collection[str] = (),
    references: Collection[str] = (),
    where: str = "",
) -> Recipe:
    """Decide what ranks, before anything is read.

    `names` are the scorers that may rank by themselves, in order; `known` those that can be named
    besides; `verdicts` those of them that say right or wrong, which rank only where they are named,
    or nothing else is there, or several are put together; `references` those that give
    log-probabilities.

    Raises:
        UnknownChoiceError: a scorer or a kind that does not exist.
        SettingsError: several scorers and nothing says how they rank; settings that do nothing or
            do not go together.
        EngineError: lowess, and statsmodels is not installed.
    """
    there = list(dict.fromkeys([*names, *known]))
    gates = _once([_gate(said) for said in settings.gate], "--gate")
    weights = _once([_weight(said) for said in settings.weight], "--weight")
    named = [name.strip() for name in (settings.rank_by or "").split(",") if name.strip()]
    ranked = list(_once([(name, 1.0) for name in named], "--rank-by"))
    for flag, said in (("gate", gates), ("weight", weights), ("rank-by", ranked)):
        for name in said:
            _check_name(name, there, f"--{flag}", where)
    scorers = ranked or _by_default(settings, names, gates, weights, verdicts)
    if not scorers:
        raise SettingsError(
            "there is no scorer that ranks",
            where=where,
            why=f"there are only {', '.join(there)}" if there else "",
            next_step="give -r a reward, or name what ranks with --rank-by",
        )
    if len(scorers) > 1 and settings.aggregate is None and not weights:
        raise SettingsError(
            "there are several scorers",
            where=where,
            why=", ".join(scorers),
            next_step="name the one that ranks with --rank-by, or put them together with "
            "--aggregate or --weight",
        )
    aggregate = (settings.aggregate or "sum") if len(scorers) > 1 or weights else None
    _check_weights(aggregate, weights, scorers)
    if settings.aggregate is not None and len(scorers) < 2:
        raise SettingsError(
            f"--aggregate {settings.aggregate} has but one scorer: {', '.join(scorers) or 'none'}",
            where=where,
            next_step="give a second -r, or leave it out",
        )
    if settings.kl_beta:
        _check_reference(there, references, where)
    rewards = [name for name in scorers if name not in verdicts]
    if "linear" in settings.length_debias or "lowess" in settings.length_debias:
        _check_some(rewards, scorers)
    if any("lowess" in said for said in settings.length_debias):
        _check_lowess()
    return Recipe(
        tuple(scorers),
        aggregate,
        weights,
        gates,
        _kinds(settings.normalize, get_args(Normalize), scorers, scorers, "--normalize"),
        _kinds(settings.length_debias, get_args(Debias), scorers, rewards, "--length-debias"),
        settings.uwo_penalty,
        settings.kl_beta,
        aggregate != "lexicographic" or scorers[0] in verdicts,
    )


def _by_default(
    settings: RankingSettings,
    names: Sequence[str],
    gates: Collection[str],
    weights: Collection[str],
    verdicts: Collection[str],
) -> list[str]:
    """Name what ranks where --rank-by is not given."""
    free = [name for name in names if name not in gates] or list(names)
    if weights and settings.aggregate is None:
        return [name for name in free if name in weights] or list(weights)
    if settings.aggregate == "lexicographic":
        return sorted(free, key=lambda name: name not in verdicts)  # stable: else as given
    if settings.aggregate is not None:
        return free
    return [name for name in free if name not in verdicts] or free


def _once(said: Sequence[tuple[str, float]], flag: str) -> dict[str, float]:
    """Return names and their values; raises SettingsError for a name that is there twice."""
    names = [name for name, _ in said]
    for name in names:
        if names.count(name) > 1:
            raise SettingsError(f"{name!r} is there twice", where=flag, next_step="give it once")
    return dict(said)


def _weight(said: str) -> tuple[str, float]:
    found = _WEIGHT.fullmatch(said)
    if not found:
        raise SettingsError(f"bad value for --weight: {said!r}", next_step="give NAME=WEIGHT")
    return found[1].strip(), float(found[2])


def _gate(said: str) -> tuple[str, float]:
    found = _GATE.fullmatch(said)
    if not found:
        raise SettingsError(
            f"bad value for --gate: {said!r}",
            next_step="give NAME>=SCORE, in quotes: the shell takes > for itself",
        )
    return found[1].strip(), float(found[2])


def _check_name(name: str, there: Collection[str], flag: str, where: str) -> None:
    if name not in there:
        raise UnknownChoiceError(
            f"there is no scorer {name!r}",
            where=f"{flag}, {where}" if where else flag,
            next_step=did_you_mean(name, there),
        )


def _check_weights(
    aggregate: str | None, weights: Mapping[str, float], scorers: Collection[str]
) -> None:
    idle = [name for name in weights if name not in scorers]
    if weights and (aggregate not in ("sum", "mean") or idle):
        raise SettingsError(
            f"--weight {idle[0]} does nothing here" if idle else "--weight does nothing here",
            why=f"what ranks is {', '.join(scorers)}" if idle else f"--aggregate {aggregate}",
            next_step="weights are for --aggregate sum and mean, of scorers that rank",
        )
    if aggregate == "mean" and not sum(weights.get(name, 1.0) for name in scorers) > 0:
        raise SettingsError("the weights of a mean must have a sum above 0", where="--weight")


def _check_some(rewards: Sequence[str], scorers: Sequence[str]) -> None:
    if not rewards:
        raise SettingsError(
            "--length-debias does nothing here",
            why=f"{', '.join(scorers)} says only right or wrong",
            next_step=f"leave it out, or name one: --length-debias {scorers[0]}=linear",
        )


def _check_lowess() -> None:
    if find_spec("statsmodels") is None:
        raise EngineError(
            "--length-debias lowess needs statsmodels, which is not installed",
            next_step="pip install 'bon-cli[curation]', or take linear",
        )


def _check_reference(there: Collection[str], references: Collection[str], where: str) -> None:
    if REFERENCE in there and REFERENCE not in references:
        raise SettingsError(
            f"the scorer {REFERENCE!r} gives no log-probabilities",
            where=where,
            why="--kl-beta takes the scores of this name for those of a reference model",
            next_step="give that scorer another name, and --ref-model",
        )
    if REFERENCE not in there:
        raise SettingsError(
            "--kl-beta needs the log-probabilities under a reference model",
            where=where,
            next_step="give --ref-model; for a pool: bon score POOL --ref-model MODEL",
        )


def _kinds(
    said: Sequence[str],
    kinds: Sequence[str],
    scorers: Sequence[str],
    by_default: Sequence[str],
    flag: str,
) -> dict[str, Any]:
    """Read `[NAME=]KIND`; what is said for a name wins over what is said for all."""
    result: dict[str, str] = {}
    for one in sorted(said, key=lambda text: "=" in text):
        name, equals, kind = one.rpartition("=")
        if kind not in kinds:
            raise UnknownChoiceError(
                f"bad value for {flag}: {one!r}", next_step=did_you_mean(kind, kinds)
            )
        if equals:
            _check_name(name, scorers, flag, "")
        result |= dict.fromkeys([name] if equals else by_default, kind)
    return {name: kind for name, kind in result.items() if kind != "none"}
