"""Responses as conversations."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from support.datasets import assistant, user

from bon.pipeline.conversations import after_prompts, single_turns
from bon.records import MESSAGES_TYPE

PROMPTS = [[user("a")], [user("b"), assistant("c"), user("d")], [user("e")]]


def test_a_response_is_a_conversation_of_one_turn() -> None:
    found = single_turns(pa.array(["x", "", "ü"]))
    assert found.type == MESSAGES_TYPE
    assert found.to_pylist() == [[assistant("x")], [assistant("")], [assistant("ü")]]
    assert single_turns(pa.array([], pa.string())).to_pylist() == []


def test_a_response_follows_its_prompt() -> None:
    prompts = pa.array(PROMPTS, MESSAGES_TYPE)
    found = after_prompts(prompts, np.array([2, 1, 1]), pa.array(["x", "y", "z"]))
    assert found.type == MESSAGES_TYPE
    assert found.to_pylist() == [
        [*PROMPTS[2], assistant("x")],
        [*PROMPTS[1], assistant("y")],
        [*PROMPTS[1], assistant("z")],
    ]


def test_prompts_may_be_part_of_a_longer_array() -> None:
    prompts = pa.array(PROMPTS, MESSAGES_TYPE).slice(1)
    found = after_prompts(prompts, np.array([1, 0]), pa.array(["q", "x", "y"]).slice(1))
    assert found.to_pylist() == [[*PROMPTS[2], assistant("x")], [*PROMPTS[1], assistant("y")]]
