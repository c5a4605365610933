"""Which conversations share a forward pass, and what happens when memory runs out."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

from bon.errors import ModelError, first_line
from bon.heartbeat import beat
from bon.memory import is_lack_of_memory
from bon.records import Drop
from bon.scorers.batching import length_sorted_batches
from bon.scorers.encoding import Encoded
from bon.scorers.families.base import RewardModel
from bon.scorers.flex_attention import window_of
from bon.scorers.host_memory import keep_freed_memory
from bon.scorers.packed import PACKED_TYPES, PackedForward
from bon.scorers.padded import padded_rewards
from bon.scorers.trie_attention import LARGEST_CAP
from bon.trie import pack

__all__ = ["ForwardRunner", "can_pack"]

_CPU_TOKENS = 16_384
_CPU_AIM_TOKENS = 3_500
"""On a CPU, batches of about this size are the fastest: what they compute stays in the cache."""
_CPU_SHARING_COST = 0.05
_PROBE_TOKENS = 2_048
_MOST_TOKENS = 1 << 17
_MEMORY_SHARE = 0.8


def can_pack(config: dict[str, Any]) -> bool:
    """Tell from a body's configuration whether it takes token tries."""
    bidirectional = config.get("use_bidirectional_attention") is True
    overflows = (config.get("attn_logit_softcapping") or 0) > LARGEST_CAP
    return config.get("model_type") in PACKED_TYPES and not bidirectional and not overflows


_Found: TypeAlias = Iterator[tuple[int, float | Drop]]
"""Places of conversations, with the reward of each or why there is none."""


@dataclass
class ForwardRunner:
    """Runs a loaded reward model over conversations, whatever batches that takes."""

    model: RewardModel
    device: str
    max_tokens: int | None
    """Tokens of one forward pass; none: found by measuring."""
    alone: bool = False
    """One conversation at a time, by plain forward passes."""
    num_tokens_computed: int = field(default=0, init=False)
    """So far, padding included."""
    halved_tokens: int | None = field(default=None, init=False)
    """Tokens of one forward pass since memory ran out; none where it has not."""

    def __post_init__(self) -> None:
        config = self.model.body.config
        packs = self.model.logits is None and not self.alone and can_pack(config.to_dict())
        self._packed = PackedForward(self.model, self.device) if packs else None
        # a sliding window counts along the path: on a CPU, tries have only paths that it covers
        window = window_of(config) if self.device == "cpu" else None
        self._longest_packed = window or math.inf
        self._long_from = _rope_boundary(config)
        self._given = self.max_tokens is not None
        self._tokens = self.max_tokens or (_CPU_TOKENS if self.device == "cpu" else 0)
        if self.device == "cpu":
            keep_freed_memory()

    def rewards(self, items: Sequence[Encoded]) -> list[float | Drop]:
        """Return one raw reward for each conversation, in order, or why there is none.

        Raises:
            ModelError: several conversations, and there is no memory for any of them.
        """
        found: dict[int, float | Drop] = {}
        for places, packed in self._kinds(items):
            found.update((self._run_packed if packed else self._run_padded)(items, places))
        rewards = [found[place] for place in range(len(items))]
        lost = [reward for reward in rewards if isinstance(reward, Drop)]
        if len(lost) == len(items) > 1 and not self.num_tokens_computed:
            raise ModelError(  # the machine is at fault, and the pool would be full of drops
                "there is not enough memory for a single conversation",
                why=lost[-1].detail,
                next_step="free memory that other programs hold, or choose another --reward-device",
            )
        return rewards

    def _kinds(self, items: Sequence[Encoded]) -> Iterator[tuple[list[int], bool]]:
        """Divide conversations by what may not share a batch."""
        kinds: dict[tuple[bool, bool], list[int]] = {}
        for place, item in enumerate(items):
            length = len(item.tokens)
            packed = self._packed is not None and length <= self._longest_packed
            kinds.setdefault((length > self._long_from, packed), []).append(place)
        for (_, packed), places in sorted(kinds.items(), reverse=True):
            yield places, packed

    def _run_packed(self, items: Sequence[Encoded], places: list[int]) -> _Found:
        assert self._packed is not None
        cpu = self.device == "cpu"
        batches = pack(
            [items[place].tokens for place in places],
            self._budget(),
            aim_tokens=_CPU_AIM_TOKENS if cpu and not self._given else None,
            sharing_cost=_CPU_SHARING_COST if cpu else 0.0,
        )
        for batch in batches:
            chosen = [places[row] for row in batch.sequences.tolist()]
            is_single = len(batch.tokens) == batch.lengths.max()
            rewards = self._attempt(
                partial(self._packed.rewards, batch, [items[place] for place in chosen]),
                len(batch.tokens),
                is_single=is_single,
            )
            if rewards is None:
                yield from self._again(self._run_packed, items, chosen, is_single)
                continue
            found: dict[int, float | Drop] = dict(zip(chosen, rewards, strict=True))
            # a kernel's 0 * inf may have carried what is not finite into another conversation
            doubtful = [row for row, reward in enumerate(rewards) if not math.isfinite(reward)]
            if len(chosen) > 1 and doubtful:
                places_again = [chosen[row] for row in doubtful]
                found.update(self._run_padded(items, places_again, alone=True))
            yield from found.items()

    def _run_padded(
        self, items: Sequence[Encoded], places: list[int], *, alone: bool = False
    ) -> _Found:
        lengths = [len(items[place].tokens) for place in places]
        max_tokens = 1 if alone or self.alone else self._budget()
        for batch in length_sorted_batches(lengths, max_tokens):
            chosen = [places[row] for row in batch]
            is_single = len(batch) == 1
            rewards = self._attempt(
                partial(padded_rewards, self.model, self.device, [items[p] for p in chosen]),
                len(batch) * lengths[batch[0]],
                is_single=is_single,
            )
            if rewards is None:
                yield from self._again(self._run_padded, items, chosen, is_single)
            else:
                yield from zip(chosen, rewards, strict=True)

    def _again(
        self,
        run: Callable[[Sequence[Encoded], list[int]], _Found],
        items: Sequence[Encoded],
        chosen: list[int],
        is_single: bool,
    ) -> _Found:
        """Run a batch that did not fit as smaller ones; of a single one, the longest is dropped."""
        if is_single:
            longest = max(chosen, key=lambda place: len(items[place].tokens))
            chosen = [place for place in chosen if place != longest]
            num_tokens = len(items[longest].tokens)
            yield longest, Drop("out_of_memory", f"{num_tokens} tokens do not fit into memory")
        yield from run(items, chosen)

    def _attempt(
        self, forward: Callable[[], Any], num_tokens: int, *, is_single: bool
    ) -> list[float] | None:
        """Run a batch; none if it does not fit into memory, and smaller ones are now the rule.

        `is_single` says that it has one conversation (and its beginnings): no budget divides it.
        """
        if num_tokens > self._tokens and not is_single:
            return None  # it was made before the budget was halved
        beat()
        try:
            rewards: list[float] = forward().float().tolist()
        except (RuntimeError, MemoryError) as error:
            self._halve(error, num_tokens, is_single=is_single)
        else:
            self.num_tokens_computed += num_tokens
            return rewards
        gc.collect()  # only now does nothing hold the batch's tensors
        if self.device == "cuda":
            import torch

            torch.cuda.empty_cache()
        return None

    def _budget(self) -> int:
        if not self._tokens:
            self._tokens = _MOST_TOKENS
            measured = self._measured_budget()
            if self.halved_tokens is None:  # else the small batch itself has shown what fits
                self._tokens = measured
        return self._tokens

    def _measured_budget(self) -> int:
        """Find how many tokens fit into the GPU's memory from what a small batch takes."""
        import torch

        length = min(_PROBE_TOKENS // 8, self.model.max_length)
        probe = Encoded((0,) * length, False, (length - 1,))
        probes = [
            Encoded((number, *probe.tokens[1:]), False, probe.reads)
            for number in range(_PROBE_TOKENS // length)
        ]
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        counted = self.num_tokens_computed
        self.rewards(probes)
        self.num_tokens_computed = counted
        num_tokens = length * len(probes)
        a_token = max(1, (torch.cuda.max_memory_allocated() - before) // num_tokens)
        free = torch.cuda.mem_get_info()[0]
        fitting = int(_MEMORY_SHARE * free / a_token)
        # a power of two, so that a little more or less free memory changes no batch
        return min(_MOST_TOKENS, max(_PROBE_TOKENS, 1 << (fitting.bit_length() - 1)))

    def _halve(self, error: Exception, num_tokens: int, *, is_single: bool) -> None:
        """Allow half of what did not fit; anything but a lack of memory is raised again."""
        if not is_lack_of_memory(error):
            raise error
        if is_single:
            print(
                f"out of memory with {num_tokens} tokens of one conversation: {first_line(error)}"
            )
            return
        self._tokens = self.halved_tokens = max(1, min(self._tokens, num_tokens) // 2)
        print(f"out of memory with {num_tokens} tokens in a batch: from here on {self._tokens}")


def _rope_boundary(config: Any) -> float:
    """Return the length above which positions are rotated otherwise (longrope, as in Phi3)."""
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") != "longrope":
        return math.inf
    default = getattr(config, "original_max_position_embeddings", None)
    return float(rope.get("original_max_position_embeddings") or default or math.inf)
