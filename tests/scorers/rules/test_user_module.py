from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bon.scorers.rules.user_module import described, faults, load


@pytest.fixture(autouse=True)
def same_modules() -> Iterator[None]:
    """Leave no module and no folder behind."""
    modules, path = set(sys.modules), list(sys.path)
    yield
    for name in set(sys.modules) - modules:
        del sys.modules[name]
    sys.path[:] = path


def test_a_module_knows_its_file_and_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "bon_neighbour.py").write_text("VALUE = 3\n")
    path = tmp_path / "bon_mine.py"
    source = (
        b"from __future__ import annotations\n"
        b"from dataclasses import dataclass\nimport bon_neighbour\n"
        b"@dataclass\nclass A:\n    x: int\n"
        b"def f(): return A(bon_neighbour.VALUE), __file__, __name__\n"
    )
    made, file, name = load(source, str(path)).f()
    assert (made.x, file, name) == (3, str(path), "bon_mine")
    assert sys.modules["bon_mine"].A is type(made)


def test_a_file_named_like_a_module_that_is_there_does_not_replace_it(tmp_path: Path) -> None:
    import json

    module = load(b"X = 1\n", str(tmp_path / "json.py"))
    assert module.__name__ == "bon_rule_json"
    assert sys.modules["json"] is json


def test_what_does_not_import_leaves_no_module(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        load(b"1 / 0\n", str(tmp_path / "bon_mine.py"))
    assert "bon_mine" not in sys.modules


def test_an_error_is_described_by_its_first_line_and_its_place_in_the_file() -> None:
    module = load(b"\ndef f(x):\n    return g(x)\ndef g(x):\n    return int(x)\n", "/x/bon_mine.py")
    with pytest.raises(ValueError) as caught:
        module.f("a")
    text = "ValueError: invalid literal for int() with base 10: 'a' (line 5)"
    assert described(caught.value, "/x/bon_mine.py") == text
    assert described(KeyError(), "/x/bon_mine.py") == "KeyError"
    assert described(OSError("\n\n first \nsecond"), "") == "OSError: first"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        (b"def f(a, b, c): ...", {}),
        (b"def f(prompts, responses, columns, extra=None, *rest, **more): ...", {}),
        (b"async def f(*all): ...", {}),
        (b"class F:\n def __call__(self, a, b, c): ...\nf = F()", {}),
        (b"f = max", {}),  # written in C, and says nothing of its arguments
        (b"f = 3\ndef g(): ...", {"known": ["g"]}),
        (b"from os.path import join", {"known": []}),
        (b"def f(a, b): ...", {"signature": "f(a, b)"}),
        (b"def f(a, b, c, *, d): ...", {"signature": "f(a, b, c, *, d)"}),
        (b"import bon_nowhere", {"error": "ModuleNotFoundError: No module named 'bon_nowhere' "
                                          "(line 1)"}),
        (b"\ndef f(:", {"error": "SyntaxError: invalid syntax (line 2)"}),
        (b"raise SystemExit(3)", {"error": "SystemExit: 3 (line 1)"}),
        (b"x = '\xff'", {"error": "SyntaxError"}),
        (b"\0", {"error": ""}),
    ],
    ids=lambda value: repr(value)[:40],
)  # fmt: skip
def test_faults(source: bytes, found: dict[str, object]) -> None:
    said = faults(source, "/x/bon_mine.py", "f")
    if "error" in found:
        assert str(said["error"]).startswith(str(found["error"]))
    else:
        assert said == found
