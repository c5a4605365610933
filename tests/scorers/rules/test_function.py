from __future__ import annotations

import asyncio
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.rules import ASK, fingerprint, rewards, scorer_of

from bon.errors import UnknownChoiceError
from bon.records import CandidateGroup, Drop

HEAD = "import numpy as np\nfrom pathlib import Path\n\ndef f(prompts, responses, columns):\n"


@pytest.fixture(autouse=True)
def same_modules() -> Iterator[None]:
    """Leave no module and no folder behind."""
    modules, path = set(sys.modules), list(sys.path)
    yield
    for name in set(sys.modules) - modules:
        if name.startswith(("bon_mine", "bon_rule_")):
            del sys.modules[name]
    sys.path[:] = path


def spec(folder: Path, body: str, head: str = HEAD) -> str:
    path = folder / "bon_mine.py"
    path.write_text(head + "".join(f"    {line}\n" for line in body.splitlines()))
    return f"rule:{path}:f"


def test_it_is_called_once_with_the_candidates_of_all_groups(tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    body = (
        f"with Path({str(calls)!r}).open('a') as file:\n"
        "    print([prompts, responses, columns], file=file)\n"
        "return [float(len(response) + column['bonus'])\n"
        "        for response, column in zip(responses, columns)]"
    )
    groups = [
        CandidateGroup("p", ASK, ("a", "bb"), {"bonus": 10}),
        CandidateGroup("none", ASK, (), {"bonus": 0}),
        CandidateGroup("q", ({"role": "user", "content": "hi"},), ("ccc",), {"bonus": 0.5}),
    ]
    with scorer_of(spec(tmp_path, body)) as scorer:
        found = scorer.score(groups)
        assert scorer.score([groups[1]])[0].scores == ()
    assert [one.scores for one in found] == [(11.0, 12.0), (), (3.5,)]
    ask, hi = [dict(one) for one in ASK], [{"role": "user", "content": "hi"}]
    expected = [[ask, ask, hi], ["a", "bb", "ccc"], [{"bonus": 10}, {"bonus": 10}, {"bonus": 0.5}]]
    assert calls.read_text() == f"{expected}\n"


@pytest.mark.parametrize(
    ("value", "reward"),
    [
        ("0.25", 0.25),
        ("True", 1.0),
        ("-3", -3.0),
        ("np.float32(0.5)", 0.5),
        ("np.array(0.5)", 0.5),
        ("np.int64(2)", 2.0),
        ("None", "no_value"),
        ("float('nan')", "not_a_number"),
        ("float('-inf')", "not_a_number"),
        ("1e39", "not_a_number"),  # more than a float32 holds
        ("10 ** 400", "not_a_number"),
        ("'0.5'", "not_a_number"),
        ("1j", "not_a_number"),
        ("[0.5]", "not_a_number"),
        ("np.array([0.5])", "not_a_number"),
        ("object()", "not_a_number"),
    ],
)
def test_values(tmp_path: Path, value: str, reward: object) -> None:
    body = f"return [{value} if response == 'x' else 7.0 for response in responses]"
    assert rewards(spec(tmp_path, body), "a", "x", "b") == [7.0, reward, 7.0]


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("return np.arange(len(responses), dtype=np.float32)", [0.0, 1.0, 2.0]),
        ("return tuple(len(one) for one in responses)", [1.0, 1.0, 1.0]),
        ("yield from (len(one) for one in responses)", [1.0, 1.0, 1.0]),
        ("return [4.0]", [4.0, 4.0, 4.0]),  # wrong for three, right for one
        # three fail, and the two of a half are not taken for theirs
        ("return [float(len(responses))] * min(2, len(responses))", [1.0, 1.0, 1.0]),
    ],
)
def test_what_counts_as_a_list(tmp_path: Path, body: str, found: list[float]) -> None:
    assert rewards(spec(tmp_path, body), "a", "b", "c") == found


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ("return []", "the function returned 0 values for one response"),
        ("return [1.0, 2.0]", "the function returned 2 values for one response"),
        ("return 1.0", "the function returned a float, not a list of floats"),
        ("return None", "the function returned a NoneType, not a list of floats"),
        ("return 'abc'", "the function returned a str, not a list of floats"),
        ("return {'a': 1.0}", "the function returned a dict, not a list of floats"),
        ("raise SystemExit(3)", "SystemExit: 3 (line 5)"),
        ("return f(prompts, responses, columns)", "RecursionError: maximum recursion depth"),
    ],
)
def test_what_fails_for_all_is_the_reason_of_each(tmp_path: Path, body: str, detail: str) -> None:
    with scorer_of(spec(tmp_path, body)) as scorer:
        (found,) = scorer.score([CandidateGroup("p", ASK, ("a", "b", "c"))])
    assert found.scores == (None, None, None)
    assert {one.reason for one in found.reasons.values()} == {"function_failed"}
    assert all(one.detail.startswith(detail) for one in found.reasons.values())


def test_an_exception_is_the_reason_of_those_alone_that_raise_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    body = (
        "for response in responses:\n"
        "    if 'bad' in response:\n"
        "        raise ValueError('no bad words\\nplease')\n"
        "return [1.0] * len(responses)"
    )
    responses = tuple("bad" if number in (3, 70) else "good" for number in range(100))
    groups = [CandidateGroup(str(n), ASK, responses[n : n + 10]) for n in range(0, 100, 10)]
    with scorer_of(spec(tmp_path, body)) as scorer:
        found = scorer.score(groups)
    drop = Drop("function_failed", "ValueError: no bad words (line 7)")
    assert [dict(one.reasons) for one in found if one.reasons] == [{3: drop}, {0: drop}]
    assert sum(one.scores.count(1.0) for one in found) == 98
    # the whole trace goes to the worker's log, once
    assert capfd.readouterr().err.count("Traceback") == 1


def test_few_calls_find_the_few_that_fail(tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    body = (
        f"with Path({str(calls)!r}).open('a') as file:\n"
        "    print(len(responses), file=file)\n"
        "assert 'bad' not in responses\n"
        "return [1.0] * len(responses)"
    )
    responses = ["good"] * 1024
    responses[777] = "bad"
    assert rewards(spec(tmp_path, body), *responses).count("function_failed") == 1
    assert len(calls.read_text().splitlines()) == 21  # two for each halving


def test_it_may_change_what_it_is_given(tmp_path: Path) -> None:
    body = (
        "if len(responses) > 1:\n"
        "    for one in columns: one.clear()\n"
        "    for one in prompts: one[0].clear()\n"
        "    responses.clear()\n"
        "    raise ValueError\n"
        "return [columns[0]['x'] + len(prompts[0][0]['content'])]"
    )
    assert rewards(spec(tmp_path, body), "a", "b", extra={"x": 1}) == [7.0, 7.0]


def test_async_functions_share_one_event_loop(tmp_path: Path) -> None:
    head = (
        "import asyncio\nlock = asyncio.Queue()\nloops = set()\n\n"
        "async def f(prompts, responses, columns):\n"
    )
    body = (
        "loops.add(id(asyncio.get_running_loop()))\n"
        "await lock.put(1)\n"
        "async def one(response):\n"
        "    await asyncio.sleep(0)\n"
        "    return len(response) / len(loops)\n"
        "return await asyncio.gather(*map(one, responses))"
    )
    with scorer_of(spec(tmp_path, body, head)) as scorer:
        group = CandidateGroup("p", ASK, ("a", "bb"))
        assert scorer.score([group])[0].scores == (1.0, 2.0)
        assert scorer.score([group])[0].scores == (1.0, 2.0)

        async def within_a_loop() -> Any:
            return scorer.score([group])

        assert asyncio.run(within_a_loop())[0].scores == (1.0, 2.0)


def test_verdicts_are_what_its_user_says(tmp_path: Path) -> None:
    said = spec(tmp_path, "return [float(one) for one in responses]")
    assert not scorer_of(said).rule.is_verdict
    assert scorer_of(f"{said}?is_verdict=true").rule.is_verdict
    assert rewards(said, "1", "0.5") == [1.0, 0.5]
    assert rewards(f"{said}?is_verdict=true", "1", "0", "0.5") == [1.0, 0.0, "not_a_verdict"]


def test_the_fingerprint_is_the_files_wherever_it_lies(tmp_path: Path) -> None:
    one = fingerprint(spec(tmp_path, "return [1.0]"))
    assert one["function"] == "f"
    # a scorer of unknown cost: its scores are not thrown away as a rule's are
    assert "rule_version" not in one
    assert one == fingerprint(spec(tmp_path, "return [1.0]") + "?is_verdict=false")
    assert fingerprint(spec(tmp_path, "return [1.0]") + "?is_verdict=true")["is_verdict"] is True
    changed = fingerprint(spec(tmp_path, "return [2.0]"))
    assert one["digest"] != changed["digest"]


def test_what_runs_is_what_was_read(tmp_path: Path) -> None:
    scorer = scorer_of(spec(tmp_path, "return [1.0] * len(responses)"))
    sent = pickle.dumps(scorer)
    spec(tmp_path, "return [2.0] * len(responses)")
    with pickle.loads(sent) as entered:
        assert entered.score([CandidateGroup("p", ASK, ("a",))])[0].scores == (1.0,)


def test_unknown_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownChoiceError, match="unknown option 'verdict'"):
        scorer_of(spec(tmp_path, "return [1.0]") + "?verdict=true")
