"""A scorer called with lists: the same scores as `bon score`, and who loads and frees what."""

from __future__ import annotations

import copy
import gc
import math
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from support.commands import REWARD, bon_json
from support.datasets import assistant, user, write_lines
from support.scoring import largest_difference

from bon import load_scorer
from bon.api import RewardFunction
from bon.pipeline.plans import ScoringPlan
from bon.records import Drop, Scores

ROWS = [
    {"prompt": "Add 5 and 96.", "responses": ["It is 101.", "102", ""], "answer": "101"},
    {"prompt": "What is 76 + 64?", "responses": ["It is 140.", "It is 14", "140"], "answer": "140"},
    {"prompt": "Which is larger: 3 or 8?", "responses": ["8", "3", "8"], "answer": "8"},
]
PROMPTS = [row["prompt"] for row in ROWS for _ in row["responses"]]
TEXTS = [text for row in ROWS for text in row["responses"]]
ANSWERS = [row["answer"] for row in ROWS for _ in row["responses"]]
CHATS: tuple[list[Any], list[Any]] = (
    [[user(text)] for text in PROMPTS],
    [[assistant(text)] for text in TEXTS],
)


def test_scores_are_those_of_bon_score(tmp_path: Path) -> None:
    write_lines(tmp_path / "in.jsonl", ROWS)
    bon_json("score", "in.jsonl", "-r", f"rm={REWARD}", "-r", "right=rule:exact", cwd=tmp_path)

    def stored(name: str) -> list[float]:
        (file,) = (tmp_path / "in.pool/scores" / name).glob("*.parquet")
        return list(pq.read_table(file)["score"].to_pylist())

    with load_scorer(REWARD) as model:
        texts = model(prompts=PROMPTS, completions=TEXTS, answer=ANSWERS)
        chats = model(prompts=CHATS[0], completions=CHATS[1])
    assert texts == chats
    assert largest_difference(texts, stored("rm")) < 1e-6  # stored as float32
    assert max(texts) - min(texts) > 1

    rule = load_scorer("rule:exact")
    assert rule(PROMPTS, TEXTS, answer=ANSWERS) == rule(*CHATS, answer=ANSWERS) == stored("right")


def test_what_has_no_reward_is_none_and_its_reason_said_once() -> None:
    rule = load_scorer("rule:exact")
    answers = ["101", None, None]
    with pytest.warns(RuntimeWarning, match=r"2 of 3 completions .* no_reference") as caught:
        assert rule(["q"] * 3, ["101"] * 3, answer=answers) == [1.0, None, None]
    assert len(caught) == 1
    assert caught[0].filename == __file__

    assert rule(["q"] * 3, ["101"] * 3, answer=answers) == [1.0, None, None]  # no second warning
    with pytest.warns(RuntimeWarning, match="wrong_type"):
        assert rule(["q"], [None], answer=["1"]) == [None]
    assert rule.reasons == {"no_reference": 4, "wrong_type": 1}
    assert rule.metrics()["num_null"] == 5


def test_metrics_are_those_since_they_were_last_asked_for() -> None:
    rule = load_scorer("rule:exact")
    assert rule(["q"] * 2, ["1", "2"], answer=["1", "1"]) == [1.0, 0.0]
    assert rule(["q"] * 2, ["1", "1"], answer=["1", "1"]) == [1.0, 1.0]
    assert rule.metrics() == {
        "num_samples": 4,
        "mean_reward": 0.75,
        "std_reward": pytest.approx(0.5),  # of [1, 0, 1, 1], 3 below
        "min_reward": 0.0,
        "max_reward": 1.0,
        "num_null": 0,
    }
    after = rule.metrics()
    assert after["num_samples"] == 0
    assert math.isnan(after["mean_reward"])


@dataclass
class Counting:
    """Scores a response by its length, and writes down what happens to it."""

    log: Path
    inside: list[int] = field(default_factory=list)
    num_tokens_computed: int = 0
    halved_batch_tokens: int | None = None

    def __enter__(self) -> Counting:
        self._note("enter")
        self._handle = threading.Lock()  # as a process or a socket is: not to be pickled or copied
        return self

    def __exit__(self, *_: object) -> None:
        self._note("exit")

    def score(self, groups: Any) -> list[Scores]:
        self.inside.append(1)
        time.sleep(0.001)  # time for another thread to come in
        assert len(self.inside) == 1, "two calls at once"
        results = []
        for group in groups:
            scores = tuple(float(len(text)) for text in group.responses)
            zeros = (0,) * len(scores)
            results.append(Scores(group.prompt_id, scores, zeros, (False,) * len(zeros)))
        self.inside.pop()
        return results

    def _note(self, what: str) -> None:
        with self.log.open("a") as file:
            file.write(f"{what} {os.getpid()}\n")


def counting(folder: Path) -> tuple[RewardFunction, Path]:
    log = folder / "log"
    log.touch()
    return RewardFunction(ScoringPlan("count", Counting(log), {})), log


def events(log: Path) -> list[str]:
    return [line.split()[0] for line in log.read_text().splitlines()]


def test_it_is_loaded_once_and_freed_once(tmp_path: Path) -> None:
    function, log = counting(tmp_path)
    assert events(log) == []
    with function:
        assert events(log) == ["enter"]
        assert function(["q"], ["abc"]) == [3.0]
        assert repr(function) == "<RewardFunction 'count', loaded>"
    assert events(log) == ["enter", "exit"]
    function.close()
    assert events(log) == ["enter", "exit"]
    assert function(["q"], ["abcd"]) == [4.0]  # loaded again
    del function
    gc.collect()
    assert events(log) == ["enter", "exit"] * 2


def test_no_completions_load_nothing(tmp_path: Path) -> None:
    function, log = counting(tmp_path)
    assert function([], []) == []
    assert events(log) == []


def test_a_pickled_one_and_a_copy_begin_unloaded(tmp_path: Path) -> None:
    function, log = counting(tmp_path)
    with function:
        function(["q"], ["abc"])
        for other in (pickle.loads(pickle.dumps(function)), copy.deepcopy(function)):
            assert other.__name__ == "count"
            assert "not loaded" in repr(other)
            assert other.metrics()["num_samples"] == 0
            assert other(["q"], ["ab"]) == [2.0]
        assert function.metrics()["num_samples"] == 1
    del other
    gc.collect()
    assert sorted(events(log)) == ["enter"] * 3 + ["exit"] * 3


@pytest.mark.parametrize("spec", ["rule:exact", str(REWARD)])
def test_real_ones_can_be_pickled(spec: str) -> None:
    again = pickle.loads(pickle.dumps(load_scorer(spec)))
    assert again.__name__ == load_scorer(spec).__name__
    (first, second) = again(["Add 5 and 96."] * 2, ["It is 101.", "It is 7."], answer=["101"] * 2)
    assert first > second
    pickle.dumps(again)  # loaded too
    again.close()


def test_a_program_that_ends_with_loaded_ones_ends_quietly(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "def ones(prompts, responses, extra): return [1] * len(prompts)"
    )
    code = (
        "from bon import load_scorer\n"
        "own, right = load_scorer('rule:own.py:ones'), load_scorer('rule:math')\n"
        "print(own(['q'], ['a']), right(['q'], ['$1/2$'], answer=['0.5']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "[1.0] [1.0]\n", "")


def test_threads_take_turns(tmp_path: Path) -> None:
    function, log = counting(tmp_path)

    def call(length: int) -> list[float | None]:
        return function(["q"] * 3, ["a" * length] * 3)

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(call, range(200)))
    assert found == [[float(length)] * 3 for length in range(200)]
    assert events(log) == ["enter"]
    assert function.metrics()["num_samples"] == 600
    function.close()


def _in_child(function: RewardFunction, answers: Any) -> None:
    function._lock.acquire(blocking=False)  # as if another thread had held it
    answers.send(function(["q"], ["abcde"]))
    function.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_process_loads_its_own_and_leaves_the_parents(tmp_path: Path) -> None:
    function, log = counting(tmp_path)
    function(["q"], ["abc"])
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=_in_child, args=(function, theirs))
    child.start()
    assert ours.poll(60)
    assert ours.recv() == [5.0]
    child.join()
    assert child.exitcode == 0
    lines = [line.split() for line in log.read_text().splitlines()]
    parent, pid = str(os.getpid()), str(child.pid)
    assert lines == [["enter", parent], ["enter", pid], ["exit", pid]]
    assert function(["q"], ["ab"]) == [2.0]
    assert function.metrics()["num_samples"] == 2
    function.close()
    assert events(log)[-1] == "exit"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_process_that_drops_it_frees_nothing_of_the_parents(tmp_path: Path) -> None:
    function, log = counting(tmp_path)
    function(["q"], ["abc"])
    child = os.fork()
    if child == 0:
        del function
        gc.collect()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert events(log) == ["enter"]
    function.close()


def test_an_interrupted_one_is_loaded_anew(tmp_path: Path) -> None:
    class Stopped(Counting):
        def score(self, groups: Any) -> list[Scores]:
            if groups[0].responses == ("stop",):
                raise KeyboardInterrupt
            return super().score(groups)

    log = tmp_path / "log"
    function = RewardFunction(ScoringPlan("stopped", Stopped(log), {}))
    assert function(["q"], ["abc"]) == [3.0]
    with pytest.raises(KeyboardInterrupt):
        function(["q"], ["stop"])
    assert events(log) == ["enter", "exit"]
    assert function(["q"], ["abc"]) == [3.0]
    assert function.metrics()["num_samples"] == 2
    function.close()
    assert events(log) == ["enter", "exit"] * 2


def test_a_reason_that_comes_with_many_is_said_with_one_detail(tmp_path: Path) -> None:
    class Refusing(Counting):
        def score(self, groups: Any) -> list[Scores]:
            results = []
            for group in groups:
                places = range(len(group.responses))
                drops = {place: Drop("broken", f"number {place}") for place in places}
                nones = (None,) * len(places)
                zeros = (0,) * len(places)
                results.append(Scores(group.prompt_id, nones, zeros, (False,) * len(zeros), drops))
            return results

    function = RewardFunction(ScoringPlan("no", Refusing(tmp_path / "log"), {}))
    with pytest.warns(RuntimeWarning, match=r"3 of 3 .*: broken \(number 0\)"):
        assert function(["q"] * 3, ["a"] * 3) == [None] * 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        function(["q"] * 3, ["a"] * 3)
    function.close()
