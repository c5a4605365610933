"""Decoding a batch of candidates with a model of transformers, token by token.

A prompt is read once, however many candidates it has, and a candidate that has ended is taken out
of the batch: a step computes what still goes on and nothing else.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from bon.config import GenerateSettings
from bon.errors import ModelError
from bon.generators.rows import Row
from bon.generators.sampling import draw
from bon.heartbeat import beat

__all__ = ["Decoder"]


@dataclass
class _State:
    """What the model needs of the rows that go on."""

    cache: Any
    mask: Any
    """[rows, tokens so far], 0 at the padding on the left; none where there is no padding."""
    positions: Any
    """[rows, 1], of each row's last token."""

    def select(self, rows: Sequence[int]) -> None:
        """Keep (or repeat) these rows, in this order."""
        import torch

        index = torch.tensor(rows, device=self.positions.device)
        self.cache.reorder_cache(index)  # what beam search does; every kind of layer can do it
        self.positions = self.positions[index]
        self.mask = None if self.mask is None else self.mask[index]

    def advance(self) -> None:
        """Make room for one more token."""
        self.positions = self.positions + 1
        if self.mask is not None:
            self.mask = _with_ones(self.mask)


@dataclass
class Decoder:
    """Runs rows to their end."""

    model: Any
    settings: GenerateSettings
    path: str

    def __post_init__(self) -> None:
        taken = set(inspect.signature(self.model.forward).parameters)
        if "past_key_values" not in taken:
            self._refuse("keeps its state in a form of its own")
        if any(hasattr(module, "_setup_cache") for module in self.model.modules()):
            # RecurrentGemma: rows that are taken out or padded would go on with others' states
            self._refuse("keeps a state in its layers, where it cannot follow the rows of a batch")
        self._optional = taken & {"position_ids", "logits_to_keep"}

    def _refuse(self, why: str) -> NoReturn:
        raise ModelError(
            "transformers' engine cannot sample from this kind of model",
            where=self.path,
            why=f"{type(self.model).__name__} {why}",
            next_step="give --generator-engine vllm if vLLM has this kind, or "
            "-m server:URL of a server that has it",
        )

    def run(self, rows: Sequence[Row]) -> Iterator[Row]:
        """Decode the rows and yield each as it ends; those of one prompt are neighbours."""
        import torch

        going = list(rows)
        # in blocks, not around the loop: what a generator enters is left when it yields
        with torch.inference_mode():
            logits, state = self._read(going)
        while going:
            beat()
            with torch.inference_mode():
                drawn = draw(logits, self.settings, [row.uniform() for row in going])
            for row, token, logprob in zip(going, *drawn, strict=True):
                row.add(token, logprob)
            kept = [place for place, row in enumerate(going) if row.finish_reason is None]
            ended = [row for row in going if row.finish_reason is not None]
            if kept:
                with torch.inference_mode():
                    if ended:
                        state.select(kept)
                    going = [going[place] for place in kept]
                    logits = self._step(going, state)
            else:
                going = []
            yield from ended

    def _read(self, rows: Sequence[Row]) -> tuple[Any, _State]:
        """Read the prompts, each once; return the logits behind them, a row each."""
        from transformers import DynamicCache

        prompts: list[list[int]] = []
        prompt_of = []
        for row in rows:
            if not prompts or prompts[-1] is not row.prompt:
                prompts.append(row.prompt)
            prompt_of.append(len(prompts) - 1)
        tokens, mask = self._padded(prompts)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        is_padded = len({len(prompt) for prompt in prompts}) > 1
        state = _State(
            DynamicCache(config=self.model.config), mask if is_padded else None, positions
        )
        logits = self._forward(tokens, state)
        state.positions = positions[:, -1:]
        state.select(prompt_of)
        return logits[prompt_of], state

    def _padded(self, prompts: Sequence[list[int]]) -> tuple[Any, Any]:
        """Return token ids and mask, [prompts, longest], padded on the left."""
        import torch

        longest = max(map(len, prompts))
        tokens = torch.zeros(len(prompts), longest, dtype=torch.long)
        mask = torch.zeros_like(tokens)
        for place, prompt in enumerate(prompts):
            tokens[place, longest - len(prompt) :] = torch.tensor(prompt)
            mask[place, longest - len(prompt) :] = 1
        return tokens.to(self.model.device), mask.to(self.model.device)

    def _step(self, rows: Sequence[Row], state: _State) -> Any:
        import torch

        state.advance()
        tokens = torch.tensor([[row.tokens[-1]] for row in rows], device=self.model.device)
        return self._forward(tokens, state)

    def _forward(self, tokens: Any, state: _State) -> Any:
        """Return the logits behind the last token, [rows, vocabulary]."""
        wanted = {"position_ids": state.positions, "logits_to_keep": 1}
        output = self.model(
            input_ids=tokens,
            attention_mask=state.mask,
            past_key_values=state.cache,
            use_cache=True,
            **{name: value for name, value in wanted.items() if name in self._optional},
        )
        return output.logits[:, -1]


def _with_ones(mask: Any) -> Any:
    import torch

    return torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
