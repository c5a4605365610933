"""What a family of reward models is: one small file each says how to check, load and read one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from bon.config import ScorerSettings
from bon.errors import ModelError
from bon.scorers.encoding import Encoded, Form, SteppedForm, WholeConversation
from bon.scorers.families.loading import load_tokenizer

__all__ = ["Family", "RewardModel", "VllmUse", "refuse_label_count"]


@dataclass(slots=True)
class RewardModel:
    """A loaded model, in evaluation mode: a body of transformers and the head that is ours."""

    module: Any
    """All that was loaded, to be moved to a device."""
    body: Any
    """Its part whose `last_hidden_state` is `[B, T, D]`, called as transformers' models are."""
    rewards: Callable[[Any, Sequence[int]], Any]
    """From the hidden states that were read, `[R, D]`, and how many each of the B conversations
    has, to B raw rewards, as a tensor. Heads work in float32."""
    tokenizer: Any
    max_length: int
    """Longest conversation in tokens, from the model's and the tokenizer's own limits."""
    logits: Callable[..., Any] | None = None
    """For a model that pools by itself: from `input_ids` and `attention_mask`, `[B, T]` each, to
    `[B]`; then neither `rewards` nor `Encoded.reads` is used."""
    rewards_of: Callable[[Any, Sequence[Encoded]], Any] | None = None
    """In place of `rewards`, for a head that has to see the B conversations themselves."""

    def head(self, hidden_RD: Any, items: Sequence[Encoded]) -> Any:
        """Return the raw rewards of B conversations from the R hidden states that they read."""
        if self.rewards_of is not None:
            return self.rewards_of(hidden_RD, items)
        return self.rewards(hidden_RD, [len(item.reads) for item in items])


@dataclass(frozen=True, slots=True)
class VllmUse:
    """How vLLM's pooling engine gives the same number."""

    task: Literal["classify", "token_classify"]
    """`classify` gives one number; `token_classify` a row of labels for each token."""
    decoder_types: frozenset[str] | None = None
    """Model types measured to give the same scores; none: all of the family."""
    encoder_types: frozenset[str] = frozenset()
    """Those that read both ways, likewise: without prefix cache, a conversation in one pass."""
    classes: tuple[tuple[str, str], ...] = ()
    """Model types, and the architecture under whose name vLLM finds their class."""
    per_step: bool = False
    """The rows that are read are the two labels of steps; otherwise the last one is the reward."""


def _whole(config: dict[str, Any], tokenizer: Any, settings: ScorerSettings) -> Form:
    return WholeConversation()


def _no_check(config: dict[str, Any], path: str) -> None:
    """Nothing in config.json can be wrong beyond the architecture's name."""


class Loader(Protocol):
    """Loads a folder's model in a data type; raises ModelError, with where and why."""

    def __call__(self, path: str, settings: ScorerSettings) -> RewardModel: ...


@dataclass(frozen=True, slots=True)
class Family:
    """One kind of reward model."""

    name: str
    """For people: `sequence classification`, `process reward model`, …"""
    architectures: tuple[str, ...]
    """What `architectures` in config.json may say; `*Suffix` stands for all that end so."""
    load: Loader
    check: Callable[[dict[str, Any], str], None] = _no_check
    """From config.json and where it lies: raises ModelError for what cannot be a reward model."""
    form: Callable[[dict[str, Any], Any, ScorerSettings], Form | SteppedForm] = _whole
    """From config.json, the tokenizer and the settings to how conversations are given to it."""
    load_tokenizer: Callable[[str], Any] = load_tokenizer
    """Loads a folder's tokenizer alone; raises ModelError."""
    body_type: str | None = None
    """Model type of the body that is run; none: the one in config.json."""
    vllm: VllmUse | None = None
    """None where vLLM cannot run it."""
    step_separator: str | None = None
    """Of a process reward model: the text between steps where none is given."""
    reads_plain_text: bool = False
    """Conversations go in without a chat template, unless one is given."""
    version: int = 1
    """Goes up when conversations are read otherwise: what another version scored is not resumed."""

    @property
    def reads_steps(self) -> bool:
        """It is a process reward model: how steps are told apart and aggregated decides scores."""
        return self.step_separator is not None

    def has(self, architecture: str) -> bool:
        """Tell whether an architecture is of this family."""
        return any(
            architecture.endswith(name[1:]) if name.startswith("*") else architecture == name
            for name in self.architectures
        )


def refuse_label_count(config: dict[str, Any], path: str, wanted: int, why: str) -> None:
    """Refuse a configuration with another number of labels.

    Labels are counted as transformers does: `num_labels` is believed over the labels' names.
    """
    names = config.get("id2label")
    found = config.get("num_labels", 2 if names is None else len(names))
    if found != wanted:
        raise ModelError(
            f"the reward model has {found} labels",
            where=path,
            why=why,
            next_step=f"give -r a model with num_labels={wanted}",
        )
