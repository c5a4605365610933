"""What tests of several folders share."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import s3
from support.tiny_models import save_generator, save_reward

for number in (signal.SIGINT, signal.SIGHUP):
    # a shell's background job ignores them, and whatever it starts does too: no test could send one
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.SIG_DFL)


FAULTS = [Path(__file__).parent / name for name in ("faults", "bad_input")]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse a test that no target of make would run: `make test-faults` looks into two folders."""
    for item in items:
        if item.get_closest_marker("faults") and not {*FAULTS}.intersection(item.path.parents):
            raise pytest.UsageError(f"{item.nodeid} has the mark faults outside tests/faults")


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a generator `gen` and a reward model `rm`, to be copied, not changed."""
    folder = tmp_path_factory.mktemp("models")
    save_generator(folder / "gen")
    save_reward(folder / "rm")
    return folder


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[s3.Server]:
    """A real S3-compatible server on loopback."""
    server = s3.start(tmp_path_factory.mktemp("s3") / "log")
    yield server
    s3.stop(server)


@pytest.fixture
def bucket(
    s3_server: s3.Server, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> str:
    """Address of an empty bucket; the environment names its server, as a user's does."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return s3.make_bucket(request.node.name)
