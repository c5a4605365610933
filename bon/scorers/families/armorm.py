"""ArmoRM: a Llama body, one reward for each of 19 objectives, and a gate that weighs them.

The gate reads the prompt where its last turn ends, the objectives are read at the last token, and
the score is the sum of gate times objective (Wang et al., 2024, arXiv:2406.12845, section 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from bon.chat import ChatTemplate
from bon.config import ScorerSettings
from bon.errors import ModelError
from bon.records import Drop, Message
from bon.scorers.encoding import WholeConversation
from bon.scorers.families.base import Family, RewardModel
from bon.scorers.families.loading import (
    load_config,
    load_head,
    load_pretrained,
    load_tokenizer,
    longest_conversation,
    read_tensors,
)

__all__ = ["FAMILY", "GatedConversation"]

_HEAD = r"(regression_layer|reward_transform_matrix|gating)\b.*"
_SPECIALS = ("<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>")
_TURN = "{}{}assistant{}\n\n".format(*_SPECIALS)
"""Where the gate reads: the end of the prompt's last turn and the header of the assistant's."""
_DEFAULTS = {
    "num_objectives": 19,
    "gating_temperature": 10,
    "gating_hidden_dim": 1024,
    "gating_n_hidden": 3,
}
"""What the published class takes where config.json is silent."""


@dataclass(frozen=True, slots=True)
class GatedConversation:
    """The templated conversation, read where its last `turn` begins and at its last token."""

    turn: tuple[int, ...]
    suffix: tuple[int, ...] = ()

    def tokens(self, chat: ChatTemplate, messages: Sequence[Message], response: str) -> list[int]:
        """Template the messages with the response as the assistant's turn."""
        return WholeConversation().tokens(chat, messages, response)

    def reads(
        self, kept: Sequence[int], whole: Sequence[int], gap: range
    ) -> tuple[int, ...] | Drop:
        """Return where the whole conversation's last `turn` begins and the last position.

        The turn may have been cut off; an earlier one says nothing of the last prompt.
        """
        length = len(self.turn)
        for start in range(len(whole) - length, -1, -1):
            if tuple(whole[start : start + length]) != self.turn:
                continue
            if start + length <= gap.start:
                return start, len(kept) - 1
            if start >= gap.stop:
                return start - len(gap), len(kept) - 1
            break
        return Drop(
            "no_assistant_turn",
            "no last user turn followed by the assistant's is left in the conversation",
        )


def _setting(config: dict[str, Any], name: str) -> Any:
    return config.get(name, _DEFAULTS[name])


def _check(config: dict[str, Any], path: str) -> None:
    for name in _DEFAULTS:
        value = _setting(config, name)
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            raise ModelError(
                "the reward model's configuration cannot be used",
                where=path,
                why=f"{name} is {value!r}, not a number above 0",
                next_step="copy or download the model's config.json again",
            )


def _form(config: dict[str, Any], tokenizer: Any, settings: ScorerSettings) -> GatedConversation:
    return GatedConversation(tuple(tokenizer.encode(_TURN, add_special_tokens=False)))


def _load(path: str, settings: ScorerSettings) -> RewardModel:
    import torch
    from transformers import LlamaModel

    config = load_config(path)
    tokenizer = load_tokenizer(path)
    _refuse_other_turns(tokenizer, path)
    body = load_pretrained(LlamaModel, path, config, settings.dtype, unused=_HEAD)
    head = load_head(_head(config), path, read_tensors(path, _HEAD), torch.float32)
    temperature = _setting(config.to_dict(), "gating_temperature")

    def rewards(hidden_RD: Any, counts: Sequence[int]) -> Any:
        ends = torch.tensor(counts, device=hidden_RD.device).cumsum(0)
        last_BD = hidden_RD[ends - 1].float()
        gate_BD = hidden_RD[ends - torch.tensor(counts, device=ends.device)].float()
        for layer in head.gating["layers"][:-1]:
            gate_BD = layer(gate_BD).relu()
        logits_BO = head.gating["layers"][-1](gate_BD)
        gates_BO = torch.softmax(logits_BO / temperature, dim=1) * head.gating.logit_scale[0]
        objectives_BO = head.regression_layer(last_BD) @ head.reward_transform_matrix
        return (gates_BO * objectives_BO).sum(1)

    module = torch.nn.ModuleDict({"body": body, "head": head})
    return RewardModel(module, body, rewards, tokenizer, longest_conversation(config, tokenizer))


def _head(config: Any) -> Any:
    """Make the gate and the objectives' layers, named as in the checkpoint."""
    import torch
    from torch import nn

    values = config.to_dict()
    objectives, hidden = _setting(values, "num_objectives"), _setting(values, "gating_hidden_dim")
    widths = [config.hidden_size, *[hidden] * _setting(values, "gating_n_hidden"), objectives]
    layers = [nn.Linear(wide, to) for wide, to in pairwise(widths)]
    gating = nn.ModuleDict({"layers": nn.ModuleList(layers)})
    gating.register_parameter("logit_scale", nn.Parameter(torch.ones(1)))
    regression = nn.Linear(config.hidden_size, objectives, bias=False)
    head = nn.ModuleDict({"regression_layer": regression, "gating": gating})
    matrix = nn.Parameter(torch.eye(objectives), requires_grad=False)
    head.register_parameter("reward_transform_matrix", matrix)
    return head


def _refuse_other_turns(tokenizer: Any, path: str) -> None:
    vocabulary = tokenizer.get_vocab()
    missing = [token for token in _SPECIALS if token not in vocabulary]
    if missing:
        raise ModelError(
            "the reward model's tokenizer is not Llama 3's",
            where=path,
            why=f"its gate reads at the assistant's header; not known: {', '.join(missing)}",
            next_step="give a folder that holds the model's own tokenizer",
        )


FAMILY = Family(
    name="ArmoRM",
    architectures=("LlamaForRewardModelWithGating",),
    load=_load,
    check=_check,
    form=_form,
)
