"""Every error can be pickled, is the standard exception it stands for, and says four things."""

from __future__ import annotations

import builtins
import copy
import pickle
import re

import pytest

from bon import errors
from bon.errors import BonError, did_you_mean

NAMED = [getattr(errors, name) for name in errors.__all__]
KINDS = [one for one in NAMED if isinstance(one, type)]
TREE = re.findall(r"── (\w+) +([A-Z]\w+)?", errors.__doc__ or "")


def test_the_drawn_tree_is_the_real_one() -> None:
    assert {name for name, _ in TREE} | {"BonError"} == {kind.__name__ for kind in KINDS}
    for name, standard in TREE:
        if standard:
            assert issubclass(getattr(errors, name), getattr(builtins, standard))


@pytest.mark.parametrize("kind", KINDS)
def test_error_crosses_a_process_boundary(kind: type[BonError]) -> None:
    error = kind("what", where="where", why="why", next_step="next")
    for again in (pickle.loads(pickle.dumps(error)), copy.deepcopy(error)):
        assert type(again) is kind
        assert again.args == ("what",)
        assert str(again) == str(error)
    assert str(error) == "what\n  where: where\n  why:   why\n  next:  next"
    assert issubclass(kind, BonError)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_said_is_not_shown(kind: type[BonError]) -> None:
    assert str(kind("what")) == "what"
    assert str(kind("what", why="because")) == "what\n  why:   because"


@pytest.mark.parametrize("kind", KINDS)
def test_exit_code_is_2_for_settings_and_1_for_the_rest(kind: type[BonError]) -> None:
    assert kind.exit_code == (2 if issubclass(kind, errors.SettingsError) else 1)


def test_did_you_mean() -> None:
    known = ["num_candidates", "num_parts", "seed"]
    assert did_you_mean("num_candidate", known) == "did you mean 'num_candidates'?"
    assert did_you_mean("zzz", reversed(known)) == "known: num_candidates, num_parts, seed"
