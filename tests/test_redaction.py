"""What is a secret in a text, and what is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from bon.redaction import holds_secret, redacted, redacted_command, redacted_values

ENVIRONMENT = {
    "HF_TOKEN": "hf-short",
    "BON_SERVER_API_KEY": "EMPTY",
    "WANDB_API_KEY": "0123456789abcdef",
    "MY_PASSWORD": "a/b c&d-e",
    "TOKENIZERS_PARALLELISM": "false-and-long-enough",
    "HF_TOKEN_PATH": "/somewhere/token",
    "QUOTED_SECRET": 'with "quotes"',
    "SHORT_KEY": "main",
    "EMPTY_TOKEN": "",
}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("asked with hf-short.", "asked with ***."),
        ("key EMPTY", "key ***"),
        ("0123456789abcdef0", "***0"),
        ("a/b c&d-e and a%2Fb%20c%26d-e", "*** and ***"),
        ("false-and-long-enough, /somewhere/token, main", None),
        ("server:http://user:pa:ss@host:8000/v1", "server:http://***@host:8000/v1"),
        ("https:/user:pass@host/x, a:b@c", "https:/***@host/x, a:b@c"),
        ('{"a": "with \\"quotes\\""}', '{"a": "***"}'),
        ("http://user:p@ss@host, https://me@host", "http://***@host, https://***@host"),
        ("http://host/v1?model=a&api_key=xyz&n=3", "http://host/v1?model=a&api_key=***&n=3"),
        ("http://host?token=x#y", "http://host?token=***#y"),
        ("http://host?X-Amz-Signature=ab12&b=1", "http://host?X-Amz-Signature=***&b=1"),
        ("hf_token=abc", "hf_token=***"),
        ("{'hf_token': 'abc', 'seed': 1}", "{'hf_token': '***', 'seed': 1}"),
        ('{"api_key": "abc"}', '{"api_key": "***"}'),
        ("OPENAI_API_KEY=abc bon select", "OPENAI_API_KEY=*** bon select"),
        ("Authorization: Bearer abcdefgh12", "Authorization: Bearer ***"),
        ("hf_ABCDEFGHIJKLMNOPQRST", "***"),
        ("sk-proj-ABCDEFGHIJKLMNOPQRST", "***"),
        # no secrets
        ("mail me@host, a@b", None),
        ("give ?KEY=VALUE&KEY=VALUE behind it", None),
        ("--max-tokens 512 max_tokens=512 eos_token: </s> pad_token_id=0", None),
        ("prompts.jsonl:3: id=key-1 no such key: 'a'", None),
        ("rule:regex?pattern=^token=(\\d+)$&group=1", None),
        ("token 29 is not in the model's vocabulary of 29", None),
        ("the key in BON_SERVER_API_KEY has a space", None),
        ("set HF_TOKEN in the environment", None),
    ],
)
def test_secrets_are_hidden_and_all_else_stays(text: str, shown: str | None) -> None:
    assert redacted(text, ENVIRONMENT) == (text if shown is None else shown)


def test_hiding_twice_changes_nothing() -> None:
    once = redacted("https://u:p@h?api_key=abc hf_token=x Bearer abcdefgh12", ENVIRONMENT)
    assert redacted(once, ENVIRONMENT) == once


def test_every_text_and_key_of_a_value_is_looked_at_before_it_is_json() -> None:
    value = {
        "pattern": 'password="(.*)"',
        "lines": ["a\tBearer abcdefgh12", ["hf-short"], Path("/x?api_key=b")],
        "hf-short": {"api_key": ["a", "b"], "password": "null", "hf_token": None, "n": 3},
        "is_open": True,
    }
    assert redacted_values(value, ENVIRONMENT) == {
        "pattern": 'password="***"',
        "lines": ["a\tBearer ***", ["***"], "/x?api_key=***"],
        "***": {"api_key": "***", "password": "***", "hf_token": None, "n": 3},
        "is_open": True,
    }
    assert holds_secret(value)
    assert not holds_secret({"hf_token": None, "lines": ["a", 1.5]})


def test_a_command_line_is_quoted_and_its_secrets_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "canary-1")
    said = ["bon", "select", "my prompts.jsonl", "--hub-token", "abc", "-m", "x?api_key=b"]
    said += ["--max-tokens", "5", "--engine-args", "hf_token=canary-1"]
    assert redacted_command(said) == (
        "bon select 'my prompts.jsonl' --hub-token '***' -m 'x?api_key=***' "
        "--max-tokens 5 --engine-args 'hf_token=***'"
    )


def test_a_secret_is_known_by_its_name_or_form_whatever_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SOME_TOKEN", "in-the-environment")
    assert holds_secret('{"hf_token": "abc"}')
    assert holds_secret("hf_ABCDEFGHIJKLMNOPQRST")
    assert not holds_secret('{"max_num_seqs": 4, "x": "in-the-environment", "hf_token": null}')
