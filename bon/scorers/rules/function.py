"""`rule:FILE.py:FUNCTION`: the user's own."""

from __future__ import annotations

import inspect
import reprlib
import traceback
from asyncio import Runner
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

from bon.config import ScorerSettings
from bon.config.base import Settings
from bon.errors import EngineError
from bon.records import CandidateGroup, Drop
from bon.scorers.rules.options import read_options, where
from bon.scorers.rules.scorer import PREFIX
from bon.scorers.rules.user_file import read_user_file
from bon.scorers.rules.user_module import described, load

__all__ = ["FunctionOptions", "FunctionRule"]

_LARGEST = 3.4028234663852886e38
"""Of the float32 that scores are stored as."""


class FunctionOptions(Settings):
    """Options of the user's own rule."""

    is_verdict: bool = False
    """It returns only 1 (right) and 0 (wrong)."""


class FunctionRule:
    """Its reward is what the function returns: a float, or None for none.

    The function gets lists of the same length, an entry a candidate: the prompt's messages, the
    response, the input's other columns. It may be async. What it raises is the reason of the
    candidates that it raises for.
    """

    version: ClassVar[int | None] = None
    settings_read: ClassVar[frozenset[str]] = frozenset()
    reads_candidates: ClassVar[bool] = False

    def __init__(self, settings: ScorerSettings) -> None:
        self._is_verdict = read_options(FunctionOptions, settings).is_verdict
        # the file may change before a worker starts: what runs is what the fingerprint says
        self._file = read_user_file(settings.spec.removeprefix(PREFIX), where(settings))
        self._function: Callable[..., Any] | None = None
        self._runner: Runner | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._traces: set[str] = set()

    def __enter__(self) -> FunctionRule:
        file = self._file
        try:
            self._function = getattr(load(file.source, file.path), file.function)
        except (Exception, SystemExit) as error:
            raise EngineError(
                f"cannot import {file.path}", why=described(error, file.path)
            ) from error
        # one event loop for all calls: a session that the file keeps belongs to it. In a thread of
        # its own, because the caller's may have a loop that runs.
        self._runner, self._thread = Runner(), ThreadPoolExecutor(1)
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread is not None and self._runner is not None:
            self._thread.submit(self._runner.close).result()
            self._thread.shutdown()
        self._function = self._runner = self._thread = None

    @classmethod
    def check(cls) -> None:
        """It needs nothing."""

    @property
    def is_verdict(self) -> bool:
        """Tell what its user says."""
        return self._is_verdict

    def fingerprint(self) -> dict[str, Any]:
        """Return the function's name and what stands for its file, wherever that lies."""
        return {"digest": self._file.digest, "function": self._file.function}

    def rewards(self, groups: Sequence[CandidateGroup]) -> list[list[float | Drop]]:
        """Call the function with the candidates of all groups at once."""
        rewards = iter(self._rewards([(group, one) for group in groups for one in group.responses]))
        return [[next(rewards) for _ in group.responses] for group in groups]

    def _rewards(self, items: Sequence[tuple[CandidateGroup, str]]) -> list[float | Drop]:
        """Where a call fails, make smaller ones, so that only what fails alone has no reward."""
        if not items:
            return []
        values = self._called(items)
        if not isinstance(values, str) and len(values) == len(items):
            return [self._reward(value) for value in values]
        if len(items) == 1:
            number = f"the function returned {len(values)} values for one response"
            return [Drop("function_failed", values if isinstance(values, str) else number)]
        # halves find a few that raise in few calls; but of values that are too few or too many
        # nobody knows whose they are, and half of them may be as many by chance
        size = len(items) // 2 if isinstance(values, str) else 1
        cuts = [items[:size], items[size:]] if size > 1 else [[item] for item in items]
        return [reward for cut in cuts for reward in self._rewards(cut)]

    def _called(self, items: Sequence[tuple[CandidateGroup, str]]) -> list[Any] | str:
        """Return what the function does, or why that is no list."""
        assert self._function and self._thread and self._runner
        try:
            # copies: the function may change what it is given
            returned = self._function(
                [[dict(message) for message in group.messages] for group, _ in items],
                [response for _, response in items],
                [dict(group.extra) for group, _ in items],
            )
            if inspect.iscoroutine(returned):
                returned = self._thread.submit(self._runner.run, returned).result()
            if isinstance(returned, Iterable) and not isinstance(returned, str | bytes | Mapping):
                return list(returned)
        except (Exception, SystemExit) as error:
            fault = described(error, self._file.path)
            if fault not in self._traces:
                self._traces.add(fault)
                traceback.print_exception(error)  # to the worker's log, each once
            return fault
        return f"the function returned a {type(returned).__name__}, not a list of floats"

    def _reward(self, value: Any) -> float | Drop:
        if value is None:
            return Drop("no_value", "the function returned None for it")
        try:
            # float() takes texts and arrays of one number too, which are mistakes here
            is_number = not isinstance(value, str | bytes) and not getattr(value, "ndim", 0)
            number = float(value) if is_number else float("nan")
        except Exception:
            number = float("nan")
        if not abs(number) <= _LARGEST:
            return Drop("not_a_number", f"the function returned {reprlib.repr(value)}")
        if self._is_verdict and number not in (0.0, 1.0):
            return Drop("not_a_verdict", f"the function returned {number:g}, not 0 or 1")
        return number
