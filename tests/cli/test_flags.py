"""From settings models to flags: the field is the flag, the file comes before it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from bon.cli.flags import Invocation, command
from bon.config import GROUPS as COMMAND_GROUPS
from bon.config import GenerateSettings, InputSettings, RunSettings, ScoreSettings
from bon.errors import BonError, SettingsError, UnknownChoiceError

Call = Callable[..., Invocation]
GROUPS = COMMAND_GROUPS["build-dpo"]


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BON_MODEL", raising=False)
    monkeypatch.delenv("BON_REWARD", raising=False)


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    app.command("other")(lambda: None)
    return app


@pytest.fixture
def call(app: typer.Typer) -> Call:
    """Call a command that has all groups, and return what it was called with."""
    seen: list[Invocation] = []
    debug: list[bool] = []

    def run(body: Callable[[], None], wants_trace: bool) -> None:
        debug.append(wants_trace)
        body()

    @command(
        app, "try", *GROUPS, source_help="Source.", examples=["bon try x"], panel="Panel", run=run,
        output_help="Output.",
    )  # fmt: skip
    def body(invocation: Invocation) -> None:
        """Try it."""
        seen.append(invocation)

    def invoke(*arguments: object) -> Invocation:
        done = CliRunner().invoke(app, ["try", *map(str, arguments)])
        if isinstance(done.exception, BonError):
            raise done.exception
        assert done.exit_code == 0, done.output
        return seen.pop()

    return invoke


def test_nothing_given_is_all_defaults(call: Call) -> None:
    got = call("x.jsonl")
    assert got.source == "x.jsonl"
    for group in GROUPS:
        assert got.settings(group) == group()
        assert not any(got.given(name) for name in group.model_fields)
    assert (got.output, got.dry_run, got.as_json, got.quiet, got.verbose) == (
        None, False, False, False, False,
    )  # fmt: skip


def test_every_field_is_a_flag(call: Call, app: typer.Typer) -> None:
    assert call("x")
    command_ = typer.main.get_command(app).commands["try"]  # type: ignore[attr-defined]
    flags = {option for parameter in command_.params for option in parameter.opts}
    for group in GROUPS:
        for name in group.model_fields:
            assert f"--{name.replace('_', '-')}" in flags


def test_flags_win_over_the_file_and_the_file_over_defaults(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "bon.toml"
    path.write_text('num-candidates = 4\ntop_p = 0.5\nraw = true\nreward = ["a"]\nlimit = 7\n')
    got = call("x", "--config", path, "-n", 2, "--no-raw", "-r", "b", "-r", "n=c")
    settings = got.settings(GenerateSettings)
    assert (settings.num_candidates, settings.top_p, settings.raw) == (2, 0.5, False)
    assert settings.max_tokens == GenerateSettings().max_tokens
    assert got.settings(ScoreSettings).reward == ("b", "n=c")
    assert got.settings(InputSettings).limit == 7
    assert got.given("limit") and got.given("num_candidates") and not got.given("seed")


def test_zero_is_given(call: Call) -> None:
    got = call("x", "--seed", 0, "--limit", 0)
    assert got.given("seed")
    assert got.settings(InputSettings).limit == 0


def test_unknown_key_of_the_file_is_named_with_the_nearest(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "bon.toml"
    path.write_text("temprature = 1\n")
    with pytest.raises(UnknownChoiceError) as caught:
        call("x", "--config", path)
    assert caught.value.next_step == "did you mean 'temperature'?"


@pytest.mark.parametrize(
    ("said", "parsed"),
    [
        (["max-num-seqs=4"], {"max_num_seqs": 4}),
        (["a=true", "b=null", "c=0.5"], {"a": True, "b": None, "c": 0.5}),
        (["a=text", 'b="4"', "c="], {"a": "text", "b": "4", "c": ""}),
        (['a={"x": [1, 2]}'], {"a": {"x": [1, 2]}}),
        (["a=b=c"], {"a": "b=c"}),
        (["a=1", "a=2"], {"a": 2}),
    ],
)
def test_engine_args(call: Call, said: list[str], parsed: dict[str, Any]) -> None:
    flags = [part for item in said for part in ("--engine-args", item)]
    assert call("x", *flags).settings(GenerateSettings).engine_args == parsed


@pytest.mark.parametrize("said", ["max_num_seqs", "=4", ""])
def test_engine_args_without_a_key_or_value(call: Call, said: str) -> None:
    with pytest.raises(SettingsError, match="--engine-args") as caught:
        call("x", "--engine-args", said)
    assert repr(said) in caught.value.what
    assert caught.value.exit_code == 2


def test_bad_value_is_found_when_its_group_is_asked_for(call: Call) -> None:
    got = call("x", "-n", 0)
    with pytest.raises(SettingsError, match=r"bad value for --num-candidates: 0"):
        got.settings(GenerateSettings)
    assert got.settings(RunSettings)


def test_environment_stands_for_the_flag(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BON_MODEL", "org/from-env")
    assert call("x").settings(GenerateSettings).model == "org/from-env"
    assert call("x", "-m", "org/said").settings(GenerateSettings).model == "org/said"


@pytest.mark.parametrize(
    "arguments", [["x", "--no-such-flag"], [], ["x", "-n", "many"], ["x", "y"]]
)
def test_usage_errors_exit_with_2(call: Call, app: typer.Typer, arguments: list[str]) -> None:
    assert CliRunner().invoke(app, ["try", *arguments]).exit_code == 2


def test_help_has_every_sentence_and_default(call: Call, app: typer.Typer) -> None:
    done = CliRunner().invoke(app, ["try", "--help"], env={"COLUMNS": "300", "TERM": "dumb"})
    words = " ".join(done.output.split())
    for group in GROUPS:
        for info in group.model_fields.values():
            assert " ".join((info.description or "").split())[:60] in words
    assert "(default 1024)" in words
    assert "Run seed; each candidate's own seed comes from it" in words
    assert "0 is all. (default 0)" in words
    assert "(default False)" not in words
    assert "(default None)" not in words
