"""Which URLs are servers, and which of them is sent which key."""

from __future__ import annotations

import pytest

from bon.errors import SettingsError
from bon.serving.addresses import find_api_key, parse_urls


@pytest.mark.parametrize(
    ("said", "urls"),
    [
        ("http://localhost:8000", ("http://localhost:8000",)),
        ("http://a:1/, https://b/v1/", ("http://a:1", "https://b")),
        ("https://openrouter.ai/api/v1", ("https://openrouter.ai/api",)),
        ("http://[::1]:8000", ("http://[::1]:8000",)),
    ],
)
def test_urls(said: str, urls: tuple[str, ...]) -> None:
    assert parse_urls(said) == urls


@pytest.mark.parametrize(
    "said",
    [
        *["", "localhost:8000", "ftp://a", "http://", "http://a,", "http://a:port", "http://a#b"],
        *["http://a:1,http://a:1/", "http://a/?key=1"],
    ],
)
def test_what_is_no_server(said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_urls(said)
    assert "server:http://HOST:PORT" in caught.value.next_step


@pytest.mark.parametrize(
    "said",
    [
        *["http://me:hunter2@host:1", "me:hunter2@host:1", "http://me:a/hunter2@host"],
        *["http://me:hunter2@host/?key=1", "http://me:hunter2@host:port", "http://[hunter2@x"],
    ],
)
def test_a_password_is_refused_and_not_shown(said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_urls(said)
    assert "hunter2" not in str(caught.value)
    assert "BON_SERVER_API_KEY" in caught.value.next_step


@pytest.mark.parametrize(
    ("urls", "environment", "key"),
    [
        (["http://a"], {}, None),
        (["http://a"], {"BON_SERVER_API_KEY": " k1\n"}, "k1"),
        (["http://a"], {"OPENAI_API_KEY": "k2"}, None),
        (["https://a.example"], {"OPENAI_API_KEY": "k2"}, None),
        (["https://notopenai.com"], {"OPENAI_API_KEY": "k2"}, None),
        (["http://api.openai.com"], {"OPENAI_API_KEY": "k2"}, None),
        (["https://api.openai.com"], {"OPENAI_API_KEY": "k2"}, "k2"),
        (["https://api.openai.com", "https://a"], {"OPENAI_API_KEY": "k2"}, None),
        (["https://api.openai.com"], {"OPENAI_API_KEY": "k2", "BON_SERVER_API_KEY": "k1"}, "k1"),
    ],
)
def test_a_key_goes_only_where_it_is_meant(
    urls: list[str], environment: dict[str, str], key: str | None
) -> None:
    assert find_api_key(urls, environment) == key


def test_a_key_that_no_header_holds_is_refused_and_not_shown() -> None:
    with pytest.raises(SettingsError, match="BON_SERVER_API_KEY") as caught:
        find_api_key(["http://a"], {"BON_SERVER_API_KEY": "sk secret"})
    assert "sk secret" not in str(caught.value)
