"""When a trainer that cannot be installed is no reason to fail."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from consumers.environments import install

PYTHON = Path(sys.executable)
BROKEN = """[build-system]
requires = []
build-backend = "nowhere"
backend-path = ["."]
"""


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An index whose port is taken, and which answers nobody."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        for name in ("PIP_CONFIG_FILE", "PIP_RETRIES", "PIP_TIMEOUT", "PIP_EXTRA_INDEX_URL"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{taken.getsockname()[1]}/")
        monkeypatch.setenv("PIP_RETRIES", "0")
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        yield "PIP_INDEX_URL"


@pytest.mark.parametrize("is_reached", [True, False])
@pytest.mark.parametrize(("required", "outcome"), [("", "skip"), ("0", "skip"), ("1", "fail")])
def test_a_version_that_cannot_be_had(
    index: str, monkeypatch: pytest.MonkeyPatch, is_reached: bool, required: str, outcome: str
) -> None:
    if is_reached:  # an index without such a version
        monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("BON_CONSUMERS_REQUIRED", required)
    kind = pytest.skip.Exception if outcome == "skip" else pytest.fail.Exception
    with pytest.raises(kind, match="a-trainer cannot be installed"):
        install("a-trainer", PYTHON, ("bon-test-no-such-trainer==9.9.9",))


def test_a_download_that_breaks_off(index: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BON_CONSUMERS_REQUIRED", raising=False)
    wheel = f"{os.environ[index]}a_trainer-1-py3-none-any.whl"
    with pytest.raises(pytest.skip.Exception, match="a-trainer cannot be installed"):
        install("a-trainer", PYTHON, (wheel,))


@pytest.mark.parametrize("required", ["", "1"])
def test_a_pin_that_cannot_be_built_fails(
    index: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, required: str
) -> None:
    (tmp_path / "pyproject.toml").write_text(BROKEN)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("BON_CONSUMERS_REQUIRED", required)
    with pytest.raises(pytest.fail.Exception, match="a-trainer cannot be installed"):
        install("a-trainer", PYTHON, (str(tmp_path),))
