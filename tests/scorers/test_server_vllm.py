"""Scores of the real vLLM server on loopback against those of the local scorer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.scoring import flat, groups, largest_difference, reward_scorer
from support.servers import ServerProcess, vllm_process
from support.tiny_models import BOS_CHATML, save_reward

from bon.cli.plans.server import SERVER
from bon.config import ScorerSettings
from bon.errors import ServerError
from bon.records import CandidateGroup
from bon.scorers.server.kinds import VllmClassify, VllmPooling
from bon.scorers.server.scorer import ServerScorer

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = [pytest.mark.vllm, pytest.mark.slow]

KEY = "sk-loopback"
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_reward(tmp_path_factory.mktemp("served-reward"), tokenizer_options={"bos": True})


@pytest.fixture(scope="module")
def server(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    pytest.importorskip("vllm")
    flags = ("--runner", "pooling", "--max-model-len", "700", "--api-key", KEY)
    with vllm_process(tmp_path_factory.mktemp("vllm"), folder, *flags, health="/health") as started:
        yield started


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BON_SERVER_API_KEY", KEY)


def scorer(server: ServerProcess, **settings: Any) -> ServerScorer:
    given = ScorerSettings(name="r", spec=f"server:{server.url}", **settings)
    made = SERVER.plan(given).scorer
    assert isinstance(made, ServerScorer)
    return made


def local(folder: Path, template: str | None = None, **settings: Any) -> list[float]:
    with reward_scorer(folder, template, dtype="float32", **settings) as entered:
        return flat(entered.score(groups()))


def test_scores_are_those_of_the_local_scorer(server: ServerProcess, folder: Path) -> None:
    with scorer(server) as entered:
        assert entered.server.max_length == 700
        assert isinstance(entered._speech, VllmClassify)
        found = flat(entered.score(groups()))
        assert entered.retries == {}
    wanted = local(folder)
    assert largest_difference(found, wanted) < TOLERANCE
    assert min(found) < 0 or max(found) > 1  # no sigmoid


def test_cut_and_templated_here_they_are_the_same_too(
    server: ServerProcess, folder: Path, tmp_path: Path
) -> None:
    template = tmp_path / "bos.jinja"
    template.write_text(BOS_CHATML)
    for settings in ({"max_length": 60}, {"max_length": 60, "truncation_side": "right"}):
        with scorer(server, template=template, **settings) as entered:
            found = flat(entered.score(groups()))
        assert largest_difference(found, local(folder, BOS_CHATML, **settings)) < TOLERANCE


def test_the_longest_conversation_that_it_takes_is_taken(
    server: ServerProcess, folder: Path
) -> None:
    long = CandidateGroup("p", ({"role": "user", "content": "?"},), ("x" * 3000, "y" * 699))
    with scorer(server) as entered:
        (found,) = entered.score([long])
    with reward_scorer(folder, dtype="float32", max_length=700) as entered_here:
        (wanted,) = entered_here.score([long])
    assert found.num_tokens == (700, 700)
    assert found.truncated == (True, True)
    assert largest_difference(flat([found]), flat([wanted])) < TOLERANCE


def test_pooling_gives_the_same_reward(server: ServerProcess, folder: Path) -> None:
    with scorer(server) as entered:
        classified = flat(entered.score(groups()))
        entered._speech = VllmPooling(entered.server.model, False, "min")
        assert largest_difference(flat(entered.score(groups())), classified) < TOLERANCE


def test_without_the_key_it_is_told_at_once(
    server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BON_SERVER_API_KEY")
    with pytest.raises(ServerError) as caught:
        scorer(server)
    assert "BON_SERVER_API_KEY" in caught.value.next_step


def test_what_it_cannot_take_is_null_alone(server: ServerProcess, folder: Path) -> None:
    long = CandidateGroup("p", ({"role": "user", "content": "?"},), ("x" * 900, "y"))
    with scorer(server) as entered:
        entered._encoder = replace(entered._encoder, max_length=2048)
        (found,) = entered.score([long])
    assert found.scores[0] is None
    assert found.scores[1] is not None
    assert found.reasons[0].reason == "server_refused"
    assert "maximum context length is 700" in found.reasons[0].detail
