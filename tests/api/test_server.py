"""A model server's rewards as a reward function: one server for all threads and processes."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support.commands import REWARD
from support.servers import FakeServer, Sglang, reward_of

from bon import load_scorer
from bon.api import RewardFunction
from bon.records import CandidateGroup

PROMPTS = ["Add 5 and 96."] * 3 + ["What is 76 + 64?"] * 2
TEXTS = ["It is 101.", "102", "", "140", "It is 14."]


def _answer(function: RewardFunction, answers: Any) -> None:
    answers.put(function(PROMPTS, TEXTS))
    function.close()


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_threads_loops_copies_and_forked_processes_get_the_servers_rewards() -> None:
    with load_scorer(REWARD, device="cpu") as local:
        encoder = local._loaded()._encoder  # type: ignore[attr-defined]
        expected = [
            reward_of(encoder.encode(group)[0].tokens)
            for prompt, text in zip(PROMPTS, TEXTS, strict=True)
            for group in [CandidateGroup("", ({"role": "user", "content": prompt},), (text,))]
        ]
    with FakeServer(Sglang(str(REWARD))) as server:
        function = load_scorer(f"far=server:{server.url}", server_concurrency=2)
        assert server.posts == []
        assert function.__name__ == "far"
        assert function(PROMPTS, TEXTS) == pytest.approx(expected)
        assert server.most_in_flight <= 2
        found = function(PROMPTS, TEXTS)

        async def in_a_loop() -> list[float | None]:
            return function(PROMPTS, TEXTS)

        assert asyncio.run(in_a_loop()) == found
        with ThreadPoolExecutor(4) as threads:
            assert list(threads.map(lambda _: function(PROMPTS, TEXTS), range(8))) == [found] * 8
        with pickle.loads(pickle.dumps(function)) as other:
            assert other(PROMPTS, TEXTS) == found
        if hasattr(os, "fork"):
            context = multiprocessing.get_context("fork")
            answers = context.SimpleQueue()
            child = context.Process(target=_answer, args=(function, answers))
            child.start()
            assert answers.get() == found
            child.join()
            assert child.exitcode == 0
        assert function(PROMPTS, TEXTS) == found  # the connections are still good
        function.close()
