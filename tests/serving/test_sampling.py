"""What is said to which kind of server."""

from __future__ import annotations

import pytest

from bon.serving.sampling import limit_name, truncation


@pytest.mark.parametrize("owner", ["vllm", "sglang", "llamacpp"])
def test_sampling_is_not_as_the_models_own_defaults_have_it(owner: str) -> None:
    assert truncation(owner) == {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
    found = truncation(owner, top_k=5, min_p=0.25)
    assert found == {"top_k": 5, "min_p": 0.25, "repetition_penalty": 1.0}


@pytest.mark.parametrize("owner", ["", "openai", "system"])
def test_other_servers_get_nothing_that_openai_has_not(owner: str) -> None:
    assert truncation(owner, top_k=5) == {}


@pytest.mark.parametrize(
    ("urls", "name"),
    [
        (["https://api.openai.com"], "max_completion_tokens"),
        (["https://eu.api.openai.com"], "max_completion_tokens"),
        (["https://notopenai.com"], "max_tokens"),
        (["http://a", "http://b"], "max_tokens"),
    ],
)
def test_openai_calls_the_longest_answer_otherwise(urls: list[str], name: str) -> None:
    assert limit_name(urls) == name
