"""The chosen candidates of one frame: what is computed of its rows alone, wherever that happens."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bon.answers import extract_answer, is_correct, reference_answer
from bon.config import SelectSettings
from bon.pipeline.conversations import after_prompts, as_array, last_user_turn
from bon.pipeline.frames import Frame
from bon.pipeline.passthrough import PassThrough, given_ids
from bon.pipeline.rewards import Ranking
from bon.records import RESPONSE_FIELDS, Drop
from bon.selection import Choices, choose

__all__ = ["Choosing", "Chosen", "PromptMeans"]

_VOTING = frozenset({"majority", "weighted-majority"})


@dataclass(frozen=True, slots=True)
class PromptMeans:
    """Of each prompt that counts, the mean over its candidates; by field of the report."""

    reward_all: NDArray[np.float64]
    reward_chosen: NDArray[np.float64]
    accuracy_random: NDArray[np.float64]
    accuracy_chosen: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Chosen:
    """What comes of one frame: its rows, and what is to be booked."""

    table: pa.Table
    num_candidates: int
    num_ties: int
    num_kept: int
    drops: tuple[Drop, ...]
    means: PromptMeans


@dataclass(frozen=True, slots=True)
class Choosing:
    """Chooses among the candidates of one frame; can be pickled, and changes nothing."""

    settings: SelectSettings
    pattern: re.Pattern[str] | None
    ranking: Ranking
    seed: int
    others: PassThrough

    @property
    def schema(self) -> pa.Schema:
        """Our columns, then the input's own."""
        return pa.schema([*RESPONSE_FIELDS, *self.others.fields])

    def __call__(self, frame: Frame) -> Chosen:
        """Choose among a frame's candidates."""
        reward_C = frame.scores[self.ranking.name].astype(np.float64)
        choices = self._choose(frame, reward_C)
        extras = self.others.read(frame.prompts)
        return Chosen(
            self._table(frame, reward_C, choices, extras),
            frame.candidates.num_rows,
            int((choices.num_tied_P > 1).sum()),
            len(frame.count_P) - len(choices.dropped),
            _drops(frame, choices),
            PromptMeans(
                *_mean_rewards(frame, reward_C, choices), *self._accuracies(frame, choices, extras)
            ),
        )

    def _choose(self, frame: Frame, reward_C: NDArray[np.float64]) -> Choices:
        settings = self.settings
        answers = seeds = None
        if settings.strategy in _VOTING:
            passes = self.ranking.passes_gates(frame).tolist()
            texts = frame.candidates["response"].to_pylist()
            answers = [
                extract_answer(text, self.pattern) if is_in else None
                for text, is_in in zip(texts, passes, strict=True)
            ]
        if settings.strategy == "soft":
            prompt_ids = frame.prompts["prompt_id"].to_pylist()
            seeds = [_draw_seed(self.seed, prompt_id) for prompt_id in prompt_ids]
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

    def _accuracies(
        self, frame: Frame, choices: Choices, extras: Sequence[dict[str, Any]]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return shares of right responses, of all and of the chosen ones.

        Prompts count that were kept and have a reference, and no others.
        """
        column = self.settings.answer_column
        if column not in self.others.names:
            return np.zeros(0), np.zeros(0)
        references = [reference_answer(extra.get(column), self.pattern) for extra in extras]
        is_known_P = np.array([one is not None for one in references], np.bool_)
        is_measured_P = is_known_P & (choices.num_kept_P > 0)
        prompt_C = frame.prompt_C
        measured = np.flatnonzero(is_measured_P[prompt_C])
        texts = frame.candidates["response"].take(pa.array(measured)).to_pylist()
        right_C = np.zeros(len(prompt_C), np.bool_)
        right_C[measured] = [
            is_correct(text, str(references[prompt]), self.pattern)
            for text, prompt in zip(texts, prompt_C[measured].tolist(), strict=True)
        ]
        num_prompts, chosen_K = len(frame.count_P), choices.chosen_K
        num_right_P = np.bincount(prompt_C[right_C], minlength=num_prompts)
        chosen_right_K = chosen_K[right_C[chosen_K]]
        num_chosen_right_P = np.bincount(prompt_C[chosen_right_K], minlength=num_prompts)
        random_P = (num_right_P / frame.count_P)[is_measured_P]
        return random_P, num_chosen_right_P[is_measured_P] / choices.num_kept_P[is_measured_P]

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
        others = [array.take(prompt) for array in self.others.arrays(extras)]
        return pa.Table.from_arrays([*ours, *others], schema=self.schema)


def _draw_seed(seed: int, prompt_id: str) -> int:
    """Return the seed of soft's draw: its own stream, apart from the sampling seeds."""
    digest = hashlib.sha256(f"select\0{seed}\0{prompt_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big")


def _drops(frame: Frame, choices: Choices) -> tuple[Drop, ...]:
    gone = frame.prompts.take(pa.array(choices.dropped, pa.int64()))
    ids, places = given_ids(gone).to_pylist(), gone["where"].to_pylist()
    return tuple(
        Drop(reason, detail, where, prompt_id)
        for (reason, detail), prompt_id, where in zip(
            choices.dropped.values(), ids, places, strict=True
        )
    )


def _mean_rewards(
    frame: Frame, reward_C: NDArray[np.float64], choices: Choices
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the kept prompts' mean rewards, of all candidates and of the chosen ones."""
    is_kept_P = choices.num_kept_P > 0
    prompt_C, chosen_K = frame.prompt_C, choices.chosen_K
    return (
        _means(reward_C, prompt_C, is_kept_P),
        _means(reward_C[chosen_K], prompt_C[chosen_K], is_kept_P),
    )


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
