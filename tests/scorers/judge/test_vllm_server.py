"""A judge behind the real vLLM's server, held to plain forward passes of transformers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.commands import GENERATOR
from support.judge_engine import QUESTION, Plain
from support.judges import group, judge_of
from support.servers import ServerProcess, vllm_process

from bon.errors import ModelError
from bon.records import Scores

pytest.importorskip("torch")
pytest.importorskip("vllm")
pytestmark = [pytest.mark.vllm, pytest.mark.slow]

ASKS = ("What is 47 + 85?", "Sort 31542.", "Is it 3?", "x")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Serves the sample model with defaults of its own that would change each answer."""
    folder = tmp_path_factory.mktemp("server")
    model = tmp_path_factory.mktemp("model")
    for file in GENERATOR.iterdir():
        (model / file.name).symlink_to(file)
    (model / "generation_config.json").unlink()
    own = json.loads((GENERATOR / "generation_config.json").read_text())
    (model / "generation_config.json").write_text(json.dumps({**own, "repetition_penalty": 9.0}))
    flags = ("--max-model-len", "128", "--no-enable-chunked-prefill")
    with vllm_process(folder, model, *flags) as started:
        yield started


@pytest.fixture(scope="module")
def plain() -> Plain:
    return Plain(GENERATOR)


def score(server: ServerProcess, folder: Path, options: str, *responses: str) -> Scores:
    (folder / "t.jinja").write_text(QUESTION)
    spec = f"judge:server:{server.url}?template={folder / 't.jinja'}{options}"
    with judge_of(spec) as judge:
        (result,) = judge.score([group(*responses)])
    return result


def test_yes_is_the_softmax_over_the_words_logits(
    server: ServerProcess, plain: Plain, tmp_path: Path
) -> None:
    """Words that this model may begin with: they are among its 20 likeliest tokens."""
    result = score(server, tmp_path, "&words=That,It", *ASKS)
    expected = [plain.share(one, ["That"], ["It"]) for one in ASKS]
    assert result.scores == pytest.approx(expected, abs=1e-4)
    assert result.num_tokens == tuple(len(plain.tokens(one)) for one in ASKS)


def test_words_that_are_no_tokens_end_the_run_before_any_question(
    server: ServerProcess, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="'Yes' is not one token"):
        score(server, tmp_path, "", *ASKS)


def test_a_number_that_was_cut_is_no_score(
    server: ServerProcess, plain: Plain, tmp_path: Path
) -> None:
    assert plain.says(ASKS[0], 1) != plain.says(ASKS[0], 16)
    options = "&mode=rubric&scale=0-999&max_tokens="
    assert score(server, tmp_path, options + "16", ASKS[0]).scores[0] is not None
    result = score(server, tmp_path, options + "1", ASKS[0])
    assert result.scores == (None,)
    assert "cut at max_tokens" in result.reasons[0].detail


def test_text_is_the_greedy_answer_whatever_the_models_own_defaults(
    server: ServerProcess, plain: Plain, tmp_path: Path
) -> None:
    result = score(server, tmp_path, "&mode=rubric&max_tokens=8&pattern=never", *ASKS)
    for place, ask in enumerate(ASKS):
        assert repr(plain.says(ask, 8).strip()) in result.reasons[place].detail
    assert [by_its_defaults(server, ask, 8) for ask in ASKS] != [plain.says(ask, 8) for ask in ASKS]


def by_its_defaults(server: ServerProcess, ask: str, num_tokens: int) -> str:
    import httpx

    (model,) = httpx.get(f"{server.url}/v1/models").json()["data"]
    messages = [{"role": "user", "content": ask}]
    body = {"model": model["id"], "messages": messages, "temperature": 0, "max_tokens": num_tokens}
    found = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60).json()
    return str(found["choices"][0]["message"]["content"])


def test_a_question_that_is_too_long_is_null(server: ServerProcess, tmp_path: Path) -> None:
    result: Any = score(server, tmp_path, "&words=That,It", "x", "9" * 200)
    assert result.scores[0] is not None
    assert result.scores[1] is None
    assert result.reasons[1].reason == "server_refused"
    assert "128" in result.reasons[1].detail
