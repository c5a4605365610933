"""Best of N: a ranked pool in, one row for each chosen candidate out, as Arrow tables."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bon.answers import compile_answer_pattern, extract_answer, is_correct, reference_answer
from bon.config import SelectSettings
from bon.errors import SettingsError
from bon.pipeline.accounting import Accounting
from bon.pipeline.conversations import after_prompts, as_array, last_user_turn
from bon.pipeline.frames import Frame
from bon.pipeline.passthrough import PassThrough, given_ids
from bon.pipeline.ranked import open_books
from bon.pipeline.rewards import Ranking, ranked_frames
from bon.pool.pool import Pool
from bon.records import RESPONSE_FIELDS, Drop
from bon.selection import Choices, choose

__all__ = ["SelectReport", "Selector", "check_selection"]

_VOTING = frozenset({"majority", "weighted-majority"})


@dataclass
class _Mean:
    """A running mean of what is there and finite; none of nothing."""

    total: float = 0.0
    count: int = 0

    def add(self, values: NDArray[np.float64]) -> None:
        finite = values[np.isfinite(values)]
        # One after the other, so that it is no matter how many come at a time.
        self.total = float(np.cumsum(np.r_[self.total, finite])[-1])
        self.count += len(finite)

    @property
    def value(self) -> float | None:
        return self.total / self.count if self.count else None


@dataclass
class SelectReport:
    """What selecting did; means and accuracies are over the prompts that were kept, each counting
    once, however many of its candidates have a reward."""

    accounting: Accounting
    strategy: str
    scorer: str
    num_candidates: int = 0
    num_ties: int = 0
    """Prompts whose last kept place was tied."""
    reward_all: _Mean = field(default_factory=_Mean)
    reward_chosen: _Mean = field(default_factory=_Mean)
    accuracy_random: _Mean = field(default_factory=_Mean)
    """Share of right candidates: what one random candidate would reach."""
    accuracy_chosen: _Mean = field(default_factory=_Mean)

    def as_json(self) -> dict[str, Any]:
        """Return the report for `--json`; lift is in reward, the gain in accuracy in points."""
        means = {
            "mean_reward_all": self.reward_all.value,
            "mean_reward_chosen": self.reward_chosen.value,
            "accuracy_random": self.accuracy_random.value,
            "accuracy_chosen": self.accuracy_chosen.value,
        }
        low, high = self.reward_all.value, self.reward_chosen.value
        lift = high - low if low is not None and high is not None else None
        return {
            **self.accounting.as_json(),
            "strategy": self.strategy,
            "scorer": self.scorer,
            "candidates": self.num_candidates,
            "ties": self.num_ties,
            **means,
            "lift": lift,
        }


class Selector:
    """Chooses among the candidates of a pool, some parts at a time.

    Raises:
        PoolIncompleteError: parts are missing.
        SettingsError: as `check_selection`.
    """

    def __init__(
        self,
        pool: Pool,
        settings: SelectSettings,
        *,
        ranking: Ranking,
        seed: int,
        limit: int | None,
    ) -> None:
        self._pool, self._settings, self._seed, self._limit = pool, settings, seed, limit
        self._pattern, self._ranking = check_selection(settings), ranking
        books = open_books(pool, ranking.reads, limit)
        self.report = SelectReport(books, settings.strategy, ranking.name)
        self._others = PassThrough(pool, limit, [item.name for item in RESPONSE_FIELDS])

    @property
    def schema(self) -> pa.Schema:
        """Our columns, then the input's own."""
        return pa.schema([*RESPONSE_FIELDS, *self._others.fields])

    def tables(self) -> Iterator[pa.Table]:
        """Yield the chosen candidates in input order, a table a frame, and keep the books."""
        for frame in ranked_frames(
            self._pool,
            self._ranking,
            limit=self._limit,
            prompt_columns=["prompt", "extra", "where"],
            candidate_columns=["response", "finish_reason", "num_tokens"],
        ):
            reward_C = frame.scores[self._ranking.name].astype(np.float64)
            choices = self._choose(frame, reward_C)
            self._book(frame, choices)
            extras = self._others.read(frame.prompts)
            _measure_rewards(self.report, frame, reward_C, choices)
            self._measure_accuracy(frame, choices, extras)
            yield self._table(frame, reward_C, choices, extras)

    def _choose(self, frame: Frame, reward_C: NDArray[np.float64]) -> Choices:
        settings = self._settings
        answers = seeds = None
        if settings.strategy in _VOTING:
            passes = self._ranking.passes_gates(frame).tolist()
            texts = frame.candidates["response"].to_pylist()
            answers = [
                extract_answer(text, self._pattern) if is_in else None
                for text, is_in in zip(texts, passes, strict=True)
            ]
        if settings.strategy == "soft":
            prompt_ids = frame.prompts["prompt_id"].to_pylist()
            seeds = [_draw_seed(self._seed, prompt_id) for prompt_id in prompt_ids]
        return choose(
            reward_C,
            frame.count_P,
            strategy=settings.strategy,
            k=settings.k,
            threshold=settings.threshold or 0.0,
            soft_lambda=settings.soft_lambda,
            answers_C=answers,
            seeds_P=seeds,
        )

    def _book(self, frame: Frame, choices: Choices) -> None:
        report, books = self.report, self.report.accounting
        report.num_candidates += frame.candidates.num_rows
        report.num_ties += int((choices.num_tied_P > 1).sum())
        books.kept_rows += len(frame.count_P) - len(choices.dropped)
        books.output_rows += len(choices.chosen_K)
        gone = frame.prompts.take(pa.array(choices.dropped, pa.int64()))
        ids, places = given_ids(gone).to_pylist(), gone["where"].to_pylist()
        said = choices.dropped.values()
        for (reason, detail), prompt_id, where in zip(said, ids, places, strict=True):
            books.add(Drop(reason, detail, where, prompt_id))

    def _measure_accuracy(
        self, frame: Frame, choices: Choices, extras: Sequence[dict[str, Any]]
    ) -> None:
        """Compare the responses of prompts that were kept and have a reference, and no others."""
        column = self._settings.answer_column
        if column not in self._others.names:
            return
        references = [reference_answer(extra.get(column), self._pattern) for extra in extras]
        is_known_P = np.array([one is not None for one in references], np.bool_)
        is_measured_P = is_known_P & (choices.num_kept_P > 0)
        prompt_C = frame.prompt_C
        measured = np.flatnonzero(is_measured_P[prompt_C])
        texts = frame.candidates["response"].take(pa.array(measured)).to_pylist()
        right_C = np.zeros(len(prompt_C), np.bool_)
        right_C[measured] = [
            is_correct(text, str(references[prompt]), self._pattern)
            for text, prompt in zip(texts, prompt_C[measured].tolist(), strict=True)
        ]
        num_prompts, chosen_K = len(frame.count_P), choices.chosen_K
        num_right_P = np.bincount(prompt_C[right_C], minlength=num_prompts)
        chosen_right_K = chosen_K[right_C[chosen_K]]
        num_chosen_right_P = np.bincount(prompt_C[chosen_right_K], minlength=num_prompts)
        report = self.report
        report.accuracy_random.add((num_right_P / frame.count_P)[is_measured_P])
        kept_P = choices.num_kept_P[is_measured_P]
        report.accuracy_chosen.add(num_chosen_right_P[is_measured_P] / kept_P)

    def _table(
        self,
        frame: Frame,
        reward_C: NDArray[np.float64],
        choices: Choices,
        extras: Sequence[dict[str, Any]],
    ) -> pa.Table:
        chosen = frame.candidates.take(pa.array(choices.chosen_K))
        prompt_K = np.repeat(np.arange(len(frame.count_P)), choices.num_kept_P)
        prompt = pa.array(prompt_K)
        prompts, responses = as_array(frame.prompts["prompt"]), as_array(chosen["response"])
        reward = _stored(reward_C)
        ends_P = np.r_[0, np.cumsum(frame.count_P)].astype(np.int32)
        columns = {
            "prompt_id": given_ids(frame.prompts).take(prompt),
            "prompt": last_user_turn(prompts).take(prompt),
            "response": responses,
            "messages": after_prompts(prompts, prompt_K, responses),
            "reward": reward.take(pa.array(choices.chosen_K)),
            "candidate": chosen["candidate"],
            "num_candidates": pa.array(frame.count_P[prompt_K].astype(np.int32)),
            "rewards": pa.ListArray.from_arrays(pa.array(ends_P), reward).take(prompt),
            "finish_reason": chosen["finish_reason"],
            "num_tokens": chosen["num_tokens"],
        }
        ours = [columns[item.name] for item in RESPONSE_FIELDS]
        others = [array.take(prompt) for array in self._others.arrays(extras)]
        return pa.Table.from_arrays([*ours, *others], schema=self.schema)


def check_selection(settings: SelectSettings) -> re.Pattern[str] | None:
    """Find before any engine work what would stop the selection; return the answer pattern.

    Raises:
        SettingsError: a bad pattern, or a threshold that is missing.
    """
    if settings.strategy == "threshold" and settings.threshold is None:
        raise SettingsError(
            "--strategy threshold needs --threshold",
            next_step="give the lowest reward to accept; `bon inspect POOL` shows the quantiles",
        )
    return compile_answer_pattern(settings.answer_pattern)


def _draw_seed(seed: int, prompt_id: str) -> int:
    """Return the seed of soft's draw: its own stream, apart from the sampling seeds."""
    digest = hashlib.sha256(f"select\0{seed}\0{prompt_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big")


def _measure_rewards(
    report: SelectReport, frame: Frame, reward_C: NDArray[np.float64], choices: Choices
) -> None:
    is_kept_P = choices.num_kept_P > 0
    prompt_C, chosen_K = frame.prompt_C, choices.chosen_K
    report.reward_all.add(_means(reward_C, prompt_C, is_kept_P))
    report.reward_chosen.add(_means(reward_C[chosen_K], prompt_C[chosen_K], is_kept_P))


def _means(
    reward_K: NDArray[np.float64], prompt_K: NDArray[np.int64], is_kept_P: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return the mean of each kept prompt's rewards, where it has any."""
    known = np.isfinite(reward_K)
    num_prompts = len(is_kept_P)
    num_P = np.bincount(prompt_K[known], minlength=num_prompts)
    # bincount adds up in order, so how prompts are cut into frames is no matter
    sum_P = np.bincount(prompt_K[known], weights=reward_K[known], minlength=num_prompts)
    wanted = is_kept_P & (num_P > 0)
    means: NDArray[np.float64] = sum_P[wanted] / num_P[wanted]
    return means


def _stored(reward_C: NDArray[np.float64]) -> pa.Array:
    """Return rewards as they are stored, null where there is none."""
    with np.errstate(over="ignore"):
        return pa.array(reward_C.astype(np.float32), pa.float32(), mask=np.isnan(reward_C))
