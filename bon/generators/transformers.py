"""Candidates from transformers, for machines without vLLM: batches of prompts of like length."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

from bon.chat import ChatTemplate
from bon.config import GenerateSettings
from bon.errors import EngineError
from bon.generators.decoding import Decoder
from bon.generators.loading import (
    best_device,
    cache_bytes,
    context_tokens,
    end_tokens,
    load_model,
)
from bon.generators.prompting import PromptEncoder, is_greedy, numbered
from bon.generators.rows import Ending, Row
from bon.records import Drop, GenerationRequest, GenerationResult

__all__ = ["TransformersGenerator"]

_GIB = 1 << 30
_MOST_ROWS = {"cuda": 256}
_MOST_ROWS_ELSEWHERE = 64
_READ_TOKENS = 16_384
"""Most tokens of prompts that are read in one forward pass, padding included."""
_WINDOW_BATCHES = 4
"""So many batches' prompts are held, to be sorted by length."""


@dataclass
class _Open:
    """A prompt that is being sampled."""

    request: GenerationRequest
    tokens: list[int]
    num_rows: int
    ended: list[Row] = field(default_factory=list)

    def result(self) -> GenerationResult:
        """Return its candidates, or why there are none; all of its rows have ended."""
        failure = next((row.failure for row in self.ended if row.failure), None)
        if failure is not None:
            return GenerationResult(self.request.prompt_id, (), drop=failure)
        ordered = sorted(self.ended, key=lambda row: row.number)
        candidates = numbered(self.request, [row.candidate() for row in ordered])
        return GenerationResult(self.request.prompt_id, candidates, len(self.tokens))


@dataclass
class TransformersGenerator:
    """`Generator` on transformers.

    Candidate i of a prompt is sampled with random numbers of its own, from `request.seed + i`. In
    float32 it depends on nothing but its prompt, the settings and that seed; in half precision
    the rounding of a batch's sums can tip a draw.
    """

    settings: GenerateSettings
    model_path: str
    """Folder of the model."""
    lora_path: str | None = None
    chat_template: str | None = None
    """Jinja source in place of the model's own template."""

    @property
    def is_part_by_part(self) -> Literal[True]:
        """The shape of a batch shows in the last bits of `logprob`."""
        return True

    def __enter__(self) -> TransformersGenerator:
        self._device = best_device()
        model, tokenizer = load_model(self.settings, self.model_path, self.lora_path, self._device)
        context = context_tokens(self.settings, model.config, tokenizer, self.model_path)
        self._prompts = PromptEncoder(
            self.settings,
            ChatTemplate(tokenizer, self.chat_template, "generator", "--chat-template"),
            context_tokens=context,
            vocab_size=model.get_input_embeddings().num_embeddings,
        )
        self._prompts.check(self.model_path)
        self._ending = Ending(
            end_tokens(model, tokenizer), self.settings.stop, self.settings.max_tokens, context
        )
        self._decoder = Decoder(model, self.settings, self.model_path)
        self._cache_tokens = self._cache_budget() // cache_bytes(model.config, model.dtype)
        self._most_rows = _MOST_ROWS.get(self._device.type, _MOST_ROWS_ELSEWHERE)
        return self

    def __exit__(self, *_: object) -> None:
        import torch

        del self._decoder, self._prompts
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _cache_budget(self) -> int:
        """Return the bytes that keys and values may take."""
        import torch

        if self._device.type != "cuda":
            return int(self.settings.kv_cache_gib * _GIB)
        free, total = torch.cuda.mem_get_info(self._device)
        spare = (1 - self.settings.gpu_memory_utilization) * total
        return max(int((free - spare) / 2), _GIB)  # growing keys and values are there twice

    def stream(self, requests: Iterable[GenerationRequest]) -> Iterator[GenerationResult]:
        """Sample every request, four batches' prompts at a time, the longest first."""
        waiting = iter(requests)
        while window := list(islice(waiting, self._window_prompts())):
            opened: list[_Open] = []
            for request in window:
                tokens = self._prompts.encode(request)
                if isinstance(tokens, Drop):
                    yield GenerationResult(request.prompt_id, (), drop=tokens)
                else:
                    num_rows = 1 if is_greedy(self.settings) else request.num_candidates
                    opened.append(_Open(request, tokens, num_rows))
            yield from self._sample(opened)

    def _window_prompts(self) -> int:
        rows = 1 if is_greedy(self.settings) else self.settings.num_candidates
        return max(1, _WINDOW_BATCHES * self._most_rows // rows)

    def _sample(self, opened: list[_Open]) -> Iterator[GenerationResult]:
        opened.sort(key=lambda one: len(one.tokens), reverse=True)
        left = [(one, number) for one in opened for number in range(one.num_rows)]
        while left:
            batch, left = self._batch(left)
            owners = {id(row): (one, number) for row, one, number in batch}
            try:
                for row in self._decoder.run([row for row, _, _ in batch]):
                    one, _ = owners.pop(id(row))
                    one.ended.append(row)
                    if len(one.ended) == one.num_rows:
                        yield one.result()
            except Exception as error:
                self._shrink(error, len(batch))
                left = [*owners.values(), *left]  # these begin again, the same

    def _batch(
        self, left: list[tuple[_Open, int]]
    ) -> tuple[list[tuple[Row, _Open, int]], list[tuple[_Open, int]]]:
        """Take as many rows as memory has room for; the first prompt is the longest."""
        longest = left[0][0].tokens
        per_row = len(longest) + self._ending.room(longest)
        num_rows = max(1, min(self._most_rows, self._cache_tokens // per_row))
        num_prompts = max(1, _READ_TOKENS // len(longest))
        taken: list[tuple[Row, _Open, int]] = []
        prompts: set[int] = set()
        for one, number in left[:num_rows]:
            prompts.add(id(one))
            if len(prompts) > num_prompts:
                break
            taken.append((self._row(one, number), one, number))
        return taken, left[len(taken) :]

    def _row(self, one: _Open, number: int) -> Row:
        tokenizer = self._prompts.chat.tokenizer
        return Row(one.request, one.tokens, number, self._ending, tokenizer)

    def _shrink(self, error: Exception, num_rows: int) -> None:
        """Go on with half as many rows where memory ran out; raise what was anything else."""
        import torch

        if not isinstance(error, torch.OutOfMemoryError):
            raise error
        if num_rows == 1:
            raise EngineError(
                "the accelerator's memory is too small for one candidate",
                where=self.model_path,
                why=str(error).splitlines()[0],
                next_step="give a smaller --max-model-len or --max-tokens, or --dtype bfloat16",
            ) from error
        self._most_rows = max(1, num_rows // 2)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
