"""One real vLLM engine in a process of its own, and what can be asked of it.

An engine takes ten seconds to start, so tests with other settings share it: every question gets
a `VllmGenerator` of its own that is entered as usual, but is handed the engine that runs already.
"""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from unittest.mock import patch

from bon.config import GenerateSettings
from bon.errors import BonError
from bon.generators.vllm import VllmGenerator
from bon.records import GenerationRequest, GenerationResult

ANSWER_TIMEOUT_S = 180.0
ENGINE: dict[str, Any] = {
    "max_tokens": 24,
    "max_model_len": 256,
    "kv_cache_gib": 0.05,
    "engine_args": {"max_num_seqs": 16},
}


@dataclass(frozen=True, slots=True)
class Sampled:
    """A result, and what its text does not say: the token ids of each candidate."""

    result: GenerationResult
    tokens: tuple[tuple[int, ...], ...]


class Worker:
    """A process with vLLM in it."""

    def __init__(self, log: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, log), daemon=True)
        self._process.start()
        other.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._connection.close()
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def ask(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Run `function` in the process; what it raises is raised here."""
        self._connection.send((function, arguments, named))
        if not self._connection.poll(ANSWER_TIMEOUT_S):
            self._process.kill()
            raise TimeoutError(f"no answer in {ANSWER_TIMEOUT_S} s")
        answer = self._connection.recv()
        if isinstance(answer, BaseException):
            raise answer
        return answer


def _serve(connection: Connection, log: Path) -> None:
    # more threads are no faster on models this small, and far slower where the cores are taken
    os.environ.update(OMP_NUM_THREADS="1", VLLM_CPU_OMP_THREADS_BIND="nobind")
    with log.open("ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    while True:
        try:
            function, arguments, named = connection.recv()
        except EOFError:
            os._exit(0)
        try:
            answer = function(*arguments, **named)
        except BonError as error:
            answer = error
        except Exception as error:
            answer = RuntimeError(f"{type(error).__name__}: {error}")
        connection.send(answer)


_engine: dict[str, Any] = {}
_finished: deque[Any] = deque()


def start(model: Path, *, lora: Path | None = None, **settings: Any) -> None:
    """Start the process's engine."""
    values = {"model": str(model), **ENGINE, **settings}
    generator = VllmGenerator(GenerateSettings(**values), str(model), str(lora) if lora else None)
    generator.__enter__()
    engine = generator._llm.llm_engine
    step = engine.step

    def recorded_step() -> Any:
        outputs = step()
        _finished.extend(output for output in outputs if output.finished)
        return outputs

    engine.step = recorded_step
    _engine.update(llm=generator._llm, values=values, lora=lora)


def stop() -> None:
    """Free the process's engine, as a run does that goes on with another model."""
    generator = VllmGenerator(GenerateSettings(**_engine["values"]), _engine["values"]["model"])
    generator._llm = _engine.pop("llm")
    generator.__exit__()


def enter(template: str | None = None, **settings: Any) -> VllmGenerator:
    """Enter a generator with other settings on the engine that runs."""
    values, lora = _engine["values"] | settings, _engine["lora"]
    generator = VllmGenerator(
        GenerateSettings(**values), values["model"], str(lora) if lora else None, template
    )
    with patch("vllm.LLM", lambda **_: _engine["llm"]):
        return generator.__enter__()


def sample(
    requests: Sequence[GenerationRequest], template: str | None = None, **settings: Any
) -> dict[str, Sampled]:
    """Sample all requests and give the results by prompt id."""
    _finished.clear()
    return {
        result.prompt_id: _sampled(result)
        for result in enter(template, **settings).stream(iter(requests))
    }


def _sampled(result: GenerationResult) -> Sampled:
    if result.drop is not None:
        return Sampled(result, ())
    outputs = sorted(_finished.popleft().outputs, key=lambda output: output.index)
    tokens = [tuple(output.token_ids) for output in outputs]
    if len(tokens) == 1:  # greedy is sampled once
        tokens *= len(result.candidates)
    return Sampled(result, tuple(tokens))


def pulls(requests: Sequence[GenerationRequest]) -> list[tuple[int, int]]:
    """Sample and give, for every result, how many prompts were pulled and how many had ended."""
    pulled = 0

    def counted() -> Iterator[GenerationRequest]:
        nonlocal pulled
        for request in requests:
            pulled += 1
            yield request

    results = enter().stream(counted())
    return [(pulled, ended) for ended, _ in enumerate(results, start=1)]


def pulled_before_first_use(requests: Sequence[GenerationRequest]) -> int:
    """Make a stream that nothing is taken from and give how many prompts it pulled."""
    waiting = iter(requests)
    enter().stream(waiting)
    return len(requests) - len(list(waiting))


def sample_after_abandoning(
    abandoned: Sequence[GenerationRequest], requests: Sequence[GenerationRequest]
) -> dict[str, GenerationResult]:
    """Take one result of a stream, leave it, and sample other requests."""
    generator = enter()
    stream = generator.stream(iter(abandoned))
    next(stream)
    stream.close()
    return {result.prompt_id: result for result in generator.stream(iter(requests))}


def engine_facts() -> dict[str, Any]:
    """Give what the engine was really started with."""
    config = _engine["llm"].llm_engine.vllm_config
    return {
        "max_num_seqs": config.scheduler_config.max_num_seqs,
        "max_model_len": config.model_config.max_model_len,
        "dtype": str(config.model_config.dtype),
        "prefix_caching": config.cache_config.enable_prefix_caching,
        "eager": config.model_config.enforce_eager,
    }


def load(model: Path, *, lora: Path | None = None, template: str | None = None) -> None:
    """Enter a generator with an engine of its own and leave it; for those that must not start."""
    settings = GenerateSettings(model=str(model), **ENGINE)
    with VllmGenerator(settings, str(model), str(lora) if lora else None, template):
        pass
