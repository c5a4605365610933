"""A scorer that is called with lists of prompts and completions, as trainers call rewards."""

from __future__ import annotations

import copy
import os
import threading
import warnings
import weakref
from collections import Counter
from collections.abc import Sequence
from typing import Any, Self

from bon.api.batch import read_batch
from bon.api.figures import RewardFigures
from bon.pipeline.plans import ScoringPlan
from bon.protocols import Scorer
from bon.records import CandidateGroup, Drop, Scores

__all__ = ["RewardFunction"]


class RewardFunction:
    """A scorer as one of TRL's `reward_funcs`; made by `load_scorer`.

    It is loaded by `with` or by the first call, and freed by the end of `with`, by `close`, or when
    nobody holds it any longer. Threads may share it: calls are done one at a time. A copy, a
    pickled one and one in a forked process begin unloaded, and with figures of their own.
    """

    _pid: int
    _lock: threading.Lock
    _figures: RewardFigures
    _scorer: Scorer | None
    _free: weakref.finalize[[Scorer, int], RewardFunction] | None

    def __init__(self, plan: ScoringPlan) -> None:
        self.__name__ = plan.name  # what trainers log it by
        self.reasons: Counter[str] = Counter()
        """Why completions had no reward, counted over all calls."""
        self._plan = plan
        self._begin()

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any
    ) -> list[float | None]:
        """Return a reward for each completion, higher is better; none where there is none.

        Prompts and completions are texts or lists of messages, a prompt for each completion. A
        prompt's completions should follow each other. `columns` are the dataset's other columns as
        lists of the same length; whatever else a trainer hands over is passed by.

        Raises:
            InputError: the lists are not of one length.
            BonError: what the scorer raises where nothing can be scored at all.
        """
        batch = read_batch(prompts, completions, columns)
        with self._own_lock():
            rewards, drops = batch.spread(self._scores(batch.groups))
            self._figures.add(rewards)
            new = self._count(drops)
        if new:
            text = "; ".join(f"{drop.reason} ({drop.detail})" for drop in new)
            warnings.warn(
                f"{self.__name__}: {len(drops)} of {len(rewards)} completions have no reward: "
                f"{text}; each reason is said once, `reasons` counts them",
                RuntimeWarning,
                stacklevel=2,
            )
        return rewards

    def metrics(self) -> dict[str, float]:
        """Return figures of the rewards since it was last asked, by NeMo RL's names.

        `num_samples`, `mean_reward`, `std_reward` (n - 1 below), `min_reward`, `max_reward`; and
        `num_null`, the samples without a reward, which are in none of the other four. What cannot
        be told of so few rewards is NaN.
        """
        with self._own_lock():
            figures, self._figures = self._figures, RewardFigures()
        return figures.as_dict()

    def close(self) -> None:
        """Free the model; the next call loads it again."""
        with self._own_lock():
            self._release()

    def __enter__(self) -> Self:
        with self._own_lock():
            self._loaded()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "not loaded" if self._scorer is None else "loaded"
        return f"<RewardFunction {self.__name__!r}, {state}>"

    def __getstate__(self) -> dict[str, Any]:
        return {"plan": self._plan}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["plan"])  # type: ignore[misc]

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._figures = RewardFigures()
        self._scorer = None
        self._free = None

    def _own_lock(self) -> threading.Lock:
        """Return the lock of this process."""
        if self._pid != os.getpid():
            # after a fork: the lock may be held by a thread that is not here, and what is loaded
            # (a process, sockets, a GPU) is the parent's
            self._begin()
        return self._lock

    def _loaded(self) -> Scorer:
        if self._scorer is None:
            scorer = copy.deepcopy(self._plan.scorer)  # the plan's own stays as it can be pickled
            self._scorer = scorer.__enter__()
            self._free = weakref.finalize(self, _leave, scorer, os.getpid())
            # a process that ends takes all with it, and what would free it may be gone by then
            self._free.atexit = False
        return self._scorer

    def _scores(self, groups: Sequence[CandidateGroup]) -> list[Scores]:
        if not groups:
            return []
        scorer = self._loaded()
        try:
            return scorer.score(groups)
        except BaseException:
            # an interrupted one may still have an answer under way, which the next call would take
            # for its own: it is loaded anew
            self._release()
            raise

    def _release(self) -> None:
        free, self._free, self._scorer = self._free, None, None
        if free is not None:
            free()

    def _count(self, drops: Sequence[Drop]) -> list[Drop]:
        """Count reasons and return a drop for each that is new."""
        new = {drop.reason: drop for drop in reversed(drops) if drop.reason not in self.reasons}
        self.reasons.update(drop.reason for drop in drops)
        return list(reversed(new.values()))


def _leave(scorer: Scorer, pid: int) -> None:
    if os.getpid() == pid:
        scorer.__exit__(None, None, None)
