"""The scorer behind a server that speaks SGLang's contract: what it asks, and every fault."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.scoring import groups, reward_scorer
from support.servers import Answer, Asked, FakeServer, Sglang, free_port, reward_of
from support.tiny_models import BOS_CHATML, save_reward, tokenizer

from bon.cli.plans.server import SERVER
from bon.config import ScorerSettings
from bon.errors import (
    ModelNotFoundError,
    ServerError,
    ServerGoneError,
    SettingsError,
    UnknownChoiceError,
)
from bon.pipeline.plans import ScoringPlan
from bon.records import CandidateGroup, Scores
from bon.scorers.encoding import Encoded
from bon.scorers.server import ServerScorer
from bon.scorers.server.scorer import _chunks

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bon.serving.client._FIRST_WAIT_S", 0.01)
    monkeypatch.setattr("bon.serving.endpoints._FIRST_PAUSE_S", 0.01)


Fault = Callable[[Asked], Answer | None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = {"bos": True}
    return save_reward(tmp_path_factory.mktemp("reward"), tokenizer_options=options)


def planned(url: str, options: dict[str, str] | None = None, **settings: Any) -> ScoringPlan:
    values = {"server_patience_s": 5.0, "server_timeout_s": 5.0} | settings
    spec = f"server:{url}"
    given = ScorerSettings(name="r", spec=spec, options=options or {}, **values)
    SERVER.check(given)
    return SERVER.plan(given)


@contextmanager
def served(
    folder: Path, fault: Fault = lambda asked: None, **settings: Any
) -> Iterator[tuple[ServerScorer, FakeServer]]:
    with FakeServer(Sglang(str(folder), fault=fault)) as server:
        scorer = planned(server.url, **settings).scorer
        scorer = pickle.loads(pickle.dumps(scorer))  # it goes to a worker
        with scorer as entered:
            yield entered, server


def encoded(folder: Path, **settings: Any) -> list[list[Any]]:
    """What the local scorer would read."""
    with reward_scorer(folder, **settings) as local:
        return [local._encoder.encode(group) for group in groups()]


def wanted(folder: Path, **settings: Any) -> list[tuple[float, ...]]:
    return [
        tuple(reward_of(item.tokens) for item in items) for items in encoded(folder, **settings)
    ]


def in_float32(results: list[Scores]) -> list[tuple[float | None, ...]]:
    return [result.scores for result in results]


@pytest.mark.parametrize(
    "settings",
    [{}, {"max_length": 60}, {"max_length": 60, "truncation_side": "right"}],
)
def test_the_server_gets_the_token_ids_of_the_local_scorer(
    folder: Path, settings: dict[str, Any]
) -> None:
    with served(folder, **settings) as (scorer, server):
        results = scorer.score(groups())
        sent = [ids for asked in server.posts[1:] for ids in asked.body["input_ids"]]
    local = [item for items in encoded(folder, **settings) for item in items]
    assert sorted(map(tuple, sent)) == sorted({item.tokens for item in local})
    assert in_float32(results) == wanted(folder, **settings)
    assert [result.prompt_id for result in results] == [group.prompt_id for group in groups()]
    found = [pair for one in results for pair in zip(one.num_tokens, one.truncated, strict=True)]
    assert found == [(len(item.tokens), item.truncated) for item in local]
    assert scorer.retries == {}


def test_the_server_s_own_limit_cuts(folder: Path) -> None:
    speaks = Sglang(str(folder), max_model_len=50)
    with FakeServer(speaks) as server, planned(server.url).scorer as scorer:
        assert in_float32(scorer.score(groups())) == wanted(folder, max_length=50)


def test_a_server_that_takes_texts_alone(folder: Path, tmp_path: Path) -> None:
    own = tokenizer(bos=True)
    template = tmp_path / "with-bos.jinja"
    template.write_text(BOS_CHATML)
    speaks = Sglang(str(folder), takes_ids=False, tokenize=lambda text: own(text)["input_ids"])
    with reward_scorer(folder, BOS_CHATML) as local:
        items = [local._encoder.encode(group) for group in groups()]
    with FakeServer(speaks) as server, planned(server.url, template=template).scorer as scorer:
        found = in_float32(scorer.score(groups()))
        assert all("text" in asked.body for asked in server.posts[1:])
    assert found == [tuple(reward_of(item.tokens) for item in row) for row in items]


def test_a_conversation_that_no_text_gives_is_null_and_all_of_them_an_error(tmp_path: Path) -> None:
    for bos in (False, True):
        own = tokenizer(bos=bos)
        own.save_pretrained(tmp_path / str(bos))
    speaks = Sglang(str(tmp_path / "False"), takes_ids=False, tokenize=lambda text: [1])
    half = tokenizer()("é")["input_ids"][1:]
    with FakeServer(speaks) as server, planned(server.url, max_length=30).scorer as scorer:
        group = CandidateGroup("p", ({"role": "user", "content": "?"},), ("é" + "x" * 27, "abc"))
        cut = scorer._encoder.encode(group)[0]
        assert list(cut.tokens[:1]) == half
        (found,) = scorer.score([group])
    assert found.scores == (None, reward_of([1]))
    assert found.reasons[0].reason == "no_text"
    speaks.model_path = str(tmp_path / "True")  # it puts a BOS before what has none
    with FakeServer(speaks) as server, pytest.raises(ServerError) as caught:
        planned(server.url).scorer.__enter__()
    assert "no text has exactly" in caught.value.why


def test_no_groups_ask_nothing(folder: Path) -> None:
    with served(folder) as (scorer, server):
        assert scorer.score([]) == []
        assert len(server.posts) == 1


def busy(asked: Asked) -> Answer | None:
    late = {"Retry-After": "0.05"}
    is_third = asked.number and asked.number % 3 == 0
    return Answer("", status=429, headers=late) if is_third else None


def test_busy_on_every_third_request_is_complete_and_counted(folder: Path) -> None:
    with served(folder, busy, server_concurrency=2) as (scorer, server):
        assert in_float32(scorer.score(groups())) == wanted(folder)
        assert scorer.retries == {"429": len(server.posts) // 3}
        assert scorer.retries["429"] >= 1


def of_one(length: int, answer: Answer) -> Fault:
    """Whatever asks for the conversation of so many tokens gets this."""

    def fault(asked: Asked) -> Answer | None:
        has_it = asked.number > 1 and any(len(ids) == length for ids in asked.body["input_ids"])
        return answer if has_it else None

    return fault


@pytest.mark.parametrize(
    ("answer", "reason", "detail"),
    [
        (Answer({"error": "no such input"}, status=422), "server_refused", "no such input"),
        (Answer("cuda error", status=500), "server_error", "cuda error"),
        (Answer("<html>"), "server_garbage", "<html>"),
        (Answer({"scores": [1]}), "server_garbage", '{"scores": [1]}'),
        (Answer([{"embedding": [1.0]}] * 9), "server_garbage", "9 results for 1"),
        (Answer([{"embedding": [1.0, 2.0]}]), "server_garbage", "2 numbers"),
        (Answer([{"embedding": [None]}]), "non_finite_score", "nan"),
        (Answer('[{"embedding": [NaN]}]'), "non_finite_score", "nan"),
        (Answer('[{"embedding": [1e999]}]'), "non_finite_score", "inf"),
        (Answer(is_reset=True), "server_lost", "broke"),
        (Answer([], delay_s=9), "server_timeout", "0.3 s"),
    ],
)
def test_one_candidate_that_fails_is_null_with_its_reason_and_the_others_are_there(
    folder: Path, answer: Answer, reason: str, detail: str
) -> None:
    lengths = [[len(item.tokens) for item in items] for items in encoded(folder)]
    assert sum(row.count(lengths[1][2]) for row in lengths) == 1
    fault = of_one(lengths[1][2], answer)
    with served(folder, fault, server_timeout_s=0.3) as (scorer, _):
        results = scorer.score(groups())
    (found,) = [(one.prompt_id, at, drop) for one in results for at, drop in one.reasons.items()]
    assert found[:2] == ("p1", 2)
    assert found[2].reason == reason
    assert detail in found[2].detail
    expected = [list(row) for row in wanted(folder)]
    expected[1][2] = None  # type: ignore[call-overload]
    assert in_float32(results) == [tuple(row) for row in expected]


def test_a_dead_server_is_an_error_and_no_nulls(folder: Path) -> None:
    def dies(asked: Asked) -> Answer | None:
        return Answer("engine is dead", status=500) if asked.number > 1 else None

    with (
        served(folder, dies, server_patience_s=1.0) as (scorer, _),
        pytest.raises(ServerGoneError) as caught,
    ):
        scorer.score(groups())
    assert "engine is dead" in caught.value.why


def test_two_servers_share_and_one_may_be_down(folder: Path) -> None:
    speaks = Sglang(str(folder))
    dead = f"http://127.0.0.1:{free_port()}"
    many = [
        CandidateGroup(f"p{n}", ({"role": "user", "content": "?"},), (f"answer {n}",) * 2)
        for n in range(64)
    ]
    with FakeServer(speaks) as one, FakeServer(speaks) as two:
        with planned(f"{one.url},{two.url}", server_concurrency=1).scorer as scorer:
            both = scorer.score(many)
        assert len(one.posts) > 1
        assert len(two.posts) > 1
        with planned(f"{dead},{two.url}", server_patience_s=1.0).scorer as scorer:
            assert in_float32(scorer.score(many)) == in_float32(both)


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        (Answer({"detail": "Not Found"}, status=404), "Not Found"),
        (Answer("no rewards", status=400), "no rewards"),
        (Answer([{"embedding": [0.1, 0.9]}]), "2 numbers"),
        (Answer({"probs": [1]}), "{'probs': [1]}"),
    ],
)
def test_a_server_without_rewards_is_told_before_any_work(
    folder: Path, answer: Answer, detail: str
) -> None:
    with pytest.raises(ServerError) as caught, served(folder, lambda asked: _posted(asked, answer)):
        pytest.fail("it was taken")
    assert caught.value.what == "the server gives no reward"
    assert detail in caught.value.why
    assert "/classify" in caught.value.where
    assert "--is-embedding" in caught.value.next_step


def _posted(asked: Asked, answer: Answer) -> Answer | None:
    return answer if asked.number else None


@pytest.mark.parametrize("status", [401, 403])
def test_a_wrong_key_is_told_at_once(
    folder: Path, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BON_SERVER_API_KEY", "sk-very-secret")

    def fault(asked: Asked) -> Answer:
        assert asked.headers["Authorization"] == "Bearer sk-very-secret"
        return Answer("who are you, sk-very-secret?", status=status)

    with pytest.raises(ServerError) as caught, served(folder, fault):
        pytest.fail("it was taken")
    assert "BON_SERVER_API_KEY" in caught.value.next_step
    assert "sk-very-secret" not in str(caught.value)


def test_the_key_is_in_nothing_that_is_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BON_SERVER_API_KEY", "sk-very-secret")
    with FakeServer(Sglang(str(folder))) as server:
        plan = planned(server.url)
    assert "sk-very-secret" not in repr(plan)
    assert b"sk-very-secret" not in pickle.dumps(plan.scorer)


def test_a_fingerprint_holds_what_decides_scores_and_not_where_or_how_fast(folder: Path) -> None:
    def fingerprint(**changes: Any) -> dict[str, Any]:
        length = changes.pop("max_model_len", 2048)
        with FakeServer(Sglang(str(folder), max_model_len=length)) as server:
            return planned(server.url, **changes).fingerprint

    first = fingerprint()
    assert first == fingerprint(server_concurrency=3, server_timeout_s=9, server_patience_s=9)
    assert "127.0.0.1" not in str(first)
    assert str(folder) not in str(first)
    assert first["spec"] == f"server:{folder.name}"
    assert first != fingerprint(max_length=99)
    assert first != fingerprint(max_model_len=99)
    assert fingerprint(max_length=99) == fingerprint(max_model_len=99)
    assert first != fingerprint(truncation_side="right")
    template = folder.parent / "other.jinja"
    template.write_text("{{ messages[-1]['content'] }}")
    assert first != fingerprint(template=template)


def test_a_tokenizer_that_is_elsewhere_has_to_be_named(folder: Path, tmp_path: Path) -> None:
    with FakeServer(Sglang("/models/on-that-machine")) as server:
        with pytest.raises(ModelNotFoundError) as caught:
            planned(server.url)
        assert "?tokenizer=" in caught.value.next_step
        plan = planned(server.url, {"tokenizer": str(folder)})
        assert plan.fingerprint["digest"] is None
        assert plan.fingerprint["spec"] == "server:on-that-machine"
        with plan.scorer as scorer:
            assert in_float32(scorer.score(groups())) == wanted(folder)
        tokenizer(bos=True).save_pretrained(tmp_path / "alone")
        with planned(server.url, {"tokenizer": str(tmp_path / "alone")}).scorer as scorer:
            assert in_float32(scorer.score(groups())) == wanted(folder)


@pytest.mark.parametrize(
    ("url", "options", "kind"),
    [
        ("localhost:1", {}, SettingsError),
        ("", {}, SettingsError),
        ("http://a", {"tokeniser": "x"}, UnknownChoiceError),
        ("http://a", {"kind": "tgi"}, SettingsError),
    ],
)
def test_bad_specs_are_refused_before_any_work(
    url: str, options: dict[str, str], kind: type[SettingsError]
) -> None:
    with pytest.raises(kind):
        planned(url, options)


def test_nobody_there_is_told_soon() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(ServerGoneError) as caught:
        planned(url, server_patience_s=0.5)
    assert "start it, or check the URL" in caught.value.next_step


def test_what_is_asked_together_is_bounded() -> None:
    lengths = [10] * 20 + [9000] * 3 + [40_000] * 2
    items = [Encoded((1,) * length, False, (0,)) for length in lengths]
    chunks = list(_chunks(items))
    assert [item for chunk in chunks for item in chunk] == items
    assert [len(chunk) for chunk in chunks] == [8, 8, 5, 1, 1, 1, 1]
    assert list(_chunks([])) == []
