from __future__ import annotations

from pathlib import Path

import pytest

from bon.errors import SettingsError, UnknownChoiceError
from bon.scorers.rules import user_file
from bon.scorers.rules.user_file import names_file, read_user_file

GOOD = "def f(prompts, responses, columns):\n    return [1.0 for _ in responses]\n"


def written(folder: Path, source: str) -> str:
    path = folder / "my rules.py"
    path.write_text(source)
    return f"{path}:f"


def test_what_names_a_file() -> None:
    assert all(map(names_file, ("a.py:f", "a/b.py:f", "a.py", "a.py:", "~/a.py:f")))
    assert not any(map(names_file, ("math", "a.pyx", "a:f", "", "py:f")))


def test_the_file_is_read_and_its_digest_is_its_contents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = written(tmp_path, GOOD)
    found = read_user_file(rule, "-r x")
    assert (found.function, found.source) == ("f", GOOD.encode())
    monkeypatch.chdir(tmp_path)
    assert read_user_file("my rules.py:f", "-r x") == found
    written(tmp_path, GOOD + "# changed\n")
    assert read_user_file(rule, "-r x").digest != found.digest


@pytest.mark.parametrize(
    ("source", "what", "why"),
    [
        ("def f(:\n", "cannot import", "SyntaxError: invalid syntax (line 1)"),
        ("import bon_nowhere\n", "cannot import", "No module named 'bon_nowhere'"),
        ("import sys\nsys.exit(4)\n", "cannot import", "SystemExit: 4 (line 2)"),
        ("import os\nos._exit(4)\n", "cannot import", "ended the process: exit code 4"),
        ("def f(prompts, responses): ...\n", "'f' takes other arg", "it is f(prompts, responses)"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(
    tmp_path: Path, source: str, what: str, why: str
) -> None:
    with pytest.raises(SettingsError, match=what) as caught:
        read_user_file(written(tmp_path, source), "-r x")
    assert why in caught.value.why
    assert caught.value.where == "-r x"
    assert "def FUNCTION(prompts, responses, columns)" in caught.value.next_step


def test_an_import_that_does_not_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user_file, "_IMPORT_S", 0.3)
    with pytest.raises(SettingsError, match="cannot import") as caught:
        read_user_file(written(tmp_path, "import time\ntime.sleep(60)\n"), "-r x")
    assert caught.value.why == "importing it did not end within 0.3 s"


def test_a_function_that_is_not_there_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD + "def good(*a): ...\n").removesuffix(":f")
    for said, what, advice in (
        (f"{path}:goood", "has no function 'goood'", "did you mean 'good'?"),
        (f"{path}:", "which function", "known: f, good"),
        (path, "which function", "known: f, good"),
    ):
        with pytest.raises(UnknownChoiceError, match=what) as caught:
            read_user_file(said, "-r x")
        assert caught.value.next_step == advice
    with pytest.raises(UnknownChoiceError, match="which function") as caught:
        read_user_file(written(tmp_path, "X = 1\n").removesuffix(":f"), "-r x")
    assert caught.value.next_step.startswith("it has none; see docs/rules.md")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot read") as caught:
        read_user_file(f"{tmp_path}/no.py:f", "-r x")
    assert caught.value.why == "No such file or directory"
    with pytest.raises(SettingsError, match="cannot read"):
        (tmp_path / "folder.py").mkdir()
        read_user_file(f"{tmp_path}/folder.py:f", "-r x")


def test_what_the_file_prints_or_starts_stays_in_its_process(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    loud = (
        "import sys, threading, time\nprint('loud')\nprint('loud', file=sys.stderr)\n"
        "threading.Thread(target=time.sleep, args=(600,)).start()\n"
    )
    assert read_user_file(written(tmp_path, loud + GOOD), "-r x").function == "f"
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""
