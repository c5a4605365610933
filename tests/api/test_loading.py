"""What `load_scorer` takes and refuses, without a model loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.commands import REWARD
from support.tiny_prms import save_token_classifier

import bon
from bon import load_scorer
from bon.api import RewardFunction
from bon.errors import ModelNotFoundError, SettingsError, UnknownChoiceError


def settings_of(function: RewardFunction) -> Any:
    return function._plan.scorer.settings  # type: ignore[attr-defined]


def test_names_are_those_of_the_flags_with_and_without_their_beginning() -> None:
    for names in (
        {"dtype": "float32", "max_length": 64, "engine": "transformers", "device": "cpu"},
        {
            "reward_dtype": "float32",
            "reward_max_length": 64,
            "scorer_engine": "transformers",
            "reward_device": "cpu",
        },
    ):
        found = settings_of(load_scorer(REWARD, **names))
        assert (found.dtype, found.max_length, found.engine) == ("float32", 64, "transformers")
    for begin in ("", "rule_"):
        said = {f"{begin}answer_column": "target", f"{begin}timeout_s": 2}
        rule = settings_of(load_scorer("rule:math", **said))
        assert (rule.answer_column, rule.rule_timeout_s) == ("target", 2.0)


@pytest.mark.parametrize(
    ("spec", "name"),
    [("rule:exact", "rule-exact"), (f"helpful={REWARD}", "helpful"), (str(REWARD), "reward")],
)
def test_it_has_the_name_that_a_pool_would_give_it(spec: str, name: str) -> None:
    function = load_scorer(spec)
    assert function.__name__ == name
    assert repr(function) == f"<RewardFunction {name!r}, not loaded>"


@pytest.mark.parametrize(
    ("spec", "settings", "error", "words"),
    [
        ("rule:math", {"dtype": "float32"}, SettingsError, "'dtype' does nothing here"),
        ("rule:length?max=5", {"answer_column": "zzz"}, SettingsError, "rule:length does not read"),
        ("rule:exact", {"timeout_s": 2}, SettingsError, "rule:exact does not read rule_timeout_s"),
        ("rule:exact", {"timeout_s": 2}, SettingsError, "take rule:math, rule:regex, rule:format"),
        ("server:http://h", {"timeout_s": 2}, SettingsError, "server does not read rule_timeout_s"),
        ("judge:org/model", {"server_timeout_s": 2}, SettingsError, "does not read server_timeout"),
        (REWARD, {"step_aggregate": "last"}, SettingsError, "'step_aggregate' does nothing here"),
        (REWARD, {"revision": "main"}, SettingsError, "'revision' does nothing here"),
        (REWARD, {"ref_model": REWARD}, UnknownChoiceError, "no setting 'ref_model'"),
        (REWARD, {"answer_column": "x"}, SettingsError, "'answer_column' does nothing here"),
        (REWARD, {"dtype": "float8"}, SettingsError, "bad value for 'dtype': 'float8'"),
        (REWARD, {"max_length": 1}, SettingsError, "bad value for 'max_length': 1"),
        (REWARD, {"dtpye": "float32"}, UnknownChoiceError, "did you mean 'dtype'"),
        (REWARD, {"name": "x"}, UnknownChoiceError, "'NAME=SPEC'"),
        (REWARD, {"reward": "x"}, UnknownChoiceError, "no setting 'reward'"),
        ("rule:maths", {}, UnknownChoiceError, "did you mean 'math'"),
        ("/no/such/model", {}, ModelNotFoundError, "no such folder"),
    ],
)
def test_what_cannot_be_is_refused_before_training(
    spec: Any, settings: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        load_scorer(spec, **settings)


def test_bon_offers_it_and_stays_light() -> None:
    assert {"load_scorer", "RewardFunction"} <= set(dir(bon))
    with pytest.raises(AttributeError, match="load_scorers"):
        _ = bon.load_scorers  # type: ignore[attr-defined]
    code = (
        "import sys, bon\n"
        "assert not any(name.startswith('bon.') for name in sys.modules)\n"
        "from bon import load_scorer\n"
        f"load_scorer({str(REWARD)!r}), load_scorer('rule:exact')\n"
        "assert not {'torch', 'transformers', 'vllm'} & set(sys.modules), 'heavy'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_settings_of_steps_are_for_models_that_read_them(tmp_path: Path) -> None:
    folder = save_token_classifier(tmp_path / "prm")
    assert settings_of(load_scorer(folder, step_aggregate="last")).step_aggregate == "last"


def test_a_path_is_a_spec() -> None:
    assert load_scorer(Path(REWARD)).__name__ == "reward"
